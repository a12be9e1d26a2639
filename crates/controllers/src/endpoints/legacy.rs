//! The older Endpoints object of Services with selectors: one object, Pods grouped into subsets by their ports.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use xebec_api::{ObjectKey, pod};
use xebec_client::DeleteOptions;
use xebec_runtime::{Context, Controller, Informer, Plan, ReconcileError, Wiring};

use super::slices::{HEADLESS, pod_reference};
use super::{Backend, Port};

const NAME: &str = "endpoint-controller";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

pub struct LegacyEndpoints {
    context: Context,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
}

pub struct Observed {
    /// Absent when the Service is gone and only its Endpoints are left.
    service: Option<Arc<Service>>,
    pods: Vec<Arc<Pod>>,
    endpoints: Option<Arc<Endpoints>>,
}

#[derive(Debug)]
pub enum Action {
    Create(Box<Endpoints>),
    Update(Box<Endpoints>),
    Delete,
}

impl LegacyEndpoints {
    pub fn new(context: &Context) -> Self {
        LegacyEndpoints {
            context: Context { client: context.client.named(NAME), ..context.clone() },
            services: context.informers.of(),
            pods: context.informers.of(),
            endpoints: context.informers.of(),
        }
    }
}

#[async_trait]
impl Controller for LegacyEndpoints {
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
        wiring.own::<Endpoints>();
    }

    fn observe(&self, key: &ObjectKey) -> Option<Observed> {
        let endpoints = self.endpoints.get(key);
        let Some(service) = self.services.get(key) else {
            let ours = |endpoints: &Arc<Endpoints>| {
                let labels = endpoints.metadata.labels.as_ref();
                labels.is_some_and(|labels| labels.contains_key(MANAGED_BY))
            };
            let endpoints = endpoints.filter(ours)?;
            return Some(Observed { service: None, pods: Vec::new(), endpoints: Some(endpoints) });
        };
        let selector = super::selector(&service)?;
        let pods = self.pods.select(&key.namespace, &selector);
        Some(Observed { service: Some(service), pods, endpoints })
    }

    fn plan(&self, _: &ObjectKey, observed: &Observed, now: Timestamp) -> Plan<Action> {
        let Some(service) = &observed.service else { return Plan::of(vec![Action::Delete]) };
        let wanted = endpoints_of(service, &observed.pods, now);
        let Some(standing) = &observed.endpoints else { return Plan::of(vec![Action::Create(Box::new(wanted))]) };
        let same_subsets =
            standing.subsets.as_deref().unwrap_or_default() == wanted.subsets.as_deref().unwrap_or_default();
        if same_subsets && standing.metadata.labels == wanted.metadata.labels {
            return Plan::nothing();
        }
        let mut changed = (**standing).clone();
        changed.subsets = wanted.subsets;
        changed.metadata.labels = wanted.metadata.labels;
        let annotations = changed.metadata.annotations.get_or_insert_default();
        annotations.extend(wanted.metadata.annotations.into_iter().flatten());
        Plan::of(vec![Action::Update(Box::new(changed))])
    }

    async fn apply(&self, key: &ObjectKey, _: &Observed, action: Action) -> Result<(), ReconcileError> {
        let endpoints = self.context.client.namespaced::<Endpoints>(&key.namespace);
        match action {
            Action::Create(object) => endpoints.create(&object).await.map(|_| ())?,
            Action::Update(object) => endpoints.replace(&object).await.map(|_| ())?,
            Action::Delete => match endpoints.delete(&key.name, &DeleteOptions::default()).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            },
        }
        Ok(())
    }
}

fn endpoints_of(service: &Service, pods: &[Arc<Pod>], now: Timestamp) -> Endpoints {
    let publish = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let mut backends = super::backends(service, pods);
    backends.retain(|backend| publish || !backend.terminating);
    let has_ports =
        service.spec.as_ref().is_some_and(|spec| spec.ports.as_ref().is_some_and(|ports| !ports.is_empty()));
    // A Pod that lacks a named port stands in no subset; a headless Service without ports lists addresses alone.
    let groups = super::by_ports(backends).into_iter().filter(|(ports, _)| !has_ports || !ports.is_empty());
    let subsets: Vec<EndpointSubset> = groups.map(|(ports, backends)| subset(&ports, &backends)).collect();
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), NAME.to_owned());
    labels.remove(HEADLESS);
    if super::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some([(TRIGGER_TIME.to_owned(), stamp)].into()),
            ..ObjectMeta::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

fn subset(ports: &[Port], backends: &[Backend]) -> EndpointSubset {
    let addresses = |ready: bool| {
        let chosen: Vec<EndpointAddress> = backends.iter().filter(|one| one.ready == ready).map(address).collect();
        (!chosen.is_empty()).then_some(chosen)
    };
    let port = |port: &Port| EndpointPort {
        name: Some(port.name.clone()).filter(|name| !name.is_empty()),
        protocol: Some(port.protocol.clone()),
        port: port.number,
        app_protocol: port.app_protocol.clone(),
    };
    EndpointSubset {
        addresses: addresses(true),
        not_ready_addresses: addresses(false),
        ports: (!ports.is_empty()).then(|| ports.iter().map(port).collect()),
    }
}

fn address(backend: &Backend) -> EndpointAddress {
    EndpointAddress {
        ip: backend.ip.clone(),
        hostname: backend.hostname.clone(),
        node_name: pod::node_name(&backend.pod).map(str::to_owned),
        target_ref: Some(pod_reference(&backend.pod)),
    }
}
