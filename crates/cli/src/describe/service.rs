//! Services, with the endpoints behind their ports.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use xebec_client::ListOptions;

use super::container::port;
use super::page::{Page, joined, or_none};
use super::{Subject, events};

/// How many endpoints of a port are listed.
const SHOWN: usize = 3;

pub async fn describe(subject: &Subject<'_>, page: &mut Page) -> anyhow::Result<()> {
    let service: Service = subject.get().await?;
    let of_service = ListOptions::labels(format!("kubernetes.io/service-name={}", subject.name));
    let slices = subject.session.client.namespaced::<EndpointSlice>(subject.namespace).list_typed(&of_service).await;
    let slices = slices.unwrap_or_default();
    let spec = service.spec.clone().unwrap_or_default();
    page.meta(&service.metadata);
    addresses(&spec, page);
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    page.optional(0, "LoadBalancer Ingress", Some(ingress.iter().map(ingress_text).collect::<Vec<_>>().join(", ")));
    spec.ports.iter().flatten().for_each(|one| describe_port(one, &slices, page));
    policies(&spec, page);
    events::describe(subject, &service.metadata, page).await;
    Ok(())
}

fn addresses(spec: &ServiceSpec, page: &mut Page) {
    let list = |list: &Option<Vec<String>>| list.as_deref().unwrap_or_default().join(",");
    page.field(0, "Selector", joined(spec.selector.as_ref()));
    page.field(0, "Type", spec.type_.as_deref().unwrap_or(""));
    page.optional(0, "IP Family Policy", spec.ip_family_policy.as_deref());
    page.field(0, "IP Families", or_none(list(&spec.ip_families)));
    page.field(0, "IP", spec.cluster_ip.as_deref().unwrap_or(""));
    page.field(0, "IPs", or_none(list(&spec.cluster_ips)));
    page.optional(0, "External IPs", Some(list(&spec.external_ips)));
    page.optional(0, "Desired LoadBalancer IP", spec.load_balancer_ip.as_deref());
    page.optional(0, "External Name", spec.external_name.as_deref());
}

fn ingress_text(ingress: &LoadBalancerIngress) -> String {
    match (ingress.ip.as_deref().filter(|ip| !ip.is_empty()), &ingress.ip_mode) {
        (Some(ip), Some(mode)) => format!("{ip} ({mode})"),
        (Some(ip), None) => ip.to_owned(),
        (None, _) => ingress.hostname.clone().unwrap_or_default(),
    }
}

fn describe_port(one: &ServicePort, slices: &[Arc<EndpointSlice>], page: &mut Page) {
    let name = one.name.as_deref().unwrap_or("");
    let shown = if name.is_empty() { "<unset>" } else { name };
    let protocol = one.protocol.as_deref().unwrap_or("");
    page.line(0, format_args!("Port:\t{shown}\t{}/{protocol}", one.port));
    let target = one.target_port.as_ref().map_or_else(|| "0".to_owned(), port);
    page.field(0, "TargetPort", format_args!("{target}/{protocol}"));
    page.optional(0, "AppProtocol", one.app_protocol.as_deref());
    if let Some(number) = one.node_port.filter(|number| *number != 0) {
        page.line(0, format_args!("NodePort:\t{shown}\t{number}/{protocol}"));
    }
    page.field(0, "Endpoints", endpoints(slices, name));
}

/// The ready endpoints of a port, the first few by address.
fn endpoints(slices: &[Arc<EndpointSlice>], name: &str) -> String {
    if slices.is_empty() {
        return "<none>".to_owned();
    }
    let ready = |endpoint: &&Endpoint| endpoint.conditions.as_ref().and_then(|all| all.ready) != Some(false);
    let mut all: Vec<String> = Vec::new();
    for slice in slices {
        let addresses =
            || slice.endpoints.iter().flatten().filter(ready).filter_map(|endpoint| endpoint.addresses.first());
        let ports = slice.ports.as_deref().unwrap_or_default();
        if ports.is_empty() {
            // A headless Service need not have ports.
            all.extend(addresses().cloned());
        }
        for port in ports.iter().filter(|port| port.name.as_deref().unwrap_or("") == name) {
            let number = port.port.unwrap_or(0);
            all.extend(addresses().map(|address| match address.contains(':') {
                true => format!("[{address}]:{number}"),
                false => format!("{address}:{number}"),
            }));
        }
    }
    let more = all.len().saturating_sub(SHOWN);
    all.truncate(SHOWN);
    let listed = all.join(",");
    if more > 0 { format!("{listed} + {more} more...") } else { listed }
}

fn policies(spec: &ServiceSpec, page: &mut Page) {
    page.field(0, "Session Affinity", spec.session_affinity.as_deref().unwrap_or(""));
    page.optional(0, "External Traffic Policy", spec.external_traffic_policy.as_deref());
    page.optional(0, "Internal Traffic Policy", spec.internal_traffic_policy.as_deref());
    page.optional(0, "HealthCheck NodePort", spec.health_check_node_port.filter(|port| *port != 0));
    let ranges = spec.load_balancer_source_ranges.as_ref().map(|ranges| ranges.join(","));
    page.optional(0, "LoadBalancer Source Ranges", ranges);
    page.optional(0, "Traffic Distribution", spec.traffic_distribution.as_deref());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn endpoints_of_a_port() {
        let slice = |ports: serde_json::Value, ready: &[bool]| -> Arc<EndpointSlice> {
            let endpoints: Vec<_> = (ready.iter().enumerate())
                .map(|(at, ready)| json!({"addresses": [format!("10.0.0.{at}")], "conditions": {"ready": ready}}))
                .collect();
            let slice = json!({"addressType": "IPv4", "endpoints": endpoints, "ports": ports});
            Arc::new(serde_json::from_value(slice).unwrap())
        };
        let check = |slices: &[Arc<EndpointSlice>], expected: &str| assert_eq!(endpoints(slices, "a"), expected);
        let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
        check(&[], "<none>");
        check(&[slice(ports.clone(), &[false])], "");
        check(&[slice(ports.clone(), &[true, false, true])], "10.0.0.0:80,10.0.0.2:80");
        check(&[slice(ports, &[true; 5])], "10.0.0.0:80,10.0.0.1:80,10.0.0.2:80 + 2 more...");
        check(&[slice(json!([]), &[true])], "10.0.0.0");
    }
}
