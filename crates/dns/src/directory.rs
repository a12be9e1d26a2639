//! What the zone is made from: Services, their endpoints, and which namespaces there are.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use xebec_api::ObjectKey;
use xebec_runtime::{Informer, Informers};

/// The objects that a lookup asks for.
pub trait Directory: Send + Sync {
    fn has_namespace(&self, name: &str) -> bool;
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>>;
    /// The Services with this cluster IP: one, but for moments of change.
    fn services_at(&self, ip: IpAddr) -> Vec<Arc<Service>>;
    /// The slices that hold this address.
    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>>;
}

/// The informers' views as a directory.
pub struct InformerDirectory {
    namespaces: Informer<Namespace>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
}

/// Both the proxy and the name server ask for slices by Service; the key is `namespace/name`.
const SLICES_BY_SERVICE: &str = "endpointslices-by-service";
const SLICES_BY_ADDRESS: &str = "endpointslices-by-address";
const SERVICES_BY_ADDRESS: &str = "services-by-address";

impl InformerDirectory {
    pub fn new(informers: &Informers) -> Self {
        let directory = Self { namespaces: informers.of(), services: informers.of(), slices: informers.of() };
        directory.slices.index(SLICES_BY_SERVICE, |slice| service_of(slice).into_iter().collect());
        directory.slices.index(SLICES_BY_ADDRESS, |slice| {
            let addresses = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
            addresses.filter_map(|text| normal(text)).collect()
        });
        directory
            .services
            .index(SERVICES_BY_ADDRESS, |service| cluster_ips(service).map(|ip| ip.to_string()).collect());
        directory
    }

    /// Returns when all views are complete once.
    pub async fn synced(&self) {
        self.namespaces.synced().await;
        self.services.synced().await;
        self.slices.synced().await;
    }
}

impl Directory for InformerDirectory {
    fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.object(&ObjectKey::new("", name)).is_some()
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get(&ObjectKey::new(namespace, name))
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(SLICES_BY_SERVICE, &format!("{namespace}/{service}"))
    }

    fn services_at(&self, ip: IpAddr) -> Vec<Arc<Service>> {
        self.services.by_index(SERVICES_BY_ADDRESS, &ip.to_string())
    }

    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(SLICES_BY_ADDRESS, &ip.to_string())
    }
}

/// The cluster IPs, one a family; `None` and the empty string are no addresses.
pub fn cluster_ips(service: &Service) -> impl Iterator<Item = IpAddr> + '_ {
    let spec = service.spec.as_ref();
    let many = spec.and_then(|spec| spec.cluster_ips.as_deref()).unwrap_or_default();
    let one = spec.map(|spec| spec.cluster_ip.as_slice()).unwrap_or_default();
    let texts = if many.is_empty() { one } else { many };
    texts.iter().filter_map(|text| text.parse().ok())
}

/// The name of the Service that a slice belongs to.
pub fn service_name(slice: &EndpointSlice) -> Option<&str> {
    Some(slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?.as_str())
}

fn service_of(slice: &EndpointSlice) -> Option<String> {
    Some(format!("{}/{}", slice.metadata.namespace.as_deref()?, service_name(slice)?))
}

/// An IPv6 address has many spellings; the index knows one.
fn normal(text: &str) -> Option<String> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_string())
}
