//! Volume mounts and block devices of a container.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Volume, VolumeMount};
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{one_of, required, text, volumes};

/// The valid volumes of a Pod by name.
pub type Volumes<'a> = BTreeMap<&'a str, &'a Volume>;

pub fn mounts(errors: &mut FieldErrors, path: &Path, container: &Container, volumes: &Volumes<'_>) {
    let devices = container.volume_devices.as_deref().unwrap_or_default();
    let mut places = BTreeSet::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let item = path.index(index);
        let (name_path, place_path) = (item.child("name"), item.child("mountPath"));
        required(errors, &name_path, &mount.name);
        if !volumes.contains_key(mount.name.as_str()) {
            errors.push(FieldError::not_found(&name_path, mount.name.as_str()));
        }
        required(errors, &place_path, &mount.mount_path);
        if !places.insert(mount.mount_path.as_str()) {
            errors.push(FieldError::invalid(&place_path, mount.mount_path.as_str(), "must be unique"));
        }
        if devices.iter().any(|device| device.name == mount.name) {
            errors.push(FieldError::invalid(
                &name_path,
                mount.name.as_str(),
                "must not already exist in volumeDevices",
            ));
        }
        if devices.iter().any(|device| device.device_path == mount.mount_path) {
            let about = "must not already exist as a path in volumeDevices";
            errors.push(FieldError::invalid(&place_path, mount.mount_path.as_str(), about));
        }
        sub_paths(errors, path, &item, mount);
        // Upstream reports these two on the list, not on the item.
        if let Some(propagation) = &mount.mount_propagation {
            mount_propagation(errors, &path.child("mountPropagation"), propagation, container);
        }
        recursive_read_only(errors, &path.child("recursiveReadOnly"), mount);
    }
}

fn sub_paths(errors: &mut FieldErrors, list: &Path, item: &Path, mount: &VolumeMount) {
    let (plain, expression) = (text(&mount.sub_path), text(&mount.sub_path_expr));
    if !plain.is_empty() {
        volumes::descending_path(errors, &list.child("subPath"), plain);
    }
    if !expression.is_empty() {
        if !plain.is_empty() {
            let about = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(&item.child("subPathExpr"), expression, about));
        }
        volumes::descending_path(errors, &list.child("subPathExpr"), expression);
    }
}

fn mount_propagation(errors: &mut FieldErrors, path: &Path, propagation: &str, container: &Container) {
    one_of(errors, path, propagation, &["Bidirectional", "HostToContainer", "None"]);
    let privileged = container.security_context.as_ref().and_then(|context| context.privileged).unwrap_or(false);
    if propagation == "Bidirectional" && !privileged {
        let about = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(FieldError::forbidden(path, about));
    }
}

fn recursive_read_only(errors: &mut FieldErrors, path: &Path, mount: &VolumeMount) {
    let Some(mode) = &mount.recursive_read_only else { return };
    match mode.as_str() {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.read_only.unwrap_or(false) {
                errors.push(FieldError::forbidden(path, "may only be specified when readOnly is true"));
            }
            if mount.mount_propagation.as_deref().is_some_and(|propagation| propagation != "None") {
                let about = "may only be specified when mountPropagation is None or not specified";
                errors.push(FieldError::forbidden(path, about));
            }
        }
        other => errors.push(FieldError::not_supported(path, other, &["Disabled", "Enabled", "IfPossible"])),
    }
}

pub fn devices(errors: &mut FieldErrors, path: &Path, container: &Container, volumes: &Volumes<'_>) {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let (mut places, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (index, device) in container.volume_devices.iter().flatten().enumerate() {
        let (name, place) = (device.name.as_str(), device.device_path.as_str());
        let (name_path, place_path) = (path.index(index).child("name"), path.index(index).child("devicePath"));
        let mut wrong = |path: &Path, value: &str, about: &str| errors.push(FieldError::invalid(path, value, about));
        if name.is_empty() {
            errors.push(FieldError::required(&name_path, ""));
        } else if !names.insert(name) {
            wrong(&name_path, name, "must be unique");
        }
        match volumes.get(name) {
            None => errors.push(FieldError::not_found(&name_path, name)),
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
                let about = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(FieldError::invalid(&name_path, name, about));
            }
            Some(_) => {}
        }
        required(errors, &place_path, place);
        let mut wrong = |path: &Path, value: &str, about: &str| errors.push(FieldError::invalid(path, value, about));
        if places.contains(place) {
            wrong(&place_path, place, "must be unique");
        }
        if place.split('/').any(|part| part == "..") {
            wrong(&place_path, place, "can not contain backsteps ('..')");
        } else {
            places.insert(place);
        }
        if mounts.iter().any(|mount| mount.name == name) {
            wrong(&name_path, name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|mount| mount.mount_path == place) {
            wrong(&place_path, place, "must not already exist as a path in volumeMounts");
        }
    }
}
