//! ReplicationControllers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{pod_defaults, pod_warnings};
use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Scale, Strategy, column};
use crate::resources::apps::counts::{self, Counts};
use crate::resources::columns;
use crate::resources::validation::pod_template;
use crate::resources::validation::{numbers, shown};

#[derive(Default)]
pub struct ReplicationControllerStrategy;

impl Strategy for ReplicationControllerStrategy {
    type Object = ReplicationController;

    fn default(&self, controller: &mut ReplicationController) {
        let spec = controller.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        if let Some(template) = &mut spec.template {
            pod_defaults::template(template);
        }
        let template_labels = labels_of(spec.template.as_ref()).cloned();
        if let Some(labels) = template_labels {
            if spec.selector.as_ref().is_none_or(BTreeMap::is_empty) {
                spec.selector = Some(labels.clone());
            }
            if controller.metadata.labels.as_ref().is_none_or(BTreeMap::is_empty) {
                controller.metadata.labels = Some(labels);
            }
        }
        controller.status.get_or_insert_default();
    }

    fn prepare_create(&self, controller: &mut ReplicationController) {
        controller.status = Some(Default::default());
    }

    fn validate(&self, controller: &ReplicationController) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let path = Path::new("spec");
        let spec = controller.spec.clone().unwrap_or_default();
        numbers::not_negative(&mut errors, &path.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or(0));
        if spec.selector.as_ref().is_none_or(BTreeMap::is_empty) {
            errors.push(FieldError::required(&path.child("selector"), ""));
        }
        numbers::not_negative(&mut errors, &path.child("replicas"), spec.replicas.unwrap_or(0));
        let at = path.child("template");
        let Some(template) = &spec.template else {
            errors.push(FieldError::required(&at, ""));
            return errors;
        };
        let found = labels_of(Some(template));
        let matches = |(key, value): (&String, &String)| found.is_some_and(|labels| labels.get(key) == Some(value));
        if !spec.selector.iter().flatten().all(matches) {
            let about = "`selector` does not match template `labels`";
            errors.push(FieldError::invalid(&at.child("metadata.labels"), shown(&found), about));
        }
        pod_template::template(&mut errors, &at, template);
        pod_template::always_restarts(&mut errors, &at, template, "ReplicationController");
        errors
    }

    fn validate_status_update(&self, new: &ReplicationController, _old: &ReplicationController) -> FieldErrors {
        let status = new.status.clone().unwrap_or_default();
        let counts = Counts {
            replicas: status.replicas,
            others: &[
                ("fullyLabeledReplicas", status.fully_labeled_replicas),
                ("readyReplicas", status.ready_replicas),
                ("availableReplicas", status.available_replicas),
            ],
            ready: status.ready_replicas,
            available: status.available_replicas,
            observed_generation: status.observed_generation,
            terminating: None,
            collisions: None,
        };
        counts::validate(&counts, None)
    }

    fn warnings(&self, controller: &ReplicationController, old: Option<&ReplicationController>) -> Vec<String> {
        let template = controller.spec.as_ref().and_then(|spec| spec.template.as_ref());
        if old.is_some_and(|old| old.spec == controller.spec) {
            return Vec::new();
        }
        let name = pod_warnings::name_warning(&controller.metadata, "Pod names and hostnames");
        let name = name.filter(|_| old.is_none()).into_iter();
        name.chain(pod_warnings::template_warnings(template)).collect()
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn field<'a>(&self, controller: &'a ReplicationController, _field: &str) -> Cow<'a, str> {
        Cow::Owned(controller.status.as_ref().map_or(0, |status| status.replicas).to_string())
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, controller: &ReplicationController, now: Timestamp) -> Vec<Value> {
        let (spec, status) =
            (controller.spec.clone().unwrap_or_default(), controller.status.clone().unwrap_or_default());
        let [names, images] = columns::containers(spec.template.as_ref());
        vec![
            columns::name(&controller.metadata),
            Value::from(spec.replicas.unwrap_or(0)),
            Value::from(status.replicas),
            Value::from(status.ready_replicas.unwrap_or(0)),
            columns::age(&controller.metadata, now),
            names,
            images,
            columns::labels(spec.selector.as_ref()),
        ]
    }

    fn scale(&self) -> Option<Scale<ReplicationController>> {
        Some(Scale {
            replicas: |one| one.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0),
            set_replicas: |one, replicas| one.spec.get_or_insert_default().replicas = Some(replicas),
            status_replicas: |one| one.status.as_ref().map_or(0, |status| status.replicas),
            selector: |one| columns::map_text(one.spec.as_ref().and_then(|spec| spec.selector.as_ref())),
        })
    }
}

/// The columns that ReplicaSets have too.
pub const COLUMNS: &[Column] = &[
    NAME_COLUMN,
    column("Desired", "integer", "How many Pods are wanted."),
    column("Current", "integer", "How many Pods there are."),
    column("Ready", "integer", "How many Pods are ready."),
    AGE_COLUMN,
    columns::CONTAINERS,
    columns::IMAGES,
    columns::SELECTOR,
];

fn labels_of(template: Option<&PodTemplateSpec>) -> Option<&BTreeMap<String, String>> {
    let labels = template.and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    labels.filter(|labels| !labels.is_empty())
}
