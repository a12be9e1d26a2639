//! DaemonSets.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetUpdateStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::counts;
use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::core::pod_defaults::{self, default_text};
use crate::resources::core::pod_warnings;
use crate::resources::validation::numbers::{self, at_most_all, count_or_percent, is_zero};
use crate::resources::validation::pod_template::{self, Keeper};
use crate::resources::validation::{immutable, labels, semantically_equal, shown, text, unsupported};

const HISTORY: i32 = 10;

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

#[derive(Default)]
pub struct DaemonSetStrategy;

impl Strategy for DaemonSetStrategy {
    type Object = DaemonSet;

    fn default(&self, set: &mut DaemonSet) {
        let spec = &mut set.spec;
        let update = spec.update_strategy.get_or_insert_default();
        default_text(&mut update.type_, "RollingUpdate");
        if text(&update.type_) == "RollingUpdate" {
            let rolling = update.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        spec.revision_history_limit.get_or_insert(HISTORY);
        pod_defaults::template(&mut spec.template);
        set.status.get_or_insert_default();
        // Upstream keeps it in a field, so that whoever writes a DaemonSet writes the annotation, too.
        let generation = template_generation(set);
        set_template_generation(set, generation);
    }

    fn prepare_create(&self, set: &mut DaemonSet) {
        set.status = Some(Default::default());
        let asked = template_generation(set).max(1);
        set_template_generation(set, asked);
    }

    fn prepare_update(&self, new: &mut DaemonSet, old: &DaemonSet) {
        let changed = !semantically_equal(&new.spec.template, &old.spec.template);
        set_template_generation(new, template_generation(old) + i64::from(changed));
    }

    fn validate(&self, set: &DaemonSet) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, spec) = (Path::new("spec"), &set.spec);
        labels::selector(&mut errors, &path.child("selector"), Some(&spec.selector));
        let keeper = Keeper { kind: "DaemonSet", selector: &spec.selector };
        pod_template::kept_running(&mut errors, &path.child("template"), &spec.template, keeper);
        numbers::not_negative(&mut errors, &path.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or(0));
        update_strategy(&mut errors, &path.child("updateStrategy"), &spec.update_strategy.clone().unwrap_or_default());
        if let Some(limit) = spec.revision_history_limit {
            numbers::not_negative(&mut errors, &path.child("revisionHistoryLimit"), limit);
        }
        errors
    }

    fn validate_update(&self, new: &DaemonSet, old: &DaemonSet) -> FieldErrors {
        let mut errors = FieldErrors::new();
        immutable(&mut errors, &Path::new("spec.selector"), &new.spec.selector, &old.spec.selector);
        errors.extend(self.validate(new));
        errors
    }

    fn validate_status_update(&self, new: &DaemonSet, old: &DaemonSet) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, status) = (Path::new("status"), new.status.clone().unwrap_or_default());
        let numbers = [
            ("currentNumberScheduled", status.current_number_scheduled),
            ("numberMisscheduled", status.number_misscheduled),
            ("desiredNumberScheduled", status.desired_number_scheduled),
            ("numberReady", status.number_ready),
            ("updatedNumberScheduled", status.updated_number_scheduled.unwrap_or(0)),
            ("numberAvailable", status.number_available.unwrap_or(0)),
            ("numberUnavailable", status.number_unavailable.unwrap_or(0)),
        ];
        for (name, value) in numbers {
            numbers::not_negative(&mut errors, &path.child(name), value);
        }
        numbers::not_negative(&mut errors, &path.child("observedGeneration"), status.observed_generation.unwrap_or(0));
        let before = old.status.as_ref().and_then(|status| status.collision_count);
        counts::collisions(&mut errors, status.collision_count, before);
        errors
    }

    fn warnings(&self, set: &DaemonSet, old: Option<&DaemonSet>) -> Vec<String> {
        if old.is_some_and(|old| old.spec == set.spec) {
            return Vec::new();
        }
        pod_warnings::template_warnings(Some(&set.spec.template))
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Desired", "integer", "On how many nodes a Pod is wanted."),
            column("Current", "integer", "On how many nodes there is one."),
            column("Ready", "integer", "On how many nodes one is ready."),
            column("Up-to-date", "integer", "On how many nodes one is of the current template."),
            column("Available", "integer", "On how many nodes one has been ready for long enough."),
            column("Node Selector", "string", "Which nodes get one."),
            AGE_COLUMN,
            columns::CONTAINERS,
            columns::IMAGES,
            columns::SELECTOR,
        ];
        COLUMNS
    }

    fn cells(&self, set: &DaemonSet, now: Timestamp) -> Vec<Value> {
        let status = set.status.clone().unwrap_or_default();
        let [names, images] = columns::containers(Some(&set.spec.template));
        let node_selector = set.spec.template.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
        vec![
            columns::name(&set.metadata),
            Value::from(status.desired_number_scheduled),
            Value::from(status.current_number_scheduled),
            Value::from(status.number_ready),
            Value::from(status.updated_number_scheduled.unwrap_or(0)),
            Value::from(status.number_available.unwrap_or(0)),
            columns::labels(node_selector),
            columns::age(&set.metadata, now),
            names,
            images,
            columns::selector(Some(&set.spec.selector)),
        ]
    }
}

/// How often the template changed; a field of the first versions of the kind that lives on as an annotation.
fn template_generation(set: &DaemonSet) -> i64 {
    let kept = set.metadata.annotations.as_ref().and_then(|all| all.get(TEMPLATE_GENERATION)?.parse().ok());
    kept.unwrap_or(0)
}

fn set_template_generation(set: &mut DaemonSet, generation: i64) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string());
}

fn update_strategy(errors: &mut FieldErrors, path: &Path, strategy: &DaemonSetUpdateStrategy) {
    match text(&strategy.type_) {
        "OnDelete" => {}
        "RollingUpdate" => {
            let path = path.child("rollingUpdate");
            let Some(rolling) = &strategy.rolling_update else {
                return errors.push(FieldError::required(&path, ""));
            };
            let none = IntOrString::Int(0);
            let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&none);
            let surge = rolling.max_surge.as_ref().unwrap_or(&none);
            for (name, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
                count_or_percent(errors, &path.child(name), value);
            }
            for (name, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
                at_most_all(errors, &path.child(name), value);
            }
            match (is_zero(Some(unavailable)), is_zero(Some(surge))) {
                (false, false) => {
                    let about = "may not be set when maxUnavailable is non-zero";
                    errors.push(FieldError::invalid(&path.child("maxSurge"), shown(surge), about));
                }
                (true, true) => {
                    let about = "cannot be 0 when maxSurge is 0";
                    errors.push(FieldError::required(&path.child("maxUnavailable"), about));
                }
                _ => {}
            }
        }
        // Upstream shows its internal form of the whole strategy.
        _ => {
            let rolling = strategy.rolling_update.as_ref();
            let rolling = rolling.map(|one| json!({"MaxUnavailable": one.max_unavailable, "MaxSurge": one.max_surge}));
            let value = json!({"Type": strategy.type_, "RollingUpdate": rolling});
            errors.push(unsupported(path, value, &["RollingUpdate", "OnDelete"]));
        }
    }
}
