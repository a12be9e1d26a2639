//! The node's status from facts and the runtime's conditions. Pure; reasons and messages are upstream's.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use xebec_api::Quantity;
use xebec_cri::v1::{Image, RuntimeCondition, VersionResponse};

use super::facts::Facts;
use crate::config::Config;
use crate::image::collect::Fullness;

/// The release of Kubernetes whose node this is.
pub const VERSION: &str = "v1.37.2";
/// Upstream shows the largest fifty, with five names each.
const MOST_IMAGES: usize = 50;
const MOST_NAMES: usize = 5;
/// Below these shares and amounts the node says that it is under pressure; upstream's thresholds of eviction.
const LEAST_STORAGE: u64 = 10;
const LEAST_MEMORY: u64 = 100 << 20;

/// What was found out about the node just now.
pub struct Findings {
    pub at: Timestamp,
    pub runtime: Result<Vec<RuntimeCondition>, String>,
    pub version: Option<VersionResponse>,
    pub images: Vec<Image>,
    pub storage: Option<Fullness>,
    pub memory_available: Option<u64>,
}

pub fn status(config: &Config, facts: &Facts, findings: &Findings, old: Option<&NodeStatus>) -> NodeStatus {
    let api = |amounts: BTreeMap<String, Quantity>| amounts.into_iter().map(|(name, it)| (name, it.to_api())).collect();
    let version = findings.version.clone().unwrap_or_default();
    NodeStatus {
        addresses: Some(addresses(config)),
        capacity: Some(api(facts.capacity(config))),
        allocatable: Some(api(facts.allocatable(config))),
        conditions: Some(conditions(findings, old)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(config.port) }),
        }),
        images: Some(images(&findings.images)),
        node_info: Some(NodeSystemInfo {
            architecture: facts.architecture.to_owned(),
            boot_id: facts.boot_id.clone(),
            container_runtime_version: format!("{}://{}", version.runtime_name, version.runtime_version),
            kernel_version: facts.kernel.clone(),
            kubelet_version: VERSION.to_owned(),
            machine_id: facts.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: facts.os_image.clone(),
            system_uuid: facts.system_uuid.clone(),
            ..NodeSystemInfo::default()
        }),
        ..NodeStatus::default()
    }
}

fn addresses(config: &Config) -> Vec<NodeAddress> {
    let ips = config.node_ips.iter().map(|ip| NodeAddress { type_: "InternalIP".into(), address: ip.to_string() });
    let name = NodeAddress { type_: "Hostname".into(), address: config.node_name.clone() };
    ips.chain([name]).collect()
}

/// Those of others first, then memory, disk, process ids and readiness.
fn conditions(findings: &Findings, old: Option<&NodeStatus>) -> Vec<NodeCondition> {
    let now = findings.at;
    let known = old.and_then(|old| old.conditions.as_deref()).unwrap_or_default();
    let few = findings.storage.is_some_and(|it| it.capacity > 0 && it.available * 100 / it.capacity < LEAST_STORAGE);
    let low = findings.memory_available.is_some_and(|available| available < LEAST_MEMORY);
    let memory = match low {
        true => ("True", "KubeletHasInsufficientMemory", "kubelet has insufficient memory available".to_owned()),
        false => ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available".to_owned()),
    };
    let disk = match few {
        true => ("True", "KubeletHasDiskPressure", "kubelet has disk pressure".to_owned()),
        false => ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure".to_owned()),
    };
    let processes = ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available".to_owned());
    let ready = match unready(findings) {
        None => ("True", "KubeletReady", "kubelet is posting ready status".to_owned()),
        Some(message) => ("False", "KubeletNotReady", message),
    };
    let own = [("MemoryPressure", memory), ("DiskPressure", disk), ("PIDPressure", processes), ("Ready", ready)];
    let mut all: Vec<NodeCondition> =
        known.iter().filter(|it| !own.iter().any(|(name, _)| *name == it.type_)).cloned().collect();
    for (name, (status, reason, message)) in own {
        let before = known.iter().find(|before| before.type_ == name && before.status == status);
        all.push(NodeCondition {
            type_: name.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: before.and_then(|before| before.last_transition_time.clone()).or(Some(Time(now))),
        });
    }
    all
}

