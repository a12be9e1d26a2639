//! Templates of Pods, as the workload kinds hold them.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{labels, pod_spec, security, shown, text};

pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

pub fn template(errors: &mut FieldErrors, path: &Path, template: &PodTemplateSpec) {
    let metadata = template.metadata.as_ref();
    let annotations = metadata.and_then(|metadata| metadata.annotations.as_ref());
    // Upstream names these two without `metadata`.
    labels::labels(errors, &path.child("labels"), metadata.and_then(|metadata| metadata.labels.as_ref()));
    labels::annotations(errors, &path.child("annotations"), annotations);
    let Some(spec) = &template.spec else {
        return errors.push(FieldError::required(&path.child("spec.containers"), ""));
    };
    pod_annotations(errors, &path.child("annotations"), annotations, spec);
    pod_spec::pod_spec(errors, &path.child("spec"), spec, None);
    security::annotations_match_fields(errors, annotations, spec, &path.child("spec"));
    if spec.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty()) {
        let path = path.child("spec.ephemeralContainers");
        errors.push(FieldError::forbidden(&path, "ephemeral containers not allowed in pod template"));
    }
}

/// Annotations that mean something to the kubelet or the controllers.
pub fn pod_annotations(
    errors: &mut FieldErrors,
    path: &Path,
    annotations: Option<&std::collections::BTreeMap<String, String>>,
    spec: &k8s_openapi::api::core::v1::PodSpec,
) {
    let value = |key: &str| annotations.and_then(|annotations| annotations.get(key)).map(String::as_str);
    if let Some(value) = value("kubernetes.io/config.mirror").filter(|_| text(&spec.node_name).is_empty()) {
        let about = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(FieldError::invalid(&path.key("kubernetes.io/config.mirror"), value, about));
    }
    if let Some(cost) = value(DELETION_COST).filter(|cost| !is_integer(cost)) {
        errors.push(FieldError::invalid(&path.key(DELETION_COST), cost, "must be a 32bit integer"));
    }
    security::annotations(errors, path, annotations, spec);
}

/// A 32-bit number as the deletion cost writes it: no sign `+`, no leading zeros.
fn is_integer(value: &str) -> bool {
    let odd = value.starts_with('+') || (value.len() > 1 && value.starts_with('0'));
    !odd && value.parse::<i32>().is_ok()
}

/// Whose Pods a controller keeps running for ever.
#[derive(Clone, Copy)]
pub struct Keeper<'a> {
    pub kind: &'static str,
    pub selector: &'a LabelSelector,
}

/// A template whose Pods must match the selector, always restart and never end.
pub fn kept_running(errors: &mut FieldErrors, path: &Path, template_spec: &PodTemplateSpec, keeper: Keeper<'_>) {
    selected(errors, path, template_spec, keeper.selector);
    template(errors, path, template_spec);
    always_restarts(errors, path, template_spec, keeper.kind);
}

pub fn always_restarts(errors: &mut FieldErrors, path: &Path, template: &PodTemplateSpec, kind: &str) {
    let Some(spec) = &template.spec else { return };
    let policy = text(&spec.restart_policy);
    if policy != "Always" {
        errors.push(FieldError::not_supported(&path.child("spec.restartPolicy"), policy, &["Always"]));
    }
    if spec.active_deadline_seconds.is_some() {
        let about = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(FieldError::forbidden(&path.child("spec.activeDeadlineSeconds"), about));
    }
}

/// The selector of a workload must find the Pods made from its template. One that is absent finds none.
pub fn selected(errors: &mut FieldErrors, path: &Path, template: &PodTemplateSpec, selector: &LabelSelector) {
    let labels = template.metadata.as_ref().and_then(|metadata| metadata.labels.as_ref());
    // What is no selector at all is reported as such.
    let matches = !labels::is_sound(selector)
        || xebec_api::LabelSelector::from_object(Some(selector)).is_ok_and(|one| one.matches_map(labels));
    if labels::is_empty(selector) || !matches {
        let about = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(&path.child("metadata.labels"), shown(&labels), about));
    }
}

/// `spec.selector` of the kinds that have one in object form. The types do not tell an empty one from an absent one; absence
/// is by far the commoner mistake, so that is what is reported.
pub fn selector(errors: &mut FieldErrors, path: &Path, selector: &LabelSelector) {
    labels::selector(errors, path, Some(selector));
    if labels::is_empty(selector) {
        errors.push(FieldError::required(path, ""));
    }
    if !labels::is_sound(selector) {
        errors.push(FieldError::invalid(path, labels::shown_selector(selector), "invalid label selector"));
    }
}
