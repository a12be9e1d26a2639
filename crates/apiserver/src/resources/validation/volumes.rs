//! Volumes of a Pod: names, exactly one source each, and the sources that nodes serve themselves.
//!
//! Sources of storage systems are in `cloud_volumes`, projected files in `projected`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{KeyToPath, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use xebec_api::Quantity;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::mounts::Volumes;
use super::{claims, cloud_volumes, dns, numbers, projected, report, required, text};

pub const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
pub const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];

/// Checks all of them and returns the sound ones by name; only those may be mounted.
pub fn volumes<'a>(
    errors: &mut FieldErrors,
    path: &Path,
    volumes: &'a [Volume],
    pod: Option<&ObjectMeta>,
) -> Volumes<'a> {
    let pod_name = pod.map(|meta| text(&meta.name)).filter(|name| !name.is_empty());
    let created: BTreeSet<String> = pod_name
        .into_iter()
        .flat_map(|pod| volumes.iter().filter(|v| v.ephemeral.is_some()).map(move |v| format!("{pod}-{}", v.name)))
        .collect();
    let mut sound = Volumes::new();
    for (index, volume) in volumes.iter().enumerate() {
        let item = path.index(index);
        let name_path = item.child("name");
        let before = errors.len();
        source(errors, &item, volume, pod_name);
        if required(errors, &name_path, &volume.name) {
            report(errors, &name_path, &volume.name, dns::label(&volume.name));
        }
        if sound.contains_key(volume.name.as_str()) {
            errors.push(FieldError::duplicate(&name_path, volume.name.as_str()));
        }
        if errors.len() == before {
            sound.insert(&volume.name, volume);
        }
        if let Some(claim) = volume.persistent_volume_claim.as_ref().filter(|claim| created.contains(&claim.claim_name))
        {
            let path = item.child("persistentVolumeClaim.claimName");
            let about = "must not reference a PVC that gets created for an ephemeral volume";
            errors.push(FieldError::invalid(&path, claim.claim_name.as_str(), about));
        }
    }
    sound
}

/// Checks the first source that is set and forbids further ones.
pub(super) struct OneSource<'e> {
    pub errors: &'e mut FieldErrors,
    pub found: bool,
    pub path: Path,
}

impl OneSource<'_> {
    pub fn check<T>(&mut self, name: &str, source: Option<&T>, check: impl FnOnce(&mut FieldErrors, &Path, &T)) {
        self.check_named([name, name], source, check);
    }

    /// Some sources are reported under another name than their field's; those names are upstream's.
    pub fn check_named<T>(
        &mut self,
        [forbidden_name, name]: [&str; 2],
        source: Option<&T>,
        check: impl FnOnce(&mut FieldErrors, &Path, &T),
    ) {
        let Some(source) = source else { return };
        if self.found {
            let path = self.path.child(forbidden_name);
            self.errors.push(FieldError::forbidden(&path, "may not specify more than 1 volume type"));
        } else {
            self.found = true;
            check(self.errors, &self.path.child(name), source);
        }
    }
}

fn source(errors: &mut FieldErrors, path: &Path, volume: &Volume, pod_name: Option<&str>) {
    let mut one = OneSource { errors, found: false, path: path.clone() };
    one.check("emptyDir", volume.empty_dir.as_ref(), |errors, path, source| {
        if source.size_limit.as_ref().is_some_and(|limit| Quantity::of(Some(limit)).is_negative()) {
            let about = "SizeLimit field must be a valid resource quantity";
            errors.push(FieldError::forbidden(&path.child("sizeLimit"), about));
        }
    });
    one.check("hostPath", volume.host_path.as_ref(), |errors, path, source| {
        if required(errors, &path.child("path"), &source.path) {
            no_backsteps(errors, &path.child("path"), &source.path);
            if let Some(kind) = &source.type_ {
                super::one_of(errors, &path.child("type"), kind, &HOST_PATH_TYPES);
            }
        }
    });
    one.check("secret", volume.secret.as_ref(), |errors, path, source| {
        required(errors, &path.child("secretName"), text(&source.secret_name));
        numbers::file_mode(errors, &path.child("defaultMode"), source.default_mode);
        key_paths(errors, &path.child("items"), source.items.as_deref());
    });
    one.check("persistentVolumeClaim", volume.persistent_volume_claim.as_ref(), |errors, path, source| {
        required(errors, &path.child("claimName"), &source.claim_name);
    });
    one.check_named(["downwarAPI", "downwardAPI"], volume.downward_api.as_ref(), |errors, path, source| {
        numbers::file_mode(errors, &path.child("defaultMode"), source.default_mode);
        for file in source.items.iter().flatten() {
            projected::downward_file(errors, path, file);
        }
    });
    one.check("configMap", volume.config_map.as_ref(), |errors, path, source| {
        required(errors, &path.child("name"), &source.name);
        numbers::file_mode(errors, &path.child("defaultMode"), source.default_mode);
        key_paths(errors, &path.child("items"), source.items.as_deref());
    });
    one.check("projected", volume.projected.as_ref(), projected::projected);
    cloud_volumes::sources(&mut one, volume);
    one.check("ephemeral", volume.ephemeral.as_ref(), |errors, path, source| {
        let path = path.child("volumeClaimTemplate");
        match &source.volume_claim_template {
            None => errors.push(FieldError::required(&path, "")),
            Some(template) => claims::template(errors, &path, template),
        }
    });
    if volume.ephemeral.is_some()
        && !volume.name.is_empty()
        && let Some(pod) = pod_name
    {
        let claim = format!("{pod}-{}", volume.name);
        for message in dns::subdomain(&claim) {
            let about = format!("PVC name {claim:?}: {message}");
            one.errors.push(FieldError::invalid(&path.child("name"), volume.name.as_str(), about));
        }
    }
    one.check("image", volume.image.as_ref(), |errors, path, source| {
        required(errors, &path.child("reference"), text(&source.reference));
        super::required_one_of(errors, &path.child("pullPolicy"), text(&source.pull_policy), &PULL_POLICIES);
    });
    if !one.found {
        one.errors.push(FieldError::required(path, "must specify a volume type"));
    }
}

pub fn key_paths(errors: &mut FieldErrors, path: &Path, items: Option<&[KeyToPath]>) {
    for (index, item) in items.unwrap_or_default().iter().enumerate() {
        key_path(errors, &path.index(index), item);
    }
}

pub fn key_path(errors: &mut FieldErrors, path: &Path, item: &KeyToPath) {
    required(errors, &path.child("key"), &item.key);
    required(errors, &path.child("path"), &item.path);
    local_path(errors, &path.child("path"), &item.path);
    numbers::file_mode(errors, &path.child("mode"), item.mode);
}

/// Relative, without `..`, and not of a name that the kubelet uses itself.
pub fn local_path(errors: &mut FieldErrors, path: &Path, value: &str) {
    descending_path(errors, path, value);
    if value.starts_with("..") && !value.starts_with("../") {
        errors.push(FieldError::invalid(path, value, "must not start with '..'"));
    }
}

pub fn descending_path(errors: &mut FieldErrors, path: &Path, value: &str) {
    if value.starts_with('/') {
        errors.push(FieldError::invalid(path, value, "must be a relative path"));
    }
    no_backsteps(errors, path, value);
}

pub fn no_backsteps(errors: &mut FieldErrors, path: &Path, value: &str) {
    if value.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, value, "must not contain '..'"));
    }
}
