//! What may be reported of a Job. Most rules look at what an update changes only, as the specification may have changed since.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::job_policy::index_ranges;
use crate::resources::validation::{numbers, shown, text};

pub fn has_condition(status: &JobStatus, kind: &str) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == kind && condition.status == "True")
}

fn is_finished(status: &JobStatus) -> bool {
    has_condition(status, "Complete") || has_condition(status, "Failed")
}

pub fn validate(new: &Job, old: &Job) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let (status, before) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let spec = new.spec.clone().unwrap_or_default();
    counts(&mut errors, &status);
    conditions(&mut errors, &spec, &status, &before);
    times(&mut errors, &spec, &status, &before);
    indexes(&mut errors, &spec, &status, &before);
    running(&mut errors, &status, &before);
    progress(&mut errors, &spec, &status, &before);
    errors
}

fn counts(errors: &mut FieldErrors, status: &JobStatus) {
    let path = Path::new("status");
    let counts = [
        ("active", status.active),
        ("succeeded", status.succeeded),
        ("failed", status.failed),
        ("ready", status.ready),
        ("terminating", status.terminating),
    ];
    for (name, value) in counts {
        numbers::not_negative(errors, &path.child(name), value.unwrap_or(0));
    }
    let Some(uncounted) = &status.uncounted_terminated_pods else { return };
    let mut seen = BTreeSet::new();
    for (name, list) in [("succeeded", &uncounted.succeeded), ("failed", &uncounted.failed)] {
        for (index, uid) in list.iter().flatten().enumerate() {
            let path = path.child("uncountedTerminatedPods").child(name).index(index);
            if uid.is_empty() {
                errors.push(FieldError::invalid(&path, "", "must not be empty"));
            } else if !seen.insert(uid) {
                errors.push(FieldError::duplicate(&path, uid.as_str()));
            }
        }
    }
}

