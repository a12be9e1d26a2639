//! ReplicaSets.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::Value;
use xebec_api::field::{FieldErrors, Path};

use super::counts::{self, Counts};
use crate::registry::strategy::{Column, Scale, Strategy};
use crate::resources::columns;
use crate::resources::core::{pod_defaults, pod_warnings, replication_controller};
use crate::resources::validation::pod_template::{self, Keeper};
use crate::resources::validation::{immutable, numbers};

#[derive(Default)]
pub struct ReplicaSetStrategy;

impl Strategy for ReplicaSetStrategy {
    type Object = ReplicaSet;

    fn default(&self, set: &mut ReplicaSet) {
        let spec = &mut set.spec;
        spec.replicas.get_or_insert(1);
        pod_defaults::template(spec.template.get_or_insert_default());
        set.status.get_or_insert_default();
    }

    fn prepare_create(&self, set: &mut ReplicaSet) {
        set.status = Some(Default::default());
    }

    fn validate(&self, set: &ReplicaSet) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let path = Path::new("spec");
        let spec = &set.spec;
        numbers::not_negative(&mut errors, &path.child("replicas"), spec.replicas.unwrap_or(0));
        numbers::not_negative(&mut errors, &path.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or(0));
        pod_template::selector(&mut errors, &path.child("selector"), &spec.selector);
        let template = spec.template.clone().unwrap_or_default();
        let keeper = Keeper { kind: "ReplicaSet", selector: &spec.selector };
        pod_template::kept_running(&mut errors, &path.child("template"), &template, keeper);
        errors
    }

    fn validate_update(&self, new: &ReplicaSet, old: &ReplicaSet) -> FieldErrors {
        let mut errors = self.validate(new);
        immutable(&mut errors, &Path::new("spec.selector"), &new.spec.selector, &old.spec.selector);
        errors
    }

    fn validate_status_update(&self, new: &ReplicaSet, _old: &ReplicaSet) -> FieldErrors {
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
            terminating: status.terminating_replicas,
            collisions: None,
        };
        counts::validate(&counts, None)
    }

    fn warnings(&self, set: &ReplicaSet, old: Option<&ReplicaSet>) -> Vec<String> {
        if old.is_some_and(|old| old.spec == set.spec) {
            return Vec::new();
        }
        let template = set.spec.template.as_ref();
        let name = pod_warnings::name_warning(&set.metadata, "Pod names and hostnames").filter(|_| old.is_none());
        name.into_iter().chain(pod_warnings::template_warnings(template)).collect()
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn field<'a>(&self, set: &'a ReplicaSet, _field: &str) -> Cow<'a, str> {
        Cow::Owned(set.status.as_ref().map_or(0, |status| status.replicas).to_string())
    }

    fn columns(&self) -> &'static [Column] {
        replication_controller::COLUMNS
    }

    fn cells(&self, set: &ReplicaSet, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&set.spec, set.status.clone().unwrap_or_default());
        let [names, images] = columns::containers(spec.template.as_ref());
        vec![
            columns::name(&set.metadata),
            Value::from(spec.replicas.unwrap_or(0)),
            Value::from(status.replicas),
            Value::from(status.ready_replicas.unwrap_or(0)),
            columns::age(&set.metadata, now),
            names,
            images,
            columns::selector(Some(&spec.selector)),
        ]
    }

    fn scale(&self) -> Option<Scale<ReplicaSet>> {
        Some(Scale {
            replicas: |one| one.spec.replicas.unwrap_or(0),
            set_replicas: |one, replicas| one.spec.replicas = Some(replicas),
            status_replicas: |one| one.status.as_ref().map_or(0, |status| status.replicas),
            selector: |one| columns::selector_text(Some(&one.spec.selector)),
        })
    }
}
