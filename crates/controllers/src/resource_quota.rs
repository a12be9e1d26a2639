//! ResourceQuotas: their status tells what is allowed and what is used, counted anew when something that counts goes away.
//!
//! Creations are charged by the API server's admission, so they wake nobody here; a status that was written by somebody else
//! is checked a little later. Every kind that can be listed is counted, those that are defined later included. How objects are
//! counted stands in [`xebec_api::quota`]; behaviour: upstream's `pkg/controller/resourcequota`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, Service,
};
use parking_lot::Mutex;
use xebec_api::pod::Amounts;
use xebec_api::quota::{self, Subject};
use xebec_api::{Kind, Object, ObjectKey, Quantity};
use xebec_base::{Chain, SharedClock};
use xebec_runtime::{Change, Context, Controller, Informer, Plan, ReconcileError, Wiring, WorkQueue};

use crate::discovered;

const NAME: &str = "resourcequota-controller";
/// Between a change of a quota's status by somebody else and the look whether it is right.
const RECHECK: Duration = Duration::from_secs(5);
/// Upstream's `--resource-quota-sync-period`.
const RESYNC: Duration = Duration::from_secs(300);
/// How often discovery is asked for kinds that are new.
const DISCOVERY_PERIOD: Duration = Duration::from_secs(30);
/// Resources with rules of their own, and those that are never counted.
const MEASURED: [&str; 3] = ["pods", "services", "persistentvolumeclaims"];
const IGNORED: [&str; 2] = ["events", "events.events.k8s.io"];

pub struct ResourceQuotas {
    context: Context,
    quotas: Informer<ResourceQuota>,
    pods: Informer<Pod>,
    services: Informer<Service>,
    claims: Informer<PersistentVolumeClaim>,
    census: Arc<Census>,
    queue: Arc<OnceLock<WorkQueue<ObjectKey>>>,
}

/// How many objects there are of every other kind.
#[derive(Default)]
struct Census {
    /// By resource and namespace.
    counts: Mutex<HashMap<String, HashMap<Arc<str>, i64>>>,
    /// Resources whose first list is in.
    complete: Mutex<BTreeSet<String>>,
}

impl Census {
    fn note(&self, resource: &str, old: Option<&Arc<Object>>, new: Option<&Arc<Object>>) {
        let (object, change) = match (old, new) {
            (None, Some(new)) => (new, 1),
            (Some(old), None) => (old, -1),
            _ => return,
        };
        let mut counts = self.counts.lock();
        let namespaces = counts.entry(resource.to_owned()).or_default();
        *namespaces.entry(object.key().namespace.clone()).or_default() += change;
        namespaces.retain(|_, count| *count != 0);
    }

    /// `None` for a kind that is not counted, or not yet.
    fn count(&self, resource: &str, namespace: &str) -> Option<i64> {
        let known = self.complete.lock().contains(resource);
        let counts = self.counts.lock();
        known.then(|| counts.get(resource).and_then(|all| all.get(namespace)).copied().unwrap_or(0))
    }
}

pub struct Observed {
    quota: Arc<ResourceQuota>,
    /// What is used of those names that can be counted.
    counted: Amounts,
}

#[derive(Debug, PartialEq)]
pub struct Write(ResourceQuotaStatus);

/// Counts until shutdown.
pub async fn run(context: Context) {
    let controller = Arc::new(ResourceQuotas::new(&context));
    let (census, quotas, queue) = (controller.census.clone(), controller.quotas.clone(), controller.queue.clone());
    xebec_runtime::run(controller, context.clone()).await;
    context.shutdown.clone().spawn(async move {
        let mut followed = BTreeSet::new();
        loop {
            follow(&context, &census, &quotas, &queue, &mut followed).await;
            context.clock.sleep(DISCOVERY_PERIOD).await;
        }
    });
}

