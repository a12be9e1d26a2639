//! Resource names and quantities: what may be requested, limited and counted.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Raw;
use xebec_api::Quantity;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{NOT_NEGATIVE, dns, report, required, text};

pub const HUGE_PAGES: &str = "hugepages-";
const REQUESTS: &str = "requests.";

const CONTAINER_RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const QUOTA_RESOURCES: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Which names a list of quantities may have.
pub type NameRule = fn(&mut FieldErrors, &Path, &str);

pub fn is_huge_page(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

pub fn is_quota_resource(name: &str) -> bool {
    QUOTA_RESOURCES.contains(&name) || is_huge_page(name) || name.starts_with("requests.hugepages-")
}

pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// `example.com/gpu`: counted in whole units and never overcommitted.
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with(REQUESTS) && dns::label_key(&format!("{REQUESTS}{name}")).is_empty()
}

pub fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_page(name)
}

pub fn resource_name(errors: &mut FieldErrors, path: &Path, name: &str) {
    let messages = dns::label_key(name);
    if messages.is_empty() && !name.contains('/') && !is_quota_resource(name) && name != "storage" {
        errors.push(FieldError::invalid(path, name, "must be a standard resource type or fully qualified"));
    }
    report(errors, path, name, messages);
}

pub fn container_resource(errors: &mut FieldErrors, path: &Path, name: &str) {
    resource_name(errors, path, name);
    if !name.contains('/') {
        if !CONTAINER_RESOURCES.contains(&name) && !is_huge_page(name) {
            errors.push(FieldError::invalid(path, name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(FieldError::invalid(path, name, "doesn't follow extended resource name standard"));
    }
}

pub fn pod_resource(errors: &mut FieldErrors, path: &Path, name: &str) {
    let before = errors.len();
    resource_name(errors, path, name);
    if errors.len() == before && !is_pod_level(name) {
        errors.push(FieldError::not_supported(path, name, &["cpu", HUGE_PAGES, "memory"]));
    }
}

pub fn quota_resource(errors: &mut FieldErrors, path: &Path, name: &str) {
    resource_name(errors, path, name);
    if !name.contains('/') && !is_quota_resource(name) {
        errors.push(FieldError::invalid(path, name, "must be a standard resource for quota"));
    }
}

/// Not negative, and whole where the resource is counted.
pub fn amount(errors: &mut FieldErrors, path: &Path, name: &str, value: &Raw) {
    let quantity = Quantity::of(Some(value));
    if quantity.is_negative() {
        errors.push(FieldError::invalid(path, quantity.to_string(), NOT_NEGATIVE));
    }
    if (COUNTED.contains(&name) || is_extended(name)) && quantity.milli_value() % 1000 != 0 {
        errors.push(FieldError::invalid(path, quantity.to_string(), "must be an integer"));
    }
}

/// A named list of quantities on its own, as in quotas and node status.
pub fn amounts(errors: &mut FieldErrors, path: &Path, list: Option<&BTreeMap<String, Raw>>, name_rule: NameRule) {
    for (name, value) in list.into_iter().flatten() {
        let path = path.key(name);
        name_rule(errors, &path, name);
        amount(errors, &path, name, value);
    }
}

/// Requests and limits of a container, or of a Pod as a whole.
pub fn requirements(errors: &mut FieldErrors, path: &Path, resources: &ResourceRequirements, name_rule: NameRule) {
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    let mut compute = false;
    let mut huge = false;
    let mut each = |errors: &mut FieldErrors, path: &Path, name: &str, value: &Raw| {
        name_rule(errors, path, name);
        amount(errors, path, name, value);
        compute |= matches!(name, "cpu" | "memory");
        name.starts_with(HUGE_PAGES)
    };
    for (name, value) in resources.limits.iter().flatten() {
        if each(errors, &limits_path.key(name), name, value) {
            huge = true;
            huge_page_amount(errors, &limits_path.key(name), name, value);
        }
    }
    for (name, value) in resources.requests.iter().flatten() {
        let is_huge = each(errors, &requests_path.key(name), name, value);
        let quantity = Quantity::of(Some(value));
        match resources.limits.as_ref().and_then(|limits| limits.get(name)) {
            Some(limit) => {
                let limit = Quantity::of(Some(limit));
                let relation = match may_overcommit(name) {
                    false if quantity != limit => Some("equal to"),
                    _ if quantity > limit => Some("less than or equal to"),
                    _ => None,
                };
                if let Some(relation) = relation {
                    let about = format!("must be {relation} {name} limit of {limit}");
                    errors.push(FieldError::invalid(&requests_path, quantity.to_string(), about));
                }
            }
            None if !may_overcommit(name) => {
                errors.push(FieldError::required(&limits_path, "Limit must be set for non overcommitable resources"));
            }
            None => {}
        }
        if is_huge {
            huge = true;
            huge_page_amount(errors, &requests_path.key(name), name, value);
        }
    }
    if huge && !compute {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
}

fn huge_page_amount(errors: &mut FieldErrors, path: &Path, name: &str, value: &Raw) {
    let quantity = Quantity::of(Some(value));
    let page = name.trim_start_matches(HUGE_PAGES).parse::<Quantity>().unwrap_or(Quantity::ZERO);
    let divides = page > Quantity::ZERO && page.milli_value() % 1000 == 0 && quantity.value() % page.value() == 0;
    if !divides {
        let about = format!("{quantity} is not positive integer multiple of {name}");
        errors.push(FieldError::invalid(path, quantity.to_string(), about));
    }
}

/// Which of the Pod's claims a container uses.
pub fn claims(errors: &mut FieldErrors, path: &Path, resources: &ResourceRequirements, claim_names: &BTreeSet<&str>) {
    let mut seen = BTreeSet::new();
    for (index, claim) in resources.claims.iter().flatten().enumerate() {
        let (path, name) = (path.index(index), claim.name.as_str());
        if !required(errors, &path, name) {
            continue;
        }
        if seen.contains(name) {
            errors.push(FieldError::duplicate(&path, name));
        } else {
            let request = text(&claim.request);
            let mut key = name.to_owned();
            if !request.is_empty() {
                report(errors, &path.child("request"), request, dns::label(request));
                key = format!("{name}/{request}");
            }
            if seen.contains(&key) {
                errors.push(FieldError::duplicate(&path, key.as_str()));
            } else if request.is_empty() {
                let part = format!("{name}/");
                let clashes = seen.iter().filter(|other: &&String| other.starts_with(&part)).count();
                errors.extend((0..clashes).map(|_| FieldError::duplicate(&path, name)));
            }
            seen.insert(key);
        }
        if !claim_names.contains(name) {
            let mut error = FieldError::not_found(&path, name);
            error.detail = "must be one of the names in pod.spec.resourceClaims".to_owned();
            if claim_names.is_empty() {
                error.detail.push_str(" which is empty");
            } else {
                let names: Vec<&str> = claim_names.iter().copied().collect();
                error.detail.push_str(&format!(": {}", names.join(", ")));
            }
            errors.push(error);
        }
    }
}
