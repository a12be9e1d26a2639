//! ResourceQuotas.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, ScopedResourceSelectorRequirement,
};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::pod_defaults;
use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::quantities::{self, is_quota_resource, quota_resource};
use crate::resources::validation::{IMMUTABLE, shown};

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "VolumeAttributesClass",
    "CrossNamespacePodAffinity",
];
const PLAIN_SCOPES: [&str; 5] =
    ["Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "CrossNamespacePodAffinity"];
const COMPUTE: [&str; 7] = ["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
const CONFLICTS: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

#[derive(Default)]
pub struct ResourceQuotaStrategy;

impl Strategy for ResourceQuotaStrategy {
    type Object = ResourceQuota;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn default(&self, quota: &mut ResourceQuota) {
        pod_defaults::amounts(quota.spec.get_or_insert_default().hard.as_mut());
        let status = quota.status.get_or_insert_default();
        pod_defaults::amounts(status.hard.as_mut());
        pod_defaults::amounts(status.used.as_mut());
    }

    fn prepare_create(&self, quota: &mut ResourceQuota) {
        quota.status = Some(ResourceQuotaStatus::default());
    }

    fn validate(&self, quota: &ResourceQuota) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, spec) = (Path::new("spec"), quota.spec.clone().unwrap_or_default());
        quantities::amounts(&mut errors, &path.child("hard"), spec.hard.as_ref(), quota_resource);
        scopes(&mut errors, &path.child("scopes"), &spec);
        scope_selector(&mut errors, &path.child("scopeSelector.matchExpressions"), &spec);
        errors
    }

    fn validate_update(&self, new: &ResourceQuota, old: &ResourceQuota) -> FieldErrors {
        let mut errors = self.validate(new);
        let set = |quota: &ResourceQuota| -> BTreeSet<String> {
            quota.spec.iter().flat_map(|spec| spec.scopes.iter().flatten()).cloned().collect()
        };
        if set(new) != set(old) {
            let value = shown(&new.spec.as_ref().and_then(|spec| spec.scopes.as_ref()));
            errors.push(FieldError::invalid(&Path::new("spec.scopes"), value, IMMUTABLE));
        }
        errors
    }

    fn validate_status_update(&self, new: &ResourceQuota, _old: &ResourceQuota) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let status = new.status.clone().unwrap_or_default();
        quantities::amounts(&mut errors, &Path::new("status.hard"), status.hard.as_ref(), quota_resource);
        quantities::amounts(&mut errors, &Path::new("status.used"), status.used.as_ref(), quota_resource);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Request", "string", "What is used and what may be requested."),
            column("Limit", "string", "What is used and what limits may add up to."),
            AGE_COLUMN,
        ];
        COLUMNS
    }

    fn cells(&self, quota: &ResourceQuota, now: Timestamp) -> Vec<Value> {
        let status = quota.status.clone().unwrap_or_default();
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in status.hard.iter().flatten() {
            let used = status.used.as_ref().and_then(|used| used.get(name)).map_or("0", |used| used.0.as_str());
            let list = if name.starts_with("limits.") { &mut limits } else { &mut requests };
            list.push(format!("{name}: {used}/{}", hard.0));
        }
        vec![
            columns::name(&quota.metadata),
            Value::from(requests.join(", ")),
            Value::from(limits.join(", ")),
            columns::age(&quota.metadata, now),
        ]
    }
}

/// Whether a scope says anything about a resource.
fn fits(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ if SCOPES.contains(&scope) => COMPUTE.contains(&resource),
        _ => true,
    }
}

fn unfit(spec: &ResourceQuotaSpec, scope: &str) -> usize {
    let resources = spec.hard.iter().flatten().map(|(name, _)| name);
    resources.filter(|name| is_quota_resource(name) && !fits(scope, name)).count()
}

fn scopes(errors: &mut FieldErrors, path: &Path, spec: &ResourceQuotaSpec) {
    let list = spec.scopes.as_deref().unwrap_or_default();
    for scope in list {
        if !SCOPES.contains(&scope.as_str()) {
            errors.push(FieldError::invalid(path, shown(&list), "unsupported scope"));
        }
        let about = "unsupported scope applied to resource";
        errors.extend((0..unfit(spec, scope)).map(|_| FieldError::invalid(path, shown(&list), about)));
    }
    conflicts(errors, path, spec, list.iter().map(String::as_str).collect());
}

fn conflicts(errors: &mut FieldErrors, path: &Path, spec: &ResourceQuotaSpec, set: BTreeSet<&str>) {
    for _ in CONFLICTS.iter().filter(|pair| pair.iter().all(|scope| set.contains(scope))) {
        errors.push(FieldError::invalid(path, shown(&spec.scopes), "conflicting scopes"));
    }
}

fn scope_selector(errors: &mut FieldErrors, path: &Path, spec: &ResourceQuotaSpec) {
    let Some(selector) = &spec.scope_selector else { return };
    let mut set = BTreeSet::new();
    for requirement in selector.match_expressions.iter().flatten() {
        let scope = requirement.scope_name.as_str();
        if !SCOPES.contains(&scope) {
            errors.push(FieldError::invalid(&path.child("scopeName"), scope, "unsupported scope"));
        }
        let about = "unsupported scope applied to resource";
        errors.extend((0..unfit(spec, scope)).map(|_| FieldError::invalid(path, shown(selector), about)));
        scope_operator(errors, path, requirement);
        set.insert(scope);
    }
    conflicts(errors, path, spec, set);
}

fn scope_operator(errors: &mut FieldErrors, path: &Path, requirement: &ScopedResourceSelectorRequirement) {
    let operator = requirement.operator.as_str();
    if PLAIN_SCOPES.contains(&requirement.scope_name.as_str()) && operator != "Exists" {
        let about = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                     ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                     ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(FieldError::invalid(&path.child("operator"), operator, about));
    }
    let values = requirement.values.as_deref().unwrap_or_default();
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let about = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(FieldError::required(&path.child("values"), about));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let about = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(FieldError::invalid(&path.child("values"), shown(&values), about));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => {
            errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator"));
        }
    }
}
