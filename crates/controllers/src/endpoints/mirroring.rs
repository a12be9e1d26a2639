//! EndpointSlices of Services without a selector, made from the Endpoints that somebody keeps by hand, so that consumers of
//! slices see them too.
//!
//! Endpoints that ask to be left alone or that only hold a leader's lock are not mirrored. Behaviour: upstream's
//! `pkg/controller/endpointslicemirroring`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use xebec_api::ObjectKey;
use xebec_client::DeleteOptions;
use xebec_runtime::{Context, Controller, Informer, Plan, ReconcileError, Wiring};

use super::slices::{Action, MANAGED_BY, SERVICE_NAME};
use crate::replicas::controller_reference;

const NAME: &str = "endpointslice-mirroring-controller";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are about the Endpoints object itself.
const NOT_MIRRORED: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];
/// Upstream's default of `--mirroring-max-endpoints-per-subset`.
const SLICE_SIZE: usize = 1000;

pub struct MirroredEndpoints {
    context: Context,
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices: Informer<EndpointSlice>,
}

pub struct Observed {
    /// Absent when nothing is to be mirrored.
    endpoints: Option<Arc<Endpoints>>,
    slices: Vec<Arc<EndpointSlice>>,
}

impl MirroredEndpoints {
    pub fn new(context: &Context) -> Self {
        MirroredEndpoints {
            context: Context { client: context.client.named(NAME), ..context.clone() },
            services: context.informers.of(),
            endpoints: context.informers.of(),
            slices: context.informers.of(),
        }
    }

    fn is_mirrored(&self, endpoints: &Endpoints) -> bool {
        let meta = &endpoints.metadata;
        let skipped = meta.labels.as_ref().and_then(|labels| labels.get(SKIP)).is_some_and(|value| value == "true");
        let locked = meta.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(LEADER));
        let service = self.services.get(&ObjectKey::of(endpoints));
        let by_hand = service.is_some_and(|service| {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            selector.is_none_or(BTreeMap::is_empty)
        });
        !skipped && !locked && by_hand && meta.deletion_timestamp.is_none()
    }
}

/// The Service that a mirrored slice belongs to.
fn service_of(slice: &EndpointSlice) -> Option<&str> {
    let labels = slice.metadata.labels.as_ref()?;
    let ours = labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER);
    labels.get(SERVICE_NAME).filter(|_| ours).map(String::as_str)
}

#[async_trait]
impl Controller for MirroredEndpoints {
    type Observed = Observed;
    type Action = Action;

    fn name(&self) -> &'static str {
        NAME
    }

    fn workers(&self) -> usize {
        5
    }

    fn wire(&self, wiring: &Wiring) {
        wiring.own::<Service>();
        wiring.own::<Endpoints>();
        wiring.mapped::<EndpointSlice>(|slice, wake| {
            if let Some(service) = service_of(slice) {
                wake(ObjectKey::new(slice.metadata.namespace.as_deref().unwrap_or(""), service));
            }
        });
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let mine = |slice: &Arc<EndpointSlice>| service_of(slice) == Some(&key.name);
        let slices: Vec<_> = self.slices.list_in(&key.namespace).into_iter().filter(mine).collect();
        let endpoints = self.endpoints.get(key).filter(|endpoints| self.is_mirrored(endpoints));
        (endpoints.is_some() || !slices.is_empty()).then_some(Observed { endpoints, slices })
    }

    fn plan(&self, _: &ObjectKey, observed: &Observed, _: Timestamp) -> Plan<Action> {
        plan(observed)
    }

    async fn apply(&self, key: &ObjectKey, _: &Observed, action: Action) -> Result<(), ReconcileError> {
        let slices = self.context.client.namespaced::<EndpointSlice>(&key.namespace);
        match action {
            Action::Create(slice) => slices.create(&slice).await.map(|_| ())?,
            Action::Update(slice) => slices.replace(&slice).await.map(|_| ())?,
            Action::Delete(name) => match slices.delete(&name, &DeleteOptions::default()).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            },
        }
        Ok(())
    }
}

