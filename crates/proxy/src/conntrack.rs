//! Flows that the kernel remembers past the end of their endpoint.
//!
//! A rule decides about the first packet of a flow; the kernel sends the others the same way. A TCP client notices that
//! its endpoint is gone, but a UDP client that never pauses keeps its flow alive for ever. So after a change in UDP
//! endpoints the flows to Services are compared with the model, and those that lead elsewhere are deleted, as upstream
//! does. Flows of other protocols are left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;

use async_trait::async_trait;
use tokio::process::Command;

use crate::table::{Protocol, Table};

/// The kernel's connection tracking as the proxy sees it.
#[async_trait]
pub trait Conntrack: Send + Sync {
    async fn udp_flows(&self) -> Result<Vec<Flow>, Error>;
    /// Deletes every UDP flow like this one, whoever its client is.
    async fn delete(&self, flow: Flow) -> Result<(), Error>;
}

/// Where a client sends, and who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    pub destination: SocketAddr,
    pub answers: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("start {program}: is the package conntrack installed?")]
    Start { program: String, source: std::io::Error },
    #[error("conntrack fails to {operation}: {message}")]
    Failed { operation: &'static str, message: String },
}

/// The flows that lead to a Service, but to no endpoint that serves it.
///
/// A node port is known by its number alone, so its flows are only judged while there are endpoints, lest a flow of
/// somebody else to the same port number goes.
pub fn stale(table: &Table, flows: Vec<Flow>) -> BTreeSet<Flow> {
    let mut by_address: BTreeMap<SocketAddr, &BTreeSet<SocketAddr>> = BTreeMap::new();
    let mut by_node_port: BTreeMap<u16, BTreeSet<SocketAddr>> = BTreeMap::new();
    for port in table.values().flatten().filter(|port| port.protocol == Protocol::Udp) {
        let addresses = port.external_ips.iter().chain(&port.load_balancer_ips).chain([&port.cluster_ip]);
        by_address.extend(addresses.map(|ip| (SocketAddr::new(*ip, port.port), &port.serving)));
        if let Some(number) = port.node_port.filter(|_| !port.serving.is_empty()) {
            by_node_port.entry(number).or_default().extend(&port.serving);
        }
    }
    let leads_astray = |flow: &Flow| match by_address.get(&flow.destination) {
        Some(serving) => !serving.contains(&flow.answers),
        None => by_node_port.get(&flow.destination.port()).is_some_and(|serving| !serving.contains(&flow.answers)),
    };
    flows.into_iter().filter(leads_astray).collect()
}

/// The `conntrack` program, by default in the caller's own network namespace.
#[derive(Clone, Debug)]
pub struct Program {
    command: Vec<String>,
}

impl Default for Program {
    fn default() -> Self {
        Self { command: vec!["conntrack".into()] }
    }
}

impl Program {
    /// Works on the network namespace that is mounted at `path`.
    pub fn in_namespace(path: &str) -> Self {
        Self { command: vec!["nsenter".into(), format!("--net={path}"), "conntrack".into()] }
    }

    async fn run(&self, operation: &'static str, arguments: &[&str]) -> Result<String, Error> {
        let program = self.command[0].clone();
        let output = Command::new(&program)
            .args(&self.command[1..])
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|source| Error::Start { program, source })?;
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        // Nothing to delete is told as a failure: "0 flow entries have been deleted".
        if output.status.success() || message.contains("0 flow entries") {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::Failed { operation, message })
    }
}

#[async_trait]
impl Conntrack for Program {
    async fn udp_flows(&self) -> Result<Vec<Flow>, Error> {
        let mut flows = Vec::new();
        for family in ["ipv4", "ipv6"] {
            let listed = self.run("list the flows", &["-L", "-p", "udp", "-f", family]).await?;
            flows.extend(listed.lines().filter_map(parse));
        }
        Ok(flows)
    }

