//! Deployments.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStrategy as Rollout, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use xebec_api::field::{FieldError, FieldErrors, Path};
use xebec_api::fields::Filter;

use super::counts::{self, Counts};
use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Scale, Strategy, column};
use crate::resources::columns;
use crate::resources::core::pod_defaults::{self, default_text};
use crate::resources::core::pod_warnings;
use crate::resources::validation::numbers::{self, at_most_all, count_or_percent, is_zero};
use crate::resources::validation::pod_template::{self, Keeper};
use crate::resources::validation::{immutable, shown, text};

const HISTORY: i32 = 10;
const PROGRESS_SECONDS: i32 = 600;
const QUARTER: &str = "25%";

#[derive(Default)]
pub struct DeploymentStrategy;

impl Strategy for DeploymentStrategy {
    type Object = Deployment;

    fn default(&self, deployment: &mut Deployment) {
        let spec = &mut deployment.spec;
        spec.replicas.get_or_insert(1);
        let rollout = spec.strategy.get_or_insert_default();
        default_text(&mut rollout.type_, "RollingUpdate");
        if text(&rollout.type_) == "RollingUpdate" {
            let rolling = rollout.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert_with(|| IntOrString::String(QUARTER.to_owned()));
            rolling.max_surge.get_or_insert_with(|| IntOrString::String(QUARTER.to_owned()));
        }
        spec.revision_history_limit.get_or_insert(HISTORY);
        spec.progress_deadline_seconds.get_or_insert(PROGRESS_SECONDS);
        pod_defaults::template(&mut spec.template);
        deployment.status.get_or_insert_default();
    }

    fn prepare_create(&self, deployment: &mut Deployment) {
        deployment.status = Some(Default::default());
    }

    fn prepare_update(&self, new: &mut Deployment, old: &Deployment) {
        // A rollback is a change of annotations; it counts as a new generation too.
        if new.metadata.annotations != old.metadata.annotations {
            new.metadata.generation = Some(old.metadata.generation.unwrap_or(0) + 1);
        }
    }

    fn prepare_status_update(&self, new: &mut Deployment, old: &Deployment) {
        new.metadata.labels = old.metadata.labels.clone();
    }

    fn ownable(&self, subresource: &str) -> Filter {
        match subresource {
            "" => Filter::Without(&[&["status"]]),
            "status" => Filter::Without(&[&["spec"], &["metadata", "labels"]]),
            _ => Filter::Without(&[]),
        }
    }

    fn validate(&self, deployment: &Deployment) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let path = Path::new("spec");
        let spec = &deployment.spec;
        let min_ready = spec.min_ready_seconds.unwrap_or(0);
        numbers::not_negative(&mut errors, &path.child("replicas"), spec.replicas.unwrap_or(0));
        pod_template::selector(&mut errors, &path.child("selector"), &spec.selector);
        // The check is that of ReplicaSets, and so is the name in its text.
        let keeper = Keeper { kind: "ReplicaSet", selector: &spec.selector };
        pod_template::kept_running(&mut errors, &path.child("template"), &spec.template, keeper);
        rollout(&mut errors, &path.child("strategy"), &spec.strategy.clone().unwrap_or_default());
        numbers::not_negative(&mut errors, &path.child("minReadySeconds"), min_ready);
        if let Some(limit) = spec.revision_history_limit {
            numbers::not_negative(&mut errors, &path.child("revisionHistoryLimit"), limit);
        }
        if let Some(seconds) = spec.progress_deadline_seconds {
            let path = path.child("progressDeadlineSeconds");
            numbers::not_negative(&mut errors, &path, seconds);
            if seconds <= min_ready {
                errors.push(FieldError::invalid(&path, seconds, "must be greater than minReadySeconds"));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Deployment, old: &Deployment) -> FieldErrors {
        let mut errors = self.validate(new);
        immutable(&mut errors, &Path::new("spec.selector"), &new.spec.selector, &old.spec.selector);
        errors
    }

    fn validate_status_update(&self, new: &Deployment, old: &Deployment) -> FieldErrors {
        let status = new.status.clone().unwrap_or_default();
        let counts = Counts {
            replicas: status.replicas.unwrap_or(0),
            others: &[
                ("updatedReplicas", status.updated_replicas),
                ("readyReplicas", status.ready_replicas),
                ("availableReplicas", status.available_replicas),
            ],
            ready: status.ready_replicas,
            available: status.available_replicas,
            observed_generation: status.observed_generation,
            terminating: status.terminating_replicas,
            collisions: status.collision_count,
        };
        let mut errors = counts::validate(&counts, old.status.as_ref().and_then(|status| status.collision_count));
        let unavailable = status.unavailable_replicas.unwrap_or(0);
        numbers::not_negative(&mut errors, &Path::new("status.unavailableReplicas"), unavailable);
        errors
    }

    fn warnings(&self, deployment: &Deployment, old: Option<&Deployment>) -> Vec<String> {
        if old.is_some_and(|old| old.spec == deployment.spec) {
            return Vec::new();
        }
        let template = Some(&deployment.spec.template);
        let name = pod_warnings::name_warning(&deployment.metadata, "Pod names and hostnames");
        name.filter(|_| old.is_none()).into_iter().chain(pod_warnings::template_warnings(template)).collect()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            columns::READY,
            column("Up-to-date", "string", "How many Pods are of the current template."),
            column("Available", "string", "How many Pods have been ready for long enough."),
            AGE_COLUMN,
            columns::CONTAINERS,
            columns::IMAGES,
            columns::SELECTOR,
        ];
        COLUMNS
    }

