//! Leases.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::NOT_NEGATIVE;

#[derive(Default)]
pub struct LeaseStrategy;

impl Strategy for LeaseStrategy {
    type Object = Lease;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn has_status(&self) -> bool {
        false
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        // A holder must see that another one has taken over.
        false
    }

    fn default(&self, lease: &mut Lease) {
        // Coordinated election is behind a gate that is off.
        let spec = lease.spec.get_or_insert_default();
        spec.strategy = None;
        spec.preferred_holder = None;
    }

    fn validate(&self, lease: &Lease) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let Some(spec) = &lease.spec else { return errors };
        let path = Path::new("spec");
        if let Some(seconds) = spec.lease_duration_seconds.filter(|seconds| *seconds <= 0) {
            let path = path.child("leaseDurationSeconds");
            errors.push(FieldError::invalid(&path, seconds, "must be greater than 0"));
        }
        if let Some(count) = spec.lease_transitions.filter(|count| *count < 0) {
            errors.push(FieldError::invalid(&path.child("leaseTransitions"), count, NOT_NEGATIVE));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME_COLUMN, column("Holder", "string", "Who holds it."), AGE_COLUMN];
        COLUMNS
    }

    fn cells(&self, lease: &Lease, now: Timestamp) -> Vec<Value> {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or("");
        vec![columns::name(&lease.metadata), Value::from(holder), columns::age(&lease.metadata, now)]
    }
}
