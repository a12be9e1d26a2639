//! ControllerRevisions: what a StatefulSet or a DaemonSet looked like once.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{immutable, numbers};

#[derive(Default)]
pub struct ControllerRevisionStrategy;

impl Strategy for ControllerRevisionStrategy {
    type Object = ControllerRevision;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn has_status(&self) -> bool {
        false
    }

    fn validate(&self, revision: &ControllerRevision) -> FieldErrors {
        let mut errors = FieldErrors::new();
        numbers::not_negative(&mut errors, &Path::new("revision"), revision.revision.unwrap_or(0));
        let about = match &revision.data.0 {
            Value::Object(_) => return errors,
            Value::Null => "data is mandatory",
            _ => "data must be a valid JSON object",
        };
        errors.push(FieldError::required(&Path::new("data"), about));
        errors
    }

    fn validate_update(&self, new: &ControllerRevision, old: &ControllerRevision) -> FieldErrors {
        let mut errors = FieldErrors::new();
        numbers::not_negative(&mut errors, &Path::new("revision"), new.revision.unwrap_or(0));
        immutable(&mut errors, &Path::new("data"), &new.data, &old.data);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Controller", "string", "Whose state it is."),
            column("Revision", "string", "Its number."),
            AGE_COLUMN,
        ];
        COLUMNS
    }

    fn cells(&self, revision: &ControllerRevision, now: Timestamp) -> Vec<Value> {
        let owners = revision.metadata.owner_references.as_deref().unwrap_or_default();
        let controller = owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| {
            let group = owner.api_version.split_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
            format!("{}/{}", format!("{}{group}", owner.kind).to_lowercase(), owner.name)
        });
        vec![
            columns::name(&revision.metadata),
            columns::or(controller.as_deref(), "<none>"),
            Value::from(revision.revision.unwrap_or(0)),
            columns::age(&revision.metadata, now),
        ]
    }
}
