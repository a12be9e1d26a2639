//! RoleBindings and ClusterRoleBindings.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, NameRule, Strategy, column, wide};
use crate::resources::columns;
use crate::resources::core::pod_defaults::default_text;
use crate::resources::validation::{dns, immutable, one_of, report, required, text, unsupported};

const GROUP: &str = "rbac.authorization.k8s.io";
const COLUMNS: &[Column] = &[
    NAME_COLUMN,
    column("Role", "string", "The role that it grants."),
    AGE_COLUMN,
    wide("Users", "string", "The users that get it."),
    wide("Groups", "string", "The groups that get it."),
    wide("ServiceAccounts", "string", "The service accounts that get it."),
];

#[derive(Default)]
pub struct RoleBindingStrategy;

impl Strategy for RoleBindingStrategy {
    type Object = RoleBinding;

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

    fn default(&self, binding: &mut RoleBinding) {
        defaults(&mut binding.role_ref, binding.subjects.as_deref_mut());
    }

    fn validate(&self, binding: &RoleBinding) -> FieldErrors {
        validate(&binding.role_ref, binding.subjects.as_deref(), true)
    }

    fn validate_update(&self, new: &RoleBinding, old: &RoleBinding) -> FieldErrors {
        let mut errors = self.validate(new);
        immutable(&mut errors, &Path::new("roleRef"), &new.role_ref, &old.role_ref);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, binding: &RoleBinding, now: Timestamp) -> Vec<Value> {
        cells(&binding.metadata, &binding.role_ref, binding.subjects.as_deref(), now)
    }
}

#[derive(Default)]
pub struct ClusterRoleBindingStrategy;

impl Strategy for ClusterRoleBindingStrategy {
    type Object = ClusterRoleBinding;

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

    fn default(&self, binding: &mut ClusterRoleBinding) {
        defaults(&mut binding.role_ref, binding.subjects.as_deref_mut());
    }

    fn validate(&self, binding: &ClusterRoleBinding) -> FieldErrors {
        validate(&binding.role_ref, binding.subjects.as_deref(), false)
    }

    fn validate_update(&self, new: &ClusterRoleBinding, old: &ClusterRoleBinding) -> FieldErrors {
        let mut errors = self.validate(new);
        immutable(&mut errors, &Path::new("roleRef"), &new.role_ref, &old.role_ref);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, binding: &ClusterRoleBinding, now: Timestamp) -> Vec<Value> {
        cells(&binding.metadata, &binding.role_ref, binding.subjects.as_deref(), now)
    }
}

fn defaults(role: &mut RoleRef, subjects: Option<&mut [Subject]>) {
    default_text(&mut role.api_group, GROUP);
    for subject in subjects.into_iter().flatten().filter(|one| matches!(one.kind.as_str(), "User" | "Group")) {
        default_text(&mut subject.api_group, GROUP);
    }
}

fn validate(role: &RoleRef, subjects: Option<&[Subject]>, namespaced: bool) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = Path::new("roleRef");
    one_of(&mut errors, &path.child("apiGroup"), text(&role.api_group), &[GROUP]);
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    one_of(&mut errors, &path.child("kind"), &role.kind, kinds);
    if required(&mut errors, &path.child("name"), &role.name) {
        report(&mut errors, &path.child("name"), &role.name, dns::path_segment(&role.name));
    }
    for (index, subject) in subjects.unwrap_or_default().iter().enumerate() {
        validate_subject(&mut errors, &Path::new("subjects").index(index), subject, namespaced);
    }
    errors
}

fn validate_subject(errors: &mut FieldErrors, path: &Path, subject: &Subject, namespaced: bool) {
    required(errors, &path.child("name"), &subject.name);
    let group = text(&subject.api_group);
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                report(errors, &path.child("name"), &subject.name, dns::subdomain(&subject.name));
            }
            one_of(errors, &path.child("apiGroup"), group, &[""]);
            if !namespaced && text(&subject.namespace).is_empty() {
                errors.push(FieldError::required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" => one_of(errors, &path.child("apiGroup"), group, &[GROUP]),
        other => {
            let kinds = ["ServiceAccount", "User", "Group"];
            errors.push(unsupported(&path.child("kind"), other, &kinds));
        }
    }
}

fn cells(meta: &ObjectMeta, role: &RoleRef, subjects: Option<&[Subject]>, now: Timestamp) -> Vec<Value> {
    let of = |kind: &str| {
        let named = subjects.unwrap_or_default().iter().filter(|subject| subject.kind == kind);
        let name = |subject: &Subject| match (kind, text(&subject.namespace)) {
            ("ServiceAccount", namespace) if !namespace.is_empty() => format!("{namespace}/{}", subject.name),
            _ => subject.name.clone(),
        };
        Value::from(named.map(name).collect::<Vec<_>>().join(", "))
    };
    vec![
        columns::name(meta),
        Value::from(format!("{}/{}", role.kind, role.name)),
        columns::age(meta, now),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}
