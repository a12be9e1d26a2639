//! What the server does to `metadata`, and what it refuses there. Texts and order are those of upstream's
//! `ValidateObjectMeta` and `ValidateObjectMetaUpdate`.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use rand::Rng;
use serde_json::json;
use xebec_api::field::{FieldError, FieldErrors, Path};
use xebec_api::status::StatusError;

use super::strategy::NameRule;
use crate::resources::validation::{dns, labels};

pub const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";

/// Letters and digits that spell no words and are not mistaken for one another.
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
pub const SUFFIX_LENGTH: usize = 5;
/// A generated name fits in a label.
const MAX_GENERATED: usize = 63;

/// `base` and five random characters.
pub fn generated_name(base: &str) -> String {
    let mut end = base.len().min(MAX_GENERATED - SUFFIX_LENGTH);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    let mut random = rand::rng();
    name.extend((0..SUFFIX_LENGTH).map(|_| char::from(SUFFIX_ALPHABET[random.random_range(0..SUFFIX_ALPHABET.len())])));
    name
}

/// The wall clock in whole seconds, as objects carry it.
pub fn whole_seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Sets what only the server may set on a new object.
pub fn begin(meta: &mut ObjectMeta, now: Timestamp, counts_generations: bool) {
    meta.uid = Some(uuid::Uuid::new_v4().to_string());
    meta.creation_timestamp = Some(whole_seconds(now));
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.self_link = None;
    meta.managed_fields = None;
    meta.generation = counts_generations.then_some(1);
    drop_empty(meta);
}

/// Takes over from the stored object what an update may not change and clients need not send.
pub fn carry_over(meta: &mut ObjectMeta, old: &ObjectMeta) {
    meta.generation = old.generation;
    if meta.uid.as_deref().unwrap_or("").is_empty() {
        meta.uid = old.uid.clone();
    }
    meta.creation_timestamp = old.creation_timestamp.clone().or(meta.creation_timestamp.take());
    if old.deletion_timestamp.is_some() {
        meta.deletion_timestamp = old.deletion_timestamp.clone();
    }
    if old.deletion_grace_period_seconds.is_some() && meta.deletion_grace_period_seconds.is_none() {
        meta.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    }
    if meta.generate_name.is_none() {
        meta.generate_name = old.generate_name.clone();
    }
    meta.self_link = None;
    meta.managed_fields = None;
    drop_empty(meta);
}

/// Takes over what a write of the status alone may not change, for the kinds whose upstream strategy resets it.
pub fn keep_for_status(meta: &mut ObjectMeta, old: &ObjectMeta) {
    meta.labels = old.labels.clone();
    meta.annotations = old.annotations.clone();
    meta.finalizers = old.finalizers.clone();
    meta.owner_references = old.owner_references.clone();
}

/// Go leaves empty maps and lists out; so does the store, for equal objects have equal bytes.
fn drop_empty(meta: &mut ObjectMeta) {
    meta.labels.take_if(|one| one.is_empty());
    meta.annotations.take_if(|one| one.is_empty());
    meta.finalizers.take_if(|one| one.is_empty());
    meta.owner_references.take_if(|one| one.is_empty());
    meta.generate_name.take_if(|one| one.is_empty());
    meta.namespace.take_if(|one| one.is_empty());
}

/// The namespace of the object is that of the request, or absent.
pub fn check_namespace(meta: &mut ObjectMeta, namespace: &str) -> Result<(), StatusError> {
    let own = meta.namespace.as_deref().unwrap_or("");
    if own.is_empty() {
        meta.namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
    } else if own != namespace {
        let text = if namespace.is_empty() {
            "namespace may not be set on a cluster-scoped object"
        } else {
            "the namespace of the provided object does not match the namespace sent on the request"
        };
        return Err(StatusError::bad_request(text));
    }
    Ok(())
}

/// The name's own rule, and as a prefix that more is appended to.
fn name_errors(rule: NameRule, name: &str, prefix: bool) -> Vec<String> {
    let check: fn(&str) -> Vec<String> = match rule {
        NameRule::DnsSubdomain => dns::subdomain,
        NameRule::DnsLabel => dns::label,
        NameRule::Dns1035Label => dns::label_1035,
        NameRule::PathSegment => dns::path_segment,
        NameRule::Own => |_| Vec::new(),
    };
    match name.strip_suffix('-') {
        Some(rest) if prefix && rule != NameRule::PathSegment => check(&format!("{rest}a")),
        _ => check(name),
    }
}

/// What is wrong with the metadata of a new object.
pub fn validate(meta: &ObjectMeta, rule: NameRule, namespaced: bool) -> FieldErrors {
    let path = Path::new("metadata");
    let mut errors = FieldErrors::new();
    let (name, base) = (meta.name.as_deref().unwrap_or(""), meta.generate_name.as_deref().unwrap_or(""));
    if !base.is_empty() {
        let field = path.child("generateName");
        errors.extend(name_errors(rule, base, true).into_iter().map(|text| FieldError::invalid(&field, base, text)));
    }
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), "name or generateName is required"));
    } else {
        let field = path.child("name");
        errors.extend(name_errors(rule, name, false).into_iter().map(|text| FieldError::invalid(&field, name, text)));
    }
    common(meta, namespaced, &path, &mut errors);
    errors
}

