//! The three patch formats that change an object in place: JSON patch, JSON merge patch, strategic merge patch.
//!
//! A patch is parsed once and applied as often as an update is tried anew. It works on values: what comes out must still be
//! decoded with the table ([`crate::schema::decode_value`]), which is where unknown fields are found. Server-side apply is no
//! patch in this sense and is not here. Texts and quirks are upstream's: of `evanphx/json-patch` 4.13 and of
//! `k8s.io/apimachinery/pkg/util/strategicpatch`.

mod json;
mod merge;
mod strategic;

use serde_json::Value;

pub(crate) use strategic::go_format;

use crate::schema::{DecodeError, Type, parse_json};

/// How many operations one JSON patch may have, as upstream.
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PatchType {
    Json,
    Merge,
    Strategic,
}

/// A parsed patch.
#[derive(Clone, Debug)]
pub struct Patch(Body);

#[derive(Clone, Debug)]
enum Body {
    Json(Vec<json::Operation>),
    Merge(Value),
    Strategic(Value),
}

/// It displays as upstream words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// 400: this is no such patch.
    #[error("{0}")]
    BadRequest(String),
    /// 413
    #[error("{0}")]
    TooLarge(String),
    /// 422: the patch does not fit the object.
    #[error("{0}")]
    Unprocessable(String),
    /// Upstream answers these with 500.
    #[error("{0}")]
    Other(String),
}

impl PatchType {
    /// `media_type` without parameters.
    pub fn of(media_type: &str) -> Option<Self> {
        [Self::Json, Self::Merge, Self::Strategic].into_iter().find(|kind| kind.media_type() == media_type)
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
        }
    }
}

impl Patch {
    /// Also returns the strict errors of the patch document itself, which matter with `fieldValidation=Warn|Strict`.
    pub fn parse(kind: PatchType, bytes: &[u8]) -> Result<(Self, Vec<String>), PatchError> {
        let decoded = parse_json(bytes).map_err(|error| {
            let (DecodeError::Syntax(text) | DecodeError::Type(text)) = error;
            bad_request(kind, &text)
        })?;
        let (value, strict) = (decoded.value, decoded.strict);
        if kind == PatchType::Json {
            let (operations, strict) = json::read(value, strict)?;
            return Ok((Self(Body::Json(operations)), strict));
        }
        if !value.is_object() {
            let found = match value {
                Value::Null => return Err(PatchError::BadRequest("Invalid JSON Patch".into())),
                Value::Bool(_) => "bool",
                Value::Number(_) => "number",
                Value::String(_) => "string",
                _ => "array",
            };
            let text = format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}");
            return Err(bad_request(kind, &text));
        }
        let body = if kind == PatchType::Merge { Body::Merge(value) } else { Body::Strategic(value) };
        Ok((Self(body), strict))
    }

    /// Changes `target`, an object. On an error it is left half changed, so it must be a copy.
    ///
    /// Only kinds of the table have the type a strategic merge patch needs; others are refused as upstream refuses them.
    pub fn apply(&self, target: &mut Value, ty: Option<&Type>) -> Result<(), PatchError> {
        match (&self.0, ty) {
            (Body::Json(operations), _) => json::apply(target, operations),
            (Body::Merge(patch), _) => {
                merge::apply(target, patch.clone());
                Ok(())
            }
            (Body::Strategic(patch), Some(ty)) => strategic::apply(target, patch.clone(), ty),
            (Body::Strategic(_), None) => {
                Err(PatchError::BadRequest("strategic merge patch format is not supported".into()))
            }
        }
    }

    /// Whether the outcome depends on the `metadata.managedFields` there are, which other patches only ever replace.
    pub fn reads_owners(&self) -> bool {
        const OWNERS: &str = "/metadata/managedFields";
        match &self.0 {
            Body::Json(operations) => {
                operations.iter().flat_map(json::Operation::paths).any(|path| OWNERS.starts_with(path) || path.starts_with(OWNERS))
            }
            Body::Merge(_) | Body::Strategic(_) => false,
        }
    }

    /// The patch as upstream quotes it when the outcome does not decode: a strategic patch by itself, others by their outcome.
    pub fn quoted(&self) -> Option<String> {
        match &self.0 {
            Body::Strategic(patch) => Some(strategic::go_format(patch)),
            _ => None,
        }
    }
}

fn bad_request(kind: PatchType, text: &str) -> PatchError {
    let prefix = if kind == PatchType::Strategic { "" } else { "error decoding patch: " };
    PatchError::BadRequest(format!("{prefix}{text}"))
}
