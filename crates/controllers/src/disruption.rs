//! PodDisruptionBudgets: their status tells how many of the selected Pods may be taken away now.
//!
//! Evictions take from `disruptionsAllowed` and note the Pod in `disruptedPods`; this controller counts anew whenever Pods
//! change. Pods of other owners than the four built-in kinds with a scale are not known here. Behaviour: upstream's
//! `pkg/controller/disruption`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use xebec_api::{LabelSelector, ObjectKey, pod};
use xebec_runtime::{Context, Controller, Informer, Plan, ReconcileError, Wiring, reference};

use crate::replicas::controller_of;

const NAME: &str = "disruption-controller";
const CONDITION: &str = "DisruptionAllowed";
/// An evicted Pod that is not deleted by then counts again.
const DELETION_TIMEOUT: Duration = Duration::from_secs(120);

pub struct DisruptionBudgets {
    context: Context,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    controllers: Informer<ReplicationController>,
    sets: Informer<ReplicaSet>,
    deployments: Informer<Deployment>,
    stateful: Informer<StatefulSet>,
}

pub struct Observed {
    budget: Arc<PodDisruptionBudget>,
    pods: Vec<Arc<Pod>>,
    /// How many Pods the owners of these want, or what is in the way of knowing it.
    scale: Result<Scale, String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scale {
    wanted: i32,
    /// Whether there are Pods that nobody manages.
    unmanaged: bool,
}

#[derive(Debug, PartialEq)]
pub enum Action {
    Write(Box<PodDisruptionBudgetStatus>),
    /// A warning, or not; its reason and text.
    Tell(bool, &'static str, String),
}

impl DisruptionBudgets {
    pub fn new(context: &Context) -> Self {
        DisruptionBudgets {
            context: Context {
                events: context.events.named("controllermanager"),
                client: context.client.named(NAME),
                ..context.clone()
            },
            budgets: context.informers.of(),
            pods: context.informers.of(),
            controllers: context.informers.of(),
            sets: context.informers.of(),
            deployments: context.informers.of(),
            stateful: context.informers.of(),
        }
    }

    fn scale(&self, namespace: &str, pods: &[Arc<Pod>]) -> Result<Scale, String> {
        let mut wanted: BTreeMap<String, i32> = BTreeMap::new();
        let mut unmanaged = false;
        for pod in pods {
            let Some(owner) = controller_of(&**pod) else {
                unmanaged = true;
                continue;
            };
            let Some((uid, replicas)) = self.scale_of(namespace, owner) else {
                let name = pod.metadata.name.as_deref().unwrap_or("");
                return Err(format!("found no controllers for pod {name:?}"));
            };
            wanted.insert(uid, replicas);
        }
        Ok(Scale { wanted: wanted.values().sum(), unmanaged })
    }

    /// The uid and the wanted Pods of what manages a Pod; a Deployment stands for its ReplicaSets.
    fn scale_of(&self, namespace: &str, owner: &OwnerReference) -> Option<(String, i32)> {
        let key = ObjectKey::new(namespace, owner.name.as_str());
        let same = |uid: &Option<String>| uid.as_deref() == Some(owner.uid.as_str());
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let replicas = match (group, owner.kind.as_str()) {
            ("", "ReplicationController") => {
                let found = self.controllers.get(&key).filter(|found| same(&found.metadata.uid))?;
                found.spec.as_ref().and_then(|spec| spec.replicas)
            }
            ("apps", "StatefulSet") => {
                let found = self.stateful.get(&key).filter(|found| same(&found.metadata.uid))?;
                found.spec.replicas
            }
            ("apps", "ReplicaSet") => {
                let set = self.sets.get(&key).filter(|found| same(&found.metadata.uid))?;
                if let Some(above) = controller_of(&*set).filter(|above| above.kind == "Deployment") {
                    let found = self.deployments.get(&ObjectKey::new(namespace, above.name.as_str()))?;
                    let found = (found.metadata.uid.as_deref() == Some(above.uid.as_str())).then_some(found)?;
                    return Some((above.uid.clone(), found.spec.replicas.unwrap_or(1)));
                }
                set.spec.replicas
            }
            _ => return None,
        };
        Some((owner.uid.clone(), replicas.unwrap_or(1)))
    }
}

fn selector(budget: &PodDisruptionBudget) -> LabelSelector {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    LabelSelector::from_object(selector).unwrap_or_else(|_| LabelSelector::nothing())
}

#[async_trait]
impl Controller for DisruptionBudgets {
    type Observed = Observed;
    type Action = Action;

    fn name(&self) -> &'static str {
        NAME
    }

