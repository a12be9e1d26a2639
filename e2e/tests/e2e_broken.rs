//! Four Pods that cannot run: `get` and `describe` say why, in upstream's words.
use std::time::Duration;

use anyhow::Result;
use xebec_e2e::{Cluster, wait_for};

const SOON: Duration = Duration::from_secs(60);
const PODS: &str = r#"{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "no-image"}, "spec": {"containers": [
    {"name": "main", "image": "xebec.invalid/absent:1"}]}},
  {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "no-success"}, "spec": {"containers": [
    {"name": "main", "image": "docker.io/xebec/testtool", "imagePullPolicy": "IfNotPresent", "args": ["exit", "3"]}]}},
  {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "no-config"}, "spec": {"containers": [
    {"name": "main", "image": "docker.io/xebec/testtool", "imagePullPolicy": "IfNotPresent",
     "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "a"}}}]}]}},
  {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "no-room"}, "spec": {"containers": [
    {"name": "main", "image": "docker.io/xebec/testtool", "resources": {"requests": {"cpu": "1000"}}}]}}
]}"#;

/// Each Pod with the states that `get` may show (upstream alternates between an error and its back-off) and what `describe`
/// must hold.
const EXPECTED: &[(&str, &[&str], &[&str])] = &[
    (
        "no-image",
        &["ErrImagePull", "ImagePullBackOff"],
        &["Failed to pull image \"xebec.invalid/absent:1\"", "Pulling"],
    ),
    (
        "no-success",
        &["CrashLoopBackOff"],
        &["Exit Code:    3", "Back-off restarting failed container main in pod no-success"],
    ),
    ("no-config", &["CreateContainerConfigError"], &["configmap \"absent\" not found"]),
    ("no-room", &["Pending"], &["FailedScheduling", "0/1 nodes are available: 1 Insufficient cpu."]),
];

#[test]
fn broken_pods_say_why() {
    story().expect("four broken Pods");
}

fn story() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.import(&["pause", "testtool"])?;
    let manifest = cluster.data().join("broken.json");
    std::fs::write(&manifest, PODS)?;
    cluster.xebec(&["create", "-f", &manifest.to_string_lossy()])?.success()?;
    for (name, states, texts) in EXPECTED {
        println!("- {name}");
        wait_for(&format!("{name} in state {states:?}"), SOON, || {
            let line = cluster.xebec(&["get", "pod", name, "--no-headers"])?.success()?;
            Ok(states.iter().any(|state| line.split_whitespace().nth(2) == Some(state)).then_some(()))
        })?;
        for text in *texts {
            wait_for(&format!("{text:?} in what describe says of {name}"), SOON, || {
                let said = cluster.xebec(&["describe", "pod", name])?.success()?;
                anyhow::ensure!(said.contains(text), "{said}");
                Ok(Some(()))
            })?;
        }
    }
    cluster.down()
}
