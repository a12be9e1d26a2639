//! The subresource `resize`: more or less CPU and memory for a Pod that runs.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::pod::metadata_and_spec;
use super::pod_resources::{self, Amounts};
use crate::registry::metadata;
use crate::resources::validation::{semantically_equal, text};

const MIRROR: &str = "kubernetes.io/config.mirror";
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Drops every change but that of resources and of how they are resized.
pub fn prepare(new: &mut Pod, old: &Pod) {
    let (Some(spec), Some(before)) = (&mut new.spec, &old.spec) else { return };
    let init = |spec: &PodSpec| spec.init_containers.clone().unwrap_or_default();
    let (init_now, init_before) = (init(spec), init(before));
    // Containers that came, went or moved are left for validation to refuse.
    if spec.containers.len() != before.containers.len() || init_now.len() != init_before.len() {
        return;
    }
    let containers = resized(&spec.containers, &before.containers);
    let init_containers = resized(&init_now, &init_before);
    let mut next = PodSpec { containers, ..before.clone() };
    next.init_containers = before.init_containers.as_ref().map(|_| init_containers);
    // A client that does not know the Pod's own resources does not take them away.
    next.resources = spec.resources.take().or_else(|| before.resources.clone());
    if next.resources.is_some() {
        pod_resources::default_pod_level(&mut next);
    }
    *spec = next;
    new.status = old.status.clone();
    metadata::keep_for_status(&mut new.metadata, &old.metadata);
}

fn resized(new: &[Container], old: &[Container]) -> Vec<Container> {
    if new.iter().zip(old).any(|(now, before)| now.name != before.name) {
        return new.to_vec();
    }
    let merged = |(now, before): (&Container, &Container)| Container {
        resources: now.resources.clone(),
        resize_policy: now.resize_policy.clone(),
        ..before.clone()
    };
    new.iter().zip(old).map(merged).collect()
}

pub fn validate(new: &Pod, old: &Pod) -> FieldErrors {
    let (Some(spec), Some(before)) = (&new.spec, &old.spec) else { return FieldErrors::new() };
    let mut errors = FieldErrors::new();
    metadata_and_spec(&mut errors, new, spec);
    let forbidden = |about: &str| vec![FieldError::forbidden(&Path::root(), about)];
    if old.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR)) {
        return forbidden("static pods cannot be resized");
    }
    if before.os.as_ref().is_some_and(|os| os.name == "windows") {
        return forbidden("windows pods cannot be resized");
    }
    let path = Path::new("spec");
    let class = |pod: &Pod| pod.status.as_ref().and_then(|status| status.qos_class.clone());
    let class_before = class(old).unwrap_or_else(|| pod_resources::qos_class(old).to_owned());
    if class_before != pod_resources::qos_class(new) {
        let about = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(&path, class(new).unwrap_or_default(), about));
    }
    if !is_supported(old) {
        errors.push(FieldError::forbidden(&path, "Pod running on node without support for resize"));
    }
    let mut masked = spec.clone();
    pod_level(&mut errors, &path, &mut masked, before);
    if !same_containers(&mut errors, &path, spec, before) {
        return errors;
    }
    removals(&mut errors, &path, spec, before);
    regular(&mut errors, &path, &mut masked, before);
    initial(&mut errors, &path, &mut masked, before);
    if !semantically_equal(&spec.volumes, &before.volumes) {
        let about = "volumes are immutable on resize when InPlacePodVerticalScalingMemoryBackedVolumes feature gate is disabled";
        errors.push(FieldError::forbidden(&path.child("volumes"), about));
    }
    if errors.is_empty() && !semantically_equal(&masked, before) {
        errors.push(FieldError::forbidden(&path, "only cpu and memory resources are mutable"));
    }
    errors
}

/// Where something runs, its node says what it has been given if it can resize.
fn is_supported(pod: &Pod) -> bool {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut running = statuses.filter(|one| one.state.as_ref().is_some_and(|state| state.running.is_some()));
    running.next().is_none_or(|one| one.resources.is_some())
}

fn given(resources: Option<&ResourceRequirements>) -> [Amounts; 2] {
    let list = |of: fn(&ResourceRequirements) -> &Option<Amounts>| {
        resources.and_then(|resources| of(resources).clone()).unwrap_or_default()
    };
    [list(|resources| &resources.requests), list(|resources| &resources.limits)]
}

