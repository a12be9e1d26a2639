//! PersistentVolumeClaims.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, TypedLocalObjectReference, TypedObjectReference,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as RawQuantity;
use serde_json::Value;
use xebec_api::Quantity;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::pod_resources::Amounts;
use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, Strategy, column, wide};
use crate::resources::columns;
use crate::resources::validation::{claims, immutable, semantically_equal, text};

pub const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

#[derive(Default)]
pub struct PersistentVolumeClaimStrategy;

/// The kind of volume, and the two forms of the source kept in step where they mean the same.
pub fn default_spec(spec: &mut PersistentVolumeClaimSpec) {
    spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
    spec.resources.get_or_insert_default();
}

/// A claim's source has an old and a new field; what is said in one is said in both.
fn normalize_sources(spec: &mut PersistentVolumeClaimSpec) {
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(old), None) => {
            spec.data_source_ref = Some(TypedObjectReference {
                api_group: old.api_group.clone(),
                kind: old.kind.clone(),
                name: old.name.clone(),
                namespace: None,
            });
        }
        (None, Some(new)) if text(&new.namespace).is_empty() => {
            spec.data_source = Some(TypedLocalObjectReference {
                api_group: new.api_group.clone(),
                kind: new.kind.clone(),
                name: new.name.clone(),
            });
        }
        _ => {}
    }
}

/// Clients that know only the older field expect it to be ignored where it names neither a claim nor a snapshot.
fn drop_odd_source(spec: &mut PersistentVolumeClaimSpec) {
    let usual = |kind: &str, group: &str| {
        matches!((kind, group), ("PersistentVolumeClaim", "") | ("VolumeSnapshot", "snapshot.storage.k8s.io"))
    };
    if spec.data_source_ref.is_none() {
        spec.data_source = spec.data_source.take().filter(|source| usual(&source.kind, text(&source.api_group)));
    }
}

impl Strategy for PersistentVolumeClaimStrategy {
    type Object = PersistentVolumeClaim;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn default(&self, claim: &mut PersistentVolumeClaim) {
        default_spec(claim.spec.get_or_insert_default());
        let status = claim.status.get_or_insert_default();
        if text(&status.phase).is_empty() {
            status.phase = Some("Pending".to_owned());
        }
    }

    fn prepare_create(&self, claim: &mut PersistentVolumeClaim) {
        claim.status = Some(Default::default());
        claim.status.get_or_insert_default().phase = Some("Pending".to_owned());
        let spec = claim.spec.get_or_insert_default();
        drop_odd_source(spec);
        normalize_sources(spec);
    }

    fn prepare_update(&self, new: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim) {
        let spec = new.spec.get_or_insert_default();
        if !old.spec.as_ref().is_some_and(|old| old.data_source.is_some() || old.data_source_ref.is_some()) {
            drop_odd_source(spec);
        }
        normalize_sources(spec);
    }

    fn validate(&self, claim: &PersistentVolumeClaim) -> FieldErrors {
        let mut errors = FieldErrors::new();
        claims::claim_spec(&mut errors, &Path::new("spec"), &claim.spec.clone().unwrap_or_default());
        errors
    }

    fn validate_update(&self, new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> FieldErrors {
        let mut errors = self.validate(new);
        let (spec, before) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
        let bound = new.status.as_ref().is_some_and(|status| text(&status.phase) == "Bound");
        let mut allowed = spec.clone();
        if text(&before.volume_name).is_empty() {
            allowed.volume_name = before.volume_name.clone();
        }
        if before.storage_class_name.is_none() && spec.storage_class_name.is_some() {
            let annotation = old.metadata.annotations.as_ref().and_then(|all| all.get(OLD_CLASS));
            if annotation.is_none_or(|class| Some(class) == spec.storage_class_name.as_ref()) {
                allowed.storage_class_name = None;
            }
        }
        if bound {
            allowed.resources = before.resources.clone();
            allowed.volume_attributes_class_name = before.volume_attributes_class_name.clone();
        }
        if !semantically_equal(&allowed, &before) {
            let about = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
            errors.push(FieldError::forbidden(&Path::new("spec"), format!("{about}\n")));
        }
        let size = |spec: &PersistentVolumeClaimSpec| {
            Quantity::of(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get("storage")))
        };
        let capacity = old.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage"));
        if size(&spec) < size(&before) && size(&spec) <= Quantity::of(capacity) {
            let path = Path::new("spec.resources.requests.storage");
            errors.push(FieldError::forbidden(&path, "field can not be less than status.capacity"));
        }
        immutable(&mut errors, &Path::new("volumeMode"), &spec.volume_mode, &before.volume_mode);
        errors
    }

    fn validate_status_update(&self, new: &PersistentVolumeClaim, _old: &PersistentVolumeClaim) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, status) = (Path::new("status"), new.status.clone().unwrap_or_default());
        for (name, list) in [("capacity", &status.capacity), ("allocatedResources", &status.allocated_resources)] {
            let negative = |amount: &RawQuantity| Quantity::of(Some(amount)) < Quantity::from_integer(0);
            for (resource, amount) in list.iter().flatten().filter(|(_, amount)| negative(amount)) {
                let about = "must be a valid resource quantity";
                errors.push(FieldError::invalid(
                    &path.child(name).key(resource),
                    Quantity::of(Some(amount)).value(),
                    about,
                ));
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Status", "string", "Whether a volume is bound to it."),
            column("Volume", "string", "The volume that is bound to it."),
            column("Capacity", "string", "How large that volume is."),
            column("Access Modes", "string", "How that volume may be mounted."),
            column("StorageClass", "string", "The class that it asks for."),
            column("VolumeAttributesClass", "string", "The class of attributes that it asks for."),
            AGE_COLUMN,
            wide("VolumeMode", "string", "Whether it is a file system or a block device."),
        ];
        COLUMNS
    }

    fn cells(&self, claim: &PersistentVolumeClaim, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (claim.spec.clone().unwrap_or_default(), claim.status.clone().unwrap_or_default());
        let mut phase = text(&status.phase);
        if claim.metadata.deletion_timestamp.is_some() {
            phase = "Terminating";
        }
        let volume = text(&spec.volume_name);
        let old_class = claim.metadata.annotations.as_ref().and_then(|all| all.get(OLD_CLASS));
        let class = old_class.or(spec.storage_class_name.as_ref()).map_or("", String::as_str);
        let (capacity, modes) = if volume.is_empty() {
            (String::new(), String::new())
        } else {
            (storage(status.capacity.as_ref()), access_modes(status.access_modes.as_deref()))
        };
        vec![
            columns::name(&claim.metadata),
            Value::from(phase),
            Value::from(volume),
            Value::from(capacity),
            Value::from(modes),
            Value::from(class),
            columns::or(spec.volume_attributes_class_name.as_deref(), "<unset>"),
            columns::age(&claim.metadata, now),
            columns::or(spec.volume_mode.as_deref(), "<unset>"),
        ]
    }
}

pub fn storage(capacity: Option<&Amounts>) -> String {
    capacity.and_then(|capacity| capacity.get("storage")).map_or_else(|| "0".to_owned(), |size| size.0.clone())
}

/// `RWO,ROX`: each mode once, in this order.
pub fn access_modes(modes: Option<&[String]>) -> String {
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |mode: &str| modes.unwrap_or_default().iter().any(|one| one == mode);
    short.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}
