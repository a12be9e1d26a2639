//! Volumes: a row for each source, for they differ in nothing but their fields.

use k8s_openapi::api::core::v1::Volume;
use serde_json::Value;

use super::page::{Labels, Page};
use crate::session::text;

/// A source of volumes.
struct Source {
    member: &'static str,
    kind: &'static str,
    fields: &'static [Field],
}

/// What the line says, where the value stands, and what Go prints where there is none.
type Field = (&'static str, &'static str, &'static str);

const FALSE: &str = "false";
const NIL: &str = "<nil>";

#[rustfmt::skip]
const SOURCES: [Source; 23] = [
    Source { member: "hostPath", kind: "HostPath (bare host directory volume)",
        fields: &[("Path", "/path", ""), ("HostPathType", "/type", "<none>")] },
    Source { member: "emptyDir", kind: "EmptyDir (a temporary directory that shares a pod's lifetime)",
        fields: &[("Medium", "/medium", ""), ("SizeLimit", "/sizeLimit", "<unset>")] },
    Source { member: "gcePersistentDisk", kind: "GCEPersistentDisk (a Persistent Disk resource in Google Compute Engine)",
        fields: &[("PDName", "/pdName", ""), ("FSType", "/fsType", ""), ("Partition", "/partition", "0"), ("ReadOnly", "/readOnly", FALSE)] },
    Source { member: "awsElasticBlockStore", kind: "AWSElasticBlockStore (a Persistent Disk resource in AWS)",
        fields: &[("VolumeID", "/volumeID", ""), ("FSType", "/fsType", ""), ("Partition", "/partition", "0"), ("ReadOnly", "/readOnly", FALSE)] },
    Source { member: "gitRepo", kind: "GitRepo (a volume that is pulled from git when the pod is created)",
        fields: &[("Repository", "/repository", ""), ("Revision", "/revision", "")] },
    Source { member: "secret", kind: "Secret (a volume populated by a Secret)",
        fields: &[("SecretName", "/secretName", ""), ("Optional", "/optional", FALSE)] },
    Source { member: "configMap", kind: "ConfigMap (a volume populated by a ConfigMap)",
        fields: &[("Name", "/name", ""), ("Optional", "/optional", FALSE)] },
    Source { member: "nfs", kind: "NFS (an NFS mount that lasts the lifetime of a pod)",
        fields: &[("Server", "/server", ""), ("Path", "/path", ""), ("ReadOnly", "/readOnly", FALSE)] },
    Source { member: "iscsi", kind: "ISCSI (an ISCSI Disk resource that is attached to a kubelet's host machine and then exposed to the pod)",
        fields: &[("TargetPortal", "/targetPortal", ""), ("IQN", "/iqn", ""), ("Lun", "/lun", "0"), ("ISCSIInterface", "/iscsiInterface", ""),
            ("FSType", "/fsType", ""), ("ReadOnly", "/readOnly", FALSE), ("Portals", "/portals", "[]"), ("DiscoveryCHAPAuth", "/chapAuthDiscovery", FALSE),
            ("SessionCHAPAuth", "/chapAuthSession", FALSE), ("SecretRef", "/secretRef", NIL), ("InitiatorName", "/initiatorName", "<none>")] },
    Source { member: "glusterfs", kind: "Glusterfs (a Glusterfs mount on the host that shares a pod's lifetime)",
        fields: &[("EndpointsName", "/endpoints", ""), ("Path", "/path", ""), ("ReadOnly", "/readOnly", FALSE)] },
    Source { member: "persistentVolumeClaim", kind: "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
        fields: &[("ClaimName", "/claimName", ""), ("ReadOnly", "/readOnly", FALSE)] },
    Source { member: "ephemeral", kind: "EphemeralVolume (an inline specification for a volume that gets created and deleted with the pod)", fields: &[] },
    Source { member: "rbd", kind: "RBD (a Rados Block Device mount on the host that shares a pod's lifetime)",
        fields: &[("CephMonitors", "/monitors", "[]"), ("RBDImage", "/image", ""), ("FSType", "/fsType", ""), ("RBDPool", "/pool", ""), ("RadosUser", "/user", ""),
            ("Keyring", "/keyring", ""), ("SecretRef", "/secretRef", NIL), ("ReadOnly", "/readOnly", FALSE)] },
    Source { member: "downwardAPI", kind: "DownwardAPI (a volume populated by information about the pod)", fields: &[] },
    Source { member: "azureDisk", kind: "AzureDisk (an Azure Data Disk mount on the host and bind mount to the pod)",
        fields: &[("DiskName", "/diskName", ""), ("DiskURI", "/diskURI", ""), ("Kind", "/kind", ""), ("FSType", "/fsType", ""),
            ("CachingMode", "/cachingMode", ""), ("ReadOnly", "/readOnly", FALSE)] },
    Source { member: "vsphereVolume", kind: "vSphereVolume (a Persistent Disk resource in vSphere)",
        fields: &[("VolumePath", "/volumePath", ""), ("FSType", "/fsType", ""), ("StoragePolicyName", "/storagePolicyName", "")] },
    Source { member: "cinder", kind: "Cinder (a Persistent Disk resource in OpenStack)",
        fields: &[("VolumeID", "/volumeID", ""), ("FSType", "/fsType", ""), ("ReadOnly", "/readOnly", FALSE), ("SecretRef", "/secretRef", NIL)] },
    Source { member: "cephfs", kind: "CephFS (a CephFS mount on the host that shares a pod's lifetime)",
        fields: &[("Monitors", "/monitors", "[]"), ("Path", "/path", ""), ("User", "/user", ""), ("SecretFile", "/secretFile", ""),
            ("SecretRef", "/secretRef", NIL), ("ReadOnly", "/readOnly", FALSE)] },
    Source { member: "fc", kind: "FC (a Fibre Channel disk)",
        fields: &[("TargetWWNs", "/targetWWNs", ""), ("LUN", "/lun", "<none>"), ("FSType", "/fsType", ""), ("ReadOnly", "/readOnly", FALSE)] },
    Source { member: "flexVolume", kind: "FlexVolume (a generic volume resource that is provisioned/attached using an exec based plugin)",
        fields: &[("Driver", "/driver", ""), ("FSType", "/fsType", ""), ("SecretRef", "/secretRef", NIL), ("ReadOnly", "/readOnly", FALSE), ("Options", "/options", "map[]")] },
    Source { member: "projected", kind: "Projected (a volume that contains injected data from multiple sources)", fields: &[] },
    Source { member: "csi", kind: "CSI (a Container Storage Interface (CSI) volume source)",
        fields: &[("Driver", "/driver", ""), ("FSType", "/fsType", ""), ("ReadOnly", "/readOnly", FALSE)] },
    Source { member: "image", kind: "Image (a container image or OCI artifact)",
        fields: &[("Reference", "/reference", ""), ("PullPolicy", "/pullPolicy", "")] },
];

pub fn describe(volumes: Option<&Vec<Volume>>, space: &str, page: &mut Page) {
    let volumes = volumes.map(Vec::as_slice).unwrap_or_default();
    if volumes.is_empty() {
        return page.line(0, format_args!("{space}Volumes:\t<none>"));
    }
    page.line(0, format_args!("{space}Volumes:"));
    let indent = if space.is_empty() { "" } else { " " };
    for volume in volumes {
        page.line(1, format_args!("{indent}{}:", volume.name));
        let value = serde_json::to_value(volume).unwrap_or_default();
        match SOURCES.iter().find(|source| value.get(source.member).is_some()) {
            Some(source) => one(source, &value[source.member], page),
            None => page.line(1, "<unknown>"),
        }
    }
}

fn one(source: &Source, value: &Value, page: &mut Page) {
    page.field(2, "Type", source.kind);
    for (name, path, default) in source.fields {
        page.field(2, name, value.pointer(path).map_or_else(|| (*default).to_owned(), go_text));
    }
    match source.member {
        "csi" => attributes(&value["volumeAttributes"], page),
        "downwardAPI" => downward(&value["items"], page),
        "projected" => value["sources"].as_array().into_iter().flatten().for_each(|part| projected(part, page)),
        "ephemeral" if value["volumeClaimTemplate"].is_object() => claim(&value["volumeClaimTemplate"], page),
        _ => {}
    }
}

/// As Go's `%v` prints it.
fn go_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) if map.keys().eq(["name"]) => {
            format!("&LocalObjectReference{{Name:{},}}", text(value, "name"))
        }
        Value::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", go_text(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