/// The resources of the Pod as a whole; puts the old amounts in the place of what may change.
fn pod_level(errors: &mut FieldErrors, path: &Path, masked: &mut PodSpec, old: &PodSpec) {
    let is_set = |spec: &PodSpec| given(spec.resources.as_ref()).iter().any(|list| !list.is_empty());
    if !is_set(masked) && !is_set(old) {
        return;
    }
    let at = path.child("resources");
    if old.resources.is_some() && masked.resources.is_none() {
        return errors.push(FieldError::forbidden(&at, "pod-level resources cannot be removed"));
    }
    let (now, before) = (given(masked.resources.as_ref()), given(old.resources.as_ref()));
    for (index, what) in ["requests", "limits"].into_iter().enumerate() {
        if before[index].keys().any(|name| !now[index].contains_key(name)) {
            let about = format!("pod-level resource {what} cannot be removed");
            errors.push(FieldError::forbidden(&at.child(what), about));
        }
    }
    masked.resources = mask(masked.resources.take(), old.resources.as_ref());
    if !semantically_equal(&masked.resources, &old.resources) {
        errors.push(FieldError::forbidden(path, "only cpu and memory resources are mutable at pod-level"));
    }
}

/// Resources with the old amounts of what may change.
fn mask(new: Option<ResourceRequirements>, old: Option<&ResourceRequirements>) -> Option<ResourceRequirements> {
    let claims = new.as_ref().and_then(|resources| resources.claims.clone());
    let lists = given(new.as_ref()).into_iter().zip(given(old)).map(|(mut now, before)| {
        now.retain(|name, _| !RESIZABLE.contains(&name.as_str()));
        now.extend(before.into_iter().filter(|(name, _)| RESIZABLE.contains(&name.as_str())));
        (!now.is_empty()).then_some(now)
    });
    let [requests, limits] = lists.collect::<Vec<Option<BTreeMap<_, _>>>>().try_into().unwrap_or_default();
    let masked = ResourceRequirements { claims, limits, requests };
    (old.is_some() || masked != ResourceRequirements::default()).then_some(masked)
}

fn same_containers(errors: &mut FieldErrors, path: &Path, spec: &PodSpec, old: &PodSpec) -> bool {
    let before = errors.len();
    let lists = [
        ("containers", spec.containers.as_slice(), old.containers.as_slice()),
        (
            "initContainers",
            spec.init_containers.as_deref().unwrap_or_default(),
            old.init_containers.as_deref().unwrap_or_default(),
        ),
    ];
    for (field, now, before) in lists {
        let path = path.child(field);
        if now.len() != before.len() {
            errors.push(FieldError::forbidden(&path, format!("{field} may not be added or removed on resize")));
            continue;
        }
        for (index, _) in now.iter().zip(before).enumerate().filter(|(_, (now, before))| now.name != before.name) {
            let about = format!("{field} may not be renamed or reordered on resize");
            errors.push(FieldError::forbidden(&path.index(index).child("name"), about));
        }
    }
    errors.len() == before
}

fn removals(errors: &mut FieldErrors, path: &Path, spec: &PodSpec, old: &PodSpec) {
    let init = |spec: &'_ PodSpec| spec.init_containers.clone().unwrap_or_default();
    let lists =
        [("initContainers", init(spec), init(old)), ("containers", spec.containers.clone(), old.containers.clone())];
    for (field, now, before) in lists {
        for (index, (now, before)) in now.iter().zip(&before).enumerate() {
            let path = path.child(field).index(index).child("resources");
            let (now, before) = (given(now.resources.as_ref()), given(before.resources.as_ref()));
            for (which, what) in ["requests", "limits"].into_iter().enumerate() {
                if before[which].keys().any(|name| !now[which].contains_key(name)) {
                    let about = format!("resource {what} cannot be removed");
                    errors.push(FieldError::forbidden(&path.child(what), about));
                }
            }
        }
    }
}

fn regular(errors: &mut FieldErrors, path: &Path, masked: &mut PodSpec, old: &PodSpec) {
    for (container, before) in masked.containers.iter_mut().zip(&old.containers) {
        container.resources = mask(container.resources.take(), before.resources.as_ref());
        if !semantically_equal(container, before) {
            errors.push(FieldError::forbidden(path, "only cpu and memory resources are mutable"));
        }
    }
}

fn initial(errors: &mut FieldErrors, path: &Path, masked: &mut PodSpec, old: &PodSpec) {
    let before = old.init_containers.iter().flatten();
    for (index, (container, before)) in masked.init_containers.iter_mut().flatten().zip(before).enumerate() {
        let path = path.child("initContainers").index(index);
        let changed = !semantically_equal(container, before);
        container.resources = mask(container.resources.take(), before.resources.as_ref());
        if !semantically_equal(container, before) {
            let about = "only cpu and memory resources for init or sidecar containers are mutable";
            errors.push(FieldError::forbidden(&path, about));
        }
        let restarts = container.resize_policy.iter().flatten().filter(|one| one.restart_policy == "RestartContainer");
        for _ in restarts.filter(|_| changed && text(&before.restart_policy) != "Always") {
            let about = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
            errors.push(FieldError::forbidden(&path, about));
        }
    }
}
