//! The configuration file: upstream's `EncryptionConfiguration`, read and checked.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::cipher::Cipher;
use super::{EncryptionError, Provider, Rule};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<ProviderRow>,
}

/// Exactly one of the fields is set.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderRow {
    aesgcm: Option<Keys>,
    aescbc: Option<Keys>,
    secretbox: Option<Keys>,
    identity: Option<Nothing>,
    kms: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default)]
    keys: Vec<Key>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    #[serde(default)]
    name: String,
    #[serde(default)]
    secret: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

pub fn read(path: &Path) -> Result<Vec<Rule>, EncryptionError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| EncryptionError::Read { path: path.to_owned(), source })?;
    let file: File =
        serde_saphyr::from_str(&text).map_err(|source| EncryptionError::Parse { path: path.to_owned(), source })?;
    rules(file).map_err(|why| EncryptionError::Config { path: path.to_owned(), why })
}

fn rules(file: File) -> Result<Vec<Rule>, String> {
    match (file.api_version.as_str(), file.kind.as_str()) {
        ("apiserver.config.k8s.io/v1", "EncryptionConfiguration") | ("v1", "EncryptionConfig") => {}
        (version, kind) => return Err(format!("no kind {kind:?} is known in version {version:?}")),
    }
    if file.resources.is_empty() {
        return Err("resources: Required value: at least one resources is required".to_owned());
    }
    let mut rules: Vec<Rule> = Vec::new();
    for (index, row) in file.resources.iter().enumerate() {
        let at = format!("resources[{index}]");
        check_resources(&at, &row.resources)?;
        if row.providers.is_empty() {
            return Err(format!("{at}.providers: Required value: at least one {at}.providers is required"));
        }
        for name in &row.resources {
            let mut providers = Vec::new();
            for (index, row) in row.providers.iter().enumerate() {
                providers.extend(row.providers(&format!("{at}.providers[{index}]"))?);
            }
            let (resource, group) = name.split_once('.').unwrap_or((name, ""));
            // A resource may stand in several rows; what is written follows the first.
            match rules.iter_mut().find(|one| one.group == group && one.resource == resource) {
                Some(known) => known.providers.extend(providers),
                None => rules.push(Rule { group: group.to_owned(), resource: resource.to_owned(), providers }),
            }
        }
    }
    Ok(rules)
}

fn check_resources(at: &str, names: &[String]) -> Result<(), String> {
    if names.is_empty() {
        return Err(format!("{at}.resources: Required value: at least one {at}.resources is required"));
    }
    for (index, name) in names.iter().enumerate() {
        let (resource, group) = name.split_once('.').unwrap_or((name, ""));
        let why = if names[..index].contains(name) {
            "the same resource cannot be specified multiple times"
        } else if name.chars().any(char::is_uppercase) {
            "resource name should not contain capital letters"
        } else if name == "*" {
            "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"
        } else if matches!(name.as_str(), "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations") {
            "resources which do not have REST API/s cannot be encrypted"
        } else if group == "events.k8s.io" {
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config \
             file"
        } else if group == "extensions" {
            "'extensions' group has been removed and cannot be used for encryption"
        } else if group == "*" && resource != "*" {
            "encrypting the same resource across groups is not supported"
        } else if masks(names, index) {
            "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be \
             masked"
        } else {
            continue;
        };
        return Err(format!("{at}.resources[{index}]: Invalid value: {name:?}: {why}"));
    }
    Ok(())
}

/// Whether a wildcard of the list covers another name of it.
fn masks(names: &[String], index: usize) -> bool {
    let split = |name: &String| {
        let (resource, group) = name.split_once('.').unwrap_or((name, ""));
        (resource.to_owned(), group.to_owned())
    };
    let (resource, group) = split(&names[index]);
    let others = names.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, name)| split(name));
    resource == "*" && others.into_iter().any(|(_, other)| group == "*" || other == group)
}

impl ProviderRow {
    fn providers(&self, at: &str) -> Result<Vec<Provider>, String> {
        let ciphers = [
            ("aesgcm", &self.aesgcm, Cipher::gcm as fn(&[u8]) -> Option<Cipher>, "[16 24 32]"),
            ("aescbc", &self.aescbc, Cipher::cbc, "[16 24 32]"),
            ("secretbox", &self.secretbox, Cipher::secretbox, "[32]"),
        ];
        if self.kms.is_some() {
            return Err(format!("{at}.kms: key management services are not supported"));
        }
        let set = ciphers.iter().filter(|(_, keys, ..)| keys.is_some()).count() + usize::from(self.identity.is_some());
        if set > 1 {
            let why = "more than one provider specified in a single element, should split into different list elements";
            return Err(format!("{at}: Invalid value: {why}"));
        }
        for (name, keys, make, lengths) in ciphers {
            let Some(keys) = keys else { continue };
            if keys.keys.is_empty() {
                return Err(format!("{at}.{name}.keys: Required value: at least one keys is required"));
            }
            let keyed = keys.keys.iter().enumerate().map(|(index, key)| {
                let cipher = key.cipher(make, lengths);
                let cipher = cipher.map_err(|why| format!("{at}.{name}.keys[{index}].{why}"))?;
                Ok(Provider::Key { prefix: format!("k8s:enc:{name}:v1:{}:", key.name).into_bytes(), cipher })
            });
            return keyed.collect();
        }
        match self.identity {
            Some(Nothing {}) => Ok(vec![Provider::Identity]),
            None => Err(format!("{at}: Required value: at least one provider is required")),
        }
    }
}

impl Key {
    fn cipher(&self, make: fn(&[u8]) -> Option<Cipher>, lengths: &str) -> Result<Cipher, String> {
        if self.name.is_empty() {
            return Err("name: Required value: name is a mandatory field for a key".to_owned());
        }
        if self.secret.is_empty() {
            return Err("secret: Required value: secret is a mandatory field for a key".to_owned());
        }
        let secret = STANDARD.decode(&self.secret);
        let secret =
            secret.map_err(|_| "secret: Invalid value: \"REDACTED\": secrets must be base64 encoded".to_owned())?;
        make(&secret).ok_or_else(|| {
            let length = secret.len();
            format!(
                "secret: Invalid value: \"REDACTED\": secret is not of the expected length, got {length}, expected one of \
                 {lengths}"
            )
        })
    }
}
