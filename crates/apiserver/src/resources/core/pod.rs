//! Pods: their life's rules. What they are made of is checked by `validation`, what may change by `pod_update`.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};
use xebec_api::fields::Filter;

use super::{pod_cells, pod_defaults, pod_resize, pod_resources, pod_status, pod_update, pod_warnings};
use crate::registry::strategy::{Column, Deletion, Strategy};
use crate::resources::validation::security::{self, APPARMOR_CONTAINER};
use crate::resources::validation::{containers, numbers, pod_spec, pod_template, text};

#[derive(Default)]
pub struct PodStrategy;

impl Strategy for PodStrategy {
    type Object = Pod;

    fn default(&self, pod: &mut Pod) {
        pod_defaults::pod(pod);
        pod_status::keep_addresses_together(pod.status.get_or_insert_default());
    }

    fn prepare_create(&self, pod: &mut Pod) {
        pod.status = Some(PodStatus { phase: Some("Pending".to_owned()), ..PodStatus::default() });
        merge_label_keys(pod);
        apparmor_fields(pod);
        if let Some(spec) = &mut pod.spec {
            pod_resources::default_pod_level(spec);
        }
        let class = pod_resources::qos_class(pod).to_owned();
        let since = pod.metadata.creation_timestamp.clone();
        let gated = pod.spec.as_ref().is_some_and(is_gated);
        let status = pod.status.get_or_insert_default();
        status.qos_class = Some(class);
        if gated {
            status.conditions = Some(vec![PodCondition {
                type_: "PodScheduled".to_owned(),
                status: "False".to_owned(),
                reason: Some("SchedulingGated".to_owned()),
                last_transition_time: since,
                message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
                ..PodCondition::default()
            }]);
        }
    }

    fn prepare_update(&self, new: &mut Pod, old: &Pod) {
        // A client that does not know the Pod's own resources does not take them away.
        if let (Some(new), Some(old)) = (&mut new.spec, &old.spec) {
            new.resources = new.resources.take().or_else(|| old.resources.clone());
        }
    }

    fn prepare_status_update(&self, new: &mut Pod, old: &Pod) {
        new.metadata.owner_references = old.metadata.owner_references.clone();
        pod_status::carry_over(new.status.get_or_insert_default(), &old.status.clone().unwrap_or_default());
    }

