//! Volume sources of storage systems. Most in-tree drivers are gone upstream too; their fields are still checked.
//!
//! Of several sources in one volume only the first is checked; upstream's order among these is not kept, only their place
//! after those that nodes serve.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{
    AzureDiskVolumeSource, FCVolumeSource, ISCSIVolumeSource, LocalObjectReference, QuobyteVolumeSource, Volume,
};
use regex::Regex;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::volumes::{OneSource, descending_path};
use super::{dns, numbers, one_of, report, required, text};

const BYTE: (i64, i64) = (0, 255);
const PARTITION: (i64, i64) = (0, 255);

pub(super) fn sources(one: &mut OneSource<'_>, volume: &Volume) {
    one.check("gitRepo", volume.git_repo.as_ref(), |errors, path, source| {
        required(errors, &path.child("repository"), &source.repository);
        descending_path(errors, &path.child("directory"), text(&source.directory));
    });
    one.check_named(
        ["gcePersistentDisk", "persistentDisk"],
        volume.gce_persistent_disk.as_ref(),
        |errors, path, source| {
            required(errors, &path.child("pdName"), &source.pd_name);
            partition(errors, path, source.partition);
        },
    );
    one.check("awsElasticBlockStore", volume.aws_elastic_block_store.as_ref(), |errors, path, source| {
        required(errors, &path.child("volumeID"), &source.volume_id);
        partition(errors, path, source.partition);
    });
    one.check("nfs", volume.nfs.as_ref(), |errors, path, source| nfs(errors, path, &source.server, &source.path));
    if let Some(source) = &volume.iscsi {
        let name = format!("{}:{}", volume.name, source.target_portal);
        if source.initiator_name.is_some() && name.len() > 64 && !one.found {
            let about = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if \
                         iscsi.initiatorName is specified.";
            let path = one.path.child("name");
            one.errors.push(FieldError::invalid(&path, volume.name.as_str(), about));
        }
    }
    one.check("iscsi", volume.iscsi.as_ref(), iscsi);
    one.check("glusterfs", volume.glusterfs.as_ref(), |errors, path, source| {
        required(errors, &path.child("endpoints"), &source.endpoints);
        required(errors, &path.child("path"), &source.path);
    });
    one.check("flocker", volume.flocker.as_ref(), |errors, path, source| {
        let (name, id) = (text(&source.dataset_name), text(&source.dataset_uuid));
        if name.is_empty() && id.is_empty() {
            errors.push(FieldError::required(path, "one of datasetName and datasetUUID is required"));
        }
        if !name.is_empty() && !id.is_empty() {
            let about = "datasetName and datasetUUID can not be specified simultaneously";
            errors.push(FieldError::invalid(path, "resource", about));
        }
        if name.contains('/') {
            errors.push(FieldError::invalid(&path.child("datasetName"), name, "must not contain '/'"));
        }
    });
    one.check("rbd", volume.rbd.as_ref(), |errors, path, source| {
        monitors(errors, path, &source.monitors);
        required(errors, &path.child("image"), &source.image);
    });
    one.check("cinder", volume.cinder.as_ref(), |errors, path, source| {
        required(errors, &path.child("volumeID"), &source.volume_id);
        secret(errors, path, source.secret_ref.as_ref());
    });
    one.check_named(["cephFS", "cephfs"], volume.cephfs.as_ref(), |errors, path, source| {
        monitors(errors, path, &source.monitors);
    });
    more_sources(one, volume);
}

