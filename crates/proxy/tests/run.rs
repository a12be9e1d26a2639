//! The loop over a fake cluster and a fake rule engine: what changes reaches the rules, and nothing else does.

mod cluster;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster::Cluster;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use serde_json::json;
use xebec_base::{Shutdown, SystemClock};
use xebec_netfilter::{Change, Fake, Family, Name, Netfilter, Table, TableId};
use xebec_proxy::backend::Nftables;
use xebec_proxy::conntrack::{Error, Flow};
use xebec_proxy::{Config, Conntrack, Proxy};

/// Remembers which flows were deleted.
struct Flows {
    present: Vec<Flow>,
    deleted: Mutex<Vec<Flow>>,
}

#[async_trait]
impl Conntrack for Flows {
    async fn udp_flows(&self) -> Result<Vec<Flow>, Error> {
        Ok(self.present.clone())
    }

    async fn delete(&self, flow: Flow) -> Result<(), Error> {
        self.deleted.lock().push(flow);
        Ok(())
    }
}

struct World {
    cluster: Cluster,
    fake: Arc<Fake>,
    flows: Arc<Flows>,
    shutdown: Shutdown,
}

impl World {
    fn start(flows: Vec<Flow>) -> Self {
        let (cluster, fake, shutdown) = (Cluster::default(), Arc::new(Fake::new()), Shutdown::new());
        let flows = Arc::new(Flows { present: flows, deleted: Mutex::default() });
        let backend = Box::new(Nftables::new(fake.clone(), &[]).unwrap());
        let config = Config { node_name: "n1".into(), ..Config::default() };
        let informers = cluster.informers(&shutdown);
        let proxy = Proxy { config, informers, backend, conntrack: flows.clone(), clock: SystemClock::shared() };
        tokio::spawn(proxy.run(shutdown.clone()));
        Self { cluster, fake, flows, shutdown }
    }

    fn service(&self, name: &str, ip: &str, protocol: &str) {
        let ports = json!([{"port": 80, "protocol": protocol}]);
        self.cluster.put::<Service>("default", name, json!({"spec": {"clusterIP": ip, "ports": ports}}));
    }

    fn endpoints(&self, service: &str, protocol: &str, addresses: &[&str]) {
        let endpoints: Vec<_> = addresses.iter().map(|ip| json!({"addresses": [ip]})).collect();
        let labels = json!({"kubernetes.io/service-name": service});
        let ports = json!([{"port": 8080, "protocol": protocol}]);
        let slice =
            json!({"metadata": {"labels": labels}, "addressType": "IPv4", "ports": ports, "endpoints": endpoints});
        self.cluster.put::<EndpointSlice>("default", &format!("{service}-1"), slice);
    }

    fn table(&self) -> Option<Table> {
        self.fake.table(&TableId::new(Family::Ip, Name::fixed("xebec-proxy")))
    }

    /// Waits until the rules of a Service's port are so.
    async fn rules(&self, service: &str, expected: Option<&str>) {
        let name = format!("svc/default/{service}");
        let seen = || {
            let table = self.table()?;
            let chain = table.chains.iter().find(|(chain, _)| chain.as_str().starts_with(&name))?;
            Some(chain.1.rules[0].text().to_owned())
        };
        eventually(|| seen().as_deref() == expected, || format!("{service}: {:?}, expected {expected:?}", seen()))
            .await;
    }
}

/// The loop works on its own time, so a look at its result is repeated; ten seconds are for a machine under load.
async fn eventually(is: impl Fn() -> bool, explain: impl Fn() -> String) {
    let tries = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(10), tries).await.is_err() {
        panic!("{}", explain());
    }
}

#[tokio::test]
async fn a_change_costs_what_changed() {
    let world = World::start(vec![]);
    world.service("one", "10.96.0.21", "TCP");
    world.service("two", "10.96.0.22", "TCP");
    world.endpoints("one", "TCP", &["10.244.0.2"]);
    world.endpoints("two", "TCP", &["10.244.0.3"]);
    world.rules("one", Some("meta l4proto tcp dnat to 10.244.0.2:8080")).await;
    world.rules("two", Some("meta l4proto tcp dnat to 10.244.0.3:8080")).await;
    world.fake.take_applied();

    world.endpoints("one", "TCP", &["10.244.0.2", "10.244.0.4"]);
    let both = "meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.244.0.2 . 8080, 1 : 10.244.0.4 . 8080 }";
    world.rules("one", Some(both)).await;
    let applied = world.fake.take_applied();
    let [only] = applied.as_slice() else { panic!("{applied:?}") };
    let [Change::PutChain(_, chain, _)] = only.changes() else { panic!("{only:?}") };
    assert_eq!(chain.as_str(), "svc/default/one/tcp/80");

    world.cluster.delete::<Service>("default", "one");
    world.rules("one", None).await;
    world.rules("two", Some("meta l4proto tcp dnat to 10.244.0.3:8080")).await;
    world.shutdown.trigger();
}

#[tokio::test]
async fn after_a_failure_everything_is_written_anew() {
    let world = World::start(vec![]);
    world.service("one", "10.96.0.21", "TCP");
    world.endpoints("one", "TCP", &["10.244.0.2"]);
    world.rules("one", Some("meta l4proto tcp dnat to 10.244.0.2:8080")).await;
    world.fake.take_applied();
    world.fake.fail_next("busy");
    world.endpoints("one", "TCP", &["10.244.0.3"]);
    world.rules("one", Some("meta l4proto tcp dnat to 10.244.0.3:8080")).await;
    let applied = world.fake.take_applied();
    let whole = |change: &Change| matches!(change, Change::ReplaceTable(_));
    assert!(applied.iter().flat_map(|t| t.changes()).any(whole), "{applied:?}");
    assert!(!world.fake.tables().await.unwrap().is_empty());
    world.shutdown.trigger();
}

#[tokio::test]
async fn stale_udp_flows_are_cut() {
    let flow =
        |answers: &str| Flow { destination: "10.96.0.21:80".parse().unwrap(), answers: answers.parse().unwrap() };
    let world = World::start(vec![flow("10.244.0.2:8080"), flow("10.244.0.3:8080")]);
    world.endpoints("one", "UDP", &["10.244.0.2", "10.244.0.3"]);
    world.service("one", "10.96.0.21", "UDP");
    let both = "meta l4proto udp dnat ip to numgen random mod 2 map { 0 : 10.244.0.2 . 8080, 1 : 10.244.0.3 . 8080 }";
    world.rules("one", Some(both)).await;
    world.endpoints("one", "UDP", &["10.244.0.2"]);
    let deleted = || world.flows.deleted.lock().clone();
    eventually(|| deleted().contains(&flow("10.244.0.3:8080")), || format!("{:?}", deleted())).await;
    assert!(!deleted().contains(&flow("10.244.0.2:8080")), "{:?}", deleted());
    world.shutdown.trigger();
}