    fn wire(&self, wiring: &Wiring) {
        wiring.own::<PodDisruptionBudget>();
        let budgets = self.budgets.clone();
        wiring.mapped::<Pod>(move |pod, wake| {
            for budget in budgets.list_in(pod.metadata.namespace.as_deref().unwrap_or("")) {
                if selector(&budget).matches_map(pod.metadata.labels.as_ref()) {
                    wake(ObjectKey::of(&*budget));
                }
            }
        });
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let budget = self.budgets.get(key)?;
        let pods = self.pods.select(&key.namespace, &selector(&budget));
        let spec = budget.spec.as_ref()?;
        let counted = matches!((&spec.max_unavailable, &spec.min_available), (None, Some(IntOrString::Int(_)) | None));
        let scale = if counted { Ok(Scale::default()) } else { self.scale(&key.namespace, &pods) };
        Some(Observed { budget, pods, scale })
    }

    fn plan(&self, _: &ObjectKey, observed: &Observed, now: Timestamp) -> Plan<Action> {
        plan(observed, now)
    }

    async fn apply(&self, key: &ObjectKey, observed: &Observed, action: Action) -> Result<(), ReconcileError> {
        match action {
            Action::Write(status) => {
                let changed = PodDisruptionBudget { status: Some(*status), ..(*observed.budget).clone() };
                self.context.client.namespaced::<PodDisruptionBudget>(&key.namespace).replace_status(&changed).await?;
            }
            Action::Tell(true, reason, text) => {
                self.context.events.warning(&reference(&*observed.budget), reason, text);
            }
            Action::Tell(false, reason, text) => {
                self.context.events.normal(&reference(&*observed.budget), reason, text)
            }
        }
        Ok(())
    }
}

fn plan(observed: &Observed, now: Timestamp) -> Plan<Action> {
    let budget = &observed.budget;
    let standing = budget.status.clone().unwrap_or_default();
    let (expected, desired) = match amounts(observed) {
        Ok(amounts) => amounts,
        Err(why) => {
            let mut status = PodDisruptionBudgetStatus { disruptions_allowed: Some(0), ..standing.clone() };
            set_condition(&mut status, "SyncFailed", &why, now);
            let told = format!("Failed to calculate the number of expected pods: {why}");
            return written(status, standing, vec![Action::Tell(true, "CalculateExpectedPodCountFailed", told)]);
        }
    };
    let (disrupted, again) = still_disrupted(&observed.pods, &standing, now);
    let healthy = |pod: &&Arc<Pod>| {
        let name = pod.metadata.name.as_deref().unwrap_or("");
        !pod::is_deleting(pod) && !disrupted.contains_key(name) && pod::is_ready(pod)
    };
    let current = observed.pods.iter().filter(healthy).count() as i32;
    let allowed = if expected <= 0 { 0 } else { (current - desired).max(0) };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: Some(current),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: budget.metadata.generation,
        conditions: standing.conditions.clone(),
    };
    set_condition(&mut status, if allowed > 0 { "SufficientPods" } else { "InsufficientPods" }, "", now);
    let mut told = Vec::new();
    if observed.pods.is_empty() {
        told.push(Action::Tell(false, "NoPods", "No matching pods found".to_owned()));
    }
    if observed.scale.as_ref().is_ok_and(|scale| scale.unmanaged) {
        let text = "Some of the selected Pods have no controller, so their number is not known; \
                    give .spec.minAvailable as an integer to count them";
        told.push(Action::Tell(true, "UnmanagedPods", text.to_owned()));
    }
    Plan { again, ..written(status, standing, told) }
}

/// Writes a status if it is new; what is to be told is told only then.
fn written(
    status: PodDisruptionBudgetStatus,
    mut standing: PodDisruptionBudgetStatus,
    mut told: Vec<Action>,
) -> Plan<Action> {
    standing.disruptions_allowed.get_or_insert(0);
    standing.disrupted_pods = standing.disrupted_pods.filter(|pods| !pods.is_empty());
    if status == standing {
        return Plan::nothing();
    }
    told.insert(0, Action::Write(Box::new(status)));
    Plan::of(told)
}

/// How many Pods there should be, and how many of them have to be healthy.
fn amounts(observed: &Observed) -> Result<(i32, i32), String> {
    let Some(spec) = &observed.budget.spec else { return Ok((0, 0)) };
    let wanted = || observed.scale.clone().map(|scale| scale.wanted);
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let wanted = wanted()?;
            Ok((wanted, (wanted - share(most, wanted)?).max(0)))
        }
        (None, Some(IntOrString::Int(least))) => Ok((observed.pods.len() as i32, *least)),
        (None, Some(least)) => {
            let wanted = wanted()?;
            Ok((wanted, share(least, wanted)?))
        }
        (None, None) => Ok((0, 0)),
    }
}

/// A number, or a percentage of the whole, rounded up.
fn share(of: &IntOrString, whole: i32) -> Result<i32, String> {
    match of {
        IntOrString::Int(number) => Ok(*number),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|number| number.parse::<i64>().ok());
            let percent = percent.ok_or_else(|| format!("invalid value {text:?}: it is not a percentage"))?;
            Ok(((i64::from(whole) * percent + 99) / 100) as i32)
        }
    }
}

