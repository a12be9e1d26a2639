//! DeviceClasses: which devices there are to choose from, and how they are set up.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::DeviceClass;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{claim, names};
use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Strategy};
use crate::resources::columns;
use crate::resources::validation::{dns, report};

const REQUESTS: &str = "requests.";

#[derive(Default)]
pub struct DeviceClassStrategy;

impl Strategy for DeviceClassStrategy {
    type Object = DeviceClass;

    fn has_status(&self) -> bool {
        false
    }

    fn validate(&self, class: &DeviceClass) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, spec) = (Path::new("spec"), class.spec.clone().unwrap_or_default());
        claim::selectors(&mut errors, &path.child("selectors"), spec.selectors.as_deref().unwrap_or_default());
        let (at, list) = (path.child("config"), spec.config.unwrap_or_default());
        if names::fits(&mut errors, &at, list.len(), claim::MAX_CONFIGURATIONS) {
            for (index, one) in list.iter().enumerate() {
                claim::configuration(&mut errors, &at.index(index), one.opaque.as_ref());
            }
        }
        if let Some(name) = &spec.extended_resource_name {
            extended(&mut errors, &path.child("extendedResourceName"), name);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME_COLUMN, AGE_COLUMN];
        COLUMNS
    }

    fn cells(&self, class: &DeviceClass, now: Timestamp) -> Vec<Value> {
        vec![columns::name(&class.metadata), columns::age(&class.metadata, now)]
    }
}

/// `example.com/gpu`, under which Pods may ask for the devices as they ask for memory.
fn extended(errors: &mut FieldErrors, path: &Path, name: &str) {
    let mut wrong = |about: &str| errors.push(FieldError::invalid(path, name, about));
    if !name.contains('/') {
        wrong("a name must be a domain-prefixed path, such as 'example.com/my-prop'");
    } else if name.contains("kubernetes.io/") {
        wrong("must not have \"kubernetes.io/\" domain");
    }
    if name.starts_with(REQUESTS) {
        wrong("must not have \"requests.\" prefix");
    }
    report(errors, path, name, dns::label_key(&format!("{REQUESTS}{name}")));
}
