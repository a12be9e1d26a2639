//! Pods are held to the Pod Security Standard that their namespace's labels name; templates of Pods are warned of.
//!
//! The audit labels are checked and otherwise without effect: audit records here bear no annotations.

mod checks;
mod level;

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, Pod, PodTemplate, PodTemplateSpec, ReplicationController};
use xebec_api::status::StatusError;

use super::{AdmissionRequest, Operation, Validating};
use crate::registry::Registry;
use checks::{Subject, Violation};
use level::{Level, Policy, Standard};

/// So many Pods are looked at when a namespace's level is raised, as upstream does.
const MAX_PODS: usize = 3000;

pub struct PodSecurity;

#[async_trait]
impl Validating for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    async fn validate(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        if !matches!(request.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        if request.is_of::<Namespace>() {
            return namespace(request, registry);
        }
        if request.is_about::<Pod>() && matches!(request.subresource, "" | "ephemeralcontainers" | "resize") {
            return pod(request, registry);
        }
        if request.subresource.is_empty() {
            template(request, registry);
        }
        Ok(())
    }
}

fn policy(registry: &Registry, namespace: &str) -> Policy {
    let namespace = registry.get::<Namespace>("", namespace);
    Policy::of(namespace.as_ref().and_then(|namespace| namespace.metadata.labels.as_ref())).0
}

fn namespace(request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
    let Some(new) = request.object_as::<Namespace>() else { return Ok(()) };
    let name = new.metadata.name.clone().unwrap_or_default();
    let (policy, errors) = Policy::of(new.metadata.labels.as_ref());
    let before = request.old_as::<Namespace>().map(|old| Policy::of(old.metadata.labels.as_ref()));
    let known = before.as_ref().is_some_and(|(_, before)| {
        before.len() == errors.len() && before.iter().zip(&errors).all(|(a, b)| a.to_string() == b.to_string())
    });
    if !errors.is_empty() && !known {
        return Err(StatusError::invalid(request.resource, request.name, errors));
    }
    let Some((before, _)) = before else { return Ok(()) };
    let (new, old) = (policy.enforce, before.enforce);
    let relaxed = new.version == old.version && new.level <= old.level;
    if new != old && new.level != Level::Privileged && !relaxed {
        request.warnings.extend(pods_against(registry, &name, new));
    }
    Ok(())
}

fn pod(request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
    let policy = policy(registry, request.namespace);
    if policy.enforce.level == Level::Privileged && policy.warn.level == Level::Privileged {
        return Ok(());
    }
    let Some(pod) = request.object_as::<Pod>() else { return Ok(()) };
    if request.old_as::<Pod>().is_some_and(|old| !is_significant(pod, old)) {
        return Ok(());
    }
    let Some(spec) = &pod.spec else { return Ok(()) };
    let subject = Subject { spec, annotations: pod.metadata.annotations.as_ref() };
    let found = checks::violations(&subject, policy.enforce);
    if !found.is_empty() {
        let standard = policy.enforce.to_string();
        return Err(request.forbidden(format!("violates PodSecurity {standard:?}: {}", details(&found))));
    }
    let warning = would_violate(&subject, policy.warn);
    request.warnings.extend(warning);
    Ok(())
}

/// Only a new image or a new container can make a Pod worse.
fn is_significant(new: &Pod, old: &Pod) -> bool {
    let images = |pod: &Pod| -> Vec<(String, Option<String>)> {
        let Some(spec) = &pod.spec else { return Vec::new() };
        let plain = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let plain = plain.map(|container| (container.name.clone(), container.image.clone()));
        let ephemeral = spec.ephemeral_containers.iter().flatten();
        plain.chain(ephemeral.map(|container| (container.name.clone(), container.image.clone()))).collect()
    };
    images(new) != images(old)
}

fn template(request: &mut AdmissionRequest<'_>, registry: &Registry) {
    let Some(template) = template_of(request) else { return };
    let warn = policy(registry, request.namespace).warn;
    let Some(spec) = template.spec.as_ref().filter(|_| warn.level != Level::Privileged) else { return };
    let annotations = template.metadata.as_ref().and_then(|metadata| metadata.annotations.as_ref());
    let warning = would_violate(&Subject { spec, annotations }, warn);
    request.warnings.extend(warning);
}

fn template_of<'r>(request: &'r AdmissionRequest<'_>) -> Option<&'r PodTemplateSpec> {
    if let Some(object) = request.object_as::<Deployment>() {
        return Some(&object.spec.template);
    }
    if let Some(object) = request.object_as::<ReplicaSet>() {
        return object.spec.template.as_ref();
    }
    if let Some(object) = request.object_as::<StatefulSet>() {
        return Some(&object.spec.template);
    }
    if let Some(object) = request.object_as::<DaemonSet>() {
        return Some(&object.spec.template);
    }
    if let Some(object) = request.object_as::<Job>() {
        return object.spec.as_ref().map(|spec| &spec.template);
    }
    if let Some(object) = request.object_as::<CronJob>() {
        return object.spec.job_template.spec.as_ref().map(|spec| &spec.template);
    }
    if let Some(object) = request.object_as::<ReplicationController>() {
        return object.spec.as_ref()?.template.as_ref();
    }
    request.object_as::<PodTemplate>()?.template.as_ref()
}

fn would_violate(subject: &Subject<'_>, standard: Standard) -> Option<String> {
    let found = checks::violations(subject, standard);
    let standard = standard.to_string();
    (!found.is_empty()).then(|| format!("would violate PodSecurity {standard:?}: {}", details(&found)))
}

fn details(found: &[Violation]) -> String {
    let shown: Vec<String> = found.iter().map(|one| format!("{} ({})", one.reason, one.detail)).collect();
    shown.join(", ")
}

/// What Pods that run already would violate, told once for each set of reasons.
fn pods_against(registry: &Registry, namespace: &str, standard: Standard) -> Vec<String> {
    let pods = registry.list::<Pod>(namespace);
    // By reasons: the first name, and how many.
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in pods.iter().take(MAX_PODS) {
        let Some(spec) = &pod.spec else { continue };
        let subject = Subject { spec, annotations: pod.metadata.annotations.as_ref() };
        let reasons: Vec<String> = checks::violations(&subject, standard).into_iter().map(|one| one.reason).collect();
        if !reasons.is_empty() {
            let name = pod.metadata.name.clone().unwrap_or_default();
            found.entry(reasons.join(", ")).or_insert((name, 0)).1 += 1;
        }
    }
    let mut warnings = Vec::new();
    if pods.len() > MAX_PODS {
        let total = pods.len();
        let text =
            format!("new PodSecurity enforce level only checked against the first {MAX_PODS} of {total} existing pods");
        warnings.push(text);
    }
    if found.is_empty() {
        return warnings;
    }
    let standard = standard.to_string();
    warnings.push(format!(
        "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level {standard:?}"
    ));
    let mut lines: Vec<String> = found
        .into_iter()
        .map(|(reasons, (name, count))| match count {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            count => format!("{name} (and {} other pods): {reasons}", count - 1),
        })
        .collect();
    lines.sort();
    warnings.extend(lines);
    warnings
}

#[cfg(test)]
mod tests;
