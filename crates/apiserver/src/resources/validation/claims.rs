//! Claims on volumes, alone or as templates in Pods and StatefulSets.

use k8s_openapi::api::core::v1::{PersistentVolumeClaimSpec, PersistentVolumeClaimTemplate};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use xebec_api::Quantity;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{dns, labels, one_of, quantities, report, required, text};

pub const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

/// A template of a generic ephemeral volume: labels and annotations are all the metadata it may have.
pub fn template(errors: &mut FieldErrors, path: &Path, template: &PersistentVolumeClaimTemplate) {
    let meta = template.metadata.clone().unwrap_or_default();
    let at = path.child("metadata");
    labels::annotations(errors, &at.child("annotations"), meta.annotations.as_ref());
    labels::labels(errors, &at.child("labels"), meta.labels.as_ref());
    let ObjectMeta { name, generate_name, namespace, finalizers, owner_references, .. } = &meta;
    let set = [
        ("name", !text(name).is_empty()),
        ("generateName", !text(generate_name).is_empty()),
        ("namespace", !text(namespace).is_empty()),
        ("ownerReferences", owner_references.as_ref().is_some_and(|list| !list.is_empty())),
        ("finalizers", finalizers.as_ref().is_some_and(|list| !list.is_empty())),
    ];
    for (name, _) in set.iter().filter(|(_, set)| *set) {
        errors.push(FieldError::forbidden(&at.child(name), "cannot be set"));
    }
    claim_spec(errors, &path.child("spec"), &template.spec);
}

pub fn claim_spec(errors: &mut FieldErrors, path: &Path, spec: &PersistentVolumeClaimSpec) {
    access_modes(
        errors,
        &path.child("accessModes"),
        spec.access_modes.as_deref(),
        "at least 1 access mode is required",
    );
    labels::selector(errors, &path.child("selector"), spec.selector.as_ref());
    let at = path.child("resources").key("storage");
    match spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get("storage")) {
        None => errors.push(FieldError::required(&at, "")),
        Some(size) if Quantity::of(Some(size)) <= Quantity::ZERO => {
            let shown = Quantity::of(Some(size)).to_string();
            errors.push(FieldError::invalid(&at, shown, "must be greater than zero"));
        }
        Some(size) => quantities::amount(errors, &at, "storage", size),
    }
    for (name, class) in [
        ("storageClassName", &spec.storage_class_name),
        ("volumeAttributesClassName", &spec.volume_attributes_class_name),
    ] {
        if !text(class).is_empty() {
            report(errors, &path.child(name), text(class), dns::subdomain(text(class)));
        }
    }
    if let Some(mode) = &spec.volume_mode {
        one_of(errors, &path.child("volumeMode"), mode, &VOLUME_MODES);
    }
    sources(errors, path, spec);
}

/// Access modes of a claim or a volume.
pub fn access_modes(errors: &mut FieldErrors, path: &Path, modes: Option<&[String]>, when_none: &str) {
    let modes = modes.unwrap_or_default();
    if modes.is_empty() {
        errors.push(FieldError::required(path, when_none));
    }
    for mode in modes {
        one_of(errors, path, mode, &ACCESS_MODES);
    }
    let (mut alone, mut others) = (false, false);
    for mode in modes.iter().filter(|mode| ACCESS_MODES.contains(&mode.as_str())) {
        alone |= mode == "ReadWriteOncePod";
        others |= mode != "ReadWriteOncePod";
    }
    if alone && others {
        errors.push(FieldError::forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
}

fn sources(errors: &mut FieldErrors, path: &Path, spec: &PersistentVolumeClaimSpec) {
    let mut check = |path: &Path, name: &str, kind: &str, group: &str| {
        required(errors, &path.child("name"), name);
        required(errors, &path.child("kind"), kind);
        if group.is_empty() && kind != "PersistentVolumeClaim" {
            let about = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.push(FieldError::invalid(path, kind, about));
        }
        if !group.is_empty() {
            report(errors, &path.child("apiGroup"), group, dns::subdomain(group));
        }
    };
    if let Some(source) = &spec.data_source {
        check(&path.child("dataSource"), &source.name, &source.kind, text(&source.api_group));
    }
    let Some(reference) = &spec.data_source_ref else { return };
    check(&path.child("dataSourceRef"), &reference.name, &reference.kind, text(&reference.api_group));
    let namespace = text(&reference.namespace);
    if !namespace.is_empty() {
        report(errors, &path.child("dataSourceRef.namespace"), namespace, dns::label(namespace));
    }
    let Some(source) = &spec.data_source else { return };
    let same =
        (&source.api_group, &source.kind, &source.name) == (&reference.api_group, &reference.kind, &reference.name);
    // Upstream gives the inner path as the bad value, which its encoder shows as an empty object.
    let shown = || serde_json::json!({});
    if !namespace.is_empty() {
        let about = "may not be specified when dataSourceRef.namespace is specified";
        errors.push(FieldError::invalid(path, shown(), about));
    } else if !same {
        errors.push(FieldError::invalid(path, shown(), "must match dataSourceRef"));
    }
}
