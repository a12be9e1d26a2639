//! EndpointSlices of Services with selectors (KEP-752): endpoints stay in the slice where they are, and slices fill up before
//! new ones are made.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use xebec_api::{ObjectKey, pod};
use xebec_client::DeleteOptions;
use xebec_runtime::{Context, Controller, Informer, Plan, ReconcileError, Wiring};

use super::{Backend, Port};
use crate::replicas::controller_reference;

const NAME: &str = "endpoint-slice-controller";
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
pub const HEADLESS: &str = "service.kubernetes.io/headless";
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Upstream's default of `--max-endpoints-per-slice`.
const SLICE_SIZE: usize = 100;

pub struct EndpointSlices {
    context: Context,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
}

pub struct Observed {
    service: Arc<Service>,
    pods: Vec<Arc<Pod>>,
    slices: Vec<Arc<EndpointSlice>>,
    /// Zones by node.
    zones: BTreeMap<String, String>,
}

#[derive(Debug, PartialEq)]
pub enum Action {
    Create(Box<EndpointSlice>),
    Update(Box<EndpointSlice>),
    Delete(String),
}

impl EndpointSlices {
    pub fn new(context: &Context) -> Self {
        EndpointSlices {
            context: Context { client: context.client.named(NAME), ..context.clone() },
            services: context.informers.of(),
            pods: context.informers.of(),
            nodes: context.informers.of(),
            slices: context.informers.of(),
        }
    }
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|manager| manager == MANAGER)
}

fn service_of(slice: &EndpointSlice) -> Option<&String> {
    slice.metadata.labels.as_ref()?.get(SERVICE_NAME)
}

#[async_trait]
impl Controller for EndpointSlices {
    type Observed = Observed;
    type Action = Action;

    fn name(&self) -> &'static str {
        NAME
    }

    fn workers(&self) -> usize {
        5
    }

    fn wire(&self, wiring: &Wiring) {
        super::wire(wiring, &self.services);
        wiring.mapped::<EndpointSlice>(|slice, wake| {
            if let Some(service) = service_of(slice).filter(|_| is_ours(slice)) {
                wake(ObjectKey::new(slice.metadata.namespace.as_deref().unwrap_or(""), service.as_str()));
            }
        });
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let service = self.services.get(key)?;
        let selector = super::selector(&service)?;
        let pods = self.pods.select(&key.namespace, &selector);
        let mine =
            |slice: &Arc<EndpointSlice>| is_ours(slice) && service_of(slice).is_some_and(|name| **name == *key.name);
        let slices = self.slices.list_in(&key.namespace).into_iter().filter(mine).collect();
        let mut zones = BTreeMap::new();
        for node in pods.iter().filter_map(|pod| pod::node_name(pod)) {
            let labels = self.nodes.get(&ObjectKey::new("", node)).and_then(|node| node.metadata.labels.clone());
            if let Some(zone) = labels.and_then(|labels| labels.get("topology.kubernetes.io/zone").cloned()) {
                zones.insert(node.to_owned(), zone);
            }
        }
        Some(Observed { service, pods, slices, zones })
    }

    fn plan(&self, _: &ObjectKey, observed: &Observed, now: Timestamp) -> Plan<Action> {
        plan(observed, now)
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

fn plan(observed: &Observed, now: Timestamp) -> Plan<Action> {
    let service = &observed.service;
    if service.metadata.deletion_timestamp.is_some() {
        return Plan::nothing();
    }
    let template = slice_of(service, now);
    let mut groups = super::by_ports(super::backends(service, &observed.pods));
    if groups.is_empty() {
        // A Service without Pods keeps one empty slice, so that consumers know it was looked at.
        groups.push((Vec::new(), Vec::new()));
    }
    let mut left: Vec<Arc<EndpointSlice>> = observed.slices.clone();
    let mut actions = Vec::new();
    for (ports, backends) in groups {
        let wanted: Vec<Endpoint> = backends.iter().map(|backend| endpoint(backend, &observed.zones)).collect();
        let ports = slice_ports(&ports);
        let (same, others): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|slice| slice.ports.as_deref().unwrap_or_default() == ports);
        left = others;
        let mut keep_empty = observed.slices.is_empty() || !same.is_empty() || left.is_empty();
        fill(&template, ports, wanted, same, &mut keep_empty, &mut actions);
    }
    actions.extend(left.iter().filter_map(|slice| slice.metadata.name.clone()).map(Action::Delete));
    Plan::of(actions)
}

