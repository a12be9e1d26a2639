//! The LimitRanges of a namespace: defaults for containers, and bounds for containers, Pods and claims.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use xebec_api::pod::{self, Amounts};
use xebec_api::quantity::Quantity;
use xebec_api::status::StatusError;

use super::{AdmissionRequest, Mutating, Operation, Validating};
use crate::registry::Registry;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

type ApiAmounts = BTreeMap<String, ApiQuantity>;

pub struct LimitRanger;

#[async_trait]
impl Mutating for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        if request.operation != Operation::Create || !request.is_of::<Pod>() {
            return Ok(());
        }
        let ranges = registry.list::<LimitRange>(request.namespace);
        let Some(pod) = request.object_as_mut::<Pod>() else { return Ok(()) };
        for range in &ranges {
            set_defaults(pod, range);
        }
        Ok(())
    }
}

#[async_trait]
impl Validating for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    async fn validate(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        if !concerns(request) {
            return Ok(());
        }
        let ranges = registry.list::<LimitRange>(request.namespace);
        if ranges.is_empty() {
            return Ok(());
        }
        let items = |range: &Arc<LimitRange>| range.spec.as_ref().map(|spec| spec.limits.clone()).unwrap_or_default();
        for range in &ranges {
            let mut wrong = Wrong::default();
            for item in items(range) {
                if let Some(pod) = request.object_as::<Pod>() {
                    check_pod(pod, &item, &mut wrong);
                } else if let Some(claim) = request.object_as::<PersistentVolumeClaim>() {
                    check_claim(claim, &item, &mut wrong);
                }
            }
            if let Some(why) = wrong.message() {
                return Err(request.forbidden(why));
            }
        }
        Ok(())
    }
}

/// New Pods, claims, and the resources of running Pods; nothing that is being deleted.
fn concerns(request: &AdmissionRequest<'_>) -> bool {
    let deleting = request.old.is_some_and(|old| old.meta().deletion_timestamp.is_some());
    let concerned = match (request.operation, request.subresource) {
        (Operation::Create, "") => request.is_about::<Pod>() || request.is_about::<PersistentVolumeClaim>(),
        (Operation::Update, "") => request.is_about::<PersistentVolumeClaim>(),
        (Operation::Update, "resize") => request.is_about::<Pod>(),
        _ => false,
    };
    concerned && !deleting
}

fn set_defaults(pod: &mut Pod, range: &LimitRange) {
    let (mut limits, mut requests) = (ApiAmounts::new(), ApiAmounts::new());
    let items = range.spec.iter().flat_map(|spec| &spec.limits);
    for item in items.filter(|item| item.type_ == "Container") {
        limits.extend(item.default.clone().unwrap_or_default());
        requests.extend(item.default_request.clone().unwrap_or_default());
    }
    let Some(spec) = pod.spec.as_mut() else { return };
    let mut told = Vec::new();
    let mut set = |container: &mut Container, kind: &str| {
        let resources = container.resources.get_or_insert_default();
        let requested = fill(&mut resources.requests, &requests);
        let limited = fill(&mut resources.limits, &limits);
        for (names, what) in [(requested, "request"), (limited, "limit")] {
            if !names.is_empty() {
                told.push(format!("{} {what} for {kind} {}", names.join(", "), container.name));
            }
        }
        if *resources == ResourceRequirements::default() {
            container.resources = None;
        }
    };
    spec.containers.iter_mut().for_each(|container| set(container, "container"));
    spec.init_containers.iter_mut().flatten().for_each(|container| set(container, "init container"));
    if !told.is_empty() {
        let text = format!("LimitRanger plugin set: {}", told.join("; "));
        pod.metadata.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), text);
    }
}

/// Adds what is missing; returns its names in order.
fn fill(amounts: &mut Option<ApiAmounts>, defaults: &ApiAmounts) -> Vec<String> {
    let mut names = Vec::new();
    for (name, amount) in defaults {
        if !amounts.as_ref().is_some_and(|amounts| amounts.contains_key(name)) {
            amounts.get_or_insert_default().insert(name.clone(), amount.clone());
            names.push(name.clone());
        }
    }
    names
}

/// Each complaint once, in upstream's form of an aggregate.
#[derive(Default)]
struct Wrong {
    texts: Vec<String>,
    seen: BTreeSet<String>,
}

impl Wrong {
    fn add(&mut self, result: Result<(), String>) {
        if let Err(text) = result
            && self.seen.insert(text.clone())
        {
            self.texts.push(text);
        }
    }

