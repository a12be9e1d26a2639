//! ComponentStatuses: how the parts of the control plane are. Nothing stores them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ComponentStatus;
use serde_json::Value;
use xebec_api::field::FieldErrors;

use crate::registry::erased::Row;
use crate::registry::strategy::{Column, Generation, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::text;

/// The resource as it is shown; it is in no table of what is stored.
pub const ROW: Row = Row::of::<ComponentStatusStrategy>();

#[derive(Default)]
pub struct ComponentStatusStrategy;

impl Strategy for ComponentStatusStrategy {
    type Object = ComponentStatus;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn has_status(&self) -> bool {
        false
    }

    /// Nobody writes one.
    fn validate(&self, _status: &ComponentStatus) -> FieldErrors {
        FieldErrors::new()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Status", "string", "Whether the component is well."),
            column("Message", "string", "What it says of itself."),
            column("Error", "string", "Why it could not be asked."),
        ];
        COLUMNS
    }

    fn cells(&self, status: &ComponentStatus, _now: Timestamp) -> Vec<Value> {
        let healthy = status.conditions.iter().flatten().find(|one| one.type_ == "Healthy");
        let state = match healthy.map(|one| one.status.as_str()) {
            Some("True") => "Healthy",
            Some(_) => "Unhealthy",
            None => "Unknown",
        };
        vec![
            columns::name(&status.metadata),
            Value::from(state),
            Value::from(healthy.map_or("", |one| text(&one.message))),
            Value::from(healthy.map_or("", |one| text(&one.error))),
        ]
    }
}
