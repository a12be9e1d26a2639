//! Deployments, with the ReplicaSets that stand for their revisions.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use xebec_api::LabelSelector;
use xebec_client::{Error, ListOptions};

use super::container::port;
use super::page::{Page, controller_reference, or_none};
use super::replication_controller::{conditions_table, or_empty};
use super::{Subject, events, pod_template};
use crate::age;
use crate::session::Session;

const HASH: &str = "pod-template-hash";

pub async fn describe(subject: &Subject<'_>, page: &mut Page) -> anyhow::Result<()> {
    let deployment: Deployment = subject.get().await?;
    let meta = &deployment.metadata;
    let sets = replica_sets(subject.session, &deployment).await.unwrap_or_default();
    let (spec, status) = (&deployment.spec, deployment.status.clone().unwrap_or_default());
    page.field(0, "Name", subject.name);
    page.field(0, "Namespace", subject.namespace);
    page.field(0, "CreationTimestamp", age::date_of(meta.creation_timestamp.as_ref()));
    page.labels("Labels", meta.labels.as_ref());
    page.annotations("Annotations", meta.annotations.as_ref());
    page.field(0, "Selector", LabelSelector::from_object(Some(&spec.selector))?);
    let number = |value: Option<i32>| value.unwrap_or(0);
    let replicas = format!(
        "{} desired | {} updated | {} total | {} available | {} unavailable",
        number(spec.replicas),
        number(status.updated_replicas),
        number(status.replicas),
        number(status.available_replicas),
        number(status.unavailable_replicas)
    );
    page.field(0, "Replicas", replicas);
    let strategy = spec.strategy.clone().unwrap_or_default();
    page.field(0, "StrategyType", strategy.type_.as_deref().unwrap_or(""));
    page.field(0, "MinReadySeconds", number(spec.min_ready_seconds));
    if let Some(rolling) = &strategy.rolling_update {
        let amount = |amount: &Option<IntOrString>| amount.as_ref().map_or_else(|| "<nil>".to_owned(), port);
        let (unavailable, surge) = (amount(&rolling.max_unavailable), amount(&rolling.max_surge));
        page.field(0, "RollingUpdateStrategy", format_args!("{unavailable} max unavailable, {surge} max surge"));
    }
    pod_template::describe(Some(&spec.template), page);
    let conditions = status.conditions.unwrap_or_default();
    conditions_table(
        conditions.iter().map(|one| [or_empty(&one.type_), or_empty(&one.status), or_empty(&one.reason)]),
        page,
    );
    if !sets.is_empty() {
        let newest = newest(&deployment, &sets);
        let (new, old): (Vec<_>, Vec<_>) = sets.iter().partition(|set| newest == Some(set.metadata.uid.as_deref()));
        page.field(0, "OldReplicaSets", listed(&old));
        page.field(0, "NewReplicaSet", listed(&new));
    }
    events::describe(subject, meta, page).await;
    Ok(())
}

/// Those that the Deployment controls, the oldest first.
pub async fn replica_sets(session: &Session, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, Error> {
    let meta = &deployment.metadata;
    let Ok(selector) = LabelSelector::from_object(Some(&deployment.spec.selector)) else { return Ok(Vec::new()) };
    let namespace = meta.namespace.as_deref().unwrap_or("");
    let all = session.client.namespaced::<ReplicaSet>(namespace).list_typed(&ListOptions::labels(selector)).await?;
    let owner = |set: &ReplicaSet| controller_reference(&set.metadata).map(|owner| owner.uid.clone());
    let mut owned: Vec<Arc<ReplicaSet>> = all.into_iter().filter(|set| owner(set) == meta.uid).collect();
    let born =
        |set: &ReplicaSet| (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.metadata.name.clone());
    owned.sort_by_key(|set| born(set));
    Ok(owned)
}

/// The identity of the oldest set with the Deployment's own template.
fn newest<'a>(deployment: &Deployment, sets: &'a [Arc<ReplicaSet>]) -> Option<Option<&'a str>> {
    let wanted = &deployment.spec.template;
    let same =
        |set: &&Arc<ReplicaSet>| set.spec.template.as_ref().is_some_and(|template| same_template(template, wanted));
    sets.iter().find(same).map(|set| set.metadata.uid.as_deref())
}

/// Whether two templates make the same Pods.
pub fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    without_hash(a) == without_hash(b)
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(HASH);
    }
    template
}

fn listed(sets: &[&Arc<ReplicaSet>]) -> String {
    let one = |set: &&Arc<ReplicaSet>| {
        let name = set.metadata.name.as_deref().unwrap_or("");
        let created = set.status.as_ref().map_or(0, |status| status.replicas);
        let desired = set.spec.replicas.unwrap_or(0);
        format!("{name} ({created}/{desired} replicas created)")
    };
    or_none(sets.iter().map(one).collect::<Vec<_>>().join(", "))
}
