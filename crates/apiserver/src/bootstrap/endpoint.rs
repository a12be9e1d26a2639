//! The `kubernetes` Service and the address behind it.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service, ServicePort, ServiceSpec,
};
use k8s_openapi::api::discovery::v1::{self as discovery, EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use xebec_api::status::StatusError;

use crate::registry::{Call, Registry};

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";

fn metadata(labels: &[(&str, &str)]) -> ObjectMeta {
    ObjectMeta {
        namespace: Some(NAMESPACE.to_owned()),
        name: Some(NAME.to_owned()),
        labels: Some(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()),
        ..ObjectMeta::default()
    }
}

/// Makes the Service with the first address of the range, unless it exists.
pub async fn ensure_service(registry: &Registry, port: u16) -> Result<(), StatusError> {
    let Some(served) = registry.index.find("", "v1", "services").cloned() else { return Ok(()) };
    if served.cache.get(NAMESPACE, NAME).is_some() {
        return Ok(());
    }
    let address = registry.service_ranges().api_server().to_string();
    let service = Service {
        metadata: metadata(&[("component", "apiserver"), ("provider", "kubernetes")]),
        spec: Some(ServiceSpec {
            cluster_ip: Some(address.clone()),
            cluster_ips: Some(vec![address]),
            ports: Some(vec![ServicePort {
                name: Some("https".to_owned()),
                protocol: Some("TCP".to_owned()),
                port: 443,
                target_port: Some(IntOrString::Int(i32::from(port))),
                ..ServicePort::default()
            }]),
            session_affinity: Some("None".to_owned()),
            type_: Some("ClusterIP".to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    };
    let user = super::server_user();
    let created = registry.create_object(&served, NAMESPACE, Box::new(service), &mut Call::new(&user)).await;
    match created {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(()),
    }
}

/// `None` for an address that no other machine could use.
pub fn endpoints(advertised: SocketAddr) -> Option<Endpoints> {
    let address = usable(advertised)?;
    let port = EndpointPort {
        name: Some("https".to_owned()),
        port: i32::from(advertised.port()),
        protocol: Some("TCP".to_owned()),
        app_protocol: None,
    };
    let subset = EndpointSubset {
        addresses: Some(vec![EndpointAddress { ip: address, ..EndpointAddress::default() }]),
        ports: Some(vec![port]),
        not_ready_addresses: None,
    };
    // The slice beside it is the server's own; no controller has to make one of these Endpoints.
    let metadata = metadata(&[("endpointslice.kubernetes.io/skip-mirror", "true")]);
    Some(Endpoints { metadata, subsets: Some(vec![subset]) })
}

pub fn slice(advertised: SocketAddr) -> Option<EndpointSlice> {
    let address = usable(advertised)?;
    let port = discovery::EndpointPort {
        name: Some("https".to_owned()),
        port: Some(i32::from(advertised.port())),
        protocol: Some("TCP".to_owned()),
        app_protocol: None,
    };
    let endpoint = discovery::Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
        ..discovery::Endpoint::default()
    };
    Some(EndpointSlice {
        metadata: metadata(&[("kubernetes.io/service-name", NAME)]),
        address_type: if advertised.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned(),
        endpoints: Some(vec![endpoint]),
        ports: Some(vec![port]),
    })
}

/// Upstream's validation refuses these addresses as endpoints.
fn usable(advertised: SocketAddr) -> Option<String> {
    let ip = advertised.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then(|| ip.to_string())
}

/// The address of this server in the place of an earlier one.
pub fn merge_endpoints(stored: &Endpoints, wanted: &Endpoints) -> Option<Endpoints> {
    (stored.subsets != wanted.subsets).then(|| Endpoints { subsets: wanted.subsets.clone(), ..stored.clone() })
}

pub fn merge_slice(stored: &EndpointSlice, wanted: &EndpointSlice) -> Option<EndpointSlice> {
    let same = stored.endpoints == wanted.endpoints && stored.ports == wanted.ports;
    (!same && stored.address_type == wanted.address_type).then(|| EndpointSlice {
        endpoints: wanted.endpoints.clone(),
        ports: wanted.ports.clone(),
        ..stored.clone()
    })
}
