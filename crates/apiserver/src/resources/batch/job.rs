//! Jobs.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{job_policy, job_status};
use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Strategy, column};
use crate::registry::table::human_duration;
use crate::resources::columns;
use crate::resources::core::{pod_defaults, pod_warnings};
use crate::resources::validation::{
    IMMUTABLE, dns, immutable, labels, numbers, one_of, pod_template, semantically_equal, shown, text, unsupported,
};

const OLD_NAME: &str = "job-name";
const NAME: &str = "batch.kubernetes.io/job-name";
const OLD_UID: &str = "controller-uid";
const UID: &str = "batch.kubernetes.io/controller-uid";
/// Limits of indexed Jobs (KEP-2214 and KEP-3850).
const MAX_PARALLELISM: i32 = 100_000;
const MAX_FAILED_INDEXES: i32 = 100_000;
const MANY_COMPLETIONS: i32 = 100_000;
const LIMIT_OF_MANY: i32 = 10_000;
const MAX_MANAGED_BY: usize = 63;
const BACKOFF: i32 = 6;

#[derive(Default)]
pub struct JobStrategy;

impl Strategy for JobStrategy {
    type Object = Job;

    fn default(&self, job: &mut Job) {
        let spec = job.spec.get_or_insert_default();
        if spec.completions.is_none() && spec.parallelism.is_none() {
            spec.completions = Some(1);
        }
        spec.parallelism.get_or_insert(1);
        let backoff = if spec.backoff_limit_per_index.is_some() { i32::MAX } else { BACKOFF };
        spec.backoff_limit.get_or_insert(backoff);
        spec.completion_mode.get_or_insert_with(|| "NonIndexed".to_owned());
        spec.suspend.get_or_insert(false);
        let replacement = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
        spec.pod_replacement_policy.get_or_insert_with(|| replacement.to_owned());
        spec.manual_selector.get_or_insert(false);
        template_defaults(spec);
        let labels = spec.template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
        if let Some(labels) = labels.filter(|_| job.metadata.labels.as_ref().is_none_or(|labels| labels.is_empty())) {
            job.metadata.labels = Some(labels);
        }
        job.status.get_or_insert_default();
    }

    fn prepare_create(&self, job: &mut Job) {
        job.status = Some(Default::default());
        let ObjectMeta { name, uid, labels: own_labels, .. } = job.metadata.clone();
        let spec = job.spec.get_or_insert_default();
        if spec.manual_selector == Some(true) {
            return;
        }
        let (name, uid) = (name.unwrap_or_default(), uid.unwrap_or_default());
        let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
        // A Job without labels of its own has its template's, and so these too.
        let follows = own_labels.unwrap_or_default() == *labels;
        for (key, value) in [(OLD_NAME, &name), (NAME, &name), (OLD_UID, &uid), (UID, &uid)] {
            labels.entry(key.to_owned()).or_insert_with(|| value.clone());
        }
        if follows {
            job.metadata.labels = Some(labels.clone());
        }
        let selector = spec.selector.get_or_insert_default().match_labels.get_or_insert_default();
        selector.entry(UID.to_owned()).or_insert(uid);
    }

