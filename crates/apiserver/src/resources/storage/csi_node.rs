//! CSINodes: which drivers a node has.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::metadata;
use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{cloud_volumes, immutable, labels, numbers, required};

const MAX_NODE_ID: usize = 256;

#[derive(Default)]
pub struct CsiNodeStrategy;

impl Strategy for CsiNodeStrategy {
    type Object = CSINode;

    fn generation(&self) -> Generation {
        Generation::None
    }

    /// What a status can say is behind a gate that is off.
    fn default(&self, node: &mut CSINode) {
        node.status = Some(Default::default());
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn prepare_status_update(&self, new: &mut CSINode, old: &CSINode) {
        metadata::keep_for_status(&mut new.metadata, &old.metadata);
    }

    fn validate(&self, node: &CSINode) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let mut seen = BTreeSet::new();
        for (index, driver) in node.spec.drivers.iter().enumerate() {
            let path = Path::new("spec.drivers").index(index);
            cloud_volumes::csi_driver(&mut errors, &path.child("name"), &driver.name);
            let at = path.child("nodeID");
            required(&mut errors, &at, &driver.node_id);
            if driver.node_id.len() > MAX_NODE_ID {
                let about = format!("must be {MAX_NODE_ID} characters or less");
                errors.push(FieldError::invalid(&at, driver.node_id.as_str(), about));
            }
            if let Some(count) = driver.allocatable.as_ref().and_then(|one| one.count) {
                numbers::not_negative(&mut errors, &path.child("allocatable.count"), count);
            }
            if !seen.insert(driver.name.as_str()) {
                errors.push(FieldError::duplicate(&path.child("name"), driver.name.as_str()));
            }
            topology_keys(&mut errors, &path, driver);
        }
        errors
    }

    fn validate_update(&self, new: &CSINode, old: &CSINode) -> FieldErrors {
        let mut errors = self.validate(new);
        let fixed = |driver: &CSINodeDriver| CSINodeDriver { allocatable: None, ..driver.clone() };
        for before in &old.spec.drivers {
            for now in new.spec.drivers.iter().filter(|now| now.name == before.name) {
                immutable(&mut errors, &Path::new("spec.drivers"), &fixed(now), &fixed(before));
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME_COLUMN, column("Drivers", "integer", "How many drivers the node has."), AGE_COLUMN];
        COLUMNS
    }

    fn cells(&self, node: &CSINode, now: Timestamp) -> Vec<Value> {
        let drivers = Value::from(node.spec.drivers.len());
        vec![columns::name(&node.metadata), drivers, columns::age(&node.metadata, now)]
    }
}

fn topology_keys(errors: &mut FieldErrors, path: &Path, driver: &CSINodeDriver) {
    let mut seen = BTreeSet::new();
    for key in driver.topology_keys.iter().flatten() {
        required(errors, path, key);
        if !seen.insert(key) {
            errors.push(FieldError::duplicate(path, key.as_str()));
        }
        labels::label_name(errors, path, key);
    }
}
