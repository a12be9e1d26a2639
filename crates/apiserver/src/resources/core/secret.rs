//! Secrets, and the keys that their types require.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::config_map::{FROZEN, MAX_DATA};
use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{dns, immutable, report, semantically_equal, text};

const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

#[derive(Default)]
pub struct SecretStrategy;

impl Strategy for SecretStrategy {
    type Object = Secret;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn has_status(&self) -> bool {
        false
    }

    fn default(&self, secret: &mut Secret) {
        // `stringData` is for writing only; it wins over `data` key by key.
        if let Some(texts) = secret.string_data.take() {
            let data = secret.data.get_or_insert_default();
            for (key, value) in texts {
                data.insert(key, k8s_openapi::ByteString(value.into_bytes()));
            }
        }
        if text(&secret.type_).is_empty() {
            secret.type_ = Some("Opaque".to_owned());
        }
    }

    fn validate(&self, secret: &Secret) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let path = Path::new("data");
        let mut size = 0;
        for (key, value) in secret.data.iter().flatten() {
            report(&mut errors, &path.key(key), key, dns::data_key(key));
            size += value.0.len();
        }
        if size > MAX_DATA {
            errors.push(FieldError::too_long(&path, MAX_DATA));
        }
        required_keys(&mut errors, &path, secret);
        errors
    }

    fn validate_update(&self, new: &Secret, old: &Secret) -> FieldErrors {
        let mut errors = FieldErrors::new();
        immutable(&mut errors, &Path::new("type"), &new.type_, &old.type_);
        if old.immutable == Some(true) {
            if new.immutable != Some(true) {
                errors.push(FieldError::forbidden(&Path::new("immutable"), FROZEN));
            }
            if !semantically_equal(&new.data, &old.data) {
                errors.push(FieldError::forbidden(&Path::new("data"), FROZEN));
            }
        }
        errors.extend(self.validate(new));
        errors
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn field<'a>(&self, secret: &'a Secret, _field: &str) -> Cow<'a, str> {
        Cow::Borrowed(text(&secret.type_))
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Type", "string", "What kind of content it has."),
            column("Data", "string", "How many keys it has."),
            AGE_COLUMN,
        ];
        COLUMNS
    }

    fn cells(&self, secret: &Secret, now: Timestamp) -> Vec<Value> {
        let keys = secret.data.as_ref().map_or(0, |data| data.len());
        let kind = Value::from(text(&secret.type_));
        vec![columns::name(&secret.metadata), kind, Value::from(keys), columns::age(&secret.metadata, now)]
    }
}

fn required_keys(errors: &mut FieldErrors, path: &Path, secret: &Secret) {
    let value = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    let mut require = |key: &str, present: bool| {
        if !present {
            errors.push(FieldError::required(&path.key(key), ""));
        }
    };
    match text(&secret.type_) {
        "kubernetes.io/service-account-token" => {
            let annotations = secret.metadata.annotations.as_ref();
            if annotations.and_then(|all| all.get(ACCOUNT_NAME)).is_none_or(String::is_empty) {
                let path = Path::new("metadata.annotations").key(ACCOUNT_NAME);
                errors.push(FieldError::required(&path, ""));
            }
        }
        "kubernetes.io/dockercfg" => docker_config(errors, &path.key(".dockercfg"), value(".dockercfg")),
        "kubernetes.io/dockerconfigjson" => {
            docker_config(errors, &path.key(".dockerconfigjson"), value(".dockerconfigjson"));
        }
        "kubernetes.io/basic-auth" => {
            let any = value("username").is_some() || value("password").is_some();
            require("username", any);
            require("password", any);
        }
        "kubernetes.io/ssh-auth" => {
            require("ssh-privatekey", value("ssh-privatekey").is_some_and(|key| !key.is_empty()));
        }
        "kubernetes.io/tls" => {
            require("tls.crt", value("tls.crt").is_some());
            require("tls.key", value("tls.key").is_some());
        }
        _ => {}
    }
}

fn docker_config(errors: &mut FieldErrors, path: &Path, value: Option<&[u8]>) {
    let Some(value) = value else {
        return errors.push(FieldError::required(path, ""));
    };
    let why = match serde_json::from_slice::<Value>(value) {
        Ok(Value::Object(_) | Value::Null) => return,
        Ok(_) => "json: cannot unmarshal value into Go value of type map[string]interface {}".to_owned(),
        // Upstream's commonest complaint in the words of its own parser; others differ in their text.
        Err(error) if error.is_eof() => "unexpected end of JSON input".to_owned(),
        Err(error) => error.to_string(),
    };
    errors.push(FieldError::invalid(path, "<secret contents redacted>", why));
}
