//! Field errors as upstream reports them: a path, a type, the bad value and a detail; gathered, never stopped at the first.
//!
//! Behaviour: the API conventions' "Validation" section; texts follow the machine-readable form that clients show, such as
//! `spec.replicas: Invalid value: -1: must be greater than or equal to 0`.

use std::fmt;

use serde_json::Value;

/// A path like `spec.containers[0].ports[1].containerPort`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    pub fn new(name: &str) -> Self {
        Path(name.to_owned())
    }

    pub fn root() -> Self {
        Path(String::new())
    }

    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Path(name.to_owned()) } else { Path(format!("{}.{name}", self.0)) }
    }

    pub fn index(&self, index: usize) -> Self {
        Path(format!("{}[{index}]", self.0))
    }

    pub fn key(&self, key: &str) -> Self {
        Path(format!("{}[{key}]", self.0))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The cause types of `Status.details.causes[].reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorType {
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    NotFound,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

impl FieldErrorType {
    /// The `reason` of a cause.
    pub fn reason(self) -> &'static str {
        match self {
            FieldErrorType::Required => "FieldValueRequired",
            FieldErrorType::Duplicate => "FieldValueDuplicate",
            FieldErrorType::Invalid => "FieldValueInvalid",
            FieldErrorType::NotSupported => "FieldValueNotSupported",
            FieldErrorType::Forbidden => "FieldValueForbidden",
            FieldErrorType::NotFound => "FieldValueNotFound",
            FieldErrorType::TooLong => "FieldValueTooLong",
            FieldErrorType::TooMany => "FieldValueTooMany",
            FieldErrorType::Internal => "InternalError",
            FieldErrorType::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn text(self) -> &'static str {
        match self {
            FieldErrorType::Required => "Required value",
            FieldErrorType::Duplicate => "Duplicate value",
            FieldErrorType::Invalid => "Invalid value",
            FieldErrorType::NotSupported => "Unsupported value",
            FieldErrorType::Forbidden => "Forbidden",
            FieldErrorType::NotFound => "Not found",
            FieldErrorType::TooLong => "Too long",
            FieldErrorType::TooMany => "Too many",
            FieldErrorType::Internal => "Internal error",
            FieldErrorType::TypeInvalid => "Invalid value",
        }
    }
}

/// One wrong field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub kind: FieldErrorType,
    pub field: String,
    /// The bad value as it is shown; unused for `Required`, `Forbidden` and `TooLong`.
    pub value: Value,
    /// The value is left out of the text.
    pub unshown: bool,
    pub detail: String,
}

pub type FieldErrors = Vec<FieldError>;

impl FieldError {
    fn new(kind: FieldErrorType, path: &Path, value: Value, detail: impl Into<String>) -> Self {
        FieldError { kind, field: path.as_str().to_owned(), value, unshown: false, detail: detail.into() }
    }

    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorType::Required, path, Value::Null, detail)
    }

    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorType::Duplicate, path, value.into(), "")
    }

    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorType::Invalid, path, value.into(), detail)
    }

    /// A wrong value that is too long or too secret to be shown.
    pub fn invalid_unshown(path: &Path, detail: impl Into<String>) -> Self {
        FieldError { unshown: true, ..Self::new(FieldErrorType::Invalid, path, Value::Null, detail) }
    }

    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorType::TypeInvalid, path, value.into(), detail)
    }

    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorType::NotFound, path, value.into(), "")
    }

    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorType::Forbidden, path, Value::Null, detail)
    }

    pub fn internal(path: &Path, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorType::Internal, path, Value::Null, detail)
    }

    /// `supported` in the order in which upstream lists them: sorted.
    pub fn not_supported(path: &Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        let mut listed: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        listed.sort();
        let detail = if listed.is_empty() { String::new() } else { format!("supported values: {}", listed.join(", ")) };
        Self::new(FieldErrorType::NotSupported, path, value.into(), detail)
    }

    pub fn too_long(path: &Path, max: usize) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self::new(FieldErrorType::TooLong, path, Value::Null, detail)
    }

    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        let detail = format!("must have at most {max} {}", if max == 1 { "item" } else { "items" });
        Self::new(FieldErrorType::TooMany, path, Value::from(actual), detail)
    }

    /// The error without its field, as `Status.details.causes[].message` has it.
    pub fn body(&self) -> String {
        let bare = self.unshown
            || matches!(
                self.kind,
                FieldErrorType::Required
                    | FieldErrorType::Forbidden
                    | FieldErrorType::TooLong
                    | FieldErrorType::Internal
            );
        let mut text = self.kind.text().to_owned();
        if !bare {
            match &self.value {
                Value::String(value) => text.push_str(&format!(": {value:?}")),
                Value::Null => text.push_str(": null"),
                value => text.push_str(&format!(": {value}")),
            }
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            // Upstream prints an absent path so.
            write!(f, "<nil>: {}", self.body())
        } else {
            write!(f, "{}: {}", self.field, self.body())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_upstream_prints_them() {
        let path = Path::new("spec").child("containers").index(0).child("image");
        let check = |error: FieldError, text: &str| assert_eq!(error.to_string(), text);
        check(FieldError::required(&path, ""), "spec.containers[0].image: Required value");
        check(
            FieldError::invalid(&Path::new("spec").child("replicas"), -1, "must be greater than or equal to 0"),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        );
        check(
            FieldError::not_supported(&Path::new("type"), "x", &["b", "a"]),
            "type: Unsupported value: \"x\": supported values: \"a\", \"b\"",
        );
    }
}