/// Name, protocol, number and application protocol.
type PortKey = (String, String, Option<i32>, Option<String>);
/// What one slice can hold together: an address type and a set of ports.
type GroupKey = (&'static str, Vec<PortKey>);

fn plan(observed: &Observed) -> Plan<Action> {
    let Some(endpoints) = &observed.endpoints else {
        return Plan::of(
            observed.slices.iter().filter_map(|slice| slice.metadata.name.clone()).map(Action::Delete).collect(),
        );
    };
    let groups = groups(endpoints.subsets.as_deref().unwrap_or_default());
    let mut free = observed.slices.clone();
    let mut take =
        |wanted: &dyn Fn(&EndpointSlice) -> bool| free.iter().position(|slice| wanted(slice)).map(|at| free.remove(at));
    let mut placed = Vec::new();
    for ((family, ports), wanted) in groups {
        let standing = take(&|slice| slice.address_type == family && ports_of(slice) == ports);
        placed.push(((family, ports), wanted, standing));
    }
    let mut actions = Vec::new();
    for ((family, ports), wanted, standing) in placed {
        // A slice that is not needed for its own ports is made over rather than deleted.
        let standing = standing.or_else(|| take(&|slice| slice.address_type == family));
        let template = slice_of(endpoints, family, &ports, wanted);
        actions.extend(match standing {
            None => Some(Action::Create(Box::new(template))),
            Some(slice) => updated(&slice, template).map(Box::new).map(Action::Update),
        });
    }
    actions.extend(free.iter().filter_map(|slice| slice.metadata.name.clone()).map(Action::Delete));
    Plan::of(actions)
}

fn ports_of(slice: &EndpointSlice) -> Vec<PortKey> {
    let key = |port: &EndpointPort| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        (port.name.clone().unwrap_or_default(), protocol, port.port, port.app_protocol.clone())
    };
    let mut ports: Vec<PortKey> = slice.ports.iter().flatten().map(key).collect();
    ports.sort();
    ports
}

/// One address with its readiness by port; an address of a subset without ports has none.
struct Mirrored<'a> {
    address: &'a EndpointAddress,
    ports: BTreeMap<Option<PortKey>, bool>,
}

/// Addresses by the ports that they have in common over all subsets. What is not ready in one subset is not ready.
fn groups(subsets: &[EndpointSubset]) -> BTreeMap<GroupKey, Vec<Endpoint>> {
    let mut addresses: BTreeMap<(IpAddr, Option<&str>), Mirrored<'_>> = BTreeMap::new();
    for subset in subsets {
        let ports = subset.ports.iter().flatten().map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some((port.name.clone().unwrap_or_default(), protocol, Some(port.port), port.app_protocol.clone()))
        });
        let mut ports: Vec<Option<PortKey>> = ports.collect();
        if ports.is_empty() {
            ports.push(None);
        }
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let all = ready.chain(subset.not_ready_addresses.iter().flatten().map(|address| (address, false)));
        for (address, ready) in all {
            let Ok(ip) = address.ip.parse::<IpAddr>() else { continue };
            let uid = address.target_ref.as_ref().and_then(|target| target.uid.as_deref());
            let entry = addresses.entry((ip, uid)).or_insert_with(|| Mirrored { address, ports: BTreeMap::new() });
            for port in &ports {
                *entry.ports.entry(port.clone()).or_insert(ready) &= ready;
            }
        }
    }
    let mut groups: BTreeMap<GroupKey, Vec<Endpoint>> = BTreeMap::new();
    for ((ip, _), mirrored) in addresses {
        let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        for ready in [true, false] {
            let ports: Vec<_> =
                mirrored.ports.iter().filter(|(_, state)| **state == ready).map(|(key, _)| key).collect();
            if ports.is_empty() {
                continue;
            }
            let endpoints = groups.entry((family, ports.into_iter().flatten().cloned().collect())).or_default();
            if endpoints.len() < SLICE_SIZE {
                endpoints.push(endpoint(ip, mirrored.address, ready));
            }
        }
    }
    groups
}