    fn ownable(&self, subresource: &str) -> Filter {
        match subresource {
            "" => Filter::Without(&[&["status"]]),
            "status" => {
                Filter::Without(&[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]])
            }
            "ephemeralcontainers" => Filter::Only(&[&["spec", "ephemeralContainers"]]),
            "resize" => Filter::Only(&[
                &["spec", "containers", "*", "resources"],
                &["spec", "containers", "*", "resizePolicy"],
                &["spec", "initContainers", "*", "resources"],
                &["spec", "initContainers", "*", "resizePolicy"],
            ]),
            _ => Filter::Without(&[]),
        }
    }

    fn validate(&self, pod: &Pod) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let path = Path::new("spec");
        let Some(spec) = &pod.spec else {
            return vec![FieldError::required(&path.child("containers"), "")];
        };
        metadata_and_spec(&mut errors, pod, spec);
        if spec.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty()) {
            errors.push(FieldError::forbidden(&path.child("ephemeralContainers"), "cannot be set on create"));
        }
        if !text(&spec.node_name).is_empty() && is_gated(spec) {
            let about = "cannot be set until all schedulingGates have been cleared";
            errors.push(FieldError::forbidden(&path.child("nodeName"), about));
        }
        security::annotations_match_fields(&mut errors, pod.metadata.annotations.as_ref(), spec, &path);
        errors
    }

    fn validate_update(&self, new: &Pod, old: &Pod) -> FieldErrors {
        pod_update::validate(new, old)
    }

    fn prepare_part_update(&self, subresource: &str, new: &mut Pod, old: &Pod) {
        match subresource {
            "resize" => pod_resize::prepare(new, old),
            _ => self.prepare_update(new, old),
        }
    }

    fn validate_part_update(&self, subresource: &str, new: &Pod, old: &Pod) -> FieldErrors {
        match subresource {
            "resize" => pod_resize::validate(new, old),
            "ephemeralcontainers" => pod_update::validate_ephemeral_containers(new, old),
            _ => pod_update::validate(new, old),
        }
    }

    fn validate_status_update(&self, new: &Pod, old: &Pod) -> FieldErrors {
        pod_status::validate(new, old)
    }

    fn warnings(&self, pod: &Pod, old: Option<&Pod>) -> Vec<String> {
        let Some(spec) = pod.spec.as_ref().filter(|_| old.is_none()) else { return Vec::new() };
        let mut warnings = Vec::new();
        warnings.extend(pod_warnings::name_warning(&pod.metadata, "the Pod's hostname"));
        warnings.extend(pod_warnings::pod_warnings(&Path::root(), spec, Some(&pod.metadata)));
        warnings
    }

    fn deletion(&self, pod: &Pod, grace_period: Option<i64>) -> Deletion {
        let spec = pod.spec.as_ref();
        let own = spec.and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(0);
        let scheduled = spec.is_some_and(|spec| !text(&spec.node_name).is_empty());
        // Nobody runs it, or it runs no more: there is nothing to wait for.
        if !scheduled || xebec_api::pod::is_terminal(pod) {
            return Deletion::Graceful(0);
        }
        match grace_period.unwrap_or(own) {
            seconds if seconds < 0 => Deletion::Graceful(1),
            seconds => Deletion::Graceful(seconds),
        }
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ]
    }

    fn field<'a>(&self, pod: &'a Pod, field: &str) -> Cow<'a, str> {
        let spec = |of: fn(&'a PodSpec) -> &'a Option<String>| pod.spec.as_ref().map_or("", |spec| text(of(spec)));
        let status =
            |of: fn(&'a PodStatus) -> &'a Option<String>| pod.status.as_ref().map_or("", |status| text(of(status)));
        Cow::Borrowed(match field {
            "spec.nodeName" => spec(|spec| &spec.node_name),
            "spec.restartPolicy" => spec(|spec| &spec.restart_policy),
            "spec.schedulerName" => spec(|spec| &spec.scheduler_name),
            "spec.serviceAccountName" => spec(|spec| &spec.service_account_name),
            "spec.hostNetwork" => match pod.spec.as_ref().and_then(|spec| spec.host_network) {
                Some(true) => "true",
                _ => "false",
            },
            "status.phase" => status(|status| &status.phase),
            "status.podIP" => {
                let first = pod.status.as_ref().and_then(|status| status.pod_ips.as_ref()?.first());
                first.map_or("", |one| one.ip.as_str())
            }
            "status.nominatedNodeName" => status(|status| &status.nominated_node_name),
            _ => "",
        })
    }

    fn columns(&self) -> &'static [Column] {
        pod_cells::COLUMNS
    }

    fn cells(&self, pod: &Pod, now: Timestamp) -> Vec<Value> {
        pod_cells::cells(pod, now)
    }
}

fn is_gated(spec: &PodSpec) -> bool {
    spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty())
}

/// What creation and update check alike.
pub fn metadata_and_spec(errors: &mut FieldErrors, pod: &Pod, spec: &PodSpec) {
    let path = Path::new("spec");
    let annotations_path = Path::new("metadata.annotations");
    pod_template::pod_annotations(errors, &annotations_path, pod.metadata.annotations.as_ref(), spec);
    pod_spec::pod_spec(errors, &path, spec, Some(&pod.metadata));
    if text(&spec.service_account_name).is_empty() {
        for (at, volume) in spec.volumes.iter().flatten().enumerate() {
            let sources = volume.projected.iter().flat_map(|one| one.sources.iter().flatten());
            for (index, _) in sources.enumerate().filter(|(_, one)| one.service_account_token.is_some()) {
                let path = path.child("volumes").index(at).child("projected.sources").index(index);
                let about = "must not be specified when serviceAccountName is not set";
                errors.push(FieldError::forbidden(&path.child("serviceAccountToken"), about));
            }
        }
    }
    if let Some(seconds) = spec.termination_grace_period_seconds {
        numbers::not_negative(errors, &path.child("terminationGracePeriodSeconds"), seconds);
    }
    for (index, one) in spec.containers.iter().enumerate() {
        containers::trimmed_image(errors, &path.child("containers").index(index), one);
    }
    for (index, one) in spec.init_containers.iter().flatten().enumerate() {
        containers::trimmed_image(errors, &path.child("initContainers").index(index), one);
    }
}

