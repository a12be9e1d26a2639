//! ValidatingAdmissionPolicyBindings and MutatingAdmissionPolicyBindings: where a policy holds.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, MutatingAdmissionPolicyBinding, ParamRef, ValidatingAdmissionPolicyBinding,
};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{matching, variables};
use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{dns, report, required, shown, text, unsupported};

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
const COLUMNS: &[Column] = &[
    NAME_COLUMN,
    column("PolicyName", "string", "Which policy holds."),
    column("ParamRef", "string", "With which parameters it holds."),
    AGE_COLUMN,
];

#[derive(Default)]
pub struct ValidatingBindingStrategy;

impl Strategy for ValidatingBindingStrategy {
    type Object = ValidatingAdmissionPolicyBinding;

    fn has_status(&self) -> bool {
        false
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, binding: &mut ValidatingAdmissionPolicyBinding) {
        matching::default_match(binding.spec.match_resources.as_mut());
    }

    fn validate(&self, binding: &ValidatingAdmissionPolicyBinding) -> FieldErrors {
        let mut errors = self.validate_update(binding, binding);
        matching::not_reserved(&mut errors, text(&binding.metadata.name));
        errors
    }

    fn validate_update(
        &self,
        binding: &ValidatingAdmissionPolicyBinding,
        _old: &ValidatingAdmissionPolicyBinding,
    ) -> FieldErrors {
        let (path, spec) = (Path::new("spec"), &binding.spec);
        let mut errors = shared(&path, &spec.policy_name, spec.param_ref.as_ref(), spec.match_resources.as_ref());
        actions(&mut errors, &path.child("validationActions"), &spec.validation_actions);
        errors
    }

    fn warnings(
        &self,
        binding: &ValidatingAdmissionPolicyBinding,
        old: Option<&ValidatingAdmissionPolicyBinding>,
    ) -> Vec<String> {
        matching::reserved_warnings(text(&binding.metadata.name), old.is_some())
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, binding: &ValidatingAdmissionPolicyBinding, now: Timestamp) -> Vec<Value> {
        vec![
            columns::name(&binding.metadata),
            Value::from(binding.spec.policy_name.as_str()),
            variables::reference_cell(binding.spec.param_ref.as_ref()),
            columns::age(&binding.metadata, now),
        ]
    }
}

#[derive(Default)]
pub struct MutatingBindingStrategy;

impl Strategy for MutatingBindingStrategy {
    type Object = MutatingAdmissionPolicyBinding;

    fn has_status(&self) -> bool {
        false
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, binding: &mut MutatingAdmissionPolicyBinding) {
        matching::default_match(binding.spec.get_or_insert_default().match_resources.as_mut());
    }

    fn validate(&self, binding: &MutatingAdmissionPolicyBinding) -> FieldErrors {
        let mut errors = self.validate_update(binding, binding);
        matching::not_reserved(&mut errors, text(&binding.metadata.name));
        errors
    }

    fn validate_update(
        &self,
        binding: &MutatingAdmissionPolicyBinding,
        _old: &MutatingAdmissionPolicyBinding,
    ) -> FieldErrors {
        let (path, spec) = (Path::new("spec"), binding.spec.clone().unwrap_or_default());
        let resources = spec.match_resources.as_ref();
        let mut errors = shared(&path, text(&spec.policy_name), spec.param_ref.as_ref(), resources);
        matching::changing(&mut errors, &path.child("matchResources"), resources);
        errors
    }

    fn warnings(
        &self,
        binding: &MutatingAdmissionPolicyBinding,
        old: Option<&MutatingAdmissionPolicyBinding>,
    ) -> Vec<String> {
        matching::reserved_warnings(text(&binding.metadata.name), old.is_some())
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, binding: &MutatingAdmissionPolicyBinding, now: Timestamp) -> Vec<Value> {
        let spec = binding.spec.as_ref();
        vec![
            columns::name(&binding.metadata),
            Value::from(spec.map_or("", |spec| text(&spec.policy_name))),
            variables::reference_cell(spec.and_then(|spec| spec.param_ref.as_ref())),
            columns::age(&binding.metadata, now),
        ]
    }
}

fn shared(path: &Path, policy: &str, parameters: Option<&ParamRef>, resources: Option<&MatchResources>) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let at = path.child("policyName");
    if required(&mut errors, &at, policy) {
        report(&mut errors, &at, policy, dns::subdomain(policy));
    }
    matching::param_ref(&mut errors, &path.child("paramRef"), parameters);
    if let Some(resources) = resources {
        matching::match_resources(&mut errors, &path.child("matchResources"), resources);
    }
    errors
}

fn actions(errors: &mut FieldErrors, path: &Path, actions: &[String]) {
    let mut seen = BTreeSet::new();
    for (index, action) in actions.iter().enumerate() {
        if !ACTIONS.contains(&action.as_str()) {
            errors.push(unsupported(&path.index(index), action.as_str(), &ACTIONS));
        }
        if !seen.insert(action.as_str()) {
            errors.push(FieldError::duplicate(&path.index(index), action.as_str()));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let about = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                     response and headers serves no purpose)";
        errors.push(FieldError::invalid(path, shown(&actions), about));
    }
    if actions.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
}
