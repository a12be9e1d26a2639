//! ConfigMaps.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{dns, report, semantically_equal};

/// All values of a ConfigMap or a Secret together, in bytes.
pub const MAX_DATA: usize = 1024 * 1024;
pub const FROZEN: &str = "field is immutable when `immutable` is set";

#[derive(Default)]
pub struct ConfigMapStrategy;

impl Strategy for ConfigMapStrategy {
    type Object = ConfigMap;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn has_status(&self) -> bool {
        false
    }

    fn validate(&self, map: &ConfigMap) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (data, binary) = (Path::new("data"), Path::new("binaryData"));
        let mut size = 0;
        for (key, value) in map.data.iter().flatten() {
            report(&mut errors, &data.key(key), key, dns::data_key(key));
            if map.binary_data.as_ref().is_some_and(|binary| binary.contains_key(key)) {
                let about = "duplicate of key present in binaryData";
                errors.push(FieldError::invalid(&data.key(key), key.as_str(), about));
            }
            size += value.len();
        }
        for (key, value) in map.binary_data.iter().flatten() {
            report(&mut errors, &binary.key(key), key, dns::data_key(key));
            size += value.0.len();
        }
        if size > MAX_DATA {
            // Upstream reports this on a path with an empty name.
            errors.push(FieldError::too_long(&Path::new("[]"), MAX_DATA));
        }
        errors
    }

    fn validate_update(&self, new: &ConfigMap, old: &ConfigMap) -> FieldErrors {
        let mut errors = FieldErrors::new();
        if old.immutable == Some(true) {
            let kept = [
                ("immutable", new.immutable == Some(true)),
                ("data", semantically_equal(&new.data, &old.data)),
                ("binaryData", semantically_equal(&new.binary_data, &old.binary_data)),
            ];
            for (name, _) in kept.iter().filter(|(_, kept)| !kept) {
                errors.push(FieldError::forbidden(&Path::new(name), FROZEN));
            }
        }
        errors.extend(self.validate(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME_COLUMN, column("Data", "string", "How many keys it has."), AGE_COLUMN];
        COLUMNS
    }

    fn cells(&self, map: &ConfigMap, now: Timestamp) -> Vec<Value> {
        let keys =
            map.data.as_ref().map_or(0, |data| data.len()) + map.binary_data.as_ref().map_or(0, |data| data.len());
        vec![columns::name(&map.metadata), Value::from(keys), columns::age(&map.metadata, now)]
    }
}