fn more_sources(one: &mut OneSource<'_>, volume: &Volume) {
    one.check("quobyte", volume.quobyte.as_ref(), quobyte);
    one.check("fc", volume.fc.as_ref(), fibre_channel);
    one.check("flexVolume", volume.flex_volume.as_ref(), |errors, path, source| {
        required(errors, &path.child("driver"), &source.driver);
        for key in source.options.iter().flatten().map(|(key, _)| key) {
            let domain = format!(".{}", key.split_once('/').map_or(key.as_str(), |(domain, _)| domain).to_lowercase());
            if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
                let path = path.child("options").key(key);
                let about = "kubernetes.io and k8s.io namespaces are reserved";
                errors.push(FieldError::invalid(&path, key.as_str(), about));
            }
        }
    });
    one.check("azureFile", volume.azure_file.as_ref(), |errors, path, source| {
        required(errors, &path.child("secretName"), &source.secret_name);
        required(errors, &path.child("shareName"), &source.share_name);
    });
    one.check("vsphereVolume", volume.vsphere_volume.as_ref(), |errors, path, source| {
        required(errors, &path.child("volumePath"), &source.volume_path);
    });
    one.check("photonPersistentDisk", volume.photon_persistent_disk.as_ref(), |errors, path, source| {
        required(errors, &path.child("pdID"), &source.pd_id);
    });
    one.check("portworxVolume", volume.portworx_volume.as_ref(), |errors, path, source| {
        required(errors, &path.child("volumeID"), &source.volume_id);
    });
    one.check("azureDisk", volume.azure_disk.as_ref(), azure_disk);
    one.check("storageos", volume.storageos.as_ref(), |errors, path, source| {
        let (name, namespace) = (text(&source.volume_name), text(&source.volume_namespace));
        if required(errors, &path.child("volumeName"), name) {
            report(errors, &path.child("volumeName"), name, dns::label(name));
        }
        if !namespace.is_empty() {
            report(errors, &path.child("volumeNamespace"), namespace, dns::label(namespace));
        }
        secret(errors, path, source.secret_ref.as_ref());
    });
    one.check("scaleIO", volume.scale_io.as_ref(), |errors, path, source| {
        required(errors, &path.child("gateway"), &source.gateway);
        required(errors, &path.child("system"), &source.system);
        required(errors, &path.child("volumeName"), text(&source.volume_name));
    });
    one.check("csi", volume.csi.as_ref(), |errors, path, source| {
        csi_driver(errors, &path.child("driver"), &source.driver);
        if let Some(secret) = &source.node_publish_secret_ref
            && required(errors, &path.child("nodePublishSecretRef.name"), &secret.name)
        {
            report(errors, &path.child("name"), &secret.name, dns::subdomain(&secret.name));
        }
    });
}

pub fn csi_driver(errors: &mut FieldErrors, path: &Path, driver: &str) {
    if !required(errors, path, driver) {
        return;
    }
    if driver.len() > 63 {
        errors.push(FieldError::too_long(path, 63));
    }
    report(errors, path, driver, dns::subdomain(&driver.to_lowercase()));
}

pub fn nfs(errors: &mut FieldErrors, path: &Path, server: &str, directory: &str) {
    required(errors, &path.child("server"), server);
    required(errors, &path.child("path"), directory);
    if !directory.starts_with('/') {
        errors.push(FieldError::invalid(&path.child("path"), directory, "must be an absolute path"));
    }
}

pub fn fibre_channel(errors: &mut FieldErrors, path: &Path, source: &FCVolumeSource) {
    let names = source.target_wwns.as_deref().unwrap_or_default();
    let at = path.child("targetWWNs");
    match (names.is_empty(), source.wwids.as_ref().is_none_or(Vec::is_empty)) {
        (true, true) => {
            errors.push(FieldError::required(&at, "must specify either targetWWNs or wwids, but not both"));
        }
        (false, false) => {
            let about = "targetWWNs and wwids can not be specified simultaneously";
            errors.push(FieldError::invalid(&at, names.to_vec(), about));
        }
        _ => {}
    }
    match source.lun {
        None if !names.is_empty() => {
            errors.push(FieldError::required(&path.child("lun"), "lun is required if targetWWNs is specified"));
        }
        Some(lun) if !names.is_empty() => numbers::in_range(errors, &path.child("lun"), lun, BYTE),
        _ => {}
    }
}

