//! RuntimeClasses.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::api::node::v1::RuntimeClass;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::core::pod_defaults;
use crate::resources::validation::quantities::{self, container_resource};
use crate::resources::validation::{declared_immutable, dns, labels, report, required, scheduling, shown_in_go, text};

#[derive(Default)]
pub struct RuntimeClassStrategy;

impl Strategy for RuntimeClassStrategy {
    type Object = RuntimeClass;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn has_status(&self) -> bool {
        false
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, class: &mut RuntimeClass) {
        pod_defaults::amounts(class.overhead.as_mut().and_then(|overhead| overhead.pod_fixed.as_mut()));
    }

    fn validate(&self, class: &RuntimeClass) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let path = Path::new("handler");
        if required(&mut errors, &path, &class.handler) {
            // A declared rule, whose words differ.
            let messages = dns::label(&class.handler);
            let in_bytes = |text: &String| text.replace("more than 63 characters", "more than 63 bytes");
            report(&mut errors, &path, &class.handler, messages.iter().map(in_bytes).collect());
        }
        if let Some(overhead) = &class.overhead {
            let path = Path::new("overhead.limits");
            quantities::amounts(&mut errors, &path, overhead.pod_fixed.as_ref(), container_resource);
        }
        if let Some(placement) = &class.scheduling {
            let path = Path::new("scheduling");
            labels::labels(&mut errors, &path.child("nodeSelector"), placement.node_selector.as_ref());
            let at = path.child("tolerations");
            let tolerations = placement.tolerations.as_deref().unwrap_or_default();
            scheduling::tolerations(&mut errors, &at, Some(tolerations));
            let mut seen = BTreeSet::new();
            for (index, one) in tolerations.iter().enumerate() {
                let Toleration { key, operator, value, effect, .. } = one;
                if !seen.insert((text(key), text(operator), text(value), text(effect))) {
                    errors.push(FieldError::duplicate(&at.index(index), shown_in_go("Toleration", one)));
                }
            }
        }
        errors
    }

    fn validate_update(&self, new: &RuntimeClass, old: &RuntimeClass) -> FieldErrors {
        let mut errors = self.validate(new);
        declared_immutable(&mut errors, &Path::new("handler"), &new.handler, &old.handler);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME_COLUMN, column("Handler", "string", "What the container runtime calls it."), AGE_COLUMN];
        COLUMNS
    }

    fn cells(&self, class: &RuntimeClass, now: Timestamp) -> Vec<Value> {
        let handler = Value::from(class.handler.as_str());
        vec![columns::name(&class.metadata), handler, columns::age(&class.metadata, now)]
    }
}
