//! HorizontalPodAutoscalers, stored as `autoscaling/v2`.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, MetricSpec, MetricTarget,
    ResourceMetricSource,
};
use serde_json::Value;
use xebec_api::Quantity;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::metrics;
use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{NOT_NEGATIVE, dns, numbers, one_of, report, required, text};

const UTILIZATION: i32 = 80;
const PERIOD_SECONDS: i32 = 15;
const MAX_PERIOD_SECONDS: i32 = 1800;
const MAX_WINDOW_SECONDS: i32 = 3600;

#[derive(Default)]
pub struct HorizontalPodAutoscalerStrategy;

impl Strategy for HorizontalPodAutoscalerStrategy {
    type Object = HorizontalPodAutoscaler;

    fn default(&self, autoscaler: &mut HorizontalPodAutoscaler) {
        let spec = &mut autoscaler.spec;
        spec.min_replicas.get_or_insert(1);
        if spec.metrics.as_ref().is_none_or(Vec::is_empty) {
            spec.metrics = Some(vec![cpu_utilization(UTILIZATION)]);
        }
        if let Some(behavior) = &mut spec.behavior {
            let policy =
                |kind: &str, value| HPAScalingPolicy { type_: kind.to_owned(), value, period_seconds: PERIOD_SECONDS };
            let up = behavior.scale_up.get_or_insert_default();
            up.stabilization_window_seconds.get_or_insert(0);
            default_rules(up, vec![policy("Pods", 4), policy("Percent", 100)]);
            default_rules(behavior.scale_down.get_or_insert_default(), vec![policy("Percent", 100)]);
        }
        autoscaler.status.get_or_insert_default();
    }

    fn prepare_create(&self, autoscaler: &mut HorizontalPodAutoscaler) {
        autoscaler.status = Some(Default::default());
    }

    fn validate(&self, autoscaler: &HorizontalPodAutoscaler) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, spec) = (Path::new("spec"), &autoscaler.spec);
        numbers::not_negative(&mut errors, &path.child("minReplicas"), spec.min_replicas.unwrap_or(1));
        let (at, max) = (path.child("maxReplicas"), spec.max_replicas);
        if max == 0 {
            errors.push(FieldError::required(&at, ""));
        } else if max < 0 {
            errors.push(FieldError::invalid(&at, max, "must be greater than or equal to 1"));
        }
        if spec.min_replicas.is_some_and(|min| max < min) {
            errors.push(FieldError::invalid(&at, max, "must be greater than or equal to `minReplicas`"));
        }
        let target = &spec.scale_target_ref;
        object_reference(&mut errors, &path.child("scaleTargetRef"), target);
        scaled_version(&mut errors, &path.child("scaleTargetRef.apiVersion"), text(&target.api_version));
        for (index, metric) in spec.metrics.iter().flatten().enumerate() {
            metrics::validate(&mut errors, &path.child("metrics").index(index), metric);
        }
        let from_without = |metric: &MetricSpec| matches!(metric.type_.as_str(), "Object" | "External");
        if spec.min_replicas == Some(0) && !spec.metrics.iter().flatten().any(from_without) {
            let about = "must specify at least one Object or External metric to support scaling to zero replicas";
            errors.push(FieldError::forbidden(&path.child("metrics"), about));
        }
        if let Some(behavior) = &spec.behavior {
            for (name, rules) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)] {
                if let Some(rules) = rules {
                    scaling_rules(&mut errors, &path.child("behavior").child(name), rules);
                }
            }
        }
        errors
    }

    fn validate_status_update(&self, new: &HorizontalPodAutoscaler, _old: &HorizontalPodAutoscaler) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, status) = (Path::new("status"), new.status.clone().unwrap_or_default());
        numbers::not_negative(&mut errors, &path.child("currentReplicas"), status.current_replicas.unwrap_or(0));
        numbers::not_negative(&mut errors, &path.child("desiredReplicas"), status.desired_replicas);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Reference", "string", "What it scales."),
            column("Targets", "string", "What it aims at, and where things are."),
            column("MinPods", "string", "How few Pods it may leave."),
            column("MaxPods", "string", "How many Pods it may make."),
            column("Replicas", "string", "How many Pods there are."),
            AGE_COLUMN,
        ];
        COLUMNS
    }

    fn cells(&self, autoscaler: &HorizontalPodAutoscaler, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&autoscaler.spec, autoscaler.status.clone().unwrap_or_default());
        let target = &spec.scale_target_ref;
        let targets = metrics::text(
            spec.metrics.as_deref().unwrap_or_default(),
            status.current_metrics.as_deref().unwrap_or_default(),
        );
        vec![
            columns::name(&autoscaler.metadata),
            Value::from(format!("{}/{}", target.kind, target.name)),
            Value::from(targets),
            columns::or(spec.min_replicas.map(|min| min.to_string()).as_deref(), "<unset>"),
            Value::from(spec.max_replicas),
            Value::from(status.current_replicas.unwrap_or(0)),
            columns::age(&autoscaler.metadata, now),
        ]
    }
}