/// Evicted Pods that are still expected to go, and when the first of them is overdue.
fn still_disrupted(
    pods: &[Arc<Pod>],
    standing: &PodDisruptionBudgetStatus,
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let mut left = BTreeMap::new();
    let mut again: Option<Duration> = None;
    for pod in pods.iter().filter(|pod| !pod::is_deleting(pod)) {
        let name = pod.metadata.name.as_deref().unwrap_or("");
        let Some(since) = standing.disrupted_pods.as_ref().and_then(|pods| pods.get(name)) else { continue };
        let age = Duration::try_from(now.duration_since(since.0)).unwrap_or_default();
        if let Some(rest) = DELETION_TIMEOUT.checked_sub(age).filter(|rest| !rest.is_zero()) {
            left.insert(name.to_owned(), since.clone());
            again = Some(again.map_or(rest, |before| before.min(rest)));
        }
    }
    (left, again)
}

fn set_condition(status: &mut PodDisruptionBudgetStatus, reason: &str, message: &str, now: Timestamp) {
    let value = if reason == "SufficientPods" { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let before = conditions.iter().position(|condition| condition.type_ == CONDITION).map(|at| conditions.remove(at));
    let since = before.filter(|before| before.status == value).map_or(Time(now), |before| before.last_transition_time);
    conditions.push(Condition {
        type_: CONDITION.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: status.observed_generation,
        last_transition_time: since,
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pods(ready: usize, all: usize) -> Vec<Arc<Pod>> {
        let pod = |number: usize| {
            let status = if number < ready { "True" } else { "False" };
            let conditions = json!([{"type": "Ready", "status": status}]);
            json!({"metadata": {"name": format!("p{number}")}, "status": {"conditions": conditions}})
        };
        (0..all).map(|number| Arc::new(serde_json::from_value(pod(number)).unwrap())).collect()
    }

    fn run(spec: Value, status: Value, pods: Vec<Arc<Pod>>, scale: Result<Scale, String>) -> Plan<Action> {
        let budget = json!({"metadata": {"name": "b", "generation": 1}, "spec": spec, "status": status});
        let observed = Observed { budget: Arc::new(serde_json::from_value(budget).unwrap()), pods, scale };
        plan(&observed, Timestamp::UNIX_EPOCH)
    }

    fn status(plan: &Plan<Action>) -> Value {
        let Some(Action::Write(status)) = plan.actions.first() else { panic!("{plan:?}") };
        serde_json::to_value(status).unwrap()
    }

    fn check(spec: Value, ready: usize, wanted: i32, expected: [i32; 4]) {
        let scale = Ok(Scale { wanted, unmanaged: false });
        let first = status(&run(spec.clone(), json!({}), pods(ready, 4), scale.clone()));
        let found =
            ["expectedPods", "currentHealthy", "desiredHealthy", "disruptionsAllowed"].map(|name| first[name].clone());
        assert_eq!(found, expected.map(|number| json!(number)), "{spec}");
        let reason = if expected[3] > 0 { "SufficientPods" } else { "InsufficientPods" };
        assert_eq!(first["conditions"][0]["reason"], reason);
        assert_eq!(run(spec, first, pods(ready, 4), scale).actions, []);
    }

    #[test]
    fn budgets_are_counted() {
        check(json!({"minAvailable": 3}), 4, 0, [4, 4, 3, 1]);
        check(json!({"minAvailable": 3}), 2, 0, [4, 2, 3, 0]);
        check(json!({"minAvailable": "50%"}), 4, 5, [5, 4, 3, 1]);
        check(json!({"maxUnavailable": 1}), 4, 4, [4, 4, 3, 1]);
        check(json!({"maxUnavailable": "30%"}), 4, 4, [4, 4, 2, 2]);
        check(json!({"maxUnavailable": 1}), 4, 0, [0, 4, 0, 0]);
    }

    #[test]
    fn evicted_pods_do_not_count_until_they_are_overdue() {
        let with = |since: &str| json!({"disruptedPods": {"p0": since}, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
        let plan = run(json!({"minAvailable": 3}), with("1969-12-31T23:59:00Z"), pods(4, 4), Ok(Scale::default()));
        assert_eq!((&status(&plan)["currentHealthy"], plan.again), (&json!(3), Some(Duration::from_secs(60))));
        let plan = run(json!({"minAvailable": 3}), with("1969-12-31T23:50:00Z"), pods(4, 4), Ok(Scale::default()));
        assert_eq!((&status(&plan)["currentHealthy"], plan.again), (&json!(4), None));
    }

    #[test]
    fn an_unknown_scale_allows_nothing() {
        let plan = run(json!({"maxUnavailable": 1}), json!({}), pods(4, 4), Err("why".to_owned()));
        let status = status(&plan);
        assert_eq!(
            (&status["disruptionsAllowed"], &status["conditions"][0]["reason"]),
            (&json!(0), &json!("SyncFailed"))
        );
    }
}
