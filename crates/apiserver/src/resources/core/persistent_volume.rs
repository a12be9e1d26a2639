//! PersistentVolumes.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, SecretReference};
use serde_json::Value;
use xebec_api::Quantity;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::persistent_volume_claim::{OLD_CLASS, access_modes, storage};
use super::pod_defaults::{self, default_text};
use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, Strategy, column, wide};
use crate::resources::columns;
use crate::resources::validation::{
    affinity, claims, cloud_volumes, dns, immutable, one_of, report, required, semantically_equal, shown, text, volumes,
};

const RECLAIM_POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];

#[derive(Default)]
pub struct PersistentVolumeStrategy;

impl Strategy for PersistentVolumeStrategy {
    type Object = PersistentVolume;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn default(&self, volume: &mut PersistentVolume) {
        let spec = volume.spec.get_or_insert_default();
        default_text(&mut spec.persistent_volume_reclaim_policy, "Retain");
        spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
        pod_defaults::amounts(spec.capacity.as_mut());
        if let Some(source) = &mut spec.host_path {
            source.type_.get_or_insert_default();
        }
        if let Some(source) = &mut spec.iscsi {
            default_text(&mut source.iscsi_interface, "default");
        }
        default_text(&mut volume.status.get_or_insert_default().phase, "Pending");
    }

    fn prepare_create(&self, volume: &mut PersistentVolume) {
        volume.status = None;
        let status = volume.status.get_or_insert_default();
        default_text(&mut status.phase, "Pending");
        status.last_phase_transition_time = volume.metadata.creation_timestamp.clone();
    }

    fn prepare_status_update(&self, new: &mut PersistentVolume, old: &PersistentVolume) {
        let status = new.status.get_or_insert_default();
        let before = old.status.as_ref().and_then(|status| status.last_phase_transition_time.clone());
        status.last_phase_transition_time = status.last_phase_transition_time.take().or(before);
    }

    fn validate(&self, volume: &PersistentVolume) -> FieldErrors {
        let mut errors = FieldErrors::new();
        validate_spec(&mut errors, &Path::new("spec"), &volume.spec.clone().unwrap_or_default());
        errors
    }

    fn validate_update(&self, new: &PersistentVolume, old: &PersistentVolume) -> FieldErrors {
        let mut errors = self.validate(new);
        let (spec, before) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
        if !semantically_equal(&source_of(&spec), &source_of(&before)) {
            let about = "spec.persistentvolumesource is immutable after creation\n";
            errors.push(FieldError::forbidden(&Path::new("spec.persistentvolumesource"), about));
        }
        immutable(&mut errors, &Path::new("volumeMode"), &spec.volume_mode, &before.volume_mode);
        if before.node_affinity.is_some() && !semantically_equal(&spec.node_affinity, &before.node_affinity) {
            let about = "field is immutable, except for updating from beta label to GA";
            errors.push(FieldError::invalid(&Path::new("nodeAffinity"), shown(&spec.node_affinity), about));
        }
        if before.volume_attributes_class_name.is_some() && spec.volume_attributes_class_name.is_none() {
            let path = Path::new("spec.volumeAttributesClassName");
            errors.push(FieldError::forbidden(&path, "update from non-nil value to nil is forbidden"));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Capacity", "string", "How large it is."),
            column("Access Modes", "string", "How it may be mounted."),
            column("Reclaim Policy", "string", "What becomes of it once it is released."),
            column("Status", "string", "Whether it is bound."),
            column("Claim", "string", "The claim that it is bound to."),
            column("StorageClass", "string", "Its class."),
            column("VolumeAttributesClass", "string", "The class of its attributes."),
            column("Reason", "string", "Why it is in this state."),
            AGE_COLUMN,
            wide("VolumeMode", "string", "Whether it is a file system or a block device."),
        ];
        COLUMNS
    }

    fn cells(&self, volume: &PersistentVolume, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (volume.spec.clone().unwrap_or_default(), volume.status.clone().unwrap_or_default());
        let mut phase = text(&status.phase);
        if volume.metadata.deletion_timestamp.is_some() {
            phase = "Terminating";
        }
        let claim = spec
            .claim_ref
            .as_ref()
            .map_or(String::new(), |claim| format!("{}/{}", text(&claim.namespace), text(&claim.name)));
        let old_class = volume.metadata.annotations.as_ref().and_then(|all| all.get(OLD_CLASS));
        let class = old_class.or(spec.storage_class_name.as_ref()).map_or("", String::as_str);
        vec![
            columns::name(&volume.metadata),
            Value::from(storage(spec.capacity.as_ref())),
            Value::from(access_modes(spec.access_modes.as_deref())),
            Value::from(text(&spec.persistent_volume_reclaim_policy)),
            Value::from(phase),
            Value::from(claim),
            Value::from(class),
            columns::or(spec.volume_attributes_class_name.as_deref(), "<unset>"),
            Value::from(text(&status.reason)),
            columns::age(&volume.metadata, now),
            columns::or(spec.volume_mode.as_deref(), "<unset>"),
        ]
    }
}