/// Why the node cannot run Pods.
fn unready(findings: &Findings) -> Option<String> {
    let conditions = match &findings.runtime {
        Ok(conditions) => conditions,
        Err(message) => return Some(format!("container runtime status check may not have completed yet: {message}")),
    };
    let failing = |kind: &str| conditions.iter().find(|condition| condition.r#type == kind && !condition.status);
    let describe =
        |it: &RuntimeCondition| format!("{}={} reason:{} message:{}", it.r#type, it.status, it.reason, it.message);
    let runtime = failing("RuntimeReady").map(|it| format!("container runtime not ready: {}", describe(it)));
    let network = failing("NetworkReady").map(|it| format!("container runtime network not ready: {}", describe(it)));
    let all: Vec<String> = runtime.into_iter().chain(network).collect();
    match all.len() {
        0 => None,
        1 => all.into_iter().next(),
        // As Go prints several errors.
        _ => Some(format!("[{}]", all.join(", "))),
    }
}

fn images(present: &[Image]) -> Vec<ContainerImage> {
    let mut images: Vec<&Image> =
        present.iter().filter(|it| !it.repo_tags.is_empty() || !it.repo_digests.is_empty()).collect();
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let shown = images.into_iter().take(MOST_IMAGES).map(|image| ContainerImage {
        names: Some(image.repo_digests.iter().chain(&image.repo_tags).take(MOST_NAMES).cloned().collect()),
        size_bytes: Some(image.size as i64),
    });
    shown.collect()
}

/// Whether two statuses differ in more than the time of the last look.
pub fn differs(old: &NodeStatus, new: &NodeStatus) -> bool {
    let timeless = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        serde_json::to_value(status).unwrap_or_default()
    };
    // Fields that this node does not write are somebody else's and count for nothing.
    let (old, new) = (timeless(old), timeless(new));
    new.as_object().into_iter().flatten().any(|(key, value)| old.get(key) != Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RuntimeSource;

    fn findings(network: bool, at: Timestamp) -> Findings {
        let condition = |kind: &str, status| RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: if status { String::new() } else { "NetworkPluginNotReady".into() },
            message: if status { String::new() } else { "no".into() },
        };
        Findings {
            at,
            runtime: Ok(vec![condition("RuntimeReady", true), condition("NetworkReady", network)]),
            version: None,
            images: vec![],
            storage: Some(Fullness { capacity: 100, available: 50 }),
            memory_available: Some(1 << 30),
        }
    }

    fn check(network: bool, old: Option<&NodeStatus>, second: i64, expected: &[&str]) -> NodeStatus {
        let config =
            Config::new("n", vec!["192.0.2.1".parse().unwrap()], "/d".into(), RuntimeSource::Endpoint("/s".into()));
        let now = Timestamp::from_second(second).unwrap();
        let status = status(&config, &Facts::default(), &findings(network, now), old);
        let shown: Vec<String> = status
            .conditions
            .iter()
            .flatten()
            .map(|it| {
                let since = it.last_transition_time.as_ref().map_or(0, |time| time.0.as_second());
                format!("{}={}@{since}", it.type_, it.status)
            })
            .collect();
        assert_eq!(shown, expected);
        status
    }

    #[test]
    fn readiness_follows_the_runtime() {
        let mut first = check(
            false,
            None,
            1,
            &["MemoryPressure=False@1", "DiskPressure=False@1", "PIDPressure=False@1", "Ready=False@1"],
        );
        let message = first.conditions.as_ref().unwrap()[3].message.clone().unwrap();
        assert_eq!(
            message,
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:no"
        );
        let foreign = NodeCondition { type_: "Mine".into(), status: "True".into(), ..NodeCondition::default() };
        first.conditions.as_mut().unwrap().insert(0, foreign);
        let second = check(
            true,
            Some(&first),
            2,
            &["Mine=True@0", "MemoryPressure=False@1", "DiskPressure=False@1", "PIDPressure=False@1", "Ready=True@2"],
        );
        assert!(differs(&first, &second));
        let third = check(
            true,
            Some(&second),
            3,
            &["Mine=True@0", "MemoryPressure=False@1", "DiskPressure=False@1", "PIDPressure=False@1", "Ready=True@2"],
        );
        assert!(!differs(&second, &third));
    }
}