    fn cells(&self, deployment: &Deployment, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&deployment.spec, deployment.status.clone().unwrap_or_default());
        let [names, images] = columns::containers(Some(&spec.template));
        let ready = format!("{}/{}", status.ready_replicas.unwrap_or(0), spec.replicas.unwrap_or(0));
        vec![
            columns::name(&deployment.metadata),
            Value::from(ready),
            Value::from(status.updated_replicas.unwrap_or(0)),
            Value::from(status.available_replicas.unwrap_or(0)),
            columns::age(&deployment.metadata, now),
            names,
            images,
            Value::from(columns::selector_text(Some(&spec.selector))),
        ]
    }

    fn scale(&self) -> Option<Scale<Deployment>> {
        Some(Scale {
            replicas: |one| one.spec.replicas.unwrap_or(0),
            set_replicas: |one, replicas| one.spec.replicas = Some(replicas),
            status_replicas: |one| one.status.as_ref().and_then(|status| status.replicas).unwrap_or(0),
            selector: |one| columns::selector_text(Some(&one.spec.selector)),
        })
    }
}

fn rollout(errors: &mut FieldErrors, path: &Path, rollout: &Rollout) {
    let at = path.child("rollingUpdate");
    match text(&rollout.type_) {
        "Recreate" => {
            if rollout.rolling_update.is_some() {
                errors.push(FieldError::forbidden(&at, "may not be specified when strategy `type` is 'Recreate'"));
            }
        }
        "RollingUpdate" => match &rollout.rolling_update {
            None => errors.push(FieldError::required(&at, "this should be defaulted and never be nil")),
            Some(rolling) => rolling_update(errors, &at, rolling),
        },
        // Upstream shows its internal form of the whole strategy.
        _ => errors.push(FieldError::not_supported(path, shown_rollout(rollout), &["Recreate", "RollingUpdate"])),
    }
}

fn shown_rollout(rollout: &Rollout) -> Value {
    let rolling = rollout.rolling_update.as_ref();
    let rolling = rolling.map(|one| json!({"MaxUnavailable": one.max_unavailable, "MaxSurge": one.max_surge}));
    json!({"Type": rollout.type_, "RollingUpdate": rolling})
}

fn rolling_update(errors: &mut FieldErrors, path: &Path, rolling: &RollingUpdateDeployment) {
    let none = IntOrString::Int(0);
    let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&none);
    let surge = rolling.max_surge.as_ref().unwrap_or(&none);
    count_or_percent(errors, &path.child("maxUnavailable"), unavailable);
    count_or_percent(errors, &path.child("maxSurge"), surge);
    if is_zero(Some(unavailable)) && is_zero(Some(surge)) {
        let about = "may not be 0 when `maxSurge` is 0";
        errors.push(FieldError::invalid(&path.child("maxUnavailable"), shown(unavailable), about));
    }
    at_most_all(errors, &path.child("maxUnavailable"), unavailable);
}
