//! What to do for a Deployment, given what stands. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use xebec_api::pod;
use xebec_runtime::Plan;

use super::rolling::{self, Sizes, available, wanted};
use super::status::{self, Facts};
use crate::replicas::{controller_of, controller_reference};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
const TEMPLATE_HASH: &str = "pod-template-hash";
/// Annotations that belong to the Deployment itself and are not handed on to its ReplicaSets.
const OWN_ANNOTATIONS: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

pub struct Observed {
    pub deployment: Arc<Deployment>,
    /// The ReplicaSets it owns.
    pub sets: Vec<Arc<ReplicaSet>>,
    /// Those nobody owns that its selector matches.
    pub orphans: Vec<Arc<ReplicaSet>>,
    /// With the Recreate strategy, the Pods that its selector matches.
    pub pods: Vec<Arc<Pod>>,
}

#[derive(Debug)]
pub enum Action {
    Adopt(Arc<ReplicaSet>),
    CreateSet(Box<ReplicaSet>),
    UpdateSet(Box<ReplicaSet>),
    Scale { set: Arc<ReplicaSet>, to: i32 },
    DeleteSet(Arc<ReplicaSet>),
    SetRevision(String),
    UpdateStatus(Box<DeploymentStatus>),
}

pub fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

pub fn plan(observed: &Observed, now: Timestamp) -> Plan<Action> {
    let deployment = &observed.deployment;
    let spec = &deployment.spec;
    if !observed.orphans.is_empty() && deployment.metadata.deletion_timestamp.is_none() {
        return Plan::of(observed.orphans.iter().cloned().map(Action::Adopt).collect());
    }
    let (new, old) = split(deployment, &observed.sets);
    let sizes = rolling::sizes(deployment);
    let facts = Facts { deployment, new: new.as_ref(), old: &old, sizes, now };
    let (wanted_status, again) = status::status(&facts);
    let mut actions = Vec::new();
    if deployment.metadata.deletion_timestamp.is_none() {
        let resized = is_resized(&observed.sets, sizes);
        if spec.paused == Some(true) || (resized && new.is_some()) {
            let observed_replicas = deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
            let steps = rolling::scale(sizes, !is_recreate(deployment), observed_replicas, new.as_ref(), &old);
            actions.extend(steps.into_iter().map(|(set, to)| Action::Scale { set, to }));
            if actions.is_empty() && resized {
                // The size stands; only what the sets remember of it is old.
                let stale =
                    observed.sets.iter().filter(|set| wanted(set) > 0 && is_resized(std::slice::from_ref(*set), sizes));
                actions.extend(stale.map(|set| Action::Scale { set: set.clone(), to: wanted(set) }));
            }
        } else {
            roll_out(observed, new.as_ref(), &old, sizes, &mut actions);
        }
        if actions.is_empty() {
            clean_up(spec.revision_history_limit, &wanted_status, sizes, &old, &mut actions);
        }
    }
    if deployment.status.as_ref() != Some(&wanted_status) {
        actions.push(Action::UpdateStatus(Box::new(wanted_status)));
    }
    Plan { actions, again }
}

