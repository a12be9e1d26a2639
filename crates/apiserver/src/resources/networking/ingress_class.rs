//! IngressClasses.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::TypedLocalObjectReference;
use k8s_openapi::api::networking::v1::IngressClass;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::ingress::object_reference;
use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{dns, immutable, report, text};

const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
const MAX_CONTROLLER: usize = 250;

#[derive(Default)]
pub struct IngressClassStrategy;

impl Strategy for IngressClassStrategy {
    type Object = IngressClass;

    fn has_status(&self) -> bool {
        false
    }

    fn default(&self, class: &mut IngressClass) {
        if let Some(parameters) = &mut class.spec.get_or_insert_default().parameters {
            parameters.scope.get_or_insert_with(|| "Cluster".to_owned());
        }
    }

    fn validate(&self, class: &IngressClass) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, spec) = (Path::new("spec"), class.spec.clone().unwrap_or_default());
        let (at, controller) = (path.child("controller"), text(&spec.controller));
        if controller.len() > MAX_CONTROLLER {
            errors.push(FieldError::too_long(&at, MAX_CONTROLLER));
        }
        dns::domain_prefixed_path(&mut errors, &at, controller);
        let Some(parameters) = spec.parameters else { return errors };
        let path = path.child("parameters");
        let reference =
            TypedLocalObjectReference { api_group: parameters.api_group, kind: parameters.kind, name: parameters.name };
        object_reference(&mut errors, &path, &reference);
        let at = path.child("namespace");
        match (text(&parameters.scope), parameters.namespace) {
            ("Namespace", None) => {
                errors.push(FieldError::required(&at, "`parameters.scope` is set to 'Namespace'"));
            }
            ("Namespace", Some(namespace)) => report(&mut errors, &at, &namespace, dns::label(&namespace)),
            ("Cluster", Some(_)) => {
                errors.push(FieldError::forbidden(&at, "`parameters.scope` is set to 'Cluster'"));
            }
            ("Cluster", None) => {}
            (other, _) => {
                errors.push(FieldError::not_supported(&path.child("scope"), other, &["Cluster", "Namespace"]));
            }
        }
        errors
    }

    fn validate_update(&self, new: &IngressClass, old: &IngressClass) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let controller =
            |class: &IngressClass| class.spec.as_ref().and_then(|spec| spec.controller.clone()).unwrap_or_default();
        immutable(&mut errors, &Path::new("spec.controller"), &controller(new), &controller(old));
        errors.extend(self.validate(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Controller", "string", "Who serves it."),
            column("Parameters", "string", "What configures it further."),
            AGE_COLUMN,
        ];
        COLUMNS
    }

    fn cells(&self, class: &IngressClass, now: Timestamp) -> Vec<Value> {
        let spec = class.spec.clone().unwrap_or_default();
        let default = class.metadata.annotations.as_ref().and_then(|all| all.get(DEFAULT)).is_some_and(|v| v == "true");
        let mut name = text(&class.metadata.name).to_owned();
        if default {
            name.push_str(" (default)");
        }
        let parameters = spec.parameters.as_ref().map(|one| {
            let group = one.api_group.as_ref().map_or(String::new(), |group| format!(".{group}"));
            format!("{}{group}/{}", one.kind, one.name)
        });
        vec![
            Value::from(name),
            Value::from(text(&spec.controller)),
            columns::or(parameters.as_deref(), "<none>"),
            columns::age(&class.metadata, now),
        ]
    }
}
