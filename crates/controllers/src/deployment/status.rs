//! What a Deployment's status says: counts, and the conditions Available, Progressing and ReplicaFailure. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::rolling::{Sizes, available, wanted};

const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// A deadline of this is upstream's "none".
const NO_DEADLINE: i32 = i32::MAX;

pub struct Facts<'a> {
    pub deployment: &'a Deployment,
    pub new: Option<&'a Arc<ReplicaSet>>,
    pub old: &'a [Arc<ReplicaSet>],
    pub sizes: Sizes,
    pub now: Timestamp,
}

fn deadline(deployment: &Deployment) -> Option<i64> {
    let seconds = deployment.spec.progress_deadline_seconds?;
    (seconds != NO_DEADLINE).then_some(i64::from(seconds))
}

/// The status as it should be, and when it may change by time alone.
pub fn status(facts: &Facts<'_>) -> (DeploymentStatus, Option<Duration>) {
    let mut status = counts(facts);
    let enough = status.available_replicas.unwrap_or(0) >= facts.sizes.replicas - facts.sizes.max_unavailable;
    let (state, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set_condition(&mut status, condition("Available", state, reason, message, facts.now));
    let paused = facts.deployment.spec.paused == Some(true);
    let again = if paused { pause(facts, &mut status) } else { progress(facts, &mut status) };
    match replica_failure(facts) {
        Some(failure) => set_condition(&mut status, failure),
        None => status
            .conditions
            .get_or_insert_default()
            .retain(|condition| condition.type_.as_deref() != Some(REPLICA_FAILURE)),
    }
    (status, again)
}

fn counts(facts: &Facts<'_>) -> DeploymentStatus {
    let all: Vec<&ReplicaSet> = facts.new.into_iter().chain(facts.old).map(|set| &**set).collect();
    let sum = |count: fn(&ReplicaSet) -> i32| all.iter().map(|set| count(set)).sum::<i32>();
    let actual: fn(&ReplicaSet) -> i32 = |set| set.status.as_ref().map_or(0, |status| status.replicas);
    let available = sum(available);
    let standing = facts.deployment.status.as_ref();
    DeploymentStatus {
        observed_generation: facts.deployment.metadata.generation,
        replicas: Some(sum(actual)),
        updated_replicas: Some(facts.new.map_or(0, |set| actual(set))),
        ready_replicas: Some(sum(|set| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0))),
        available_replicas: Some(available),
        unavailable_replicas: Some((sum(wanted) - available).max(0)),
        terminating_replicas: Some(sum(|set| {
            set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or(0)
        })),
        collision_count: standing.and_then(|status| status.collision_count),
        conditions: standing.and_then(|status| status.conditions.clone()),
    }
}

/// While paused the roll-out is not judged; the first moment after it counts as progress.
fn pause(facts: &Facts<'_>, status: &mut DeploymentStatus) -> Option<Duration> {
    if deadline(facts.deployment).is_some()
        && find(status, PROGRESSING).is_none_or(|c| c.reason.as_deref() != Some(TIMED_OUT))
    {
        let told = condition(PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused", facts.now);
        set_condition(status, told);
    }
    None
}

fn progress(facts: &Facts<'_>, status: &mut DeploymentStatus) -> Option<Duration> {
    let Some(seconds) = deadline(facts.deployment) else {
        status.conditions.get_or_insert_default().retain(|condition| condition.type_.as_deref() != Some(PROGRESSING));
        return None;
    };
    if find(status, PROGRESSING).is_some_and(|c| c.reason.as_deref() == Some("DeploymentPaused")) {
        let told = condition(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed", facts.now);
        set_condition(status, told);
    }
    let standing = find(status, PROGRESSING).cloned();
    let reason = standing.as_ref().and_then(|condition| condition.reason.as_deref()).unwrap_or("");
    if status.replicas == status.updated_replicas && reason == COMPLETE {
        return None;
    }
    let subject = match facts.new {
        Some(set) => format!("ReplicaSet {:?}", set.metadata.name.as_deref().unwrap_or("")),
        None => format!("Deployment {:?}", facts.deployment.metadata.name.as_deref().unwrap_or("")),
    };
    if is_complete(facts, status) {
        let message = format!("{subject} has successfully progressed.");
        set_condition(status, condition(PROGRESSING, "True", COMPLETE, &message, facts.now));
        return None;
    }
    if has_progressed(facts.deployment.status.as_ref(), status) || standing.is_none() {
        let mut told =
            condition(PROGRESSING, "True", "ReplicaSetUpdated", &format!("{subject} is progressing."), facts.now);
        if let Some(standing) = standing.filter(|standing| standing.status.as_deref() == Some("True")) {
            told.last_transition_time = standing.last_transition_time;
        }
        let conditions = status.conditions.get_or_insert_default();
        conditions.retain(|condition| condition.type_.as_deref() != Some(PROGRESSING));
        conditions.push(told);
        return Some(Duration::from_secs(seconds.max(0) as u64 + 1));
    }
    if reason == COMPLETE || reason == TIMED_OUT {
        return None;
    }
    let since = standing.and_then(|condition| condition.last_update_time).map_or(facts.now, |time| time.0);
    let left = since.as_second() + seconds - facts.now.as_second();
    if left >= 0 {
        return Some(Duration::from_secs(left as u64 + 1));
    }
    let message = format!("{subject} has timed out progressing.");
    set_condition(status, condition(PROGRESSING, "False", TIMED_OUT, &message, facts.now));
    None
}

fn is_complete(facts: &Facts<'_>, status: &DeploymentStatus) -> bool {
    let all = |count: Option<i32>| count.unwrap_or(0) == facts.sizes.replicas;
    all(status.updated_replicas) && all(status.replicas) && all(status.available_replicas)
}

fn has_progressed(old: Option<&DeploymentStatus>, new: &DeploymentStatus) -> bool {
    let empty = DeploymentStatus::default();
    let old = old.unwrap_or(&empty);
    let count = |value: Option<i32>| value.unwrap_or(0);
    let stale = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(new.updated_replicas) > count(old.updated_replicas)
        || stale(new) < stale(old)
        || count(new.ready_replicas) > count(old.ready_replicas)
        || count(new.available_replicas) > count(old.available_replicas)
}

fn replica_failure(facts: &Facts<'_>) -> Option<DeploymentCondition> {
    let sets = facts.new.into_iter().chain(facts.old);
    let mut failures = sets.flat_map(|set| set.status.iter().flat_map(|status| status.conditions.iter().flatten()));
    let failure = failures.find(|condition| condition.type_.as_deref() == Some(REPLICA_FAILURE))?;
    let (reason, message) = (failure.reason.as_deref().unwrap_or(""), failure.message.as_deref().unwrap_or(""));
    Some(DeploymentCondition {
        last_transition_time: failure.last_transition_time.clone(),
        ..condition(REPLICA_FAILURE, failure.status.as_deref().unwrap_or("True"), reason, message, facts.now)
    })
}

pub fn condition(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: Some(kind.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_.as_deref() == Some(kind))
}

/// Replaces the condition of that type unless it says the same; the transition time stands while the status does.
pub fn set_condition(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    let conditions = status.conditions.get_or_insert_default();
    if let Some(at) = conditions.iter().position(|condition| condition.type_ == new.type_) {
        let old = &conditions[at];
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
        conditions.remove(at);
    }
    conditions.push(new);
}
