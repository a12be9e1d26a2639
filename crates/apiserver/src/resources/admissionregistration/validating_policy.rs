//! ValidatingAdmissionPolicies: expressions that a request must satisfy.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    AuditAnnotation, ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec, ValidatingAdmissionPolicyStatus,
    Validation,
};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{matching, variables};
use crate::registry::metadata;
use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{conditions, dns, report, required, shown, text};

const MAX_ANNOTATIONS: usize = 20;
const MAX_EXPRESSION: usize = 5 * 1024;
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];

#[derive(Default)]
pub struct ValidatingPolicyStrategy;

impl Strategy for ValidatingPolicyStrategy {
    type Object = ValidatingAdmissionPolicy;

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, policy: &mut ValidatingAdmissionPolicy) {
        let spec = policy.spec.get_or_insert_default();
        spec.failure_policy.get_or_insert_with(|| "Fail".to_owned());
        matching::default_match(spec.match_constraints.as_mut());
        policy.status.get_or_insert_default();
    }

    fn prepare_create(&self, policy: &mut ValidatingAdmissionPolicy) {
        policy.status = Some(ValidatingAdmissionPolicyStatus::default());
    }

    fn prepare_status_update(&self, new: &mut ValidatingAdmissionPolicy, old: &ValidatingAdmissionPolicy) {
        metadata::keep_for_status(&mut new.metadata, &old.metadata);
    }

    fn validate(&self, policy: &ValidatingAdmissionPolicy) -> FieldErrors {
        let mut errors = self.validate_update(policy, &ValidatingAdmissionPolicy::default());
        matching::not_reserved(&mut errors, text(&policy.metadata.name));
        errors
    }

    fn validate_update(&self, policy: &ValidatingAdmissionPolicy, _old: &ValidatingAdmissionPolicy) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, spec) = (Path::new("spec"), policy.spec.clone().unwrap_or_default());
        let at = path.child("failurePolicy");
        matching::set_one_of(&mut errors, &at, &spec.failure_policy, &matching::FAILURE_POLICIES);
        if let Some(kind) = &spec.param_kind {
            matching::param_kind(&mut errors, &path.child("paramKind"), kind);
        }
        matching::constraints(&mut errors, &path.child("matchConstraints"), spec.match_constraints.as_ref());
        let listed = spec.match_conditions.as_deref().unwrap_or_default();
        matching::conditions(&mut errors, &path.child("matchConditions"), listed);
        variables::variables(&mut errors, &path.child("variables"), spec.variables.as_deref().unwrap_or_default());
        rules(&mut errors, &path, &spec, text(&policy.metadata.name));
        errors
    }

    fn validate_status_update(&self, new: &ValidatingAdmissionPolicy, _old: &ValidatingAdmissionPolicy) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, status) = (Path::new("status"), new.status.clone().unwrap_or_default());
        let warnings = status.type_checking.and_then(|types| types.expression_warnings).unwrap_or_default();
        for (index, warning) in warnings.iter().enumerate() {
            let path = path.child("typeChecking.expressionWarnings").index(index);
            required(&mut errors, &path.child("warning"), &warning.warning);
            required(&mut errors, &path.child("fieldRef"), warning.field_ref.trim());
        }
        let listed = status.conditions.unwrap_or_default();
        conditions::conditions(&mut errors, &path.child("conditions"), &listed);
        errors
    }

    fn warnings(&self, policy: &ValidatingAdmissionPolicy, old: Option<&ValidatingAdmissionPolicy>) -> Vec<String> {
        matching::reserved_warnings(text(&policy.metadata.name), old.is_some())
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Validations", "integer", "How many expressions must hold."),
            column("ParamKind", "string", "Of which kind its parameters are."),
            AGE_COLUMN,
        ];
        COLUMNS
    }

    fn cells(&self, policy: &ValidatingAdmissionPolicy, now: Timestamp) -> Vec<Value> {
        let spec = policy.spec.as_ref();
        vec![
            columns::name(&policy.metadata),
            Value::from(spec.and_then(|spec| spec.validations.as_ref()).map_or(0, Vec::len)),
            variables::kind_cell(spec.and_then(|spec| spec.param_kind.as_ref())),
            columns::age(&policy.metadata, now),
        ]
    }
}

fn rules(errors: &mut FieldErrors, path: &Path, spec: &ValidatingAdmissionPolicySpec, name: &str) {
    let validations = spec.validations.as_deref().unwrap_or_default();
    let notes = spec.audit_annotations.as_deref().unwrap_or_default();
    let (at_validations, at_notes) = (path.child("validations"), path.child("auditAnnotations"));
    if validations.is_empty() && notes.is_empty() {
        let about = "validations or auditAnnotations must contain at least one item";
        errors.push(FieldError::required(&at_validations, about));
        errors.push(FieldError::required(&at_notes, about));
    }
    for (index, one) in validations.iter().enumerate() {
        validation(errors, &at_validations.index(index), one);
    }
    if notes.len() > MAX_ANNOTATIONS {
        let about = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
        errors.push(FieldError::invalid(&at_notes, shown(&notes), about));
    }
    let mut seen = BTreeSet::new();
    for (index, note) in notes.iter().enumerate() {
        let path = at_notes.index(index);
        annotation(errors, &path, note, name);
        if !seen.insert(&note.key) {
            errors.push(FieldError::duplicate(&path.child("key"), note.key.as_str()));
        }
    }
}

fn validation(errors: &mut FieldErrors, path: &Path, one: &Validation) {
    if one.expression.trim().is_empty() {
        errors.push(FieldError::required(&path.child("expression"), "expression is not specified"));
    }
    for (field, value) in [("messageExpression", &one.message_expression), ("message", &one.message)] {
        let value = text(value);
        if !value.is_empty() && value.trim().is_empty() {
            errors.push(FieldError::invalid(&path.child(field), value, "must be non-empty if specified"));
        }
    }
    let message = text(&one.message);
    if message.trim().contains(['\n', '\r']) {
        errors.push(FieldError::invalid(&path.child("message"), message, "must not contain line breaks"));
    }
    matching::optional_one_of(errors, &path.child("reason"), &one.reason, &REASONS);
}

fn annotation(errors: &mut FieldErrors, path: &Path, note: &AuditAnnotation, name: &str) {
    let at = path.child("key");
    if name.is_empty() {
        errors.push(FieldError::invalid(&at, note.key.as_str(), "requires metadata.name be non-empty"));
    } else {
        let key = format!("{name}/{}", note.key);
        report(errors, &at, &key, dns::label_key(&key));
    }
    let (at, length) = (path.child("valueExpression"), note.value_expression.trim().len());
    if length == 0 {
        errors.push(FieldError::required(&at, "valueExpression is not specified"));
    } else if length > MAX_EXPRESSION {
        errors.push(FieldError::required(&at, format!("must not exceed {MAX_EXPRESSION} bytes in length")));
    }
}
