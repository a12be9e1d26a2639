//! Request bodies into trees in the stored form, with what `fieldValidation` says about fields that do not belong.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;
use serde_saphyr::DuplicateKeyPolicy;
use xebec_api::protobuf;
use xebec_api::schema::{self, DecodeError, Type};
use xebec_api::status::StatusError;

use crate::negotiation::Encoding;
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
pub fn as_json(headers: &HeaderMap, body: Bytes, ty: Option<&'static Type>) -> Result<Bytes, StatusError> {
    match media_type(headers) {
        media_type if media_type == Encoding::Protobuf.media_type() => protobuf_to_json(&body, ty),
        media_type => text_to_json(media_type, body),
    }
}

/// The envelope says what the body is; where it does not, it is of type `expected`.
fn protobuf_to_json(body: &[u8], expected: Option<&'static Type>) -> Result<Bytes, StatusError> {
    let kind = expected.map_or("", |ty| ty.name);
    let refused = |error: protobuf::DecodeError| unreadable(kind, body, &error.to_string());
    match body {
        b"" => return Err(unreadable(kind, body, "empty data")),
        protobuf::MAGIC => return Err(unreadable(kind, body, "empty body")),
        _ => {}
    }
    let envelope = protobuf::unwrap(body).map_err(refused)?;
    let (group, version) = envelope.api_version.split_once('/').unwrap_or(("", envelope.api_version));
    let named = schema::table().type_of(group, version, envelope.kind);
    let ty = named.or(expected).ok_or_else(|| StatusError::unsupported_media_type(ACCEPTED))?;
    let json = protobuf::decode(ty, envelope.message, envelope.api_version, envelope.kind);
    json.map(Bytes::from).map_err(|error| {
        let version = if version.is_empty() { "v1" } else { version };
        StatusError::bad_request(format!("{} in version {version:?} cannot be handled as a {kind}: {error}", ty.name))
    })
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
    let tree = yaml(text, Duplicates::Refused)
        .map_err(|error| StatusError::bad_request(format!("error converting YAML to JSON: {error}")))?;
    serde_json::to_vec(&tree).map(Bytes::from).map_err(StatusError::internal)
}

/// What becomes of keys that a document gives twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    Refused,
    LastWins,
}

pub fn yaml(text: &str, duplicates: Duplicates) -> Result<Value, serde_saphyr::Error> {
    let duplicate_keys = match duplicates {
        Duplicates::Refused => DuplicateKeyPolicy::Error,
        Duplicates::LastWins => DuplicateKeyPolicy::LastWins,
    };
    let options =
        serde_saphyr::options! { legacy_octal_numbers: true, duplicate_keys: duplicate_keys, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options)
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
        let decoded = match decoded {
            Ok(decoded) => decoded,
            Err(DecodeError::Syntax(text)) => return Err(self.unreadable(&json, &text)),
            // What is of another type fails by its fields, too; that is not what is wrong with it.
            Err(DecodeError::Type(text)) => {
                if !json.trim_ascii_start().starts_with(b"{") {
                    return Err(self.unreadable(&json, &not_an_object(&json)));
                }
                if let Ok(named) = serde_json::from_slice::<Value>(&json) {
                    self.check_type(&named)?;
                }
                return Err(self.refused(&text));
            }
        };
        self.check_type(&decoded.value)?;
        if validation == FieldValidation::Strict && !decoded.strict.is_empty() {
            return Err(self.refused(&schema::strict_error(&decoded.strict)));
        }
        strict(decoded.strict, validation, warnings)?;
        Ok(decoded.value)
    }

    fn unreadable(&self, json: &[u8], text: &str) -> StatusError {
        let text = if text.starts_with("EOF") { "unexpected end of JSON input" } else { text };
        unreadable(self.kind, json, &format!("couldn't get version/kind; json parse error: {text}"))
    }

    fn refused(&self, text: &str) -> StatusError {
        let (kind, version) = (self.kind, self.version());
        StatusError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {text}"))
    }

    fn version(&self) -> &str {
        self.api_version.rsplit('/').next().unwrap_or("")
    }

    fn check_type(&self, tree: &Value) -> Result<(), StatusError> {
        let text = |key: &str| tree.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let kind = text("kind").unwrap_or(self.kind);
        let api_version = text("apiVersion").unwrap_or(&self.api_version);
        if kind == self.kind && api_version == self.api_version {
            return Ok(());
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let known = schema::table().type_of(group, version, kind).is_some();
        let why = if !known {
            format!(
                "no kind {kind:?} is registered for version {api_version:?} in scheme \"pkg/runtime/scheme.go:111\""
            )
        } else if kind == self.kind {
            return Err(StatusError::bad_request(format!(
                "the API version in the data ({api_version}) does not match the expected API version ({})",
                self.api_version
            )));
        } else {
            let own =
                self.api_version.split_once('/').map_or("core", |(group, _)| group.split('.').next().unwrap_or(group));
            format!("converting ({version}.{kind}) to ({own}.{}): unknown conversion", self.kind)
        };
        Err(StatusError::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {}: {why}",
            self.kind
        )))
    }
}

fn unreadable(kind: &str, body: &[u8], why: &str) -> StatusError {
    StatusError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({})",
        summary(body)
    ))
}

fn not_an_object(json: &[u8]) -> String {
    let found = match json.trim_ascii_start().first() {
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "bool",
        _ => "number",
    };
    let go = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    format!("json: cannot unmarshal {found} into Go value of type {go}")
}

/// The beginning of a body that cannot be read, as upstream shows it: an object as it is, anything else in hexadecimal.
fn summary(body: &[u8]) -> String {
    const SHOWN: usize = 30;
    let (part, more) = if body.len() > SHOWN { (&body[..SHOWN], " ...") } else { (body, "") };
    match part.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(part)),
        Some(_) => part.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + more,
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

/// A checked tree of the served form in the stored form: converted, and as upstream's encoder would write it. What it says of
/// owners stays as it is: there an empty list is not no list.
pub fn to_stored(served: &Served, mut tree: Value) -> Value {
    let metadata = tree.get_mut("metadata").and_then(Value::as_object_mut);
    let managed = metadata.and_then(|metadata| metadata.shift_remove("managedFields"));
    let mut tree = match served.row.conversion {
        Some(conversion) => (conversion.to_stored)(tree),
        None => tree,
    };
    let stored = &served.cache.resource;
    if let Some(ty) = schema::table().type_of(&stored.group, &stored.version, &stored.kind) {
        schema::canonical(&mut tree, ty);
        date_conditions(&mut tree, ty);
    }
    if let Some(fields) = tree.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    if let (Some(managed), Some(metadata)) = (managed, tree.get_mut("metadata").and_then(Value::as_object_mut)) {
        metadata.insert("managedFields".to_owned(), managed);
    }
    tree
}

/// Go's zero time, which clients read as no time.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// A condition without a time is accepted by upstream; its Rust type always has one.
fn date_conditions(tree: &mut Value, ty: &Type) {
    let conditions = ty.field("status").and_then(|field| field.shape.object()?.field("conditions")?.shape.object());
    let generic = |ty: &Type| ty.package == "io.k8s.apimachinery.pkg.apis.meta.v1" && ty.name == "Condition";
    if !conditions.is_some_and(generic) {
        return;
    }
    let list = tree.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in list.into_iter().flatten().filter_map(Value::as_object_mut) {
        let time = condition.entry("lastTransitionTime").or_insert(Value::Null);
        if time.is_null() {
            *time = Value::from(NO_TIME);
        }
    }
}