/// The specification with nothing but where the data is.
fn source_of(spec: &PersistentVolumeSpec) -> PersistentVolumeSpec {
    PersistentVolumeSpec {
        access_modes: None,
        capacity: None,
        claim_ref: None,
        mount_options: None,
        node_affinity: None,
        persistent_volume_reclaim_policy: None,
        storage_class_name: None,
        volume_attributes_class_name: None,
        volume_mode: None,
        ..spec.clone()
    }
}

fn validate_spec(errors: &mut FieldErrors, path: &Path, spec: &PersistentVolumeSpec) {
    claims::access_modes(errors, &path.child("accessModes"), spec.access_modes.as_deref(), "");
    let (at, capacity) = (path.child("capacity"), spec.capacity.clone().unwrap_or_default());
    if capacity.is_empty() {
        errors.push(FieldError::required(&at, ""));
    }
    if !capacity.contains_key("storage") || capacity.len() > 1 {
        errors.push(FieldError::not_supported(&at, shown(&spec.capacity), &["storage"]));
    }
    for (name, value) in &capacity {
        let quantity = Quantity::of(Some(value));
        if quantity <= Quantity::ZERO {
            let about = "must be greater than zero";
            errors.push(FieldError::invalid(&at.key(name), quantity.to_string(), about));
        }
    }
    let policy = text(&spec.persistent_volume_reclaim_policy);
    let at = path.child("persistentVolumeReclaimPolicy");
    one_of(errors, &at, policy, &RECLAIM_POLICIES);
    if let Some(nodes) = &spec.node_affinity {
        let path = path.child("nodeAffinity.required");
        match &nodes.required {
            Some(selector) => affinity::node_selector(errors, &path, selector),
            None => errors.push(FieldError::required(&path, "must specify required node constraints")),
        }
    }
    sources(errors, path, spec);
    let root = spec.host_path.as_ref().is_some_and(|source| source.path.trim_matches('/').is_empty());
    if root && policy == "Recycle" {
        errors.push(FieldError::forbidden(&at, "may not be 'recycle' for a hostPath mount of '/'"));
    }
    let class = text(&spec.storage_class_name);
    if !class.is_empty() {
        report(errors, &path.child("storageClassName"), class, dns::subdomain(class));
    }
    if let Some(mode) = &spec.volume_mode {
        one_of(errors, &path.child("volumeMode"), mode, &claims::VOLUME_MODES);
    }
    if let Some(class) = &spec.volume_attributes_class_name {
        let at = path.child("volumeAttributesClassName");
        if class.is_empty() {
            errors.push(FieldError::required(&at, "an empty string is disallowed"));
        } else {
            report(errors, &at, class, dns::subdomain(class));
        }
        if spec.csi.is_none() {
            let about = "has to be specified when using volumeAttributesClassName";
            errors.push(FieldError::required(&path.child("csi"), about));
        }
    }
}

/// Exactly one source. Those of drivers that are gone from the tree are taken as they are.
fn sources(errors: &mut FieldErrors, path: &Path, spec: &PersistentVolumeSpec) {
    let Value::Object(set) = shown(&source_of(spec)) else { return };
    if set.is_empty() {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
    for name in set.keys().skip(1) {
        errors.push(FieldError::forbidden(&path.child(name), "may not specify more than 1 volume type"));
    }
    if let Some(source) = &spec.host_path {
        let at = path.child("hostPath.path");
        if required(errors, &at, &source.path) {
            volumes::no_backsteps(errors, &at, &source.path);
            if let Some(kind) = &source.type_ {
                one_of(errors, &path.child("hostPath.type"), kind, &volumes::HOST_PATH_TYPES);
            }
        }
    }
    if let Some(source) = &spec.nfs {
        cloud_volumes::nfs(errors, &path.child("nfs"), &source.server, &source.path);
    }
    if let Some(source) = &spec.fc {
        cloud_volumes::fibre_channel(errors, &path.child("fc"), source);
    }
    if let Some(source) = &spec.local {
        let at = path.child("local.path");
        required(errors, &at, &source.path);
        volumes::no_backsteps(errors, &at, &source.path);
        if spec.node_affinity.is_none() {
            let about = "Local volume requires node affinity";
            errors.push(FieldError::required(&path.child("nodeAffinity"), about));
        }
    }
    if let Some(source) = &spec.csi {
        let path = path.child("csi");
        cloud_volumes::csi_driver(errors, &path.child("driver"), &source.driver);
        required(errors, &path.child("volumeHandle"), &source.volume_handle);
        let secrets = [
            ("controllerPublishSecretRef", &source.controller_publish_secret_ref),
            ("controllerExpandSecretRef", &source.controller_expand_secret_ref),
            ("nodePublishSecretRef", &source.node_publish_secret_ref),
            ("nodeExpandSecretRef", &source.node_expand_secret_ref),
        ];
        for (name, secret) in secrets.iter().filter_map(|(name, secret)| Some((name, secret.as_ref()?))) {
            secret_reference(errors, &path.child(name), secret);
        }
    }
}

fn secret_reference(errors: &mut FieldErrors, path: &Path, secret: &SecretReference) {
    let (name, namespace) = (text(&secret.name), text(&secret.namespace));
    if required(errors, &path.child("name"), name) {
        report(errors, &path.child("name"), name, dns::subdomain(name));
    }
    if required(errors, &path.child("namespace"), namespace) {
        report(errors, &path.child("namespace"), namespace, dns::label(namespace));
    }
}
