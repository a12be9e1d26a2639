//! VolumeAttachments.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::{VolumeAttachment, VolumeAttachmentStatus};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};
use xebec_api::fields::Filter;

use crate::registry::metadata;
use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{declared_immutable, dns, report, required, text};

const MAX_DRIVER: usize = 63;

#[derive(Default)]
pub struct VolumeAttachmentStrategy;

impl Strategy for VolumeAttachmentStrategy {
    type Object = VolumeAttachment;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, attachment: &mut VolumeAttachment) {
        attachment.status.get_or_insert_default();
    }

    fn prepare_create(&self, attachment: &mut VolumeAttachment) {
        attachment.status = Some(VolumeAttachmentStatus::default());
    }

    fn prepare_status_update(&self, new: &mut VolumeAttachment, old: &VolumeAttachment) {
        metadata::keep_for_status(&mut new.metadata, &old.metadata);
    }

    fn ownable(&self, subresource: &str) -> Filter {
        match subresource {
            "status" => Filter::Without(&[&["metadata"], &["spec"]]),
            _ => Filter::Without(&[&["status"]]),
        }
    }

    fn validate(&self, attachment: &VolumeAttachment) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, spec) = (Path::new("spec"), &attachment.spec);
        attacher(&mut errors, &path.child("attacher"), &spec.attacher);
        let (at, name) = (path.child("source"), spec.source.persistent_volume_name.as_ref());
        let about = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        match (name, &spec.source.inline_volume_spec) {
            (None, None) => errors.push(FieldError::required(&at, about)),
            (Some(_), Some(_)) => errors.push(FieldError::forbidden(&at, about)),
            (Some(name), None) if name.is_empty() => {
                let about = "must specify non empty persistentVolumeName";
                errors.push(FieldError::required(&at.child("persistentVolumeName"), about));
                report(&mut errors, &at.child("persistentVolumeName"), name, dns::subdomain(name));
            }
            (Some(name), None) => {
                report(&mut errors, &at.child("persistentVolumeName"), name, dns::subdomain(name));
            }
            (None, Some(_)) => {}
        }
        report(&mut errors, &path.child("nodeName"), &spec.node_name, dns::subdomain(&spec.node_name));
        errors
    }

    fn validate_update(&self, new: &VolumeAttachment, old: &VolumeAttachment) -> FieldErrors {
        let mut errors = self.validate(new);
        declared_immutable(&mut errors, &Path::new("spec"), &new.spec, &old.spec);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            Column { format: "name", ..column("Attacher", "string", "Who attaches it.") },
            column("PV", "string", "The volume."),
            column("Node", "string", "The node."),
            column("Attached", "boolean", "Whether it is done."),
            AGE_COLUMN,
        ];
        COLUMNS
    }

    fn cells(&self, attachment: &VolumeAttachment, now: Timestamp) -> Vec<Value> {
        let spec = &attachment.spec;
        vec![
            columns::name(&attachment.metadata),
            Value::from(spec.attacher.as_str()),
            Value::from(text(&spec.source.persistent_volume_name)),
            Value::from(spec.node_name.as_str()),
            Value::from(attachment.status.as_ref().is_some_and(|status| status.attached)),
            columns::age(&attachment.metadata, now),
        ]
    }
}

/// A driver's name; the rules are declared ones, whose words differ.
fn attacher(errors: &mut FieldErrors, path: &Path, name: &str) {
    if !required(errors, path, name) {
        return;
    }
    if name.len() > MAX_DRIVER {
        let mut error = FieldError::too_long(path, MAX_DRIVER);
        error.detail = format!("may not be more than {MAX_DRIVER} characters");
        errors.push(error);
    }
    report(errors, path, name, dns::subdomain_caseless(name));
}