/// Begins to count every kind that is not counted yet.
async fn follow(
    context: &Context,
    census: &Arc<Census>,
    quotas: &Informer<ResourceQuota>,
    queue: &Arc<OnceLock<WorkQueue<ObjectKey>>>,
    followed: &mut BTreeSet<String>,
) {
    let served = match discovered::resources(&context.client).await {
        Ok(served) => served,
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "cannot discover what quotas count");
            return;
        }
    };
    for one in served {
        let resource = one.resource.group_resource();
        let usable = ["create", "list", "watch", "delete"].iter().all(|verb| one.has(verb));
        let special = MEASURED.contains(&&*resource) || IGNORED.contains(&&*resource);
        if !usable || special || !one.resource.namespaced || !followed.insert(resource.clone()) {
            continue;
        }
        let informer = context.informers.objects(&one.resource);
        let (noted, name) = (census.clone(), resource.clone());
        let (quotas, queue) = (quotas.clone(), queue.clone());
        let (all, waiting) = (quotas.clone(), queue.clone());
        informer.on_change(move |old, new| {
            noted.note(&name, old, new);
            if let (Some(old), None, Some(queue)) = (old, new, queue.get()) {
                wake(&quotas, queue, &name, old.namespace());
            }
        });
        informer.synced().await;
        census.complete.lock().insert(resource.clone());
        let namespaces: BTreeSet<Arc<str>> = all.objects().iter().map(|quota| quota.key().namespace.clone()).collect();
        if let Some(queue) = waiting.get() {
            namespaces.iter().for_each(|namespace| wake(&all, queue, &resource, namespace));
        }
    }
}

/// Wakes the quotas of a namespace that count a resource.
fn wake(quotas: &Informer<ResourceQuota>, queue: &WorkQueue<ObjectKey>, resource: &str, namespace: &str) {
    for quota in quotas.list_in(namespace) {
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
        if hard.is_some_and(|hard| hard.keys().any(|name| quota::tracks(resource, name))) {
            queue.add(ObjectKey::of(&*quota));
        }
    }
}

impl ResourceQuotas {
    fn new(context: &Context) -> Self {
        ResourceQuotas {
            context: Context { client: context.client.named(NAME), ..context.clone() },
            quotas: context.informers.of(),
            pods: context.informers.of(),
            services: context.informers.of(),
            claims: context.informers.of(),
            census: Arc::default(),
            queue: Arc::default(),
        }
    }

    /// Wakes quotas when an object of a measured kind goes or comes to use something else.
    fn follow_measured<K: Kind>(
        &self,
        informer: &Informer<K>,
        queue: &WorkQueue<ObjectKey>,
        subject: fn(&K) -> Subject<'_>,
    ) {
        let (quotas, queue, clock) = (self.quotas.clone(), queue.clone(), self.context.clock.clone());
        informer.on_change(move |change| {
            let changed = match &change {
                Change::Applied { old: None, .. } => false,
                Change::Applied { old: Some(old), new } => uses_other(subject(old), subject(new), &clock),
                Change::Deleted(_) => true,
            };
            if changed {
                let namespace = change.object().metadata().namespace.as_deref().unwrap_or("");
                wake(&quotas, &queue, K::URL_PATH_SEGMENT, namespace);
            }
        });
    }

    fn counted(&self, namespace: &str, spec: &ResourceQuotaSpec) -> Amounts {
        let now = self.context.clock.now();
        let names = |resource: &'static str| {
            spec.hard.iter().flat_map(BTreeMap::keys).filter(move |name| quota::tracks(resource, name))
        };
        let mut counted = Amounts::new();
        for resource in MEASURED {
            let mut used: Amounts = names(resource).map(|name| (name.clone(), Quantity::ZERO)).collect();
            if used.is_empty() {
                continue;
            }
            let mut count = |subject: Subject<'_>| {
                if quota::in_scope(spec, subject) {
                    let mut more = quota::usage(resource, subject, now);
                    more.retain(|name, _| used.contains_key(name));
                    quota::add(&mut used, &more);
                }
            };
            match resource {
                "pods" => self.pods.list_in(namespace).iter().for_each(|pod| count(Subject::Pod(pod))),
                "services" => self.services.list_in(namespace).iter().for_each(|one| count(Subject::Service(one))),
                _ => self.claims.list_in(namespace).iter().for_each(|claim| count(Subject::Claim(claim))),
            }
            counted.extend(used);
        }
        for name in spec.hard.iter().flat_map(BTreeMap::keys) {
            let resource = name.strip_prefix("count/").unwrap_or(name);
            let count = self.census.count(resource, namespace).filter(|_| quota::tracks(resource, name));
            if let Some(count) = count {
                let count = if quota::in_scope(spec, Subject::Other) { count } else { 0 };
                counted.insert(name.clone(), Quantity::from_integer(count));
            }
        }
        counted
    }
}

fn uses_other(old: Subject<'_>, new: Subject<'_>, clock: &SharedClock) -> bool {
    let now = clock.now();
    let deadline = |subject| matches!(subject, Subject::Pod(pod) if quota::has_deadline(pod));
    quota::usage("", old, now) != quota::usage("", new, now) || deadline(old) != deadline(new)
}

#[async_trait]
impl Controller for ResourceQuotas {
    type Observed = Observed;
    type Action = Write;