fn conditions(errors: &mut FieldErrors, spec: &JobSpec, status: &JobStatus, before: &JobStatus) {
    let path = Path::new("status.conditions");
    let mut wrong = |about: &str| {
        errors.push(FieldError::invalid(&path, shown(&status.conditions.as_deref().unwrap_or_default()), about))
    };
    let has = |kind: &str| has_condition(status, kind);
    let changed = |kind: &str| has(kind) != has_condition(before, kind);
    let failing_indexes = status.failed_indexes != before.failed_indexes;
    let rules = [
        (
            (changed("Complete") || changed("Failed")) && has("Complete") && has("Failed"),
            "cannot set Complete=True and Failed=true conditions",
        ),
        (
            (changed("Complete") || changed("FailureTarget")) && has("Complete") && has("FailureTarget"),
            "cannot set Complete=True and FailureTarget=true conditions",
        ),
        (
            (changed("Failed") || failing_indexes) && has("Failed") && !has("FailureTarget"),
            "cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            (changed("Complete") || changed("SuccessCriteriaMet")) && has("Complete") && !has("SuccessCriteriaMet"),
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (has("SuccessCriteriaMet") && has("Failed"), "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (
            has("SuccessCriteriaMet") && has("FailureTarget"),
            "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        ),
        (
            spec.success_policy.is_some() && has("Complete") && !has("SuccessCriteriaMet"),
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        ),
        (
            has_condition(before, "SuccessCriteriaMet") && !has("SuccessCriteriaMet"),
            "cannot disable the SuccessCriteriaMet=True condition",
        ),
        (
            has_condition(before, "Complete")
                && !has_condition(before, "SuccessCriteriaMet")
                && has("SuccessCriteriaMet"),
            "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
        ),
    ];
    rules.iter().filter(|(broken, _)| *broken).for_each(|(_, about)| wrong(about));
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if has_condition(before, kind) && !has(kind) {
            wrong(&format!("cannot disable the terminal {kind}=True condition"));
        }
    }
}

fn times(errors: &mut FieldErrors, spec: &JobSpec, status: &JobStatus, before: &JobStatus) {
    let path = Path::new("status");
    let at = path.child("completionTime");
    let (complete, was_complete) = (has_condition(status, "Complete"), has_condition(before, "Complete"));
    let (start, end) = (&status.start_time, &status.completion_time);
    let (started, ended) = (*start != before.start_time, *end != before.completion_time);
    if complete != was_complete || ended {
        match end {
            Some(time) if !complete => {
                let about = "cannot set completionTime when there is no Complete=True condition";
                errors.push(FieldError::invalid(&at, shown(time), about));
            }
            None if complete => errors.push(FieldError::required(&at, "completionTime is required for Complete jobs")),
            _ => {}
        }
    }
    if let (Some(first), Some(last)) = (start, end)
        && last.0 < first.0
        && (started || ended)
    {
        errors.push(FieldError::invalid(&at, shown(last), "must be equal to or after `startTime`"));
    }
    if end.is_some() && before.completion_time.is_some() && ended {
        errors.push(FieldError::invalid(&at, shown(end), "field is immutable"));
    }
    let at = path.child("startTime");
    let suspended = spec.suspend == Some(true);
    let empty = suspended && spec.completions == Some(0);
    let finishing = is_finished(status) != is_finished(before);
    if start.is_none() && is_finished(status) && (finishing || started) && !empty {
        errors.push(FieldError::required(&at, "startTime is required for finished job"));
    }
    let suspension = |status: &JobStatus, wanted: &str| {
        status.conditions.iter().flatten().any(|one| one.type_ == "Suspended" && one.status == wanted)
    };
    let resuming = suspension(before, "True") && suspension(status, "False");
    if before.start_time.is_some() && started && !suspended && !resuming {
        let about = "field is immutable for unsuspended job once set";
        errors.push(FieldError::invalid(&at, shown(start), about));
    }
}

fn indexes(errors: &mut FieldErrors, spec: &JobSpec, status: &JobStatus, before: &JobStatus) {
    let path = Path::new("status");
    let (completed, failed) = (text(&status.completed_indexes), status.failed_indexes.as_deref());
    let completed_changed = completed != text(&before.completed_indexes);
    let failed_changed = status.failed_indexes != before.failed_indexes;
    let per_index = spec.backoff_limit_per_index.is_some();
    let mut check = |name: &str, indexes: &str| -> Vec<(i32, i32)> {
        let ranges = index_ranges(indexes, spec.completions.unwrap_or(i32::MAX));
        ranges.unwrap_or_else(|why| {
            let about = format!("error parsing {name}: {why}");
            errors.push(FieldError::invalid(&path.child(name), indexes, about));
            Vec::new()
        })
    };
    let completed_ranges = if completed_changed { check("completedIndexes", completed) } else { Vec::new() };
    let failed_ranges = match failed {
        Some(indexes) if failed_changed && per_index => check("failedIndexes", indexes),
        _ => Vec::new(),
    };
    if completed_changed && !completed.is_empty() && text(&spec.completion_mode) != "Indexed" {
        let about = "cannot set non-empty completedIndexes when non-indexed completion mode";
        errors.push(FieldError::invalid(&path.child("completedIndexes"), completed, about));
    }
    let Some(failed) = failed else { return };
    let at = path.child("failedIndexes");
    if failed_changed && !per_index {
        let about = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        errors.push(FieldError::invalid(&at, failed, about));
    }
    let overlap = |one: &(i32, i32)| {
        let clash = |other: &&(i32, i32)| one.0 <= other.1 && other.0 <= one.1;
        failed_ranges.iter().find(clash).map(|other| one.0.max(other.0))
    };
    if let Some(index) = completed_ranges.iter().find_map(overlap) {
        let about = format!("failedIndexes and completedIndexes overlap at index: {index}");
        errors.push(FieldError::invalid(&at, failed, about));
    }
}

fn running(errors: &mut FieldErrors, status: &JobStatus, before: &JobStatus) {
    let path = Path::new("status");
    let (finished, finishing) = (is_finished(status), is_finished(status) != is_finished(before));
    let counts = [
        ("active", status.active, status.active != before.active),
        ("terminating", status.terminating, status.terminating != before.terminating),
    ];
    for (name, value, changed) in counts {
        if let Some(value) = value.filter(|value| *value > 0 && finished && (finishing || changed)) {
            let about = format!("{name}>0 is invalid for finished job");
            errors.push(FieldError::invalid(&path.child(name), value, about));
        }
    }
    let uncounted = &status.uncounted_terminated_pods;
    let lists = uncounted.iter().flat_map(|lists| [&lists.succeeded, &lists.failed]);
    let left = lists.flatten().any(|list| !list.is_empty());
    if left && finished && (finishing || *uncounted != before.uncounted_terminated_pods) {
        let at = path.child("uncountedTerminatedPods");
        errors.push(FieldError::invalid(&at, shown(uncounted), "must be empty for finished job"));
    }
    let Some(ready) = status.ready else { return };
    let changed = status.ready != before.ready || status.active != before.active;
    if ready > status.active.unwrap_or(0) && changed {
        errors.push(FieldError::invalid(&path.child("ready"), ready, "cannot set more ready pods than active"));
    }
}

fn progress(errors: &mut FieldErrors, spec: &JobSpec, status: &JobStatus, before: &JobStatus) {
    let path = Path::new("status");
    // An indexed Job whose parallelism follows its completions can be scaled down.
    let elastic = text(&spec.completion_mode) == "Indexed" && spec.completions == spec.parallelism;
    let counters =
        [("failed", status.failed, before.failed, true), ("succeeded", status.succeeded, before.succeeded, !elastic)];
    for (name, now, before, rises) in counters {
        let now = now.unwrap_or(0);
        if rises && now < before.unwrap_or(0) {
            let about = format!("cannot decrease the {name} counter");
            errors.push(FieldError::invalid(&path.child(name), now, about));
        }
    }
}
