//! Conditions in the form that all newer kinds share.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{labels, numbers, required, required_one_of};

const MAX_REASON: usize = 1024;
const MAX_MESSAGE: usize = 32 * 1024;

pub fn conditions(errors: &mut FieldErrors, path: &Path, conditions: &[Condition]) {
    let mut seen = BTreeSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        if !seen.insert(&condition.type_) {
            errors.push(FieldError::duplicate(&path, condition.type_.as_str()));
        }
        if required(errors, &path.child("type"), &condition.type_) {
            labels::label_name(errors, &path.child("type"), &condition.type_);
        }
        required_one_of(errors, &path.child("status"), &condition.status, &["False", "True", "Unknown"]);
        numbers::not_negative(errors, &path.child("observedGeneration"), condition.observed_generation.unwrap_or(0));
        if required(errors, &path.child("reason"), &condition.reason) {
            condition_reason(errors, &path.child("reason"), &condition.reason);
        }
        if condition.message.len() > MAX_MESSAGE {
            errors.push(FieldError::too_long(&path.child("message"), MAX_MESSAGE));
        }
    }
}

/// A word for machines: letters, digits, `_`, `,` and `:`.
fn condition_reason(errors: &mut FieldErrors, path: &Path, reason: &str) {
    const PATTERN: &str = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?";
    if reason.len() > MAX_REASON {
        errors.push(FieldError::too_long(path, MAX_REASON));
    }
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ',' | ':');
    let ends_well = reason.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if !(reason.starts_with(|c: char| c.is_ascii_alphabetic()) && ends_well && reason.chars().all(inner)) {
        let about = format!(
            "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric \
             characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or \
             'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '{PATTERN}')"
        );
        errors.push(FieldError::invalid(path, reason, about));
    }
}