fn endpoint(ip: IpAddr, address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn slice_of(endpoints: &Endpoints, family: &str, ports: &[PortKey], wanted: Vec<Endpoint>) -> EndpointSlice {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !NOT_MIRRORED.contains(&key.as_str()));
    let port = |(name, protocol, port, app_protocol): &PortKey| EndpointPort {
        name: Some(name.clone()),
        protocol: Some(protocol.clone()),
        port: *port,
        app_protocol: app_protocol.clone(),
    };
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            owner_references: Some(vec![controller_reference(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(wanted),
        ports: Some(ports.iter().map(port).collect()),
    }
}

/// The slice as it should be, if that differs from what stands.
fn updated(slice: &EndpointSlice, template: EndpointSlice) -> Option<EndpointSlice> {
    let mut changed = slice.clone();
    changed.metadata.labels = template.metadata.labels;
    changed.metadata.annotations = template.metadata.annotations;
    changed.metadata.owner_references = template.metadata.owner_references;
    changed.endpoints = template.endpoints;
    let same_ports =
        ports_of(slice) == ports_of(&EndpointSlice { ports: template.ports.clone(), ..EndpointSlice::default() });
    if !same_ports {
        changed.ports = template.ports;
    }
    let annotations = |slice: &EndpointSlice| slice.metadata.annotations.clone().unwrap_or_default();
    let empty = |slice: &EndpointSlice| slice.endpoints.clone().unwrap_or_default();
    let same = same_ports
        && slice.metadata.labels == changed.metadata.labels
        && slice.metadata.owner_references == changed.metadata.owner_references
        && annotations(slice) == annotations(&changed)
        && empty(slice) == empty(&changed);
    (!same).then_some(changed)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn endpoints(subsets: Value) -> Arc<Endpoints> {
        let metadata =
            json!({"name": "s", "namespace": "n", "uid": "eu", "labels": {"a": "b"}, "annotations": {"x": "y"}});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "subsets": subsets})).unwrap())
    }

    fn run(subsets: Value, slices: &[Arc<EndpointSlice>]) -> Vec<Action> {
        plan(&Observed { endpoints: Some(endpoints(subsets)), slices: slices.to_vec() }).actions
    }

    fn stored(actions: Vec<Action>) -> Vec<Arc<EndpointSlice>> {
        let slices = actions.into_iter().enumerate().filter_map(|(at, action)| match action {
            Action::Create(mut slice) | Action::Update(mut slice) => {
                slice.metadata.name = Some(format!("s-{at}"));
                Some(Arc::new(*slice))
            }
            Action::Delete(_) => None,
        });
        slices.collect()
    }

    #[test]
    fn slices_follow_endpoints() {
        let one = json!([{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"name": "http", "port": 80}]}]);
        let made = stored(run(one.clone(), &[]));
        assert_eq!(made.len(), 1);
        assert_eq!(service_of(&made[0]), Some("s"));
        assert_eq!(made[0].endpoints.as_ref().unwrap()[0].addresses, ["10.1.2.3"]);
        assert_eq!(run(one, &made), []);
        let other = json!([{"notReadyAddresses": [{"ip": "10.1.2.3"}], "ports": [{"name": "web", "port": 81}]}]);
        let changed = run(other, &made);
        let [Action::Update(slice)] = &changed[..] else { panic!("{changed:?}") };
        let endpoint = &slice.endpoints.as_ref().unwrap()[0];
        assert_eq!(endpoint.conditions.as_ref().unwrap().ready, Some(false));
        assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(81));
        assert_eq!(run(json!([]), &made), [Action::Delete("s-0".to_owned())]);
        assert_eq!(plan(&Observed { endpoints: None, slices: made }).actions, [Action::Delete("s-0".to_owned())]);
    }

    #[test]
    fn subsets_are_packed_anew() {
        let subsets = json!([
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "ports": [{"name": "a", "port": 1}]},
            {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"name": "b", "port": 2}]},
            {"addresses": [{"ip": "fd00::1"}], "ports": [{"name": "a", "port": 1}]},
        ]);
        let slices = stored(run(subsets, &[]));
        let shapes: Vec<_> = slices.iter().map(|slice| (slice.address_type.as_str(), ports_of(slice).len())).collect();
        assert_eq!(shapes, [("IPv4", 1), ("IPv4", 2), ("IPv6", 1)]);
    }
}