fn attributes(attributes: &Value, page: &mut Page) {
    let attributes: Labels = serde_json::from_value(attributes.clone()).unwrap_or_default();
    let lines: Vec<String> = attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    page.nested += 2;
    page.lines("VolumeAttributes", &lines);
    page.nested -= 2;
}

fn downward(items: &Value, page: &mut Page) {
    page.line(2, "Items:");
    for item in items.as_array().into_iter().flatten() {
        let path = text(item, "path");
        if item["fieldRef"].is_object() {
            page.line(3, format_args!("{} -> {path}", text(&item["fieldRef"], "fieldPath")));
        }
        if item["resourceFieldRef"].is_object() {
            page.line(3, format_args!("{} -> {path}", text(&item["resourceFieldRef"], "resource")));
        }
    }
}

fn projected(part: &Value, page: &mut Page) {
    for (member, name) in [("secret", "SecretName"), ("configMap", "ConfigMapName")] {
        let source = &part[member];
        if source.is_object() {
            page.field(2, name, text(source, "name"));
            page.field(2, "Optional", source["optional"].as_bool().unwrap_or(false));
        }
    }
    if part["downwardAPI"].is_object() {
        page.field(2, "DownwardAPI", "true");
    }
    if let Some(seconds) = part["serviceAccountToken"]["expirationSeconds"].as_i64() {
        page.field(2, "TokenExpirationSeconds", seconds);
    }
}

/// The claim that a Pod brings along; it has no volume yet.
fn claim(template: &Value, page: &mut Page) {
    let (meta, spec) = (&template["metadata"], &template["spec"]);
    let map = |member: &str| serde_json::from_value::<Labels>(meta[member].clone()).ok();
    page.nested += 2;
    page.field(0, "StorageClass", text(spec, "storageClassName"));
    page.field(0, "Volume", text(spec, "volumeName"));
    page.labels("Labels", map("labels").as_ref());
    page.annotations("Annotations", map("annotations").as_ref());
    page.field(0, "Capacity", "");
    page.field(0, "Access Modes", "");
    page.optional(0, "VolumeMode", spec["volumeMode"].as_str());
    page.nested -= 2;
}
