//! The ServiceCIDR of the server's own range, and the IPAddresses of Services that are older than that kind.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR, ServiceCIDRSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::allocator;
use crate::registry::Registry;
use crate::registry::metadata::whole_seconds;

const NAME: &str = "kubernetes";

pub fn range(registry: &Registry) -> ServiceCIDR {
    let cidrs = Some(vec![registry.service_ranges().cluster_ips.to_string()]);
    ServiceCIDR {
        metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
        spec: Some(ServiceCIDRSpec { cidrs }),
        status: None,
    }
}

pub fn range_status(now: Timestamp) -> Value {
    json!({ "conditions": [{
        "type": "Ready",
        "status": "True",
        "lastTransitionTime": whole_seconds(now),
        "reason": "",
        "message": "Kubernetes default Service CIDR is ready",
    }] })
}

/// The addresses of Services that nobody has written down.
pub fn missing_addresses(registry: &Registry) -> Vec<IPAddress> {
    let services = registry.list::<Service>("");
    let held = services.iter().flat_map(|service| {
        let addresses: Vec<Ipv4Addr> = allocator::addresses_of(service).collect();
        addresses.into_iter().map(move |address| allocator::ip_address(address, &service.metadata))
    });
    held.filter(|one| registry.get::<IPAddress>("", one.metadata.name.as_deref().unwrap_or("")).is_none()).collect()
}