/// `matchLabelKeys` name labels of the Pod itself: their values become part of the selectors once, here.
fn merge_label_keys(pod: &mut Pod) {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let merge = |selector: &mut Option<LabelSelector>, keys: &Option<Vec<String>>, operator: &str| {
        let Some(selector) = selector else { return };
        for key in keys.iter().flatten() {
            let Some(value) = labels.get(key) else { continue };
            selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                key: key.clone(),
                operator: operator.to_owned(),
                values: Some(vec![value.clone()]),
            });
        }
    };
    let Some(spec) = &mut pod.spec else { return };
    if let Some(affinity) = &mut spec.affinity {
        let one = affinity.pod_affinity.iter_mut();
        let required = one.flat_map(|one| {
            let weighted = one.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
            let plain = one.required_during_scheduling_ignored_during_execution.iter_mut().flatten();
            weighted.map(|term| &mut term.pod_affinity_term).chain(plain)
        });
        let anti = affinity.pod_anti_affinity.iter_mut().flat_map(|one| {
            let weighted = one.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
            let plain = one.required_during_scheduling_ignored_during_execution.iter_mut().flatten();
            weighted.map(|term| &mut term.pod_affinity_term).chain(plain)
        });
        for term in required.chain(anti) {
            merge(&mut term.label_selector, &term.match_label_keys, "In");
            merge(&mut term.label_selector, &term.mismatch_label_keys, "NotIn");
        }
    }
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        merge(&mut constraint.label_selector, &constraint.match_label_keys, "In");
    }
}

/// A profile in the old annotation becomes the field that the kubelet reads.
fn apparmor_fields(pod: &mut Pod) {
    let (Some(annotations), Some(spec)) = (&pod.metadata.annotations, &mut pod.spec) else { return };
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return;
    }
    let of_pod = spec.security_context.as_ref().and_then(|context| context.app_armor_profile.clone());
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let has = container.security_context.as_ref().is_some_and(|own| own.app_armor_profile.is_some());
        let key = format!("{APPARMOR_CONTAINER}{}", container.name);
        let Some(value) = annotations.get(&key).filter(|_| !has) else { continue };
        let profile = security::apparmor_of_annotation(value);
        if profile.is_some() && profile != of_pod {
            container.security_context.get_or_insert_default().app_armor_profile = profile;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(node: &str, phase: &str, own: i64) -> Pod {
        Pod {
            spec: Some(PodSpec {
                node_name: (!node.is_empty()).then(|| node.to_owned()),
                termination_grace_period_seconds: Some(own),
                ..PodSpec::default()
            }),
            status: Some(PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() }),
            ..Pod::default()
        }
    }

    #[test]
    fn deletion_waits_only_for_what_runs() {
        let cases = [
            (pod("n", "Running", 30), None, 30),
            (pod("n", "Running", 30), Some(5), 5),
            (pod("n", "Running", 30), Some(0), 0),
            (pod("n", "Pending", -1), None, 1),
            (pod("", "Pending", 30), Some(5), 0),
            (pod("n", "Succeeded", 30), None, 0),
            (pod("n", "Failed", 30), Some(60), 0),
        ];
        for (pod, asked, seconds) in cases {
            assert_eq!(PodStrategy.deletion(&pod, asked), Deletion::Graceful(seconds), "{pod:?} {asked:?}");
        }
    }
}
