//! Which Pods stand behind a Service: the facts that EndpointSlices and the older Endpoints are both made of. Pure.

pub mod legacy;
pub mod mirroring;
pub mod slices;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use xebec_api::{LabelSelector, ObjectKey, pod};
use xebec_runtime::{Informer, Wiring};

/// A port as it is on one Pod, its number resolved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub name: String,
    pub protocol: String,
    pub number: i32,
    pub app_protocol: Option<String>,
}

/// One Pod behind a Service.
#[derive(Clone, Debug)]
pub struct Backend {
    pub pod: Arc<Pod>,
    pub ip: String,
    pub ports: Vec<Port>,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// The Pod's host name, where this Service gives it a DNS name.
    pub hostname: Option<String>,
}

/// Wakes a Service's key when the Service or a Pod that it selects changes.
pub fn wire(wiring: &Wiring, services: &Informer<Service>) {
    wiring.own::<Service>();
    let services = services.clone();
    wiring.mapped::<Pod>(move |pod, wake| {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
        for object in services.objects_in(namespace) {
            let Ok(service) = object.typed::<Service>() else { continue };
            if selector(&service).is_some_and(|selector| selector.matches_map(pod.metadata.labels.as_ref())) {
                wake(ObjectKey::of(&*service));
            }
        }
    });
}

/// A Service's selector; `None` when it has none and its endpoints are somebody else's business.
pub fn selector(service: &Service) -> Option<LabelSelector> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|labels| !labels.is_empty()).map(LabelSelector::from_map)
}

pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// The Pods behind a Service, by address.
pub fn backends(service: &Service, pods: &[Arc<Pod>]) -> Vec<Backend> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let publish = spec.publish_not_ready_addresses == Some(true);
    let name = service.metadata.name.as_deref();
    let mut backends: Vec<Backend> =
        pods.iter().filter_map(|pod| backend(spec.ports.as_deref(), name, publish, pod)).collect();
    backends.sort_by(|a, b| a.ip.cmp(&b.ip));
    backends
}

fn backend(ports: Option<&[ServicePort]>, service: Option<&str>, publish: bool, pod: &Arc<Pod>) -> Option<Backend> {
    let ip = pod.status.as_ref()?.pod_ip.clone().filter(|ip| !ip.is_empty())?;
    if pod::is_terminal(pod) {
        return None;
    }
    let spec = pod.spec.as_ref()?;
    let serving = pod::is_ready(pod);
    let terminating = pod::is_deleting(pod);
    let hostname = spec.hostname.clone().filter(|name| !name.is_empty());
    Some(Backend {
        ip,
        ports: ports.unwrap_or_default().iter().filter_map(|port| resolve(port, pod)).collect(),
        ready: publish || (serving && !terminating),
        serving,
        terminating,
        hostname: hostname.filter(|_| spec.subdomain.as_deref() == service),
        pod: pod.clone(),
    })
}

/// A named target port is looked up in the Pod; a Pod without it is not behind this port.
fn resolve(port: &ServicePort, pod: &Pod) -> Option<Port> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten().filter(|init| pod::is_sidecar(init));
            let mut ports =
                spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
            let same = |theirs: &Option<String>| theirs.as_deref().unwrap_or("TCP") == protocol;
            ports.find(|port| port.name.as_ref() == Some(name) && same(&port.protocol))?.container_port
        }
    };
    Some(Port {
        name: port.name.clone().unwrap_or_default(),
        protocol,
        number,
        app_protocol: port.app_protocol.clone(),
    })
}

/// Backends grouped by the ports that they have in common, in the order of the port sets.
pub fn by_ports(backends: Vec<Backend>) -> Vec<(Vec<Port>, Vec<Backend>)> {
    let mut groups: std::collections::BTreeMap<Vec<Port>, Vec<Backend>> = std::collections::BTreeMap::new();
    for backend in backends {
        groups.entry(backend.ports.clone()).or_default().push(backend);
    }
    groups.into_iter().collect()
}
