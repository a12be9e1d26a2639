//! Floods on a server with the built-in levels: who waits, who is refused, and who is not held up.

use jiff::Timestamp;
use serde_json::json;
use xebec_base::{Shutdown, SimulatedClock};
use xebec_store::Memory;

use super::*;
use crate::admission::Plugins;
use crate::metrics::Metrics;
use crate::registry::RegistryConfig;
use crate::testing::create;

struct House {
    control: Arc<FlowControl>,
    registry: Arc<Registry>,
    metrics: Metrics,
    clock: Arc<SimulatedClock>,
    _shutdown: Shutdown,
}

async fn house(limits: Limits) -> House {
    let clock = SimulatedClock::starting_at(Timestamp::UNIX_EPOCH);
    let config = RegistryConfig {
        store: Arc::new(Memory::default()),
        rows: crate::resources::rows(),
        plugins: Plugins::standard(),
        service_ranges: Default::default(),
        clock: clock.clone(),
    };
    let shutdown = Shutdown::new();
    let registry = Registry::load(config, &shutdown).await.unwrap();
    let metrics = Metrics::new(&registry, None);
    let control = FlowControl::new(limits, &registry, metrics.flow.clone());
    House { control, registry, metrics, clock, _shutdown: shutdown }
}

/// Seats for some twenty requests of `global-default`.
const LIMITS: Limits = Limits { reading: 200, writing: 50, fair: true };

fn user(name: &str) -> Arc<User> {
    User::new(name, &["system:authenticated"])
}

fn list_pods() -> RequestInfo<'static> {
    RequestInfo {
        is_resource: true,
        verb: "list",
        version: "v1",
        namespace: "a",
        resource: "pods",
        ..Default::default()
    }
}

impl House {
    fn send(&self, user: Arc<User>) -> tokio::task::JoinHandle<Result<Option<Permit>, Refused>> {
        let control = self.control.clone();
        tokio::spawn(async move { control.enter(&user, &list_pods(), &Options::default()).await })
    }

    fn level(&self, name: &str) -> Arc<Level> {
        self.control.compiled.load().levels[name].clone()
    }
}