/// The metric that is meant where none is named.
pub fn cpu_utilization(percent: i32) -> MetricSpec {
    MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricSource {
            name: "cpu".to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(percent),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}

fn default_rules(rules: &mut HPAScalingRules, policies: Vec<HPAScalingPolicy>) {
    rules.select_policy.get_or_insert_with(|| "Max".to_owned());
    rules.policies.get_or_insert(policies);
}

pub fn object_reference(errors: &mut FieldErrors, path: &Path, reference: &CrossVersionObjectReference) {
    for (name, value) in [("kind", &reference.kind), ("name", &reference.name)] {
        if required(errors, &path.child(name), value) {
            report(errors, &path.child(name), value, dns::path_segment(value));
        }
    }
}

/// Nothing in the core group but ReplicationControllers can be scaled, and those must be said to be what they are.
fn scaled_version(errors: &mut FieldErrors, path: &Path, version: &str) {
    let about = match version.split('/').collect::<Vec<_>>()[..] {
        [_] | ["", _] => "apiVersion must specify API group".to_owned(),
        [_, _] => return,
        _ => format!("unexpected GroupVersion string: {version}"),
    };
    errors.push(FieldError::invalid(path, version, about));
}

fn scaling_rules(errors: &mut FieldErrors, path: &Path, rules: &HPAScalingRules) {
    let at = path.child("stabilizationWindowSeconds");
    match rules.stabilization_window_seconds {
        Some(seconds) if seconds < 0 => {
            errors.push(FieldError::invalid(&at, seconds, "must be greater than or equal to zero"));
        }
        Some(seconds) if seconds > MAX_WINDOW_SECONDS => {
            let about = format!("must be less than or equal to {MAX_WINDOW_SECONDS}");
            errors.push(FieldError::invalid(&at, seconds, about));
        }
        _ => {}
    }
    if let Some(policy) = &rules.select_policy {
        one_of(errors, &path.child("selectPolicy"), policy, &["Disabled", "Max", "Min"]);
    }
    let policies = rules.policies.as_deref().unwrap_or_default();
    if policies.is_empty() {
        errors.push(FieldError::required(&path.child("policies"), "must specify at least one Policy"));
    }
    for (index, policy) in policies.iter().enumerate() {
        let path = path.child("policies").index(index);
        one_of(errors, &path.child("type"), &policy.type_, &["Percent", "Pods"]);
        numbers::positive(errors, &path.child("value"), policy.value);
        numbers::positive(errors, &path.child("periodSeconds"), policy.period_seconds);
        if policy.period_seconds > MAX_PERIOD_SECONDS {
            let about = format!("must be less than or equal to {MAX_PERIOD_SECONDS}");
            errors.push(FieldError::invalid(&path.child("periodSeconds"), policy.period_seconds, about));
        }
    }
    if let Some(tolerance) = &rules.tolerance {
        let quantity = Quantity::of(Some(tolerance));
        if quantity.is_negative() {
            errors.push(FieldError::invalid(&path.child("tolerance"), quantity.to_string(), NOT_NEGATIVE));
        }
    }
}