fn iscsi(errors: &mut FieldErrors, path: &Path, source: &ISCSIVolumeSource) {
    required(errors, &path.child("targetPortal"), &source.target_portal);
    if required(errors, &path.child("iqn"), &source.iqn) {
        iscsi_name(errors, &path.child("iqn"), &source.iqn);
    }
    numbers::in_range(errors, &path.child("lun"), source.lun, BYTE);
    let authenticates = source.chap_auth_discovery.unwrap_or(false) || source.chap_auth_session.unwrap_or(false);
    if authenticates && source.secret_ref.is_none() {
        errors.push(FieldError::required(&path.child("secretRef"), ""));
    }
    if let Some(initiator) = &source.initiator_name {
        iscsi_name(errors, &path.child("initiatorname"), initiator);
    }
}

fn iscsi_name(errors: &mut FieldErrors, path: &Path, name: &str) {
    static FORMATS: LazyLock<[(&str, Regex); 3]> = LazyLock::new(|| {
        let regex = |text: &str| Regex::new(text).expect("a constant");
        [
            ("iqn", regex(r"iqn\.\d{4}-\d{2}\.([[:alnum:]\-.]+)(:[^,;*&$|\s]+)$")),
            ("eui", regex(r"^eui.[[:alnum:]]{16}$")),
            ("naa", regex(r"^naa.[[:alnum:]]{32}$")),
        ]
    });
    match FORMATS.iter().find(|(prefix, _)| name.starts_with(prefix)) {
        None => errors.push(FieldError::invalid(path, name, "must be valid format starting with iqn, eui, or naa")),
        Some((_, format)) if !format.is_match(name) => {
            errors.push(FieldError::invalid(path, name, "must be valid format"));
        }
        Some(_) => {}
    }
}

fn quobyte(errors: &mut FieldErrors, path: &Path, source: &QuobyteVolumeSource) {
    let about = "must be a host:port pair or multiple pairs separated by commas";
    let registry = path.child("registry");
    if source.registry.is_empty() {
        errors.push(FieldError::required(&registry, about));
    } else if text(&source.tenant).len() >= 65 {
        let about = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(FieldError::required(&path.child("tenant"), about));
    } else {
        let bad = source.registry.split(',').filter(|pair| pair.matches(':').count() != 1).count();
        errors.extend((0..bad).map(|_| FieldError::invalid(&registry, source.registry.as_str(), about)));
    }
    required(errors, &path.child("volume"), &source.volume);
}

fn azure_disk(errors: &mut FieldErrors, path: &Path, source: &AzureDiskVolumeSource) {
    required(errors, &path.child("diskName"), &source.disk_name);
    required(errors, &path.child("diskURI"), &source.disk_uri);
    if let Some(mode) = &source.caching_mode {
        one_of(errors, &path.child("cachingMode"), mode, &["None", "ReadOnly", "ReadWrite"]);
    }
    let Some(kind) = &source.kind else { return };
    one_of(errors, &path.child("kind"), kind, &["Dedicated", "Managed", "Shared"]);
    let (prefix, example) = if kind == "Managed" {
        let example = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
        ("/subscriptions/", example)
    } else {
        ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd")
    };
    if !source.disk_uri.starts_with(prefix) {
        errors.push(FieldError::not_supported(&path.child("diskURI"), source.disk_uri.as_str(), &[example]));
    }
}

fn partition(errors: &mut FieldErrors, path: &Path, value: Option<i32>) {
    // Zero is the unset value, so upstream's text begins at 1 where its check begins at 0.
    if let Some(value) = value.filter(|value| !(PARTITION.0..=PARTITION.1).contains(&i64::from(*value))) {
        errors.push(FieldError::invalid(&path.child("partition"), value, "must be between 1 and 255, inclusive"));
    }
}

fn monitors(errors: &mut FieldErrors, path: &Path, monitors: &[String]) {
    if monitors.is_empty() {
        errors.push(FieldError::required(&path.child("monitors"), ""));
    }
}

fn secret(errors: &mut FieldErrors, path: &Path, secret: Option<&LocalObjectReference>) {
    if let Some(secret) = secret {
        required(errors, &path.child("secretRef.name"), &secret.name);
    }
}