    fn name(&self) -> &'static str {
        NAME
    }

    fn workers(&self) -> usize {
        5
    }

    fn wire(&self, wiring: &Wiring) {
        let queue = wiring.queue();
        let _ = self.queue.set(queue.clone());
        self.follow_measured(&self.pods, queue, |pod| Subject::Pod(pod));
        self.follow_measured(&self.services, queue, |service| Subject::Service(service));
        self.follow_measured(&self.claims, queue, |claim| Subject::Claim(claim));
        let queue = queue.clone();
        self.quotas.on_change(move |change| match change {
            Change::Applied { old: Some(old), new } if old.spec == new.spec => {
                queue.add_after(ObjectKey::of(&**new), RECHECK);
            }
            Change::Applied { new, .. } => queue.add(ObjectKey::of(&**new)),
            Change::Deleted(_) => {}
        });
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let quota = self.quotas.get(key)?;
        let counted = self.counted(&key.namespace, &quota.spec.clone().unwrap_or_default());
        Some(Observed { quota, counted })
    }

    fn plan(&self, _: &ObjectKey, observed: &Observed, _: Timestamp) -> Plan<Write> {
        plan(observed).again_after(RESYNC)
    }

    async fn apply(&self, key: &ObjectKey, observed: &Observed, Write(status): Write) -> Result<(), ReconcileError> {
        let changed = ResourceQuota { status: Some(status), ..(*observed.quota).clone() };
        self.context.client.namespaced::<ResourceQuota>(&key.namespace).replace_status(&changed).await?;
        Ok(())
    }
}

/// Names that cannot be counted keep what the status says of them.
fn plan(observed: &Observed) -> Plan<Write> {
    let quota = &observed.quota;
    let hard = quota::parsed(quota.spec.as_ref().and_then(|spec| spec.hard.as_ref()));
    let status = quota.status.clone().unwrap_or_default();
    let (told_hard, told_used) = (quota::parsed(status.hard.as_ref()), quota::parsed(status.used.as_ref()));
    let mut used = told_used.clone();
    used.extend(observed.counted.clone());
    used.retain(|name, _| hard.contains_key(name));
    if status.hard.is_some() && status.used.is_some() && hard == told_hard && used == told_used {
        return Plan::nothing();
    }
    Plan::of(vec![Write(ResourceQuotaStatus { hard: Some(quota::to_api(&hard)), used: Some(quota::to_api(&used)) })])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(quota: Value, counted: Value, expected: Option<Value>) {
        let counted: BTreeMap<String, _> = serde_json::from_value(counted).unwrap();
        let quota = Arc::new(serde_json::from_value(quota).unwrap());
        let observed = Observed { quota, counted: quota::parsed(Some(&counted)) };
        let actions = plan(&observed).actions;
        let written = actions.first().map(|Write(status)| serde_json::to_value(status).unwrap());
        assert_eq!(written, expected);
    }

    #[test]
    fn a_status_is_written_when_it_differs() {
        let spec = json!({"hard": {"pods": "2", "count/widgets.example.com": "5"}});
        let status = json!({"hard": {"pods": "2", "count/widgets.example.com": "5"}, "used": {"pods": "1"}});
        check(json!({"spec": spec}), json!({"pods": "1"}), Some(status.clone()));
        check(json!({"spec": spec, "status": status}), json!({"pods": "1"}), None);
        let kept =
            json!({"hard": status["hard"], "used": {"pods": "1", "count/widgets.example.com": "3", "secrets": "1"}});
        let expected = json!({"hard": status["hard"], "used": {"pods": "0", "count/widgets.example.com": "3"}});
        check(json!({"spec": spec, "status": kept}), json!({"pods": "0"}), Some(expected));
    }

    #[test]
    fn the_census_counts() {
        let census = Census::default();
        let object = |name: &str| {
            let map: k8s_openapi::api::core::v1::ConfigMap =
                serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n"}})).unwrap();
            Arc::new(Object::from_typed(map))
        };
        let (a, b) = (object("a"), object("b"));
        census.note("configmaps", None, Some(&a));
        census.note("configmaps", None, Some(&b));
        census.note("configmaps", Some(&a), Some(&a));
        assert_eq!(census.count("configmaps", "n"), None);
        census.complete.lock().insert("configmaps".to_owned());
        assert_eq!(census.count("configmaps", "n"), Some(2));
        census.note("configmaps", Some(&b), None);
        assert_eq!((census.count("configmaps", "n"), census.count("configmaps", "o")), (Some(1), Some(0)));
    }
}
