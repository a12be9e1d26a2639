//! Named expressions that those of a policy may use, and the cells that policies share.

use k8s_openapi::api::admissionregistration::v1::{ParamKind, ParamRef, Variable};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::resources::columns;
use crate::resources::validation::text;

/// Words that the expression language keeps for itself.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

pub fn variables(errors: &mut FieldErrors, path: &Path, variables: &[Variable]) {
    for (index, variable) in variables.iter().enumerate() {
        let path = path.index(index);
        let name = variable.name.as_str();
        if name.trim().is_empty() {
            errors.push(FieldError::required(&path.child("name"), "name is not specified"));
        } else if !is_identifier(name) {
            errors.push(FieldError::invalid(&path.child("name"), name, "must be a valid CEL identifier"));
        }
        if variable.expression.trim().is_empty() {
            errors.push(FieldError::required(&path.child("expression"), "expression is not specified"));
        }
    }
}

fn is_identifier(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(word) && !RESERVED.contains(&name)
}

pub fn kind_cell(kind: Option<&ParamKind>) -> Value {
    let name = kind.map(|kind| format!("{}/{}", text(&kind.api_version), text(&kind.kind)));
    columns::or(name.as_deref(), "<unset>")
}

/// Parameters without a namespace of their own may be in any.
pub fn reference_cell(reference: Option<&ParamRef>) -> Value {
    let Some(reference) = reference else { return Value::from("<unset>") };
    let namespace = reference.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("*");
    let name = match (text(&reference.name), &reference.selector) {
        ("", None) => None,
        // Upstream prints its own form of the selector's value.
        ("", selector) => Some(columns::selector_text(selector.as_ref())),
        (name, _) => Some(format!("{namespace}/{name}")),
    };
    columns::or(name.as_deref(), "<unset>")
}