/// The set of the present template (the oldest, if several fit) and all others.
fn split(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> (Option<Arc<ReplicaSet>>, Vec<Arc<ReplicaSet>>) {
    let mut sorted: Vec<Arc<ReplicaSet>> = sets.to_vec();
    sorted.sort_by_key(|set| (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.metadata.name.clone()));
    let at = sorted.iter().position(|set| same_template(set, deployment));
    let new = at.map(|at| sorted.remove(at));
    (new, sorted)
}

/// Whether the set was made of the Deployment's present template.
pub fn same_template(set: &ReplicaSet, deployment: &Deployment) -> bool {
    let bare = |template: Option<&PodTemplateSpec>| {
        let mut template = template.cloned().unwrap_or_default();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.remove(TEMPLATE_HASH);
        template
    };
    let theirs = bare(set.spec.template.as_ref());
    theirs == bare(Some(&deployment.spec.template))
}

/// Whether the Deployment's size changed since its active sets were last written.
fn is_resized(sets: &[Arc<ReplicaSet>], sizes: Sizes) -> bool {
    sets.iter().filter(|set| wanted(set) > 0).any(|set| {
        let annotations = set.metadata.annotations.as_ref();
        let desired = annotations.and_then(|all| all.get(DESIRED_REPLICAS)).and_then(|text| text.parse::<i32>().ok());
        desired.is_some_and(|desired| desired != sizes.replicas)
    })
}

fn roll_out(
    observed: &Observed,
    new: Option<&Arc<ReplicaSet>>,
    old: &[Arc<ReplicaSet>],
    sizes: Sizes,
    actions: &mut Vec<Action>,
) {
    let deployment = &observed.deployment;
    let recreate = is_recreate(deployment);
    let active_old: Vec<Arc<ReplicaSet>> = old.iter().filter(|set| wanted(set) > 0).cloned().collect();
    if recreate && !active_old.is_empty() {
        actions.extend(active_old.into_iter().map(|set| Action::Scale { set, to: 0 }));
        return;
    }
    if recreate && old_pods_run(observed, new) {
        return;
    }
    let revision = next_revision(old);
    let Some(new) = new else {
        let all = old.iter().map(|set| wanted(set)).sum();
        let size = rolling::new_size(sizes, recreate, 0, all);
        actions.push(Action::CreateSet(Box::new(new_set(deployment, size, revision, sizes))));
        return;
    };
    if let Some(updated) = synchronised(new, deployment, revision) {
        actions.push(Action::UpdateSet(Box::new(updated)));
        return;
    }
    let own = deployment.metadata.annotations.as_ref().and_then(|all| all.get(REVISION));
    let theirs = new.metadata.annotations.as_ref().and_then(|all| all.get(REVISION));
    if let Some(theirs) = theirs.filter(|theirs| own != Some(*theirs)) {
        actions.push(Action::SetRevision(theirs.clone()));
    }
    if recreate {
        if wanted(new) != sizes.replicas {
            actions.push(Action::Scale { set: new.clone(), to: sizes.replicas });
        }
        return;
    }
    let steps = rolling::roll(sizes, new, &active_old);
    actions.extend(steps.into_iter().map(|(set, to)| Action::Scale { set, to }));
}

/// Whether Pods of old sets are still there; Recreate waits for them.
fn old_pods_run(observed: &Observed, new: Option<&Arc<ReplicaSet>>) -> bool {
    let new_uid = new.and_then(|set| set.metadata.uid.as_deref());
    observed.pods.iter().filter(|pod| !pod::is_terminal(pod)).any(|pod| {
        let owner = controller_of(&**pod).map(|owner| owner.uid.as_str());
        let ours = |uid: &str| observed.sets.iter().any(|set| set.metadata.uid.as_deref() == Some(uid));
        owner.is_some_and(|uid| ours(uid) && Some(uid) != new_uid)
    })
}

fn revision_of(set: &ReplicaSet) -> i64 {
    let annotations = set.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(REVISION)).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn next_revision(old: &[Arc<ReplicaSet>]) -> i64 {
    old.iter().map(|set| revision_of(set)).max().unwrap_or(0) + 1
}

/// The new set with the Deployment's annotations, its revision and its `minReadySeconds`; `None` if nothing differs.
fn synchronised(set: &ReplicaSet, deployment: &Deployment, revision: i64) -> Option<ReplicaSet> {
    let mut changed = set.clone();
    let annotations = changed.metadata.annotations.get_or_insert_default();
    annotations.extend(handed_on(deployment));
    let standing = revision_of(set);
    if standing < revision {
        if let Some(old) = annotations.insert(REVISION.to_owned(), revision.to_string()) {
            // The set was in use before: its former revisions stay known.
            let history = annotations.entry(REVISION_HISTORY.to_owned()).or_default();
            *history = if history.is_empty() { old } else { format!("{history},{old}") };
        }
    }
    let seconds = deployment.spec.min_ready_seconds;
    let spec = &mut changed.spec;
    if spec.min_ready_seconds.unwrap_or(0) != seconds.unwrap_or(0) {
        spec.min_ready_seconds = seconds;
    }
    (changed != *set).then_some(changed)
}

fn handed_on(deployment: &Deployment) -> impl Iterator<Item = (String, String)> {
    let annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.into_iter().filter(|(name, _)| !OWN_ANNOTATIONS.contains(&name.as_str()))
}

fn new_set(deployment: &Deployment, size: i32, revision: i64, sizes: Sizes) -> ReplicaSet {
    let spec = &deployment.spec;
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(TEMPLATE_HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.to_owned(), hash.clone());
    let mut annotations: BTreeMap<String, String> = handed_on(deployment).collect();
    annotations.insert(REVISION.to_owned(), revision.to_string());
    annotations.extend(size_annotations(sizes));
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or(""))),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(size),
            selector,
            template: Some(template),
            min_ready_seconds: spec.min_ready_seconds,
        },
        status: None,
    }
}

