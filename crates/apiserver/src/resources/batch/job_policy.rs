//! Failure and success policies of Jobs (KEP-3329, KEP-3998).

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicyRule,
};
use serde_json::json;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::resources::validation::{dns, numbers, one_of, report, shown, text};

const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const STATES: [&str; 3] = ["False", "True", "Unknown"];
/// Limits of KEP-3329.
const MAX_RULES: usize = 20;
const MAX_CODES: usize = 255;
const MAX_PATTERNS: usize = 20;
const MAX_INDEXES_TEXT: usize = 64 * 1024;

pub fn failure(errors: &mut FieldErrors, path: &Path, spec: &JobSpec) {
    let Some(policy) = &spec.pod_failure_policy else { return };
    let path = path.child("rules");
    if policy.rules.len() > MAX_RULES {
        errors.push(FieldError::too_many(&path, policy.rules.len(), MAX_RULES));
    }
    let pod = spec.template.spec.as_ref();
    let containers = pod.iter().flat_map(|pod| pod.containers.iter().chain(pod.init_containers.iter().flatten()));
    let names: BTreeSet<&str> = containers.map(|one| one.name.as_str()).collect();
    for (index, rule) in policy.rules.iter().enumerate() {
        let path = path.index(index);
        if rule.action == "FailIndex" && spec.backoff_limit_per_index.is_none() {
            let about = "requires the backoffLimitPerIndex to be set";
            errors.push(FieldError::invalid(&path.child("action"), "FailIndex", about));
        }
        failure_rule(errors, &path, rule, &names);
    }
}

fn failure_rule(errors: &mut FieldErrors, path: &Path, rule: &PodFailurePolicyRule, names: &BTreeSet<&str>) {
    let at = path.child("action");
    match rule.action.as_str() {
        "" => errors.push(FieldError::required(&at, format!("valid values: {}", listed(&ACTIONS)))),
        action => one_of(errors, &at, action, &ACTIONS),
    }
    if let Some(codes) = &rule.on_exit_codes {
        exit_codes(errors, &path.child("onExitCodes"), codes, names);
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    let at = path.child("onPodConditions");
    if patterns.len() > MAX_PATTERNS {
        errors.push(FieldError::too_many(&at, patterns.len(), MAX_PATTERNS));
    }
    for (index, pattern) in patterns.iter().enumerate() {
        let at = at.index(index);
        report(errors, &at.child("type"), &pattern.type_, dns::label_key(&pattern.type_));
        match text(&pattern.status) {
            "" => {
                errors.push(FieldError::required(&at.child("status"), format!("valid values: {}", listed(&STATES))));
            }
            status => one_of(errors, &at.child("status"), status, &STATES),
        }
    }
    let about = match (&rule.on_exit_codes, patterns.is_empty()) {
        (Some(_), false) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (None, true) => "specifying one of OnExitCodes and OnPodConditions is required",
        _ => return,
    };
    errors.push(FieldError::invalid(path, shown(rule), about));
}

/// `["a" "b"]`, as upstream lists them in a sentence.
fn listed(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn exit_codes(
    errors: &mut FieldErrors,
    path: &Path,
    codes: &PodFailurePolicyOnExitCodesRequirement,
    names: &BTreeSet<&str>,
) {
    let at = path.child("operator");
    match codes.operator.as_str() {
        "" => errors.push(FieldError::required(&at, format!("valid values: {}", listed(&OPERATORS)))),
        operator => one_of(errors, &at, operator, &OPERATORS),
    }
    if let Some(name) = codes.container_name.as_deref().filter(|name| !names.contains(name)) {
        let about = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(&path.child("containerName"), name, about));
    }
    let at = path.child("values");
    if codes.values.is_empty() {
        errors.push(FieldError::invalid(&at, shown(&codes.values), "at least one value is required"));
    } else if codes.values.len() > MAX_CODES {
        errors.push(FieldError::too_many(&at, codes.values.len(), MAX_CODES));
    }
    let mut seen = BTreeSet::new();
    for (index, code) in codes.values.iter().enumerate() {
        if *code == 0 && codes.operator == "In" {
            errors.push(FieldError::invalid(&at.index(index), 0, "must not be 0 for the In operator"));
        }
        if !seen.insert(code) {
            errors.push(FieldError::duplicate(&at.index(index), *code));
        }
    }
    if !codes.values.is_sorted() {
        errors.push(FieldError::invalid(&at, shown(&codes.values), "must be ordered"));
    }
}

pub fn success(errors: &mut FieldErrors, path: &Path, spec: &JobSpec) {
    let Some(policy) = &spec.success_policy else { return };
    if text(&spec.completion_mode) != "Indexed" {
        return errors.push(FieldError::invalid(
            path,
            json!({"Rules": policy.rules}),
            "requires indexed completion mode",
        ));
    }
    let path = path.child("rules");
    if policy.rules.is_empty() {
        let about = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(&path, about));
    }
    if policy.rules.len() > MAX_RULES {
        errors.push(FieldError::too_many(&path, policy.rules.len(), MAX_RULES));
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        success_rule(errors, &path.index(index), rule, spec.completions.unwrap_or(0));
    }
}

fn success_rule(errors: &mut FieldErrors, path: &Path, rule: &SuccessPolicyRule, completions: i32) {
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        let about = "at least one of succeededCount or succeededIndexes must be specified";
        errors.push(FieldError::required(path, about));
    }
    let mut total = None;
    if let Some(indexes) = &rule.succeeded_indexes {
        let at = path.child("succeededIndexes");
        if indexes.len() > MAX_INDEXES_TEXT {
            errors.push(FieldError::too_long(&at, MAX_INDEXES_TEXT));
        }
        match count_indexes(indexes, completions) {
            Ok(count) => total = Some(count),
            Err(why) => {
                let about = format!("error parsing succeededIndexes: {why}");
                errors.push(FieldError::invalid(&at, indexes.as_str(), about));
            }
        }
    }
    let Some(count) = rule.succeeded_count else { return };
    let at = path.child("succeededCount");
    numbers::not_negative(errors, &at, count);
    if count > completions {
        let about = format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.push(FieldError::invalid(&at, count, about));
    }
    if let Some(total) = total.filter(|total| count > *total) {
        let about = format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.push(FieldError::invalid(&at, count, about));
    }
}

/// How many indexes `0,2-4` names.
fn count_indexes(indexes: &str, completions: i32) -> Result<i32, String> {
    Ok(index_ranges(indexes, completions)?.iter().map(|(first, last)| last - first + 1).sum())
}

/// The ranges that `0,2-4` names; they must rise and stay below the number of completions.
pub fn index_ranges(indexes: &str, completions: i32) -> Result<Vec<(i32, i32)>, String> {
    let (mut ranges, mut last) = (Vec::new(), -1);
    for part in indexes.split(',').filter(|_| !indexes.is_empty()) {
        let ends: Vec<&str> = part.split('-').collect();
        if ends.len() > 2 {
            return Err(format!(
                "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
            ));
        }
        let number = |text: &str| {
            let value: i32 =
                text.parse().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
            if value >= completions { Err(format!("too large index: {text:?}")) } else { Ok(value) }
        };
        let first = number(ends[0])?;
        let end = ends.get(1).map_or(Ok(first), |text| number(text))?;
        if first <= last {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        if ends.len() == 2 && first >= end {
            return Err(format!("non-increasing order, previous: {first}, current: {end}"));
        }
        ranges.push((first, end));
        last = end;
    }
    Ok(ranges)
}
