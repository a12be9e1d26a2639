//! Namespaces: their finalizers stand in `spec`, and deletion goes through the phase Terminating.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};
use xebec_api::fields::Filter;

use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, NameRule, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{dns, report, text};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const FINALIZER: &str = "kubernetes";

#[derive(Default)]
pub struct NamespaceStrategy;

impl Strategy for NamespaceStrategy {
    type Object = Namespace;

    fn name_rule(&self) -> NameRule {
        NameRule::DnsLabel
    }

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn default(&self, namespace: &mut Namespace) {
        if let Some(name) = namespace.metadata.name.clone().filter(|name| !name.is_empty()) {
            namespace.metadata.labels.get_or_insert_default().insert(NAME_LABEL.to_owned(), name);
        }
        let status = namespace.status.get_or_insert_default();
        if text(&status.phase).is_empty() {
            status.phase = Some("Active".to_owned());
        }
    }

    fn prepare_create(&self, namespace: &mut Namespace) {
        namespace.status = Some(NamespaceStatus { phase: Some("Active".to_owned()), conditions: None });
        let finalizers = namespace.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|name| name == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        // A generated name is known only here.
        self.default(namespace);
    }

    fn prepare_update(&self, new: &mut Namespace, old: &Namespace) {
        let kept = old.spec.as_ref().and_then(|spec| spec.finalizers.clone());
        new.spec.get_or_insert_default().finalizers = kept;
    }

    /// `/finalize` is where the finalizers of the specification change.
    fn prepare_part_update(&self, _subresource: &str, _new: &mut Namespace, _old: &Namespace) {}

    fn ownable(&self, subresource: &str) -> Filter {
        match subresource {
            "status" => Filter::Without(&[&["spec"]]),
            _ => Filter::Without(&[&["status"]]),
        }
    }

    fn validate(&self, namespace: &Namespace) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let path = Path::new("spec.finalizers");
        for name in namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten()) {
            finalizer(&mut errors, &path, name);
        }
        errors
    }

    fn validate_part_update(&self, _subresource: &str, new: &Namespace, _old: &Namespace) -> FieldErrors {
        validate_finalize(new)
    }

    fn validate_status_update(&self, new: &Namespace, _old: &Namespace) -> FieldErrors {
        let phase = new.status.as_ref().map_or("", |status| text(&status.phase));
        let (wanted, relation) =
            if new.metadata.deletion_timestamp.is_some() { ("Terminating", "not ") } else { ("Active", "") };
        if phase == wanted {
            return FieldErrors::new();
        }
        let about = format!("may only be '{wanted}' if `deletionTimestamp` is {relation}empty");
        vec![FieldError::invalid(&Path::new("status.Phase"), phase, about)]
    }

    fn holds_deletion(&self, namespace: &Namespace) -> bool {
        namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref()).is_some_and(|names| !names.is_empty())
    }

    fn begin_deletion(&self, namespace: &mut Namespace) {
        namespace.status.get_or_insert_default().phase = Some("Terminating".to_owned());
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.phase", "name"]
    }

    fn field<'a>(&self, namespace: &'a Namespace, field: &str) -> Cow<'a, str> {
        Cow::Borrowed(match field {
            "name" => text(&namespace.metadata.name),
            _ => namespace.status.as_ref().map_or("", |status| text(&status.phase)),
        })
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME_COLUMN, column("Status", "string", "Whether it is in use or being deleted."), AGE_COLUMN];
        COLUMNS
    }

    fn cells(&self, namespace: &Namespace, now: Timestamp) -> Vec<Value> {
        let phase = namespace.status.as_ref().map_or("", |status| text(&status.phase));
        vec![columns::name(&namespace.metadata), Value::from(phase), columns::age(&namespace.metadata, now)]
    }
}

/// A name that may stand in `spec.finalizers`, as `/finalize` may set it too.
pub fn finalizer(errors: &mut FieldErrors, path: &Path, name: &str) {
    report(errors, path, name, dns::label_key(name));
    if !name.contains('/') && !matches!(name, FINALIZER | "orphan" | "foregroundDeletion") {
        let about = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid(path, name, about));
    }
}

/// What is wrong with an update of `/finalize`.
fn validate_finalize(namespace: &Namespace) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let names = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten());
    for (index, name) in names.enumerate() {
        finalizer(&mut errors, &Path::new("spec.finalizers").index(index), name);
    }
    errors
}