fn size_annotations(sizes: Sizes) -> [(String, String); 2] {
    [
        (DESIRED_REPLICAS.to_owned(), sizes.replicas.to_string()),
        (MAX_REPLICAS.to_owned(), (sizes.replicas + sizes.max_surge).to_string()),
    ]
}

/// Writes down the Deployment's size, by which a later resize is noticed and shared out.
pub fn annotate_sizes(set: &mut ReplicaSet, deployment: &Deployment) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.extend(size_annotations(rolling::sizes(deployment)));
}

/// A short name for a template: FNV-1a over its JSON, in the alphabet that upstream uses because it spells no words.
fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut text = serde_json::to_vec(template).unwrap_or_default();
    text.extend(collisions.into_iter().flat_map(i32::to_le_bytes));
    let hash = text.iter().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

/// Once the roll-out is complete, sets beyond the history limit go, the oldest revisions first.
fn clean_up(
    limit: Option<i32>,
    status: &DeploymentStatus,
    sizes: Sizes,
    old: &[Arc<ReplicaSet>],
    actions: &mut Vec<Action>,
) {
    let all = |count: Option<i32>| count.unwrap_or(0) == sizes.replicas;
    let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else { return };
    if !(all(status.updated_replicas) && all(status.replicas) && all(status.available_replicas)) {
        return;
    }
    let mut idle: Vec<&Arc<ReplicaSet>> =
        old.iter().filter(|set| set.metadata.deletion_timestamp.is_none() && !is_busy(set)).collect();
    idle.sort_by_key(|set| revision_of(set));
    let surplus = idle.len().saturating_sub(limit.max(0) as usize);
    actions.extend(idle.into_iter().take(surplus).map(|set| Action::DeleteSet(set.clone())));
}

fn is_busy(set: &ReplicaSet) -> bool {
    let status = set.status.as_ref();
    let unseen = set.metadata.generation > status.and_then(|status| status.observed_generation);
    wanted(set) != 0 || status.is_some_and(|status| status.replicas != 0) || available(set) != 0 || unseen
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(image: &str) -> Arc<Deployment> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "d", "namespace": "n", "uid": "u", "generation": 1},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "revisionHistoryLimit": 10,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}}))
            .unwrap(),
        )
    }

    fn actions(deployment: &Arc<Deployment>, sets: Vec<Arc<ReplicaSet>>) -> Vec<String> {
        let observed = Observed { deployment: deployment.clone(), sets, orphans: Vec::new(), pods: Vec::new() };
        let told = plan(&observed, Timestamp::UNIX_EPOCH).actions.into_iter().filter_map(|action| match action {
            Action::CreateSet(set) => Some(format!("create {} rev {}", wanted(&set), revision_of(&set))),
            Action::Scale { to, .. } => Some(format!("scale {to}")),
            Action::SetRevision(revision) => Some(format!("revision {revision}")),
            Action::UpdateSet(_) => Some("update".to_owned()),
            _ => None,
        });
        told.collect()
    }

    #[test]
    fn the_first_set_gets_everything_and_the_second_one_step() {
        let first = deployment("one");
        assert_eq!(actions(&first, Vec::new()), ["create 2 rev 1"]);
        let sizes = rolling::sizes(&first);
        let mut set = new_set(&first, 2, 1, sizes);
        set.status = Some(serde_json::from_value(json!({"replicas": 2, "availableReplicas": 2})).unwrap());
        let set = Arc::new(set);
        assert_eq!(actions(&first, vec![set.clone()]), ["revision 1"]);
        assert_eq!(actions(&deployment("two"), vec![set]), ["create 1 rev 2"]);
    }
}
