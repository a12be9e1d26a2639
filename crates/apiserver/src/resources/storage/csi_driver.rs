//! CSIDrivers.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::{CSIDriver, CSIDriverSpec};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{immutable, one_of};

const TOKENS_IN_ATTRIBUTES: &str = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true \
    to prevent possible logging of tokens in volume attributes";

#[derive(Default)]
pub struct CsiDriverStrategy;

impl Strategy for CsiDriverStrategy {
    type Object = CSIDriver;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn has_status(&self) -> bool {
        false
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, driver: &mut CSIDriver) {
        let spec = &mut driver.spec;
        spec.attach_required.get_or_insert(true);
        spec.pod_info_on_mount.get_or_insert(false);
        spec.storage_capacity.get_or_insert(false);
        spec.requires_republish.get_or_insert(false);
        spec.se_linux_mount.get_or_insert(false);
        spec.prevent_pod_scheduling_if_missing.get_or_insert(false);
        spec.fs_group_policy.get_or_insert_with(|| "ReadWriteOnceWithFSType".to_owned());
        if spec.volume_lifecycle_modes.as_ref().is_none_or(Vec::is_empty) {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".to_owned()]);
        }
    }

    /// Generations are counted from the first change on.
    fn prepare_update(&self, new: &mut CSIDriver, old: &CSIDriver) {
        if new.spec != old.spec {
            new.metadata.generation = Some(old.metadata.generation.unwrap_or(0) + 1);
        }
    }

    fn warnings(&self, driver: &CSIDriver, old: Option<&CSIDriver>) -> Vec<String> {
        let (spec, requests) = (&driver.spec, driver.spec.token_requests.as_deref().unwrap_or_default());
        let unchanged = old.is_some_and(|old| old.spec.token_requests == spec.token_requests);
        if unchanged || requests.is_empty() || spec.service_account_token_in_secrets.is_some() {
            return Vec::new();
        }
        vec![TOKENS_IN_ATTRIBUTES.to_owned()]
    }

    fn validate(&self, driver: &CSIDriver) -> FieldErrors {
        validate_spec(&driver.spec)
    }

    fn validate_update(&self, new: &CSIDriver, old: &CSIDriver) -> FieldErrors {
        let mut errors = validate_spec(&new.spec);
        let path = Path::new("spec");
        let (now, before) = (&new.spec, &old.spec);
        immutable(&mut errors, &path.child("attachedRequired"), &now.attach_required, &before.attach_required);
        let (now, before) = (&now.volume_lifecycle_modes, &before.volume_lifecycle_modes);
        immutable(&mut errors, &path.child("volumeLifecycleModes"), now, before);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("AttachRequired", "boolean", "Whether its volumes are attached before they are mounted."),
            column("PodInfoOnMount", "boolean", "Whether it wants to know the Pod."),
            column("StorageCapacity", "boolean", "Whether it tells how much room there is."),
            column("TokenRequests", "string", "The audiences of the tokens that it wants."),
            column("RequiresRepublish", "boolean", "Whether it wants to be asked again and again."),
            column("Modes", "string", "The kinds of volumes that it serves."),
            AGE_COLUMN,
        ];
        COLUMNS
    }

    fn cells(&self, driver: &CSIDriver, now: Timestamp) -> Vec<Value> {
        let spec = &driver.spec;
        let audiences = spec
            .token_requests
            .as_ref()
            .map(|requests| requests.iter().map(|request| request.audience.as_str()).collect::<Vec<_>>().join(","));
        let modes = spec.volume_lifecycle_modes.as_ref().map(|modes| modes.join(","));
        vec![
            columns::name(&driver.metadata),
            Value::from(spec.attach_required.unwrap_or(true)),
            Value::from(spec.pod_info_on_mount.unwrap_or(false)),
            Value::from(spec.storage_capacity.unwrap_or(false)),
            Value::from(audiences.unwrap_or_else(|| "<unset>".to_owned())),
            Value::from(spec.requires_republish.unwrap_or(false)),
            columns::or(modes.as_deref(), "<none>"),
            columns::age(&driver.metadata, now),
        ]
    }
}

fn validate_spec(spec: &CSIDriverSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = Path::new("spec");
    if let Some(policy) = &spec.fs_group_policy {
        let policies = ["File", "None", "ReadWriteOnceWithFSType"];
        one_of(&mut errors, &path.child("fsGroupPolicy"), policy, &policies);
    }
    let requests = spec.token_requests.as_deref().unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (index, request) in requests.iter().enumerate() {
        let path = path.child("tokenRequests").index(index);
        if !seen.insert(request.audience.as_str()) {
            errors.push(FieldError::duplicate(&path.child("audience"), request.audience.as_str()));
            continue;
        }
        let at = path.child("expirationSeconds");
        match request.expiration_seconds {
            Some(seconds) if seconds < 600 => {
                let about = "may not specify a duration less than 10 minutes";
                errors.push(FieldError::invalid(&at, seconds, about));
            }
            Some(seconds) if seconds > 1 << 32 => {
                let about = "may not specify a duration larger than 2^32 seconds";
                errors.push(FieldError::invalid(&at, seconds, about));
            }
            _ => {}
        }
    }
    for mode in spec.volume_lifecycle_modes.iter().flatten() {
        one_of(&mut errors, &path.child("volumeLifecycleModes"), mode, &["Persistent", "Ephemeral"]);
    }
    if let Some(seconds) = spec.node_allocatable_update_period_seconds.filter(|seconds| *seconds < 10) {
        let about = "must be greater than or equal to 10 seconds";
        errors.push(FieldError::invalid(&path.child("nodeAllocatableUpdatePeriodSeconds"), seconds, about));
    }
    if let Some(value) = spec.service_account_token_in_secrets.filter(|_| requests.is_empty()) {
        let about = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        errors.push(FieldError::invalid(&path.child("serviceAccountTokenInSecrets"), value, about));
    }
    errors
}
