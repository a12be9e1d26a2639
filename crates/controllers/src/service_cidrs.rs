//! ServiceCIDRs are ready when they are there, and stay until the addresses of Services lie in other ones.
//!
//! Behaviour: upstream's `pkg/controller/servicecidrs`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use xebec_api::ObjectKey;
use xebec_client::Patch;
use xebec_runtime::{Context, Controller, Informer, Plan, ReconcileError, Wiring};

const NAME: &str = "service-cidr-controller";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// For the API servers to see the deletion and give out nothing more.
const GRACE: Duration = Duration::from_secs(10);

pub struct ServiceCidrs {
    context: Context,
    ranges: Informer<ServiceCIDR>,
    addresses: Informer<IPAddress>,
}

pub struct Observed {
    range: Arc<ServiceCIDR>,
    /// Whether addresses would be left without a range.
    needed: bool,
}

#[derive(Debug, PartialEq)]
pub enum Action {
    Hold,
    LetGo,
    Say(Value),
}

impl ServiceCidrs {
    pub fn new(context: &Context) -> Self {
        ServiceCidrs {
            context: Context { client: context.client.named(NAME), ..context.clone() },
            ranges: context.informers.of(),
            addresses: context.informers.of(),
        }
    }
}

#[async_trait]
impl Controller for ServiceCidrs {
    type Observed = Observed;
    type Action = Action;

    fn name(&self) -> &'static str {
        NAME
    }

    fn wire(&self, wiring: &Wiring) {
        let ranges = wiring.own::<ServiceCIDR>();
        let all = move |wake: &mut dyn FnMut(ObjectKey)| {
            ranges.list().iter().for_each(|range| wake(ObjectKey::of(&**range)));
        };
        wiring.mapped::<IPAddress>(move |_, wake| all(wake));
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let range = self.ranges.get(key)?;
        let others: Vec<IpNet> = self
            .ranges
            .list()
            .iter()
            .filter(|other| other.metadata.uid != range.metadata.uid)
            .flat_map(|other| blocks(other))
            .collect();
        let own = blocks(&range);
        let covered = own.iter().all(|block| others.iter().any(|other| other.contains(block)));
        let orphaned = |address: &Arc<IPAddress>| {
            let name = address.metadata.name.as_deref().unwrap_or("");
            let Ok(ip) = name.parse::<std::net::IpAddr>() else { return false };
            own.iter().any(|block| block.contains(&ip)) && !others.iter().any(|other| other.contains(&ip))
        };
        let needed = !covered && self.addresses.list().iter().any(orphaned);
        Some(Observed { range, needed })
    }

    fn plan(&self, _: &ObjectKey, observed: &Observed, now: Timestamp) -> Plan<Action> {
        plan(observed, now)
    }

    async fn apply(&self, key: &ObjectKey, observed: &Observed, action: Action) -> Result<(), ReconcileError> {
        let ranges = self.context.client.all::<ServiceCIDR>();
        let uid = &observed.range.metadata.uid;
        match action {
            Action::Hold => {
                let patch = json!({ "metadata": { "uid": uid, "finalizers": [FINALIZER] } });
                ranges.patch(&key.name, &Patch::Strategic(patch)).await.map(drop)?;
            }
            Action::LetGo => {
                let patch = json!({ "metadata": { "uid": uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER] } });
                ranges.patch(&key.name, &Patch::Strategic(patch)).await.map(drop)?;
            }
            Action::Say(condition) => {
                let patch = json!({ "metadata": { "uid": uid }, "status": { "conditions": [condition] } });
                ranges.patch_status(&key.name, &Patch::Strategic(patch)).await.map(drop)?;
            }
        }
        Ok(())
    }
}

fn blocks(range: &ServiceCIDR) -> Vec<IpNet> {
    let texts = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn plan(observed: &Observed, now: Timestamp) -> Plan<Action> {
    let meta = &observed.range.metadata;
    let held = meta.finalizers.iter().flatten().any(|one| one == FINALIZER);
    let mut conditions = observed.range.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.find(|one| one.type_ == "Ready").map(|one| one.status.as_str());
    let condition = |status: &str, reason: &str, message: &str| {
        Action::Say(json!({
            "type": "Ready", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
        }))
    };
    let Some(deleted) = &meta.deletion_timestamp else {
        let mut actions = Vec::new();
        if !held {
            actions.push(Action::Hold);
        }
        if ready != Some("True") {
            actions.push(condition("True", "", "Kubernetes Service CIDR is ready"));
        }
        return Plan::of(actions);
    };
    if observed.needed {
        let why =
            "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
        let said = ready == Some("False");
        return if said { Plan::nothing() } else { Plan::of(vec![condition("False", "Terminating", why)]) };
    }
    let waited = Duration::try_from(now.duration_since(deleted.0)).unwrap_or_default();
    match GRACE.checked_sub(waited) {
        Some(rest) if !rest.is_zero() => Plan::nothing().again_after(rest),
        _ if held => Plan::of(vec![Action::LetGo]),
        _ => Plan::nothing(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_held_said_to_be_ready_and_let_go() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let check = |metadata: Value, ready: &str, needed: bool, expected: &[&str]| {
            let conditions = json!([{
                "type": "Ready", "status": ready, "reason": "", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"
            }]);
            let range: ServiceCIDR =
                serde_json::from_value(json!({ "metadata": metadata, "status": { "conditions": conditions } }))
                    .unwrap();
            let plan = plan(&Observed { range: Arc::new(range), needed }, now);
            let actions: Vec<String> = plan.actions.iter().map(|action| format!("{action:?}")).collect();
            let kinds: Vec<&str> = actions.iter().map(|text| text.split('(').next().unwrap_or(text)).collect();
            assert_eq!(kinds, expected, "{metadata}");
        };
        let held = |deleted: Option<&str>| json!({ "finalizers": [FINALIZER], "deletionTimestamp": deleted });
        check(json!({}), "Unknown", false, &["Hold", "Say"]);
        check(held(None), "True", true, &[]);
        check(held(Some("2026-01-01T00:00:00Z")), "True", true, &["Say"]);
        check(held(Some("2026-01-01T00:00:00Z")), "False", true, &[]);
        check(held(Some("2026-01-01T00:00:55Z")), "True", false, &[]);
        check(held(Some("2026-01-01T00:00:00Z")), "True", false, &["LetGo"]);
    }
}
