//! The configuration of a Pod's sandbox. Pure but for the node's resolver settings, which the caller hands in.

use std::collections::HashMap;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use xebec_cri::v1::{
    LinuxContainerResources, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol,
};

use super::identity;
use crate::dns::Resolvers;
use crate::{hosts, qos, security};

/// What of the node goes into it.
pub struct Place<'a> {
    pub resolvers: &'a Resolvers,
    pub logs_dir: &'a Path,
    pub cgroup_parent: String,
}

pub fn config(pod: &Pod, attempt: u32, place: &Place<'_>) -> Result<PodSandboxConfig, String> {
    let spec = pod.spec.as_ref();
    let host_network = spec.and_then(|spec| spec.host_network) == Some(true);
    let hostname = if host_network {
        String::new()
    } else {
        let (name, domain) = hosts::name_and_domain(pod, &place.resolvers.domain);
        hosts::kernel_name(pod, &name, &domain)?
    };
    Ok(PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: identity::name(pod).to_owned(),
            uid: identity::uid(pod).to_owned(),
            namespace: identity::namespace(pod).to_owned(),
            attempt,
        }),
        hostname,
        log_directory: identity::log_directory(place.logs_dir, pod).to_string_lossy().into_owned(),
        dns_config: Some(place.resolvers.of_pod(pod)),
        port_mappings: if host_network { Vec::new() } else { port_mappings(pod) },
        labels: identity::sandbox_labels(pod),
        annotations: pod
            .metadata
            .annotations
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: place.cgroup_parent.clone(),
            security_context: Some(security::of_sandbox(pod)),
            sysctls: sysctls(pod),
            overhead: Some(LinuxContainerResources::default()),
            resources: Some(resources(pod)),
        }),
    })
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    // Sidecars may have host ports too.
    let ports = qos::containers(pod).flat_map(|container| container.ports.iter().flatten());
    let mapped = ports.filter(|port| port.host_port.unwrap_or(0) > 0);
    mapped
        .map(|port| PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            } as i32,
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

/// Names may be written with slashes; runc wants dots.
fn sysctls(pod: &Pod) -> HashMap<String, String> {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let sysctls = context.and_then(|context| context.sysctls.as_deref()).unwrap_or_default();
    sysctls.iter().map(|sysctl| (dotted(&sysctl.name), sysctl.value.clone())).collect()
}

/// The first separator decides how a name is written: `net/ipv4/conf/eno2.100/x` has a dot inside a part.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'/') => name
            .chars()
            .map(|it| {
                if it == '/' {
                    '.'
                } else if it == '.' {
                    '/'
                } else {
                    it
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

fn resources(pod: &Pod) -> LinuxContainerResources {
    let limits = qos::CgroupLimits::of_pod(pod);
    LinuxContainerResources {
        cpu_shares: limits.shares,
        cpu_quota: limits.quota.unwrap_or(0),
        cpu_period: qos::CgroupLimits::PERIOD,
        memory_limit_in_bytes: limits.memory.unwrap_or(0),
        ..LinuxContainerResources::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use xebec_cri::v1::DnsConfig;

    use super::*;

    #[test]
    fn a_sandbox_bears_what_the_pod_says() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "b"}},
            "spec": {
                "hostname": "h",
                "securityContext": {"sysctls": [{"name": "net/core/somaxconn", "value": "9"}]},
                "containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}, {"containerPort": 81}]}],
            },
        }))
        .unwrap();
        let resolvers = Resolvers { cluster: vec![], domain: "cluster.local".into(), host: DnsConfig::default() };
        let place = Place { resolvers: &resolvers, logs_dir: Path::new("/logs"), cgroup_parent: "/x".into() };
        let config = config(&pod, 2, &place).unwrap();
        assert_eq!((config.hostname.as_str(), config.log_directory.as_str()), ("h", "/logs/n_p_u"));
        assert_eq!(config.labels["a"], "b");
        assert_eq!(config.labels[identity::POD_UID], "u");
        assert_eq!(config.port_mappings.len(), 1);
        assert_eq!(config.port_mappings[0].protocol(), Protocol::Udp);
        assert_eq!(config.linux.unwrap().sysctls["net.core.somaxconn"], "9");
    }

    #[test]
    fn sysctls_are_dotted() {
        assert_eq!(dotted("net.ipv4.ip_forward"), "net.ipv4.ip_forward");
        assert_eq!(dotted("net/ipv4/conf/eno2.100/x"), "net.ipv4.conf.eno2/100.x");
    }
}