/// What is wrong with a change of metadata.
pub fn validate_update(meta: &ObjectMeta, old: &ObjectMeta, namespaced: bool) -> FieldErrors {
    let path = Path::new("metadata");
    let mut errors = FieldErrors::new();
    common(meta, namespaced, &path, &mut errors);
    if old.deletion_timestamp.is_some() {
        no_new_finalizers(meta, old, &path, &mut errors);
    }
    let mut fixed = |name: &str, new: serde_json::Value, old: serde_json::Value| {
        if new != old {
            errors.push(FieldError::invalid(&path.child(name), new, "field is immutable"));
        }
    };
    fixed("name", json!(meta.name), json!(old.name));
    fixed("namespace", json!(meta.namespace), json!(old.namespace));
    fixed("uid", json!(meta.uid), json!(old.uid));
    fixed("creationTimestamp", json!(meta.creation_timestamp), json!(old.creation_timestamp));
    fixed("deletionTimestamp", json!(meta.deletion_timestamp), json!(old.deletion_timestamp));
    let (new_grace, old_grace) = (meta.deletion_grace_period_seconds, old.deletion_grace_period_seconds);
    fixed("deletionGracePeriodSeconds", json!(new_grace), json!(old_grace));
    errors
}

fn no_new_finalizers(meta: &ObjectMeta, old: &ObjectMeta, path: &Path, errors: &mut FieldErrors) {
    let before = old.finalizers.as_deref().unwrap_or_default();
    let mut added: Vec<&String> =
        meta.finalizers.iter().flatten().filter(|finalizer| !before.contains(finalizer)).collect();
    if added.is_empty() {
        return;
    }
    added.sort();
    let listed: Vec<String> = added.iter().map(|finalizer| format!("{finalizer:?}")).collect();
    let text = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        listed.join(", ")
    );
    errors.push(FieldError::forbidden(&path.child("finalizers"), text));
}

fn common(meta: &ObjectMeta, namespaced: bool, path: &Path, errors: &mut FieldErrors) {
    let namespace = meta.namespace.as_deref().unwrap_or("");
    let field = path.child("namespace");
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.push(FieldError::required(&field, "")),
        (true, false) => {
            errors.extend(dns::label(namespace).into_iter().map(|text| FieldError::invalid(&field, namespace, text)));
        }
        (false, false) => errors.push(FieldError::forbidden(&field, "not allowed on this type")),
        (false, true) => {}
    }
    labels::labels(errors, &path.child("labels"), meta.labels.as_ref());
    labels::annotations(errors, &path.child("annotations"), meta.annotations.as_ref());
    owners(meta.owner_references.as_deref().unwrap_or_default(), &path.child("ownerReferences"), errors);
    finalizers(meta.finalizers.as_deref().unwrap_or_default(), &path.child("finalizers"), errors);
}

fn owners(owners: &[OwnerReference], path: &Path, errors: &mut FieldErrors) {
    let mut controller: Option<String> = None;
    for (index, owner) in owners.iter().enumerate() {
        let field = path.index(index);
        let mut required = |name: &str, value: &str| {
            if value.is_empty() {
                errors.push(FieldError::required(&field.child(name), "must not be empty"));
            }
        };
        required("apiVersion", &owner.api_version);
        required("kind", &owner.kind);
        required("name", &owner.name);
        required("uid", &owner.uid);
        let version = owner.api_version.split('/').collect::<Vec<_>>();
        if !owner.api_version.is_empty() && (version.len() > 2 || version.last().is_some_and(|part| part.is_empty())) {
            let text = "must be <group>/<version> or <version>";
            errors.push(FieldError::invalid(&field.child("apiVersion"), owner.api_version.as_str(), text));
        }
        if owner.api_version == "v1" && owner.kind == "Event" {
            let text = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(&field, json!(owner), text));
        }
        if owner.controller == Some(true) {
            let this = format!("{}/{}", owner.kind, owner.name);
            if let Some(first) = &controller {
                let text = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                );
                errors.push(FieldError::invalid(path, json!(owners), text));
            } else {
                controller = Some(this);
            }
        }
    }
}

fn finalizers(names: &[String], path: &Path, errors: &mut FieldErrors) {
    for name in names {
        errors.extend(dns::label_key(name).into_iter().map(|text| FieldError::invalid(path, name.as_str(), text)));
    }
    for (index, name) in names.iter().enumerate() {
        if !name.contains('/') && ![ORPHAN, FOREGROUND, "kubernetes"].contains(&name.as_str()) {
            let text = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(&path.index(index), name.as_str(), text));
        }
    }
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if has(ORPHAN) && has(FOREGROUND) {
        let text = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errors.push(FieldError::invalid(path, json!(names), text));
    }
}
