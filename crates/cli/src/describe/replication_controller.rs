//! ReplicationControllers, and what they have in common with ReplicaSets: their Pods by phase.

use std::fmt;

use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use xebec_api::LabelSelector;
use xebec_client::{Error, ListOptions};

use super::page::{Page, controller_reference, joined};
use super::{Subject, events, pod_template};

pub async fn describe(subject: &Subject<'_>, page: &mut Page) -> anyhow::Result<()> {
    let controller: ReplicationController = subject.get().await?;
    let meta = &controller.metadata;
    let (spec, status) = (controller.spec.clone().unwrap_or_default(), controller.status.clone().unwrap_or_default());
    let selector = LabelSelector::from_map(&spec.selector.clone().unwrap_or_default());
    let phases = Phases::of_controlled(subject, &selector, meta.uid.as_deref()).await?;
    page.field(0, "Name", subject.name);
    page.field(0, "Namespace", subject.namespace);
    page.field(0, "Selector", joined(spec.selector.as_ref()));
    page.labels("Labels", meta.labels.as_ref());
    page.annotations("Annotations", meta.annotations.as_ref());
    page.field(0, "Replicas", format_args!("{} current / {} desired", status.replicas, spec.replicas.unwrap_or(0)));
    page.field(0, "Pods Status", phases);
    pod_template::describe(spec.template.as_ref(), page);
    let conditions = status.conditions.unwrap_or_default();
    conditions_table(
        conditions.iter().map(|one| [one.type_.as_str(), one.status.as_str(), or_empty(&one.reason)]),
        page,
    );
    events::describe(subject, meta, page).await;
    Ok(())
}

/// How many Pods are in which phase.
#[derive(Default)]
pub struct Phases {
    running: usize,
    waiting: usize,
    succeeded: usize,
    failed: usize,
}

impl Phases {
    /// Of those that the selector finds and the owner controls.
    pub async fn of_controlled(
        subject: &Subject<'_>,
        selector: &LabelSelector,
        owner: Option<&str>,
    ) -> Result<Self, Error> {
        let pods = subject.session.client.namespaced::<Pod>(subject.namespace);
        let mut phases = Phases::default();
        for pod in pods.list_typed(&ListOptions::labels(selector)).await? {
            if controller_reference(&pod.metadata).map(|controller| controller.uid.as_str()) != owner {
                continue;
            }
            match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
                Some("Running") => phases.running += 1,
                Some("Pending") => phases.waiting += 1,
                Some("Succeeded") => phases.succeeded += 1,
                Some("Failed") => phases.failed += 1,
                _ => {}
            }
        }
        Ok(phases)
    }
}

impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Phases { running, waiting, succeeded, failed } = self;
        write!(f, "{running} Running / {waiting} Waiting / {succeeded} Succeeded / {failed} Failed")
    }
}

pub fn or_empty(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or("")
}

/// Type, status and reason, as the workloads show them.
pub fn conditions_table<'a>(conditions: impl ExactSizeIterator<Item = [&'a str; 3]>, page: &mut Page) {
    if conditions.len() == 0 {
        return;
    }
    page.line(0, "Conditions:");
    page.heading(1, &["Type", "Status", "Reason"]);
    conditions.for_each(|[kind, status, reason]| page.line(1, format_args!("{kind} \t{status}\t{reason}")));
}
