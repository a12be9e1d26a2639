//! ResourceClaims: what a Pod wants of the devices, and what it got.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimStatus};
use serde_json::Value;
use xebec_api::field::{FieldErrors, Path};

use super::{allocation, claim, taints};
use crate::registry::metadata;
use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::declared_immutable;

#[derive(Default)]
pub struct ResourceClaimStrategy;

impl Strategy for ResourceClaimStrategy {
    type Object = ResourceClaim;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn default(&self, object: &mut ResourceClaim) {
        claim::default(object.spec.get_or_insert_default());
        let allocation = object.status.get_or_insert_default().allocation.as_mut();
        let devices = allocation.and_then(|allocation| allocation.devices.as_mut());
        let results = devices.into_iter().flat_map(|devices| devices.results.iter_mut().flatten());
        taints::default(results.flat_map(|result| result.tolerations.iter_mut().flatten()));
    }

    fn prepare_create(&self, object: &mut ResourceClaim) {
        object.status = Some(ResourceClaimStatus::default());
        object.spec.iter_mut().for_each(claim::drop_gated);
    }

    fn prepare_update(&self, new: &mut ResourceClaim, _old: &ResourceClaim) {
        new.spec.iter_mut().for_each(claim::drop_gated);
    }

    fn prepare_status_update(&self, new: &mut ResourceClaim, old: &ResourceClaim) {
        metadata::keep_for_status(&mut new.metadata, &old.metadata);
        let (Some(status), before) = (&mut new.status, old.status.clone().unwrap_or_default()) else { return };
        allocation::drop_deallocated(status, &before);
    }

    fn validate(&self, object: &ResourceClaim) -> FieldErrors {
        let mut errors = FieldErrors::new();
        claim::spec(&mut errors, &Path::new("spec"), &object.spec.clone().unwrap_or_default());
        errors
    }

    fn validate_update(&self, new: &ResourceClaim, old: &ResourceClaim) -> FieldErrors {
        let mut errors = FieldErrors::new();
        declared_immutable(&mut errors, &Path::new("spec"), &new.spec, &old.spec);
        errors
    }

    fn validate_status_update(&self, new: &ResourceClaim, old: &ResourceClaim) -> FieldErrors {
        let spec = new.spec.clone().unwrap_or_default();
        let change = allocation::Change {
            new: new.status.clone().unwrap_or_default(),
            old: old.status.clone().unwrap_or_default(),
            requests: claim::requests(&spec),
            is_deleted: new.metadata.deletion_timestamp.is_some(),
        };
        change.validate(&Path::new("status"))
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME_COLUMN, column("State", "string", "Whether it has what it wants, and is used."), AGE_COLUMN];
        COLUMNS
    }

    fn cells(&self, object: &ResourceClaim, now: Timestamp) -> Vec<Value> {
        let deleted = object.metadata.deletion_timestamp.is_some();
        let status = object.status.clone().unwrap_or_default();
        let reserved = status.reserved_for.as_ref().is_some_and(|list| !list.is_empty());
        let states = [
            ("deleted", deleted),
            ("pending", status.allocation.is_none() && !deleted),
            ("allocated", status.allocation.is_some()),
            ("reserved", status.allocation.is_some() && reserved),
        ];
        let states: Vec<&str> = states.iter().filter(|(_, is)| *is).map(|(state, _)| *state).collect();
        vec![columns::name(&object.metadata), Value::from(states.join(",")), columns::age(&object.metadata, now)]
    }
}
