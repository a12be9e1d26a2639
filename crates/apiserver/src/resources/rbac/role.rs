//! Roles and ClusterRoles.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::strategy::{Column, Generation, NAME_COLUMN, NameRule, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{labels, shown};

const COLUMNS: &[Column] = &[NAME_COLUMN, column("Created At", "date", "When the object was created.")];

#[derive(Default)]
pub struct RoleStrategy;

impl Strategy for RoleStrategy {
    type Object = Role;

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn has_status(&self) -> bool {
        false
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, role: &Role) -> FieldErrors {
        rules(role.rules.as_deref(), true)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, role: &Role, _now: Timestamp) -> Vec<Value> {
        vec![columns::name(&role.metadata), shown(&role.metadata.creation_timestamp)]
    }
}

#[derive(Default)]
pub struct ClusterRoleStrategy;

impl Strategy for ClusterRoleStrategy {
    type Object = ClusterRole;

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn has_status(&self) -> bool {
        false
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, role: &ClusterRole) -> FieldErrors {
        let mut errors = rules(role.rules.as_deref(), false);
        if let Some(aggregation) = &role.aggregation_rule {
            let path = Path::new("aggregationRule.clusterRoleSelectors");
            let selectors = aggregation.cluster_role_selectors.as_deref().unwrap_or_default();
            if selectors.is_empty() {
                let about = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                errors.push(FieldError::required(&path, about));
            }
            for (index, selector) in selectors.iter().enumerate() {
                labels::selector(&mut errors, &path.index(index), Some(selector));
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, role: &ClusterRole, _now: Timestamp) -> Vec<Value> {
        vec![columns::name(&role.metadata), shown(&role.metadata.creation_timestamp)]
    }
}

fn rules(rules: Option<&[PolicyRule]>, namespaced: bool) -> FieldErrors {
    let mut errors = FieldErrors::new();
    for (index, rule) in rules.unwrap_or_default().iter().enumerate() {
        let path = Path::new("rules").index(index);
        if rule.verbs.is_empty() {
            errors.push(FieldError::required(&path.child("verbs"), ""));
        }
        let is_empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
        if !is_empty(&rule.non_resource_urls) {
            let (at, urls) = (path.child("nonResourceURLs"), shown(&rule.non_resource_urls));
            if namespaced {
                let about = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(&at, urls.clone(), about));
            }
            if !is_empty(&rule.api_groups) || !is_empty(&rule.resources) || !is_empty(&rule.resource_names) {
                let about = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(&at, urls, about));
            }
            continue;
        }
        if is_empty(&rule.api_groups) {
            let about = "resource rules must supply at least one api group";
            errors.push(FieldError::required(&path.child("apiGroups"), about));
        }
        if is_empty(&rule.resources) {
            let about = "resource rules must supply at least one resource";
            errors.push(FieldError::required(&path.child("resources"), about));
        }
    }
    errors
}
