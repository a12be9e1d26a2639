//! What a Pod's containers ask for together, the class of service that follows, and how requests follow from limits.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Raw;
use xebec_api::Quantity;

use crate::resources::validation::quantities::{is_huge_page, is_pod_level, may_overcommit};

/// Quantities by resource name, as objects hold them.
pub type Amounts = BTreeMap<String, Raw>;

/// Requests of the containers alone: neither those of the Pod as a whole nor overhead.
pub fn aggregate_requests(spec: &PodSpec) -> BTreeMap<String, Quantity> {
    xebec_api::pod::requests(&containers_only(spec))
}

pub fn aggregate_limits(spec: &PodSpec) -> BTreeMap<String, Quantity> {
    xebec_api::pod::limits(&containers_only(spec))
}

fn containers_only(spec: &PodSpec) -> PodSpec {
    let slim = |one: &Container| Container {
        resources: one.resources.clone(),
        restart_policy: one.restart_policy.clone(),
        ..Container::default()
    };
    PodSpec {
        containers: spec.containers.iter().map(slim).collect(),
        init_containers: spec.init_containers.as_ref().map(|list| list.iter().map(slim).collect()),
        ..PodSpec::default()
    }
}

/// A limit without a request asks for as much as it allows.
pub fn requests_from_limits(container: &mut Container) {
    let Some(resources) = container.resources.as_mut() else { return };
    let Some(limits) = resources.limits.clone() else { return };
    let requests = resources.requests.get_or_insert_default();
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
}

/// Completes the requests and limits of the Pod as a whole, where it has any, from those of its containers.
pub fn default_pod_level(spec: &mut PodSpec) {
    let empty = |list: &Option<Amounts>| list.as_ref().is_none_or(BTreeMap::is_empty);
    let Some(resources) = &spec.resources else { return };
    if empty(&resources.limits) && empty(&resources.requests) {
        return;
    }
    let (container_requests, container_limits) = (aggregate_requests(spec), aggregate_limits(spec));
    let limited_everywhere = |name: &str| {
        let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        all.all(|one| {
            one.resources.as_ref().and_then(|own| own.limits.as_ref()).is_some_and(|list| list.contains_key(name))
        })
    };
    let unbounded: Vec<&String> = container_limits.keys().filter(|name| !limited_everywhere(name)).collect();
    let Some(resources) = spec.resources.as_mut() else { return };
    huge_page_limits(resources, &container_limits);
    let mut requests = resources.requests.take().unwrap_or_default();
    for (name, amount) in container_requests {
        if is_pod_level(&name) && may_overcommit(&name) {
            requests.entry(name).or_insert_with(|| amount.to_api());
        }
    }
    for (name, limit) in resources.limits.iter().flatten() {
        if is_pod_level(name) {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
    let mut limits = resources.limits.take().unwrap_or_default();
    for (name, request) in requests.iter().filter(|(name, _)| is_pod_level(name)) {
        // A sum bounds the Pod only if every container is bounded.
        if let Some(sum) = container_limits.get(name).filter(|_| !unbounded.contains(&name)) {
            limits.entry(name.clone()).or_insert_with(|| Quantity::of(Some(request)).max(*sum).to_api());
        }
    }
    resources.requests = (!requests.is_empty()).then_some(requests);
    resources.limits = (!limits.is_empty()).then_some(limits);
}

fn huge_page_limits(resources: &mut ResourceRequirements, container_limits: &BTreeMap<String, Quantity>) {
    let mut limits = resources.limits.take().unwrap_or_default();
    for (name, amount) in container_limits.iter().filter(|(name, _)| is_huge_page(name)) {
        let requested = resources.requests.as_ref().is_some_and(|requests| requests.contains_key(name));
        if !requested {
            limits.entry(name.clone()).or_insert_with(|| amount.to_api());
        }
    }
    resources.limits = (!limits.is_empty()).then_some(limits);
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else { return "BestEffort" };
    let pod_level = spec.resources.as_ref().filter(|resources| {
        let names = resources.requests.iter().flatten().chain(resources.limits.iter().flatten());
        names.into_iter().any(|(name, _)| is_pod_level(name))
    });
    if let Some(resources) = pod_level {
        return class_of(Some(resources));
    }
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut class = None;
    for one in all.map(|container| class_of(container.resources.as_ref())) {
        match class {
            _ if one == "Burstable" => return one,
            None => class = Some(one),
            Some(before) if before != one => return "Burstable",
            Some(_) => {}
        }
    }
    class.unwrap_or("BestEffort")
}

fn class_of(resources: Option<&ResourceRequirements>) -> &'static str {
    let amount = |list: Option<&Amounts>, name: &str| Quantity::of(list.and_then(|list| list.get(name)));
    let class = |name: &str| {
        let request = amount(resources.and_then(|one| one.requests.as_ref()), name);
        let limit = amount(resources.and_then(|one| one.limits.as_ref()), name);
        match request == limit {
            false => "Burstable",
            true if request.is_zero() => "BestEffort",
            true => "Guaranteed",
        }
    };
    let (cpu, memory) = (class("cpu"), class("memory"));
    if cpu == memory { cpu } else { "Burstable" }
}
