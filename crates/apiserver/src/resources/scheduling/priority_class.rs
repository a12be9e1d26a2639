//! PriorityClasses.

use jiff::Timestamp;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{immutable, required_one_of, text};

const SYSTEM: &str = "system-";
const SYSTEM_CLASSES: [(&str, i32); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
/// What is above is the system's own.
const MAX_VALUE: i32 = 1_000_000_000;

#[derive(Default)]
pub struct PriorityClassStrategy;

impl Strategy for PriorityClassStrategy {
    type Object = PriorityClass;

    fn has_status(&self) -> bool {
        false
    }

    fn default(&self, class: &mut PriorityClass) {
        class.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".to_owned());
        class.value.get_or_insert(0);
    }

    fn validate(&self, class: &PriorityClass) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (name, value) = (text(&class.metadata.name), class.value.unwrap_or(0));
        if name.starts_with(SYSTEM) {
            let about = match SYSTEM_CLASSES.iter().find(|(known, _)| *known == name) {
                None => format!("{name} is not a known system priority class"),
                Some((_, wanted)) if *wanted != value => format!("value of {name} PriorityClass must be {wanted}"),
                Some(_) if class.global_default == Some(true) => {
                    format!("globalDefault of {name} PriorityClass must be false")
                }
                Some(_) => String::new(),
            };
            if !about.is_empty() {
                let why = "priority class names with 'system-' prefix are reserved for system use only. error";
                errors.push(FieldError::forbidden(&Path::new("metadata.name"), format!("{why}: {about}")));
            }
        } else if value > MAX_VALUE {
            let about = format!("maximum allowed value of a user defined priority is {MAX_VALUE}");
            errors.push(FieldError::forbidden(&Path::new("value"), about));
        }
        if let Some(policy) = &class.preemption_policy {
            let policies = ["PreemptLowerPriority", "Never"];
            required_one_of(&mut errors, &Path::new("preemptionPolicy"), policy, &policies);
        }
        errors
    }

    fn validate_update(&self, new: &PriorityClass, old: &PriorityClass) -> FieldErrors {
        let mut errors = FieldErrors::new();
        if new.value.unwrap_or(0) != old.value.unwrap_or(0) {
            errors.push(FieldError::forbidden(&Path::new("value"), "may not be changed in an update."));
        }
        immutable(&mut errors, &Path::new("preemptionPolicy"), &new.preemption_policy, &old.preemption_policy);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Value", "integer", "How much Pods of it matter."),
            column("Global-Default", "boolean", "Whether Pods that name no class are of it."),
            AGE_COLUMN,
            column("PreemptionPolicy", "string", "Whether its Pods push others out."),
        ];
        COLUMNS
    }

    fn cells(&self, class: &PriorityClass, now: Timestamp) -> Vec<Value> {
        vec![
            columns::name(&class.metadata),
            Value::from(class.value.unwrap_or(0)),
            Value::from(class.global_default.unwrap_or(false)),
            columns::age(&class.metadata, now),
            Value::from(text(&class.preemption_policy)),
        ]
    }
}