    async fn delete(&self, flow: Flow) -> Result<(), Error> {
        let (destination, port) = (flow.destination.ip().to_string(), flow.destination.port().to_string());
        let (answers, answers_port) = (flow.answers.ip().to_string(), flow.answers.port().to_string());
        let family = if flow.destination.is_ipv4() { "ipv4" } else { "ipv6" };
        #[rustfmt::skip]
        let arguments = [
            "-D", "-p", "udp", "-f", family,
            "--orig-dst", &destination, "--orig-port-dst", &port,
            "--reply-src", &answers, "--reply-port-src", &answers_port,
        ];
        self.run("delete a flow", &arguments).await.map(drop)
    }
}

/// A line of `conntrack -L`: `udp 17 29 src=C dst=S sport=1 dport=53 [UNREPLIED] src=E dst=C sport=5353 dport=1 …`.
fn parse(line: &str) -> Option<Flow> {
    let value = |key: &str, nth: usize| line.split_whitespace().filter_map(|word| word.strip_prefix(key)).nth(nth);
    let address = |ip: Option<&str>, port: Option<&str>| -> Option<SocketAddr> {
        Some(SocketAddr::new(ip?.parse::<IpAddr>().ok()?, port?.parse().ok()?))
    };
    Some(Flow {
        destination: address(value("dst=", 0), value("dport=", 0))?,
        answers: address(value("src=", 1), value("sport=", 1))?,
    })
}

#[cfg(test)]
mod tests {
    use xebec_api::ObjectKey;

    use super::*;
    use crate::table::{Policy, Port};

    #[test]
    fn flows_are_read_from_the_listing() {
        let line = "udp      17 29 src=10.244.0.5 dst=10.96.0.10 sport=40000 dport=53 [UNREPLIED] src=10.244.0.9 \
                    dst=10.244.0.5 sport=5353 dport=40000 mark=0 use=1";
        let flow = Flow { destination: "10.96.0.10:53".parse().unwrap(), answers: "10.244.0.9:5353".parse().unwrap() };
        assert_eq!(parse(line), Some(flow));
        assert_eq!(parse("conntrack v1.4.7 (conntrack-tools): 1 flow entries have been shown."), None);
    }

    #[test]
    fn flows_to_endpoints_that_serve_stay() {
        let port = |serving: &[&str]| Port {
            service: ObjectKey::new("default", "dns"),
            protocol: Protocol::Udp,
            port: 53,
            cluster_ip: "10.96.0.20".parse().unwrap(),
            external_ips: ["192.0.2.9".parse().unwrap()].into(),
            load_balancer_ips: BTreeSet::new(),
            source_ranges: vec![],
            node_port: Some(30053),
            affinity: None,
            internal_policy: Policy::Cluster,
            external_policy: Policy::Cluster,
            cluster_endpoints: vec![],
            local_endpoints: vec![],
            served: true,
            serving: serving.iter().map(|text| text.parse().unwrap()).collect(),
        };
        // Serving endpoints; where the flow goes; who answers; whether it is stale.
        let cases: &[(&[&str], &str, &str, bool)] = &[
            (&["10.244.0.2:5353"], "10.96.0.20:53", "10.244.0.2:5353", false),
            (&["10.244.0.2:5353"], "10.96.0.20:53", "10.244.0.3:5353", true),
            (&["10.244.0.2:5353"], "10.96.0.20:53", "10.96.0.20:53", true),
            (&[], "192.0.2.9:53", "10.244.0.3:5353", true),
            (&["10.244.0.2:5353"], "192.0.2.1:30053", "10.244.0.3:5353", true),
            (&[], "192.0.2.1:30053", "10.244.0.3:5353", false),
            (&["10.244.0.2:5353"], "198.51.100.1:53", "198.51.100.1:53", false),
        ];
        for (serving, destination, answers, expected) in cases {
            let table: Table = [(ObjectKey::new("default", "dns"), vec![port(serving)])].into();
            let flow = Flow { destination: destination.parse().unwrap(), answers: answers.parse().unwrap() };
            assert_eq!(stale(&table, vec![flow]).len(), usize::from(*expected), "{serving:?} {flow:?}");
        }
    }
}
