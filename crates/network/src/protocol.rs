//! What the container runtime, the plugin and the agent say to each other.
//!
//! The runtime's side is the Container Network Interface, specification versions 0.3.0 to 1.1.0: parameters in the
//! environment, configuration as JSON on stdin, a result or an error as JSON on stdout. Between plugin and agent one
//! [`Request`] and one [`Reply`] pass as JSON over the socket. Pure; the versions differ here and nowhere else.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The newest last.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The version our own configuration file asks for: the newest that every runtime in use reads.
pub const OWN_VERSION: &str = "1.0.0";

/// Error codes of the specification, section "Error", and one of our own from 100 on.
pub mod code {
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    pub const UNKNOWN_CONTAINER: u32 = 3;
    pub const INVALID_ENVIRONMENT: u32 = 4;
    pub const IO_FAILURE: u32 = 5;
    pub const DECODE_FAILURE: u32 = 6;
    pub const INVALID_CONFIG: u32 = 7;
    pub const TRY_AGAIN_LATER: u32 = 11;
    pub const PLUGIN_NOT_AVAILABLE: u32 = 50;
    pub const NETWORK_FAILURE: u32 = 100;
}

/// The network configuration as the runtime hands it to the plugin; what other plugins add is ignored.
#[derive(Clone, Debug, Deserialize)]
pub struct NetConf {
    #[serde(rename = "cniVersion", default = "oldest")]
    pub version: String,
    /// Where the agent listens.
    pub socket: Option<PathBuf>,
    #[serde(rename = "runtimeConfig", default)]
    pub runtime: RuntimeConfig,
    /// What still exists, on GC.
    #[serde(rename = "cni.dev/valid-attachments", default)]
    pub valid_attachments: Option<Vec<AttachmentKey>>,
}

/// A configuration without a version is one of the first, which the specification tells to treat as 0.1.0; 0.3.0 is the
/// oldest we speak.
fn oldest() -> String {
    VERSIONS[0].to_owned()
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct RuntimeConfig {
    #[serde(rename = "portMappings", default)]
    pub port_mappings: Option<Vec<PortMapping>>,
}

/// A port of the node that leads to a port of the Pod. The convention writes the names as below; containerd writes them as its
/// own fields are called, and the plugins in Go take them in any case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    #[serde(rename = "hostPort", alias = "HostPort")]
    pub host_port: u16,
    #[serde(rename = "containerPort", alias = "ContainerPort")]
    pub container_port: u16,
    #[serde(default = "tcp", alias = "Protocol")]
    pub protocol: String,
    #[serde(rename = "hostIP", alias = "HostIP", default)]
    pub host_ip: String,
}

fn tcp() -> String {
    "tcp".to_owned()
}

/// One interface of one container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttachmentKey {
    #[serde(rename = "containerID")]
    pub container: String,
    #[serde(rename = "ifname")]
    pub interface: String,
}

impl AttachmentKey {
    /// Refuses what would not be a file name or an interface name; the rules are the specification's.
    pub fn checked(container: String, interface: String) -> Result<Self, Failure> {
        let inner = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let starts = container.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !starts || container.len() > 200 || !container.chars().all(inner) {
            return Err(Failure::new(
                code::INVALID_ENVIRONMENT,
                format!("CNI_CONTAINERID is not valid: {container:?}"),
            ));
        }
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if interface.is_empty() || interface.len() > 15 || interface.starts_with('.') || interface.contains(bad) {
            return Err(Failure::new(code::INVALID_ENVIRONMENT, format!("CNI_IFNAME is not valid: {interface:?}")));
        }
        Ok(Self { container, interface })
    }
}

/// What the plugin asks the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "UPPERCASE")]
pub enum Request {
    Add { key: AttachmentKey, namespace: PathBuf, pod: String, ports: Vec<PortMapping> },
    Del { key: AttachmentKey },
    Check { key: AttachmentKey, namespace: PathBuf },
    Gc { valid: Vec<AttachmentKey> },
    Status,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    Done,
    Attached(Attached),
    Failed(Failure),
}

/// The network of a Pod as the runtime wants to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    pub host_interface: String,
    pub host_mac: String,
    pub interface: String,
    pub mac: String,
    pub namespace: PathBuf,
    pub address: Ipv4Addr,
    pub gateway: Ipv4Addr,
    pub mtu: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub code: u32,
    pub message: String,
}

impl Failure {
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The error as the runtime reads it on stdout.
    pub fn to_json(&self, version: &str) -> Value {
        json!({"cniVersion": version, "code": self.code, "msg": self.message})
    }
}

impl Attached {
    /// The result as the runtime reads it on stdout. Before 1.0.0 each address named its family.
    pub fn to_json(&self, version: &str) -> Value {
        let mut ip = json!({"interface": 1, "address": format!("{}/32", self.address), "gateway": self.gateway});
        if version.starts_with("0.") {
            ip["version"] = json!("4");
        }
        let mut interfaces = json!([
            {"name": self.host_interface, "mac": self.host_mac},
            {"name": self.interface, "mac": self.mac, "sandbox": self.namespace},
        ]);
        if version == "1.1.0" {
            interfaces[0]["mtu"] = json!(self.mtu);
            interfaces[1]["mtu"] = json!(self.mtu);
        }
        json!({
            "cniVersion": version,
            "interfaces": interfaces,
            "ips": [ip],
            "routes": [{"dst": "0.0.0.0/0", "gw": self.gateway}],
            "dns": {},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_follow_the_version_asked_for() {
        let attached = Attached {
            host_interface: "xeb012345678901".into(),
            host_mac: "0a:58:00:00:00:01".into(),
            interface: "eth0".into(),
            mac: "0a:58:0a:f4:00:05".into(),
            namespace: "/run/netns/a".into(),
            address: Ipv4Addr::new(10, 244, 0, 5),
            gateway: Ipv4Addr::new(10, 244, 0, 1),
            mtu: 1400,
        };
        for (version, family, mtu) in [
            ("0.3.1", json!("4"), Value::Null),
            ("1.0.0", Value::Null, Value::Null),
            ("1.1.0", Value::Null, json!(1400)),
        ] {
            let result = attached.to_json(version);
            assert_eq!(result["cniVersion"], version);
            assert_eq!(result["ips"][0]["version"], family);
            assert_eq!(result["interfaces"][1]["mtu"], mtu);
            assert_eq!(result["ips"][0]["address"], "10.244.0.5/32");
            assert_eq!(result["interfaces"][1]["sandbox"], "/run/netns/a");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let check =
            |container: &str, interface: &str| AttachmentKey::checked(container.into(), interface.into()).is_ok();
        let cases = [
            ("4f2a", "eth0", true),
            ("a_b.c-d", "net1", true),
            ("../a", "eth0", false),
            ("", "eth0", false),
            ("a/b", "eth0", false),
            ("a", "", false),
            ("a", "..", false),
            ("a", "a/b", false),
            ("a", "sixteen-bytes-xx", false),
        ];
        for (container, interface, expected) in cases {
            assert_eq!(check(container, interface), expected, "{container:?} {interface:?}");
        }
    }
}
