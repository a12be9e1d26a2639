//! MutatingAdmissionPolicies: expressions that change what a request would store.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicy, Mutation};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{matching, variables};
use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{required, text, unsupported};

pub const REINVOCATION_POLICIES: [&str; 2] = ["IfNeeded", "Never"];
const PATCH_TYPES: [&str; 2] = ["ApplyConfiguration", "JSONPatch"];

#[derive(Default)]
pub struct MutatingPolicyStrategy;

impl Strategy for MutatingPolicyStrategy {
    type Object = MutatingAdmissionPolicy;

    fn has_status(&self) -> bool {
        false
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, policy: &mut MutatingAdmissionPolicy) {
        let spec = policy.spec.get_or_insert_default();
        spec.failure_policy.get_or_insert_with(|| "Fail".to_owned());
        matching::default_match(spec.match_constraints.as_mut());
    }

    fn validate(&self, policy: &MutatingAdmissionPolicy) -> FieldErrors {
        let mut errors = self.validate_update(policy, policy);
        matching::not_reserved(&mut errors, text(&policy.metadata.name));
        errors
    }

    fn validate_update(&self, policy: &MutatingAdmissionPolicy, _old: &MutatingAdmissionPolicy) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, spec) = (Path::new("spec"), policy.spec.clone().unwrap_or_default());
        let at = path.child("failurePolicy");
        matching::set_one_of(&mut errors, &at, &spec.failure_policy, &matching::FAILURE_POLICIES);
        if let Some(kind) = &spec.param_kind {
            matching::param_kind(&mut errors, &path.child("paramKind"), kind);
        }
        let (at, constraints) = (path.child("matchConstraints"), spec.match_constraints.as_ref());
        matching::constraints(&mut errors, &at, constraints);
        matching::changing(&mut errors, &at, constraints);
        let conditions = spec.match_conditions.as_deref().unwrap_or_default();
        matching::conditions(&mut errors, &path.child("matchConditions"), conditions);
        variables::variables(&mut errors, &path.child("variables"), spec.variables.as_deref().unwrap_or_default());
        let (at, mutations) = (path.child("mutations"), spec.mutations.unwrap_or_default());
        if mutations.is_empty() {
            errors.push(FieldError::required(&at, "mutations must contain at least one item"));
        }
        for (index, one) in mutations.iter().enumerate() {
            mutation(&mut errors, &at.index(index), one);
        }
        let (at, again) = (path.child("reinvocationPolicy"), text(&spec.reinvocation_policy));
        if required(&mut errors, &at, again) && !REINVOCATION_POLICIES.contains(&again) {
            errors.push(unsupported(&at, again, &REINVOCATION_POLICIES));
        }
        errors
    }

    fn warnings(&self, policy: &MutatingAdmissionPolicy, old: Option<&MutatingAdmissionPolicy>) -> Vec<String> {
        matching::reserved_warnings(text(&policy.metadata.name), old.is_some())
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Mutations", "integer", "How many expressions change the object."),
            column("ParamKind", "string", "Of which kind its parameters are."),
            AGE_COLUMN,
        ];
        COLUMNS
    }

    fn cells(&self, policy: &MutatingAdmissionPolicy, now: Timestamp) -> Vec<Value> {
        let spec = policy.spec.as_ref();
        vec![
            columns::name(&policy.metadata),
            Value::from(spec.and_then(|spec| spec.mutations.as_ref()).map_or(0, Vec::len)),
            variables::kind_cell(spec.and_then(|spec| spec.param_kind.as_ref())),
            columns::age(&policy.metadata, now),
        ]
    }
}

/// A patch of the type it says and none of the other.
fn mutation(errors: &mut FieldErrors, path: &Path, one: &Mutation) {
    let kind = one.patch_type.as_str();
    if !required(errors, &path.child("patchType"), kind) {
        return;
    }
    if !PATCH_TYPES.contains(&kind) {
        return errors.push(unsupported(&path.child("patchType"), kind, &PATCH_TYPES));
    }
    let apply = one.apply_configuration.as_ref().map(|apply| text(&apply.expression));
    let json = one.json_patch.as_ref().map(|patch| text(&patch.expression));
    for (own, field, expression) in
        [("JSONPatch", "jsonPatch", json), ("ApplyConfiguration", "applyConfiguration", apply)]
    {
        let path = path.child(field);
        match expression {
            Some(_) if own != kind => {
                let about = format!("must not be specified when patchType is {kind}");
                errors.push(FieldError::invalid(&path, format!("{{{field}}}"), about));
            }
            None if own == kind => {
                errors.push(FieldError::required(&path, format!("must be specified when patchType is {kind}")));
            }
            Some(expression) => {
                required(errors, &path.child("expression"), expression.trim());
            }
            None => {}
        }
    }
}