    fn validate(&self, job: &Job) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let spec = job.spec.clone().unwrap_or_default();
        generated_selector(&mut errors, job, &spec);
        whole_spec(&mut errors, &spec);
        indexed_names(&mut errors, job, &spec);
        errors
    }

    fn validate_update(&self, new: &Job, old: &Job) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (spec, before) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
        let path = Path::new("spec");
        whole_spec(&mut errors, &spec);
        let indexed = text(&spec.completion_mode) == "Indexed";
        if !indexed {
            immutable(&mut errors, &path.child("completions"), &spec.completions, &before.completions);
        } else if spec.completions != before.completions && spec.completions != spec.parallelism {
            let about = "can only be modified in tandem with spec.parallelism";
            errors.push(FieldError::invalid(&path.child("completions"), shown(&spec.completions), about));
        }
        immutable(&mut errors, &path.child("selector"), &spec.selector, &before.selector);
        template_change(&mut errors, &spec, &before, old.status.as_ref());
        immutable(&mut errors, &path.child("completionMode"), &spec.completion_mode, &before.completion_mode);
        immutable(&mut errors, &path.child("podFailurePolicy"), &spec.pod_failure_policy, &before.pod_failure_policy);
        let (now, then) = (&spec.backoff_limit_per_index, &before.backoff_limit_per_index);
        immutable(&mut errors, &path.child("backoffLimitPerIndex"), now, then);
        immutable(&mut errors, &path.child("managedBy"), &spec.managed_by, &before.managed_by);
        immutable(&mut errors, &path.child("successPolicy"), &spec.success_policy, &before.success_policy);
        indexed_names(&mut errors, new, &spec);
        errors
    }

    fn validate_status_update(&self, new: &Job, old: &Job) -> FieldErrors {
        job_status::validate(new, old)
    }

    fn warnings(&self, job: &Job, old: Option<&Job>) -> Vec<String> {
        let Some(spec) = &job.spec else { return Vec::new() };
        if old.is_some_and(|old| old.spec.as_ref() == Some(spec)) {
            return Vec::new();
        }
        let name = pod_warnings::name_warning(&job.metadata, "Pod names and hostnames").filter(|_| old.is_none());
        name.into_iter().chain(pod_warnings::template_warnings(Some(&spec.template))).collect()
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.successful"]
    }

    fn field<'a>(&self, job: &'a Job, _field: &str) -> Cow<'a, str> {
        Cow::Owned(job.status.as_ref().and_then(|status| status.succeeded).unwrap_or(0).to_string())
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Status", "string", "How far it is."),
            column("Completions", "string", "How many of the wanted Pods succeeded."),
            column("Duration", "string", "How long it has taken."),
            AGE_COLUMN,
            columns::CONTAINERS,
            columns::IMAGES,
            columns::SELECTOR,
        ];
        COLUMNS
    }

    fn cells(&self, job: &Job, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (job.spec.clone().unwrap_or_default(), job.status.clone().unwrap_or_default());
        let succeeded = status.succeeded.unwrap_or(0);
        let completions = match (spec.completions, spec.parallelism.unwrap_or(0)) {
            (Some(wanted), _) => format!("{succeeded}/{wanted}"),
            (None, parallel @ 2..) => format!("{succeeded}/1 of {parallel}"),
            (None, _) => format!("{succeeded}/1"),
        };
        let duration = status.start_time.as_ref().map_or(String::new(), |start| {
            let end = status.completion_time.as_ref().map_or(now, |end| end.0);
            human_duration(end.as_second() - start.0.as_second())
        });
        let [names, images] = columns::containers(Some(&spec.template));
        vec![
            columns::name(&job.metadata),
            Value::from(state(job, &status)),
            Value::from(completions),
            Value::from(duration),
            columns::age(&job.metadata, now),
            names,
            images,
            columns::selector(spec.selector.as_ref()),
        ]
    }
}

/// Defaults that the template of a Job and of a CronJob share.
pub fn template_defaults(spec: &mut JobSpec) {
    let rules = spec.pod_failure_policy.iter_mut().flat_map(|policy| policy.rules.iter_mut());
    for pattern in rules.flat_map(|rule| rule.on_pod_conditions.iter_mut().flatten()) {
        pod_defaults::default_text(&mut pattern.status, "True");
    }
    spec.scheduling = None;
    pod_defaults::template(&mut spec.template);
}

