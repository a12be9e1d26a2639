//! ReplicaSets.

use k8s_openapi::api::apps::v1::ReplicaSet;
use xebec_api::LabelSelector;

use super::page::{Page, controller};
use super::replication_controller::{Phases, conditions_table, or_empty};
use super::{Subject, events, pod_template};

pub async fn describe(subject: &Subject<'_>, page: &mut Page) -> anyhow::Result<()> {
    let set: ReplicaSet = subject.get().await?;
    let meta = &set.metadata;
    let (spec, status) = (&set.spec, set.status.clone().unwrap_or_default());
    let selector = LabelSelector::from_object(Some(&spec.selector))?;
    let phases = Phases::of_controlled(subject, &selector, meta.uid.as_deref()).await;
    page.field(0, "Name", subject.name);
    page.field(0, "Namespace", subject.namespace);
    page.field(0, "Selector", pod_template::selector_text(Some(&spec.selector)));
    page.labels("Labels", meta.labels.as_ref());
    page.annotations("Annotations", meta.annotations.as_ref());
    page.optional(0, "Controlled By", controller(meta));
    page.field(0, "Replicas", format_args!("{} current / {} desired", status.replicas, spec.replicas.unwrap_or(0)));
    match phases {
        Ok(phases) => page.field(0, "Pods Status", phases),
        Err(error) => page.field(0, "Pods Status", format_args!("error in fetching pods: {error}")),
    }
    pod_template::describe(spec.template.as_ref(), page);
    let conditions = status.conditions.unwrap_or_default();
    conditions_table(
        conditions.iter().map(|one| [or_empty(&one.type_), or_empty(&one.status), or_empty(&one.reason)]),
        page,
    );
    events::describe(subject, meta, page).await;
    Ok(())
}
