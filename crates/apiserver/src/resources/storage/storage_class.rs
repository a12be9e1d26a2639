//! StorageClasses.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::TopologySelectorTerm;
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{declared_immutable, dns, labels, one_of, report, required, text};

const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETERS_SIZE: usize = 256 * 1024;

#[derive(Default)]
pub struct StorageClassStrategy;

impl Strategy for StorageClassStrategy {
    type Object = StorageClass;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn has_status(&self) -> bool {
        false
    }

    fn default(&self, class: &mut StorageClass) {
        class.reclaim_policy.get_or_insert_with(|| "Delete".to_owned());
        class.volume_binding_mode.get_or_insert_with(|| "Immediate".to_owned());
    }

    fn validate(&self, class: &StorageClass) -> FieldErrors {
        let mut errors = FieldErrors::new();
        provisioner(&mut errors, &Path::new("provisioner"), &class.provisioner);
        if let Some(given) = &class.parameters {
            parameters(&mut errors, &Path::new("parameters"), given);
        }
        let policy = text(&class.reclaim_policy);
        if !policy.is_empty() {
            one_of(&mut errors, &Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
        }
        let modes = ["Immediate", "WaitForFirstConsumer"];
        one_of(&mut errors, &Path::new("volumeBindingMode"), text(&class.volume_binding_mode), &modes);
        for (index, term) in class.allowed_topologies.iter().flatten().enumerate() {
            topology(&mut errors, &Path::new("allowedTopologies").index(index), term);
        }
        errors
    }

    fn validate_update(&self, new: &StorageClass, old: &StorageClass) -> FieldErrors {
        let mut errors = self.validate(new);
        declared_immutable(&mut errors, &Path::new("parameters"), &new.parameters, &old.parameters);
        declared_immutable(&mut errors, &Path::new("provisioner"), &new.provisioner, &old.provisioner);
        declared_immutable(&mut errors, &Path::new("reclaimPolicy"), &new.reclaim_policy, &old.reclaim_policy);
        let (now, before) = (&new.volume_binding_mode, &old.volume_binding_mode);
        declared_immutable(&mut errors, &Path::new("volumeBindingMode"), now, before);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Provisioner", "string", "Who makes its volumes."),
            column("ReclaimPolicy", "string", "What becomes of a released volume."),
            column("VolumeBindingMode", "string", "When a volume is bound."),
            column("AllowVolumeExpansion", "string", "Whether its volumes may grow."),
            AGE_COLUMN,
        ];
        COLUMNS
    }

    fn cells(&self, class: &StorageClass, now: Timestamp) -> Vec<Value> {
        let default = class.metadata.annotations.as_ref().and_then(|all| all.get(DEFAULT)).is_some_and(|v| v == "true");
        let mut name = text(&class.metadata.name).to_owned();
        if default {
            name.push_str(" (default)");
        }
        vec![
            Value::from(name),
            Value::from(class.provisioner.as_str()),
            columns::or(class.reclaim_policy.as_deref(), "Delete"),
            columns::or(class.volume_binding_mode.as_deref(), "Immediate"),
            Value::from(class.allow_volume_expansion.unwrap_or(false)),
            columns::age(&class.metadata, now),
        ]
    }
}

pub fn provisioner(errors: &mut FieldErrors, path: &Path, name: &str) {
    if required(errors, path, name) {
        let name = name.to_lowercase();
        report(errors, path, &name, dns::label_key(&name));
    }
}

/// What a class tells its driver.
pub fn parameters(errors: &mut FieldErrors, path: &Path, parameters: &BTreeMap<String, String>) {
    if parameters.len() > MAX_PARAMETERS {
        errors.push(FieldError::too_long(path, MAX_PARAMETERS));
    }
    if parameters.contains_key("") {
        errors.push(FieldError::invalid(path, "", "field can not be empty."));
    }
    if parameters.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_PARAMETERS_SIZE {
        errors.push(FieldError::too_long(path, MAX_PARAMETERS_SIZE));
    }
}

fn topology(errors: &mut FieldErrors, path: &Path, term: &TopologySelectorTerm) {
    let mut keys = BTreeSet::new();
    for (index, requirement) in term.match_label_expressions.iter().flatten().enumerate() {
        let path = path.child("matchLabelExpressions").index(index);
        let at = path.child("values");
        if requirement.values.is_empty() {
            errors.push(FieldError::required(&at, ""));
        }
        let mut seen = BTreeSet::new();
        for (index, value) in requirement.values.iter().enumerate() {
            if !seen.insert(value) {
                errors.push(FieldError::duplicate(&at.index(index), value.as_str()));
            }
        }
        labels::label_name(errors, &path.child("key"), &requirement.key);
        if !keys.insert(requirement.key.as_str()) {
            errors.push(FieldError::duplicate(&path.child("key"), requirement.key.as_str()));
        }
    }
}