    fn message(&self) -> Option<String> {
        match &self.texts[..] {
            [] => None,
            [one] => Some(one.clone()),
            several => Some(format!("[{}]", several.join(", "))),
        }
    }
}

fn check_pod(pod: &Pod, item: &LimitRangeItem, wrong: &mut Wrong) {
    let Some(spec) = &pod.spec else { return };
    match item.type_.as_str() {
        "Container" => {
            for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                let resources = container.resources.as_ref();
                let requests = parsed(resources.and_then(|resources| resources.requests.as_ref()));
                let limits = parsed(resources.and_then(|resources| resources.limits.as_ref()));
                check_amounts(item, &requests, &limits, wrong);
            }
        }
        "Pod" => {
            // Overhead comes on top of what LimitRanges bound.
            let bare = k8s_openapi::api::core::v1::PodSpec { overhead: None, ..spec.clone() };
            check_amounts(item, &pod::requests(&bare), &pod::limits(&bare), wrong);
        }
        _ => {}
    }
}

fn check_amounts(item: &LimitRangeItem, requests: &Amounts, limits: &Amounts, wrong: &mut Wrong) {
    for (name, bound) in item.min.iter().flatten() {
        wrong.add(check_min(&item.type_, name, bound, requests.get(name), limits.get(name)));
    }
    for (name, bound) in item.max.iter().flatten() {
        wrong.add(check_max(&item.type_, name, bound, requests.get(name), limits.get(name)));
    }
    for (name, bound) in item.max_limit_request_ratio.iter().flatten() {
        wrong.add(check_ratio(&item.type_, name, bound, requests.get(name), limits.get(name)));
    }
}

fn check_claim(claim: &PersistentVolumeClaim, item: &LimitRangeItem, wrong: &mut Wrong) {
    if item.type_ != "PersistentVolumeClaim" {
        return;
    }
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = parsed(resources.and_then(|resources| resources.requests.as_ref()));
    for (name, bound) in item.min.iter().flatten() {
        wrong.add(check_min(&item.type_, name, bound, requests.get(name), None));
    }
    for (name, bound) in item.max.iter().flatten() {
        let (limit, request) = (Quantity::of(Some(bound)), requests.get(name));
        let what = format!("maximum {name} usage per {} is {limit}", item.type_);
        wrong.add(match request {
            None => Err(format!("{what}.  No request is specified")),
            Some(request) if *request > limit => Err(format!("{what}, but request is {request}")),
            Some(_) => Ok(()),
        });
    }
}

fn parsed(amounts: Option<&ApiAmounts>) -> Amounts {
    amounts.into_iter().flatten().map(|(name, amount)| (name.clone(), Quantity::of(Some(amount)))).collect()
}

fn check_min(
    kind: &str,
    name: &str,
    bound: &ApiQuantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Result<(), String> {
    let bound = Quantity::of(Some(bound));
    let what = format!("minimum {name} usage per {kind} is {bound}");
    match (request, limit) {
        (None, _) => Err(format!("{what}.  No request is specified")),
        (Some(request), _) if *request < bound => Err(format!("{what}, but request is {request}")),
        (_, Some(limit)) if *limit < bound => Err(format!("{what}, but limit is {limit}")),
        _ => Ok(()),
    }
}

fn check_max(
    kind: &str,
    name: &str,
    bound: &ApiQuantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Result<(), String> {
    let bound = Quantity::of(Some(bound));
    let what = format!("maximum {name} usage per {kind} is {bound}");
    match (limit, request) {
        (None, _) => Err(format!("{what}.  No limit is specified")),
        (Some(limit), _) if *limit > bound => Err(format!("{what}, but limit is {limit}")),
        (_, Some(request)) if *request > bound => Err(format!("{what}, but request is {request}")),
        _ => Ok(()),
    }
}

fn check_ratio(
    kind: &str,
    name: &str,
    bound: &ApiQuantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Result<(), String> {
    let bound = Quantity::of(Some(bound));
    let what = format!("{name} max limit to request ratio per {kind} is {bound}");
    let Some(request) = request.filter(|request| !request.is_zero()) else {
        return Err(format!("{what}, but no request is specified or request is 0"));
    };
    let Some(limit) = limit.filter(|limit| !limit.is_zero()) else {
        return Err(format!("{what}, but no limit is specified or limit is 0"));
    };
    let ratio = limit.as_f64() / request.as_f64();
    if ratio > bound.as_f64() { Err(format!("{what}, but provided ratio is {ratio:.6}")) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