/// Makes `slices`, which share one set of ports, hold exactly `wanted`, with as few writes as possible.
fn fill(
    template: &EndpointSlice,
    ports: Vec<EndpointPort>,
    wanted: Vec<Endpoint>,
    slices: Vec<Arc<EndpointSlice>>,
    keep_empty: &mut bool,
    actions: &mut Vec<Action>,
) {
    let identity = |endpoint: &Endpoint| endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    let mut pending: BTreeMap<Option<String>, Endpoint> = wanted.into_iter().map(|one| (identity(&one), one)).collect();
    let mut drafts: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in slices {
        let standing = slice.endpoints.as_deref().unwrap_or_default();
        let kept = standing.iter().filter_map(|endpoint| pending.remove(&identity(endpoint))).collect();
        drafts.push((slice, kept));
    }
    let mut rest: Vec<Endpoint> = pending.into_values().collect();
    for (_, kept) in &mut drafts {
        let room = SLICE_SIZE.saturating_sub(kept.len()).min(rest.len());
        kept.extend(rest.drain(..room));
    }
    let mut filled = drafts.iter().filter(|(_, kept)| !kept.is_empty()).count() + usize::from(!rest.is_empty());
    for (slice, kept) in drafts {
        if kept.is_empty() && filled > 0 {
            actions.extend(slice.metadata.name.clone().map(Action::Delete));
            continue;
        }
        filled += usize::from(kept.is_empty());
        actions.extend(updated(&slice, template, kept).map(Box::new).map(Action::Update));
    }
    while !rest.is_empty() || (filled == 0 && *keep_empty) {
        let endpoints: Vec<Endpoint> = rest.drain(..rest.len().min(SLICE_SIZE)).collect();
        let slice = EndpointSlice { endpoints: Some(endpoints), ports: Some(ports.clone()), ..template.clone() };
        actions.push(Action::Create(Box::new(slice)));
        filled += 1;
        *keep_empty = false;
    }
}

/// The slice as it should be, if that differs from what stands.
fn updated(slice: &EndpointSlice, template: &EndpointSlice, endpoints: Vec<Endpoint>) -> Option<EndpointSlice> {
    let same = slice.endpoints.as_deref().unwrap_or_default() == endpoints
        && slice.metadata.labels == template.metadata.labels
        && slice.metadata.owner_references == template.metadata.owner_references;
    if same {
        return None;
    }
    let mut changed = slice.clone();
    changed.endpoints = Some(endpoints);
    changed.metadata.labels = template.metadata.labels.clone();
    changed.metadata.owner_references = template.metadata.owner_references.clone();
    let annotations = changed.metadata.annotations.get_or_insert_default();
    annotations.extend(template.metadata.annotations.clone().into_iter().flatten());
    Some(changed)
}

fn slice_of(service: &Service, now: Timestamp) -> EndpointSlice {
    let name = service.metadata.name.clone().unwrap_or_default();
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels.remove(HEADLESS);
    if super::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some([(TRIGGER_TIME.to_owned(), stamp)].into()),
            owner_references: Some(vec![controller_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: "IPv4".to_owned(),
        ..EndpointSlice::default()
    }
}

fn slice_ports(ports: &[Port]) -> Vec<EndpointPort> {
    let port = |port: &Port| EndpointPort {
        name: Some(port.name.clone()),
        protocol: Some(port.protocol.clone()),
        port: Some(port.number),
        app_protocol: port.app_protocol.clone(),
    };
    ports.iter().map(port).collect()
}

fn endpoint(backend: &Backend, zones: &BTreeMap<String, String>) -> Endpoint {
    let node = pod::node_name(&backend.pod).map(str::to_owned);
    Endpoint {
        addresses: vec![backend.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(backend.ready),
            serving: Some(backend.serving || (backend.ready && !backend.terminating)),
            terminating: Some(backend.terminating),
        }),
        hostname: backend.hostname.clone(),
        zone: node.as_ref().and_then(|node| zones.get(node).cloned()),
        node_name: node,
        target_ref: Some(pod_reference(&backend.pod)),
        ..Endpoint::default()
    }
}

pub fn pod_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service() -> Arc<Service> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n", "uid": "su"},
            "spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": "web"}]}}))
            .unwrap(),
        )
    }

    fn pod(number: usize, ready: bool) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": format!("p{number}"), "namespace": "n", "uid": format!("u{number:04}")},
            "spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
            "status": {"podIP": format!("10.0.{}.{}", number / 250, number % 250), "conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap(),
        )
    }

    fn run(pods: Vec<Arc<Pod>>, slices: Vec<Arc<EndpointSlice>>) -> Vec<Action> {
        let observed = Observed { service: service(), pods, slices, zones: BTreeMap::new() };
        plan(&observed, Timestamp::UNIX_EPOCH).actions
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
    fn slices_settle() {
        let empty = stored(run(Vec::new(), Vec::new()));
        assert_eq!(empty.len(), 1, "a Service without Pods has one empty slice");
        assert_eq!(run(Vec::new(), empty.clone()), []);
        let first = run(vec![pod(1, true)], empty);
        assert!(
            matches!(&first[..], [Action::Create(slice), Action::Delete(_)] if slice.ports.as_ref().unwrap()[0].port == Some(8080)),
            "{first:?}"
        );
        let standing = stored(first);
        assert_eq!(run(vec![pod(1, true)], standing.clone()), []);
        let changed = run(vec![pod(1, false)], standing);
        assert!(matches!(&changed[..], [Action::Update(_)]), "{changed:?}");
    }

    #[test]
    fn many_pods_fill_several_slices() {
        let pods: Vec<_> = (0..250).map(|number| pod(number, true)).collect();
        let slices = stored(run(pods.clone(), Vec::new()));
        let sizes: Vec<usize> = slices.iter().map(|slice| slice.endpoints.as_ref().unwrap().len()).collect();
        assert_eq!(sizes, [100, 100, 50]);
        assert_eq!(run(pods, slices), []);
    }
}