fn state(job: &Job, status: &JobStatus) -> &'static str {
    let has = |kind: &str| job_status::has_condition(status, kind);
    match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if job.metadata.deletion_timestamp.is_some() => "Terminating",
        () if has("Suspended") => "Suspended",
        () if has("FailureTarget") => "FailureTarget",
        () if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn generated_selector(errors: &mut FieldErrors, job: &Job, spec: &JobSpec) {
    if spec.manual_selector == Some(true) || spec.selector.is_none() {
        return;
    }
    let (name, uid) = (text(&job.metadata.name), text(&job.metadata.uid));
    let path = Path::new("spec.template.metadata.labels");
    let found = spec.template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
    let expected = [(OLD_UID, uid), (OLD_NAME, name), (UID, uid), (NAME, name)];
    for (key, wanted) in expected {
        let about = format!("must be '{wanted}'");
        match found.and_then(|labels| labels.get(key)) {
            None => errors.push(FieldError::required(&path.key(key), about)),
            Some(value) if value != wanted => {
                errors.push(FieldError::invalid(&path.key(key), shown(&found), about));
            }
            Some(_) => {}
        }
    }
    let labels = expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let selector = xebec_api::LabelSelector::from_object(spec.selector.as_ref());
    if selector.is_ok_and(|selector| !selector.matches_map(Some(&labels))) {
        let about = "`selector` not auto-generated";
        errors.push(FieldError::invalid(&Path::new("spec.selector"), shown(&spec.selector), about));
    }
}

fn whole_spec(errors: &mut FieldErrors, spec: &JobSpec) {
    let path = Path::new("spec");
    job_spec(errors, &path, spec);
    match &spec.selector {
        None => errors.push(FieldError::required(&path.child("selector"), "")),
        Some(selector) => labels::selector(errors, &path.child("selector"), Some(selector)),
    }
    let found = spec.template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
    let selector = xebec_api::LabelSelector::from_object(spec.selector.as_ref());
    let sound = spec.selector.as_ref().is_none_or(labels::is_sound);
    if sound && selector.is_ok_and(|selector| !selector.matches_map(found)) {
        let about = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(&path.child("template.metadata.labels"), shown(&found), about));
    }
}

