//! CSIStorageCapacities: how much room a driver has for a class in a part of the cluster.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use serde_json::Value;
use xebec_api::Quantity;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::strategy::{Column, Generation, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{IMMUTABLE, NOT_NEGATIVE, dns, labels, report, semantically_equal, shown};

#[derive(Default)]
pub struct CsiStorageCapacityStrategy;

impl Strategy for CsiStorageCapacityStrategy {
    type Object = CSIStorageCapacity;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn has_status(&self) -> bool {
        false
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, room: &CSIStorageCapacity) -> FieldErrors {
        let mut errors = FieldErrors::new();
        labels::selector(&mut errors, &Path::new("nodeTopology"), room.node_topology.as_ref());
        let class = &room.storage_class_name;
        report(&mut errors, &Path::new("storageClassName"), class, dns::subdomain(class));
        let capacity = Quantity::of(room.capacity.as_ref());
        if capacity.is_negative() {
            errors.push(FieldError::invalid(&Path::new("capacity"), capacity.to_string(), NOT_NEGATIVE));
        }
        errors
    }

    fn validate_update(&self, new: &CSIStorageCapacity, old: &CSIStorageCapacity) -> FieldErrors {
        let mut errors = self.validate(new);
        if !semantically_equal(&new.node_topology, &old.node_topology) {
            let value = new.node_topology.as_ref().map(labels::shown_selector).unwrap_or_default();
            errors.push(FieldError::invalid(&Path::new("nodeTopology"), value, IMMUTABLE));
        }
        if new.storage_class_name != old.storage_class_name {
            let (path, value) = (Path::new("storageClassName"), new.storage_class_name.as_str());
            errors.push(FieldError::invalid(&path, value, IMMUTABLE));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME_COLUMN, column("Created At", "date", "When it was first told.")];
        COLUMNS
    }

    fn cells(&self, room: &CSIStorageCapacity, _now: Timestamp) -> Vec<Value> {
        vec![columns::name(&room.metadata), shown(&room.metadata.creation_timestamp)]
    }
}
