//! Request bodies into trees in the stored form, with what `fieldValidation` says about fields that do not belong.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;
use xebec_api::schema::{self, DecodeError, Type};
use xebec_api::status::StatusError;

use super::protobuf::{self, Envelope};
use crate::options::FieldValidation;
use crate::registry::Served;

const ACCEPTED: &str = "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// The media type of a body, without parameters; JSON if it is not said.
pub fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    match value.split(';').next().unwrap_or("").trim() {
        "" => "application/json",
        media_type => media_type,
    }
}

/// JSON bytes of a JSON, YAML or protobuf body; of the latter only where the type is known.
pub fn as_json(headers: &HeaderMap, body: Bytes, ty: Option<&Type>) -> Result<Bytes, StatusError> {
    match (media_type(headers), ty) {
        (protobuf::MEDIA_TYPE, Some(ty)) => protobuf_to_json(&body, ty),
        (media_type, _) => text_to_json(media_type, body),
    }
}

fn protobuf_to_json(body: &[u8], ty: &Type) -> Result<Bytes, StatusError> {
    let tree = Envelope::read(body).and_then(|envelope| envelope.tree(ty));
    let mut tree = tree.map_err(|error| StatusError::bad_request(error.to_string()))?;
    // The wire has every field that is no pointer, set or not; JSON leaves out what is empty.
    schema::canonical(&mut tree, ty);
    serde_json::to_vec(&tree).map(Bytes::from).map_err(StatusError::internal)
}

fn text_to_json(media_type: &str, body: Bytes) -> Result<Bytes, StatusError> {
    match media_type {
        "application/json" | "text/plain" | "application/x-www-form-urlencoded" => Ok(body),
        "application/yaml" | "application/x-yaml" | "text/yaml" => yaml_to_json(&body),
        _ => Err(StatusError::unsupported_media_type(ACCEPTED)),
    }
}

fn yaml_to_json(body: &[u8]) -> Result<Bytes, StatusError> {
    let text = std::str::from_utf8(body).map_err(|error| StatusError::bad_request(error.to_string()))?;
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let tree: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| StatusError::bad_request(format!("error converting YAML to JSON: {error}")))?;
    serde_json::to_vec(&tree).map(Bytes::from).map_err(StatusError::internal)
}

/// What a body must be.
pub struct Expected<'a> {
    pub kind: &'a str,
    pub api_version: String,
    pub schema: Option<&'static Type>,
}

impl<'a> Expected<'a> {
    pub fn of(served: &'a Served) -> Self {
        let resource = served.resource();
        Expected { kind: &resource.kind, api_version: resource.api_version(), schema: served.schema }
    }

    /// An object of a type that is no resource (`Binding`, `Scale`, options).
    pub fn named(group: &str, version: &'a str, kind: &'a str) -> Self {
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        Expected { kind, api_version, schema: schema::table().type_of(group, version, kind) }
    }

    /// Reads a body; warnings about fields are appended.
    pub fn read(
        &self,
        headers: &HeaderMap,
        body: Bytes,
        validation: FieldValidation,
        warnings: &mut Vec<String>,
    ) -> Result<Value, StatusError> {
        let json = as_json(headers, body, self.schema)?;
        let decoded = match self.schema {
            Some(ty) => schema::decode_json(&json, ty),
            None => schema::parse_json(&json),
        };
        let decoded = decoded.map_err(|error| self.undecodable(&error))?;
        strict(decoded.strict, validation, warnings)?;
        self.check_type(&decoded.value)?;
        Ok(decoded.value)
    }

    fn undecodable(&self, error: &DecodeError) -> StatusError {
        match error {
            DecodeError::Syntax(text) => {
                StatusError::bad_request(format!("couldn't get version/kind; json parse error: {text}"))
            }
            DecodeError::Type(text) => {
                let (kind, version) = (self.kind, self.api_version.rsplit('/').next().unwrap_or(""));
                StatusError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {text}"))
            }
        }
    }

    fn check_type(&self, tree: &Value) -> Result<(), StatusError> {
        let text = |key: &str| tree.get(key).and_then(Value::as_str).unwrap_or("");
        let (kind, api_version) = (text("kind"), text("apiVersion"));
        if !api_version.is_empty() && api_version != self.api_version {
            return Err(StatusError::bad_request(format!(
                "the API version in the data ({api_version}) does not match the expected API version ({})",
                self.api_version
            )));
        }
        if !kind.is_empty() && kind != self.kind {
            let version = self.api_version.rsplit('/').next().unwrap_or("");
            return Err(StatusError::bad_request(format!(
                "{kind} in version {version:?} cannot be handled as a {}: converting ({kind}) to ({}): unknown conversion",
                self.kind, self.kind
            )));
        }
        Ok(())
    }
}

/// What becomes of unknown and duplicate fields.
pub fn strict(found: Vec<String>, validation: FieldValidation, warnings: &mut Vec<String>) -> Result<(), StatusError> {
    match validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => warnings.extend(found),
        FieldValidation::Strict if found.is_empty() => {}
        FieldValidation::Strict => return Err(StatusError::bad_request(schema::strict_error(&found))),
    }
    Ok(())
}

/// A checked tree of the served form in the stored form: converted, and as upstream's encoder would write it.
pub fn to_stored(served: &Served, tree: Value) -> Value {
    let mut tree = match served.row.conversion {
        Some(conversion) => (conversion.to_stored)(tree),
        None => tree,
    };
    let stored = &served.cache.resource;
    if let Some(ty) = schema::table().type_of(&stored.group, &stored.version, &stored.kind) {
        schema::canonical(&mut tree, ty);
    }
    if let Some(fields) = tree.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    tree
}