/// Lets every task that can go on do so.
async fn settle() {
    for _ in 0..2000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_flood_from_one_user_does_not_starve_another() {
    let house = house(LIMITS).await;
    let flood: Vec<_> = (0..1000).map(|_| house.send(user("flooder"))).collect();
    settle().await;
    let mut running = Vec::new();
    let (mut waiting, mut refused) = (Vec::new(), 0);
    for request in flood {
        if !request.is_finished() {
            waiting.push(request);
            continue;
        }
        match request.await.unwrap() {
            Ok(permit) => running.push(permit),
            Err(refusal) => {
                refused += 1;
                assert!(refusal.retry_after >= 1);
            }
        }
    }
    assert!(
        !running.is_empty() && waiting.len() == 300 && refused > 500,
        "{} {} {refused}",
        running.len(),
        waiting.len()
    );

    // Everyone else waits for one end or two, whatever the flood.
    let mut quiet = house.send(user("jane"));
    let mut ends = 0;
    while !quiet.is_finished() {
        running.pop().expect("jane waits for the end of the flood");
        ends += 1;
        settle().await;
    }
    assert!(ends <= 3, "{ends} requests of the flood ended before jane's turn");
    assert!((&mut quiet).await.unwrap().is_ok_and(|permit| permit.is_some()));

    // Other levels are not touched at all.
    let scheduler = User::new("system:kube-scheduler", &["system:authenticated"]);
    let permit = house.control.enter(&scheduler, &list_pods(), &Options::default()).await;
    assert!(permit.is_ok_and(|permit| permit.is_some()));
    let master = User::master("admin");
    assert!(house.control.enter(&master, &list_pods(), &Options::default()).await.is_ok());
    let text = house.metrics.text(false);
    let labels = "{priority_level=\"global-default\",flow_schema=\"global-default\"";
    assert!(text.contains(&format!(
        "apiserver_flowcontrol_rejected_requests_total{labels},reason=\"queue-full\"}} {refused}\n"
    )));
    assert!(text.contains(&format!("apiserver_flowcontrol_current_inqueue_requests{labels}}} ")), "{text}");

    // Who has waited for too long is sent away; who stops waiting leaves its queue.
    house.clock.advance(LONGEST_WAIT);
    settle().await;
    let timed_out = waiting.iter().filter(|one| one.is_finished()).count();
    assert!(timed_out > 200, "{timed_out}");
    drop(running);
    settle().await;
    for request in waiting {
        request.abort();
        let _ = request.await;
    }
    drop(quiet);
    settle().await;
    assert_eq!(house.control.running(), (0, 0));
    let level = house.level("global-default");
    assert_eq!(level.load(), (0, 0), "nothing is left over");
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_leaves_its_queue() {
    let house = house(LIMITS).await;
    let mut running = Vec::new();
    let waiting = loop {
        let request = house.send(user("jane"));
        settle().await;
        if !request.is_finished() {
            break request;
        }
        running.push(request.await.unwrap());
    };
    let level = house.level("global-default");
    assert_eq!(level.load(), (running.len(), 1));
    waiting.abort();
    settle().await;
    assert_eq!(level.load(), (running.len(), 0));
    drop(running);
    assert_eq!(level.load(), (0, 0));
}

#[tokio::test]
async fn seats_are_lent_to_who_needs_them() {
    let house = house(LIMITS).await;
    let first = house.send(user("jane")).await.unwrap();
    let nominal = house.level("global-default").nominal();
    assert_eq!(nominal, 21, "20 of 245 shares of 250 seats, rounded up");
    let held: Vec<_> = (0..60).map(|_| house.send(user("jane"))).collect();
    settle().await;
    let running = |held: &[tokio::task::JoinHandle<_>]| held.iter().filter(|one| one.is_finished()).count();
    let before = running(&held);
    house.clock.advance(ADJUSTMENT);
    let next = house.send(user("joe"));
    settle().await;
    assert!(running(&held) > before + 20, "{before} ran, then {}", running(&held));
    assert!(house.level("workload-low").load() == (0, 0));
    drop((first, next, held));
}

#[tokio::test]
async fn objects_decide_as_soon_as_they_exist() {
    let house = house(LIMITS).await;
    if house.registry.cache_of::<FlowSchema>().is_none() {
        return;
    }
    let headers = async |user: &User| {
        let permit = house.control.enter(user, &list_pods(), &Options::default()).await.ok().flatten().unwrap();
        let mut headers = HeaderMap::new();
        permit.headers(&mut headers);
        headers[SCHEMA_UID].to_str().unwrap().to_owned()
    };
    assert_eq!(headers(&user("jane")).await, "", "the built-in schema has no uid");
    let level = json!({
        "metadata": { "name": "mine" },
        "spec": { "type": "Limited", "limited": { "limitResponse": { "type": "Reject" }, "nominalConcurrencyShares": 10 } }
    });
    create::<PriorityLevelConfiguration>(&house.registry, level).await.unwrap();
    let subject = json!({ "kind": "User", "user": { "name": "jane" } });
    let rule = json!({ "verbs": ["*"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["*"] });
    let schema = json!({
        "metadata": { "name": "mine" },
        "spec": {
            "priorityLevelConfiguration": { "name": "mine" }, "matchingPrecedence": 100,
            "rules": [{ "subjects": [subject], "resourceRules": [rule] }]
        }
    });
    let object = create::<FlowSchema>(&house.registry, schema).await.unwrap();
    assert_eq!(headers(&user("jane")).await, &*object.meta().uid);
    assert_eq!(headers(&user("joe")).await, "");
}

#[tokio::test]
async fn without_fairness_numbers_count() {
    let house = house(Limits { reading: 2, writing: 1, fair: false }).await;
    let options = Options::default();
    let enter = async |user: &str| house.control.enter(&self::user(user), &list_pods(), &options).await;
    let (first, second) = (enter("a").await.ok(), enter("b").await.ok());
    assert!(first.is_some() && second.is_some());
    assert_eq!(enter("c").await.err().map(|refused| refused.retry_after), Some(1));
    drop(first);
    assert!(enter("c").await.is_ok());
}
