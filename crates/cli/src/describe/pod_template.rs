//! Templates of Pods, and what else describes them: constraints on their spreading.

use k8s_openapi::api::core::v1::{PodTemplateSpec, TopologySpreadConstraint};
use xebec_api::LabelSelector;

use super::container::Containers;
use super::page::{Page, or_none};
use super::volume;

pub fn describe(template: Option<&PodTemplateSpec>, page: &mut Page) {
    page.line(0, "Pod Template:");
    let Some(template) = template else { return page.line(1, "<unset>") };
    let meta = template.metadata.as_ref();
    page.labels("  Labels", meta.and_then(|meta| meta.labels.as_ref()));
    if let Some(annotations) = meta.and_then(|meta| meta.annotations.as_ref()).filter(|all| !all.is_empty()) {
        page.annotations("  Annotations", Some(annotations));
    }
    let Some(spec) = &template.spec else { return };
    page.optional(1, "Service Account", spec.service_account_name.as_deref());
    let containers = |title, containers| Containers { title, containers, statuses: &[], pod: None };
    if let Some(init) = spec.init_containers.as_deref().filter(|init| !init.is_empty()) {
        containers("Init Containers", init).describe(page);
    }
    containers("Containers", &spec.containers).describe(page);
    volume::describe(spec.volumes.as_ref(), "  ", page);
    spreading(spec.topology_spread_constraints.as_ref(), "  ", page);
    page.optional(1, "Priority Class Name", spec.priority_class_name.as_deref());
    page.labels("  Node-Selectors", spec.node_selector.as_ref());
    page.tolerations("  Tolerations", spec.tolerations.as_ref());
}

pub fn spreading(constraints: Option<&Vec<TopologySpreadConstraint>>, space: &str, page: &mut Page) {
    let mut constraints: Vec<_> = constraints.into_iter().flatten().collect();
    if constraints.is_empty() {
        return;
    }
    constraints.sort_by_key(|constraint| &constraint.topology_key);
    let lines: Vec<String> = constraints.into_iter().map(spread).collect();
    page.lines(&format!("{space}Topology Spread Constraints"), &lines);
}

fn spread(constraint: &TopologySpreadConstraint) -> String {
    let when = format!("{}:{}", constraint.topology_key, constraint.when_unsatisfiable);
    let text = format!("{when} when max skew {} is exceeded", constraint.max_skew);
    let Some(selector) = &constraint.label_selector else { return text };
    format!("{text} for selector {}", selector_text(Some(selector)))
}

/// A selector in its query form; `<none>` selects everything.
pub fn selector_text(selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>) -> String {
    LabelSelector::from_object(selector).map_or_else(|_| "<error>".to_owned(), |selector| or_none(selector.to_string()))
}
