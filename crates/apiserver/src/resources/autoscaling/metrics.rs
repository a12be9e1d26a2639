//! What an autoscaler measures: the five sources, their targets, and how a row shows them.

use k8s_openapi::api::autoscaling::v2::{MetricIdentifier, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Raw;
use xebec_api::Quantity;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::horizontal_pod_autoscaler::object_reference;
use crate::resources::validation::quantities::container_resource;
use crate::resources::validation::{dns, labels, report, required};

const SOURCES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
const EITHER: &str = "must set either a target raw value or a target utilization";
const NOT_BOTH: &str = "may not set both a target raw value and a target utilization";

pub fn validate(errors: &mut FieldErrors, path: &Path, metric: &MetricSpec) {
    let present = [
        ("Object", "object", metric.object.is_some()),
        ("External", "external", metric.external.is_some()),
        ("Pods", "pods", metric.pods.is_some()),
        ("Resource", "resource", metric.resource.is_some()),
        ("ContainerResource", "containerResource", metric.container_resource.is_some()),
    ];
    if metric.type_.is_empty() {
        errors.push(FieldError::required(&path.child("type"), "must specify a metric source type"));
    }
    match present.iter().find(|(kind, _, _)| *kind == metric.type_) {
        None => errors.push(FieldError::not_supported(&path.child("type"), metric.type_.as_str(), &SOURCES)),
        Some((_, field, false)) => {
            let about = "must populate information for the given metric source";
            errors.push(FieldError::required(&path.child(field), about));
        }
        Some(_) => {}
    }
    let given: Vec<_> = present.iter().filter(|(_, _, present)| *present).collect();
    if given.len() > 1 {
        for (_, field, _) in given.iter().filter(|(kind, _, _)| *kind != metric.type_) {
            let about = "must populate the given metric source only";
            errors.push(FieldError::forbidden(&path.child(field), about));
        }
    }
    if let Some((_, field, _)) = given.first() {
        source(errors, &path.child(field), field, metric);
    }
}

fn source(errors: &mut FieldErrors, path: &Path, field: &str, metric: &MetricSpec) {
    let average = path.child("target.averageValue");
    match field {
        "object" => {
            let Some(one) = &metric.object else { return };
            object_reference(errors, &path.child("describedObject"), &one.described_object);
            identifier(errors, &path.child("metric"), &one.metric);
            target(errors, &path.child("target"), &one.target);
            if one.target.value.is_none() && one.target.average_value.is_none() {
                errors.push(FieldError::required(&average, "must set either a target value or averageValue"));
            }
        }
        "external" => {
            let Some(one) = &metric.external else { return };
            identifier(errors, &path.child("metric"), &one.metric);
            target(errors, &path.child("target"), &one.target);
            match (&one.target.value, &one.target.average_value) {
                (None, None) => {
                    let about = "must set either a target value for metric or a per-pod target";
                    errors.push(FieldError::required(&average, about));
                }
                (Some(_), Some(_)) => {
                    let about = "may not set both a target value for metric and a per-pod target";
                    errors.push(FieldError::forbidden(&path.child("target.value"), about));
                }
                _ => {}
            }
        }
        "pods" => {
            let Some(one) = &metric.pods else { return };
            identifier(errors, &path.child("metric"), &one.metric);
            target(errors, &path.child("target"), &one.target);
            if one.target.average_value.is_none() {
                errors.push(FieldError::required(&average, "must specify a positive target averageValue"));
            }
        }
        "resource" => {
            let Some(one) = &metric.resource else { return };
            if one.name.is_empty() {
                errors.push(FieldError::required(&path.child("name"), "must specify a resource name"));
            }
            resource_target(errors, path, &one.target);
        }
        _ => {
            let Some(one) = &metric.container_resource else { return };
            if one.name.is_empty() {
                errors.push(FieldError::required(&path.child("name"), "must specify a resource name"));
            } else {
                container_resource(errors, &path.child("name"), &one.name);
            }
            if one.container.is_empty() {
                errors.push(FieldError::required(&path.child("container"), "must specify a container"));
            } else {
                report(errors, &path.child("container"), &one.container, dns::label(&one.container));
            }
            resource_target(errors, path, &one.target);
        }
    }
}

fn identifier(errors: &mut FieldErrors, path: &Path, metric: &MetricIdentifier) {
    if required(errors, &path.child("name"), &metric.name) {
        report(errors, &path.child("name"), &metric.name, dns::path_segment(&metric.name));
    }
    labels::selector(errors, &path.child("selector"), metric.selector.as_ref());
}

fn resource_target(errors: &mut FieldErrors, path: &Path, given: &MetricTarget) {
    target(errors, &path.child("target"), given);
    match (given.average_utilization, &given.average_value) {
        (None, None) => errors.push(FieldError::required(&path.child("target.averageUtilization"), EITHER)),
        (Some(_), Some(_)) => errors.push(FieldError::forbidden(&path.child("target.averageValue"), NOT_BOTH)),
        _ => {}
    }
}

fn target(errors: &mut FieldErrors, path: &Path, target: &MetricTarget) {
    let (at, kind) = (path.child("type"), target.type_.as_str());
    if kind.is_empty() {
        errors.push(FieldError::required(&at, "must specify a metric target type"));
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        errors.push(FieldError::invalid(&at, kind, "must be either Utilization, Value, or AverageValue"));
    }
    for (name, value) in [("value", &target.value), ("averageValue", &target.average_value)] {
        let quantity = Quantity::of(value.as_ref());
        if value.is_some() && quantity <= Quantity::ZERO {
            errors.push(FieldError::invalid(&path.child(name), quantity.to_string(), "must be positive"));
        }
    }
    if let Some(percent) = target.average_utilization.filter(|percent| *percent < 1) {
        errors.push(FieldError::invalid(&path.child("averageUtilization"), percent, "must be greater than 0"));
    }
}

/// The cell of all targets: two in full, the others counted.
pub fn text(metrics: &[MetricSpec], statuses: &[MetricStatus]) -> String {
    if metrics.is_empty() {
        return "<none>".to_owned();
    }
    let each = metrics.iter().enumerate().map(|(index, metric)| one_text(metric, statuses.get(index)));
    let list: Vec<String> = each.collect();
    let shown = list.iter().take(2).map(String::as_str).collect::<Vec<_>>().join(", ");
    if list.len() > 2 { format!("{shown} + {} more...", list.len() - 2) } else { shown }
}

fn one_text(metric: &MetricSpec, status: Option<&MetricStatus>) -> String {
    match metric.type_.as_str() {
        "External" => {
            let current = status.and_then(|status| status.external.as_ref()).map(|one| &one.current);
            metric.external.as_ref().map_or_else(unknown, |one| value_text(&one.target, current))
        }
        "Object" => {
            let current = status.and_then(|status| status.object.as_ref()).map(|one| &one.current);
            metric.object.as_ref().map_or_else(unknown, |one| value_text(&one.target, current))
        }
        "Pods" => {
            let current = status.and_then(|status| status.pods.as_ref()).map(|one| &one.current);
            let current = current.and_then(|current| current.average_value.as_ref());
            let target = metric.pods.as_ref().and_then(|one| one.target.average_value.as_ref());
            format!("{}/{}", amount(current), amount(target))
        }
        "Resource" => {
            let current = status.and_then(|status| status.resource.as_ref()).map(|one| &one.current);
            metric.resource.as_ref().map_or_else(unknown, |one| resource_text(&one.name, &one.target, current))
        }
        "ContainerResource" => {
            let current = status.and_then(|status| status.container_resource.as_ref()).map(|one| &one.current);
            let one = metric.container_resource.as_ref();
            one.map_or_else(unknown, |one| resource_text(&one.name, &one.target, current))
        }
        _ => "<unknown type>".to_owned(),
    }
}

fn unknown() -> String {
    "<unknown>".to_owned()
}

fn amount(value: Option<&Raw>) -> String {
    value.map_or_else(unknown, |value| value.0.clone())
}

fn value_text(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    if let Some(average) = &target.average_value {
        let current = current.and_then(|current| current.average_value.as_ref());
        return format!("{}/{} (avg)", amount(current), average.0);
    }
    let current = current.and_then(|current| current.value.as_ref());
    format!("{}/{}", amount(current), amount(target.value.as_ref()))
}

fn resource_text(name: &str, target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    if let Some(average) = &target.average_value {
        let current = current.and_then(|current| current.average_value.as_ref());
        return format!("{name}: {}/{}", amount(current), average.0);
    }
    let percent = |value: Option<i32>, none: &str| value.map_or(none.to_owned(), |value| format!("{value}%"));
    let current = percent(current.and_then(|current| current.average_utilization), "<unknown>");
    format!("{name}: {current}/{}", percent(target.average_utilization, "<auto>"))
}
