//! VolumeAttributesClasses: what of a volume may be changed while it exists.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::storage_class::{parameters, provisioner};
use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, Strategy, column};
use crate::resources::columns;

#[derive(Default)]
pub struct VolumeAttributesClassStrategy;

impl Strategy for VolumeAttributesClassStrategy {
    type Object = VolumeAttributesClass;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn has_status(&self) -> bool {
        false
    }

    fn validate(&self, class: &VolumeAttributesClass) -> FieldErrors {
        let mut errors = FieldErrors::new();
        provisioner(&mut errors, &Path::new("driverName"), &class.driver_name);
        let path = Path::new("parameters");
        match &class.parameters {
            Some(given) if !given.is_empty() => parameters(&mut errors, &path, given),
            _ => errors.push(FieldError::required(&path, "must contain at least one key/value pair")),
        }
        errors
    }

    fn validate_update(&self, new: &VolumeAttributesClass, old: &VolumeAttributesClass) -> FieldErrors {
        let mut errors = FieldErrors::new();
        if new.driver_name != old.driver_name {
            let about = "updates to driverName are forbidden.";
            errors.push(FieldError::forbidden(&Path::new("driverName"), about));
        }
        if new.parameters != old.parameters {
            let about = "updates to parameters are forbidden.";
            errors.push(FieldError::forbidden(&Path::new("parameters"), about));
        }
        errors.extend(self.validate(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME_COLUMN, column("DriverName", "string", "Which driver changes the volumes."), AGE_COLUMN];
        COLUMNS
    }

    fn cells(&self, class: &VolumeAttributesClass, now: Timestamp) -> Vec<Value> {
        let driver = Value::from(class.driver_name.as_str());
        vec![columns::name(&class.metadata), driver, columns::age(&class.metadata, now)]
    }
}