/// What the specification of a Job and the template in a CronJob are checked for alike.
pub fn job_spec(errors: &mut FieldErrors, path: &Path, spec: &JobSpec) {
    let counts = [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ];
    for (name, value) in counts {
        numbers::not_negative(errors, &path.child(name), value.unwrap_or(0));
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        let path = path.child("backoffLimitPerIndex");
        errors.push(FieldError::required(&path, "when maxFailedIndexes is specified"));
    }
    if let Some(manager) = &spec.managed_by {
        let path = path.child("managedBy");
        dns::domain_prefixed_path(errors, &path, manager);
        if manager.len() > MAX_MANAGED_BY {
            errors.push(FieldError::too_long(&path, MAX_MANAGED_BY));
        }
    }
    completion_mode(errors, path, spec);
    job_policy::failure(errors, &path.child("podFailurePolicy"), spec);
    job_policy::success(errors, &path.child("successPolicy"), spec);
    if let Some(policy) = &spec.pod_replacement_policy {
        let policies: &[&str] =
            if spec.pod_failure_policy.is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        one_of(errors, &path.child("podReplacementPolicy"), policy, policies);
    }
    pod_template::template(errors, &path.child("template"), &spec.template);
    let at = path.child("template.spec.restartPolicy");
    match spec.template.spec.as_ref().map_or("", |pod| text(&pod.restart_policy)) {
        "" | "Always" => errors.push(FieldError::required(&at, "valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            let about = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(FieldError::invalid(&at, "OnFailure", about));
        }
        "OnFailure" | "Never" => {}
        other => errors.push(unsupported(&at, other, &["OnFailure", "Never"])),
    }
}

fn completion_mode(errors: &mut FieldErrors, path: &Path, spec: &JobSpec) {
    let mode = spec.completion_mode.as_deref().unwrap_or("NonIndexed");
    one_of(errors, &path.child("completionMode"), mode, &["NonIndexed", "Indexed"]);
    let (parallelism, failed) = (spec.parallelism.unwrap_or(0), spec.max_failed_indexes);
    let mut at_most = |name: &str, value: i32, max: i32, when: &str| {
        if value > max {
            let about = format!("must be less than or equal to {max}{when}");
            errors.push(FieldError::invalid(&path.child(name), value, about));
        }
    };
    if mode == "Indexed" {
        at_most("parallelism", parallelism, MAX_PARALLELISM, " when completion mode is Indexed");
        at_most("maxFailedIndexes", failed.unwrap_or(0), MAX_FAILED_INDEXES, "");
        let many = spec.completions.is_some_and(|count| count > MANY_COMPLETIONS);
        if many && spec.backoff_limit_per_index.is_some() {
            let when = format!(" when completions are above {MANY_COMPLETIONS} and used with backoff limit per index");
            at_most("parallelism", parallelism, LIMIT_OF_MANY, &when);
            at_most("maxFailedIndexes", failed.unwrap_or(0), LIMIT_OF_MANY, &when);
            if failed.is_none() {
                let about = format!("must be specified when completions is above {MANY_COMPLETIONS}");
                errors.push(FieldError::required(&path.child("maxFailedIndexes"), about));
            }
        }
        match (spec.completions, failed) {
            (None, _) => {
                let about = "when completion mode is Indexed";
                errors.push(FieldError::required(&path.child("completions"), about));
            }
            (Some(wanted), Some(failed)) if failed > wanted => {
                let about = "must be less than or equal to completions";
                errors.push(FieldError::invalid(&path.child("maxFailedIndexes"), failed, about));
            }
            _ => {}
        }
    }
    if mode == "NonIndexed" {
        let limits = [("backoffLimitPerIndex", spec.backoff_limit_per_index), ("maxFailedIndexes", failed)];
        for (name, value) in limits.iter().filter_map(|(name, value)| Some((name, (*value)?))) {
            errors.push(FieldError::invalid(&path.child(name), value, "requires indexed completion mode"));
        }
    }
}

fn indexed_names(errors: &mut FieldErrors, job: &Job, spec: &JobSpec) {
    let count = spec.completions.filter(|count| *count > 0 && text(&spec.completion_mode) == "Indexed");
    let Some(count) = count else { return };
    let name = text(&job.metadata.name);
    let longest = format!("{name}-{}", count - 1);
    if !dns::label(&longest).is_empty() {
        let about = format!("will not able to create pod with invalid DNS label: {longest}");
        errors.push(FieldError::invalid(&Path::new("metadata.name"), name, about));
    }
}

/// A suspended Job that has not run may still be told where to run and with what resources; otherwise its template is fixed.
fn template_change(errors: &mut FieldErrors, new: &JobSpec, old: &JobSpec, status: Option<&JobStatus>) {
    let idle = old.suspend == Some(true) && status.is_none_or(|status| status.start_time.is_none());
    let mut template = new.template.clone();
    if let (true, Some(pod), Some(before)) = (idle, &mut template.spec, &old.template.spec) {
        let node_affinity = before.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
        match &mut pod.affinity {
            Some(affinity) => affinity.node_affinity = node_affinity,
            none => *none = before.affinity.clone(),
        }
        if before.affinity.is_none() && pod.affinity == Some(Default::default()) {
            pod.affinity = None;
        }
        pod.node_selector = before.node_selector.clone();
        pod.tolerations = before.tolerations.clone();
        pod.scheduling_gates = before.scheduling_gates.clone();
        for (container, before) in pod.containers.iter_mut().zip(&before.containers) {
            container.resources = before.resources.clone();
        }
        if let (Some(now), Some(then)) = (&mut template.metadata, &old.template.metadata) {
            now.labels = then.labels.clone();
            now.annotations = then.annotations.clone();
        }
    }
    if !semantically_equal(&template, &old.template) {
        errors.push(FieldError::invalid(&Path::new("spec.template"), shown(&new.template), IMMUTABLE));
    }
}
