//! What the files of configMap, secret, downwardAPI and projected volumes hold. Nothing is written here.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, Secret};

use super::VolumeError;
use super::atomic::{Content, Payload};
use crate::env::downward::Facts;

/// Upstream's mode for files where none is given.
pub const DEFAULT_MODE: i32 = 0o644;

/// Which keys become which files, and what their absence means.
pub struct Choice<'a> {
    pub items: Option<&'a [KeyToPath]>,
    pub default_mode: i32,
    pub optional: bool,
}

pub fn of_config_map(map: &ConfigMap, choice: &Choice<'_>) -> Result<Payload, VolumeError> {
    let text = map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes().to_vec()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.clone()));
    choose(text.chain(binary).collect(), choice, "configmap references non-existent config key")
}

pub fn of_secret(secret: &Secret, choice: &Choice<'_>) -> Result<Payload, VolumeError> {
    let data = secret.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.clone()));
    choose(data.collect(), choice, "references non-existent secret key")
}

fn choose(data: BTreeMap<&str, Vec<u8>>, choice: &Choice<'_>, missing: &str) -> Result<Payload, VolumeError> {
    let mut payload = Payload::new();
    let Some(items) = choice.items.filter(|items| !items.is_empty()) else {
        for (key, bytes) in data {
            payload.insert(PathBuf::from(key), file(bytes, choice.default_mode));
        }
        return Ok(payload);
    };
    for item in items {
        match data.get(item.key.as_str()) {
            Some(bytes) => {
                payload.insert(checked(&item.path)?, file(bytes.clone(), item.mode.unwrap_or(choice.default_mode)));
            }
            None if choice.optional => {}
            None => return Err(VolumeError::Content(format!("{missing}: {}", item.key))),
        }
    }
    Ok(payload)
}

pub fn of_downward(
    files: &[DownwardAPIVolumeFile],
    default_mode: i32,
    facts: &Facts<'_>,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::new();
    for entry in files {
        let text = if let Some(field) = &entry.field_ref {
            facts.field(&field.field_path)
        } else if let Some(resource) = &entry.resource_field_ref {
            // Validation demands a container's name here, so the stand-in is never the one that answers.
            facts.resource(resource, &Container::default())
        } else {
            Ok(String::new())
        };
        let text = text.map_err(VolumeError::Content)?;
        payload.insert(checked(&entry.path)?, file(text.into_bytes(), entry.mode.unwrap_or(default_mode)));
    }
    Ok(payload)
}

pub fn file(bytes: Vec<u8>, mode: i32) -> Content {
    Content { bytes, mode: mode as u32 & 0o7777, user: None }
}

/// A relative path that stays inside its volume.
pub fn checked(path: &str) -> Result<PathBuf, VolumeError> {
    let inside = !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let hidden = path.starts_with("..");
    if inside && !hidden { Ok(PathBuf::from(path)) } else { Err(VolumeError::Content(format!("invalid path: {path}"))) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(items: serde_json::Value, optional: bool, expected: &[(&str, &str, u32)], error: &str) {
        let map =
            serde_json::from_value(json!({"metadata": {}, "data": {"a": "1"}, "binaryData": {"b": "Mg=="}})).unwrap();
        let items: Vec<KeyToPath> = serde_json::from_value(items).unwrap();
        let choice = Choice { items: Some(&items), default_mode: 0o600, optional };
        match of_config_map(&map, &choice) {
            Ok(payload) => {
                let files = payload.iter().map(|(path, content)| {
                    (path.to_str().unwrap(), std::str::from_utf8(&content.bytes).unwrap(), content.mode)
                });
                assert_eq!(files.collect::<Vec<_>>(), expected);
                assert_eq!(error, "");
            }
            Err(found) => assert_eq!(found.to_string(), error),
        }
    }

    #[test]
    fn keys_become_files() {
        check(json!([]), false, &[("a", "1", 0o600), ("b", "2", 0o600)], "");
        check(json!([{"key": "a", "path": "x/y", "mode": 256}]), false, &[("x/y", "1", 0o400)], "");
        check(json!([{"key": "z", "path": "z"}]), true, &[], "");
        check(json!([{"key": "z", "path": "z"}]), false, &[], "configmap references non-existent config key: z");
        check(json!([{"key": "a", "path": "../x"}]), false, &[], "invalid path: ../x");
    }
}
