//! The variables that tell a container where Services are, in the two forms that upstream sets: `NAME_SERVICE_HOST` and the
//! older ones of Docker's links.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;

/// Services of the Pod's namespace, if it wants links, and always the API server's own (`kubernetes` in `default`).
pub fn variables<'a>(
    services: impl Iterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        if cluster_ip(service).is_none() {
            continue;
        }
        let own = service.metadata.namespace.as_deref() == Some(namespace);
        let master = service.metadata.namespace.as_deref() == Some("default") && name == "kubernetes";
        // A Service of the same name in the Pod's namespace wins over the API server's.
        if (own && links) || (master && !(links && chosen.contains_key(name))) {
            chosen.insert(name, service);
        }
    }
    let mut set = BTreeMap::new();
    for (name, service) in chosen {
        describe(name, service, &mut set);
    }
    set
}

fn describe(name: &str, service: &Service, set: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let Some(address) = cluster_ip(service) else { return };
    let Some(ports) = spec.ports.as_deref().filter(|ports| !ports.is_empty()) else { return };
    let prefix = variable_name(name);
    set.insert(format!("{prefix}_SERVICE_HOST"), address.to_owned());
    set.insert(format!("{prefix}_SERVICE_PORT"), ports[0].port.to_string());
    for (index, port) in ports.iter().enumerate() {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            set.insert(format!("{prefix}_SERVICE_PORT_{}", variable_name(name)), port.port.to_string());
        }
        let protocol = port.protocol.as_deref().filter(|it| !it.is_empty()).unwrap_or("TCP");
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{}", host_port(address, port.port));
        if index == 0 {
            set.insert(format!("{prefix}_PORT"), url.clone());
        }
        let port_prefix = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        set.insert(format!("{port_prefix}_PROTO"), lower);
        set.insert(format!("{port_prefix}_PORT"), port.port.to_string());
        set.insert(format!("{port_prefix}_ADDR"), address.to_owned());
        set.insert(port_prefix, url);
    }
}

fn cluster_ip(service: &Service) -> Option<&str> {
    service.spec.as_ref()?.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None")
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

fn host_port(address: &str, port: i32) -> String {
    match address.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        _ => format!("{address}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(namespace: &str, name: &str, ip: &str) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80}, {"name": "dns-udp", "port": 53, "protocol": "UDP"}]},
        }))
        .unwrap()
    }

    fn check(links: bool, expected: &[&str]) {
        let all = [
            service("default", "kubernetes", "10.0.0.1"),
            service("n", "redis-master", "10.0.0.2"),
            service("n", "h", "None"),
        ];
        let set = variables(all.iter(), "n", links);
        let master = set.keys().filter(|key| key.starts_with("KUBERNETES_")).count();
        assert_eq!(master, 13, "{set:?}");
        let rest: Vec<String> = set
            .iter()
            .filter(|(key, _)| !key.starts_with("KUBERNETES_"))
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        assert_eq!(rest, expected);
    }

    #[test]
    fn links_are_optional_the_master_is_not() {
        check(false, &[]);
        check(
            true,
            &[
                "REDIS_MASTER_PORT=tcp://10.0.0.2:80",
                "REDIS_MASTER_PORT_53_UDP=udp://10.0.0.2:53",
                "REDIS_MASTER_PORT_53_UDP_ADDR=10.0.0.2",
                "REDIS_MASTER_PORT_53_UDP_PORT=53",
                "REDIS_MASTER_PORT_53_UDP_PROTO=udp",
                "REDIS_MASTER_PORT_80_TCP=tcp://10.0.0.2:80",
                "REDIS_MASTER_PORT_80_TCP_ADDR=10.0.0.2",
                "REDIS_MASTER_PORT_80_TCP_PORT=80",
                "REDIS_MASTER_PORT_80_TCP_PROTO=tcp",
                "REDIS_MASTER_SERVICE_HOST=10.0.0.2",
                "REDIS_MASTER_SERVICE_PORT=80",
                "REDIS_MASTER_SERVICE_PORT_DNS_UDP=53",
                "REDIS_MASTER_SERVICE_PORT_HTTP=80",
            ],
        );
    }
}
