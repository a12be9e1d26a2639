//! The proxy's loop: from informers to the backend.
//!
//! A change marks its Service and wakes the loop; what comes while rules are being applied goes into the next round, so a
//! burst costs a few rounds and a single change is applied at once. Nothing happens while nothing changes, but for a
//! look every few minutes whether somebody else has touched the rules.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{debug, info, warn};
use xebec_api::ObjectKey;
use xebec_base::{Backoff, Chain, SharedClock, Shutdown};
use xebec_runtime::{Change, Informer, Informers};

use crate::Config;
use crate::backend::{Backend, Scope};
use crate::conntrack::{self, Conntrack};
use crate::table::{self, Port, Protocol, Table};

/// Between two rounds: long enough for the events of one change (a Service and its slices) to come together, short
/// enough to be lost in the time a Pod takes to start.
const MIN_INTERVAL: Duration = Duration::from_millis(20);

/// Another program that flushes the whole rule set (a firewall being restarted) is noticed after at most this time.
const INSPECTION_INTERVAL: Duration = Duration::from_secs(300);

/// After a failure: quick at first, for another program may have been in the way.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30)).with_jitter(0.3);

/// Both the proxy and the name server ask for slices by Service; the key is `namespace/name`.
const BY_SERVICE: &str = "endpointslices-by-service";

/// The proxy of one node, with what it is made from.
pub struct Proxy {
    pub config: Config,
    pub informers: Informers,
    pub backend: Box<dyn Backend>,
    pub conntrack: Arc<dyn Conntrack>,
    pub clock: SharedClock,
}

impl Proxy {
    /// Balances Services until shutdown. The rules stay, so traffic flows while the agent is replaced.
    pub async fn run(self, shutdown: Shutdown) {
        let Self { config, informers, mut backend, conntrack, clock } = self;
        let sources = Sources::new(&informers);
        tokio::select! {
            () = shutdown.triggered() => return,
            () = sources.synced() => {}
        }
        let mut state = State { config, sources, table: Table::new(), conntrack };
        let mut retry = RETRY;
        let mut whole = true;
        loop {
            let changed = state.sources.dirt.take();
            let udp = state.refresh(&changed, whole);
            let scope = if whole { Scope::All } else { Scope::Changed(&changed) };
            let pause = match backend.sync(&state.table, scope).await {
                Ok(()) => {
                    debug!(whole, changed = changed.len(), services = state.table.len(), "Service rules applied");
                    if udp || whole {
                        state.cut_stale_flows().await;
                    }
                    whole = false;
                    retry.reset();
                    MIN_INTERVAL
                }
                Err(error) => {
                    warn!(error = %Chain(&error), "cannot apply the Service rules");
                    whole = true;
                    retry.next_delay()
                }
            };
            tokio::select! {
                () = shutdown.triggered() => return,
                () = clock.sleep(pause) => {}
            }
            while !whole && state.sources.dirt.is_empty() {
                tokio::select! {
                    () = shutdown.triggered() => return,
                    () = state.sources.dirt.notify.notified() => {}
                    () = clock.sleep(INSPECTION_INTERVAL) => whole = !is_intact(backend.as_ref()).await,
                }
            }
        }
    }
}

async fn is_intact(backend: &dyn Backend) -> bool {
    match backend.is_intact().await {
        Ok(true) => true,
        Ok(false) => {
            info!("somebody changed the Service rules, writing them anew");
            false
        }
        Err(error) => {
            warn!(error = %Chain(&error), "cannot inspect the Service rules, writing them anew");
            false
        }
    }
}

struct State {
    config: Config,
    sources: Sources,
    table: Table,
    conntrack: Arc<dyn Conntrack>,
}

impl State {
    /// Brings the model up to date; says whether a UDP port of any Service changed.
    fn refresh(&mut self, changed: &BTreeSet<ObjectKey>, whole: bool) -> bool {
        let mut udp = false;
        let all: BTreeSet<ObjectKey>;
        let names = match whole {
            true => {
                let present = self.sources.services.objects().into_iter().map(|object| object.key().clone());
                all = present.chain(self.table.keys().cloned()).collect();
                &all
            }
            false => changed,
        };
        for name in names {
            let new = self.ports(name);
            let old = match new.is_empty() {
                true => self.table.remove(name),
                false => self.table.insert(name.clone(), new),
            };
            let now = self.table.get(name).map(Vec::as_slice).unwrap_or_default();
            udp |= udp_ports(old.as_deref().unwrap_or_default()) != udp_ports(now);
        }
        udp
    }

    fn ports(&self, name: &ObjectKey) -> Vec<Port> {
        let Some(service) = self.sources.services.get(name) else { return Vec::new() };
        let slices = self.sources.slices.by_index(BY_SERVICE, &name.to_string());
        table::ports(&self.config, &service, &slices)
    }

    async fn cut_stale_flows(&self) {
        let any_udp = self.table.values().flatten().any(|port| port.protocol == Protocol::Udp);
        if !any_udp {
            return;
        }
        let flows = match self.conntrack.udp_flows().await {
            Ok(flows) => flows,
            Err(error) => return warn!(error = %Chain(&error), "cannot look for stale UDP flows"),
        };
        for flow in conntrack::stale(&self.table, flows) {
            if let Err(error) = self.conntrack.delete(flow).await {
                warn!(error = %Chain(&error), ?flow, "cannot delete a stale UDP flow");
            }
        }
    }
}

/// What decides whether flows of a Service may be stale.
fn udp_ports(ports: &[Port]) -> Vec<&Port> {
    ports.iter().filter(|port| port.protocol == Protocol::Udp).collect()
}

/// The informers' views, and which Services they changed.
struct Sources {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    dirt: Arc<Dirt>,
}

#[derive(Default)]
struct Dirt {
    names: Mutex<BTreeSet<ObjectKey>>,
    notify: Notify,
}

impl Sources {
    fn new(informers: &Informers) -> Self {
        let dirt = Arc::new(Dirt::default());
        let (services, slices) = (informers.of::<Service>(), informers.of::<EndpointSlice>());
        slices.index(BY_SERVICE, |slice| service_of(slice).map(|name| name.to_string()).into_iter().collect());
        let marks = Arc::clone(&dirt);
        services.on_change(move |change| marks.mark(ObjectKey::of(change.object().as_ref())));
        let marks = Arc::clone(&dirt);
        slices.on_change(move |change| {
            // A slice that is given to another Service changes both.
            let (old, new) = match change {
                Change::Applied { old, new } => (old, Some(new)),
                Change::Deleted(old) => (Some(old), None),
            };
            for name in [old, new].into_iter().flatten().filter_map(|slice| service_of(slice)) {
                marks.mark(name);
            }
        });
        Self { services, slices, dirt }
    }

    async fn synced(&self) {
        self.services.synced().await;
        self.slices.synced().await;
    }
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let labels = slice.metadata.labels.as_ref()?;
    let service = labels.get("kubernetes.io/service-name")?;
    Some(ObjectKey::new(slice.metadata.namespace.as_deref()?, service.as_str()))
}

impl Dirt {
    fn mark(&self, name: ObjectKey) {
        self.names.lock().insert(name);
        self.notify.notify_one();
    }

    fn take(&self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.names.lock())
    }

    fn is_empty(&self) -> bool {
        self.names.lock().is_empty()
    }
}
