//! The objects that are written: ConfigMaps of 1.4 KB and Pods of 1.7 KB, as they come from a server, and a node without an
//! agent.
use serde_json::{Value, json};

pub fn config_map(name: &str) -> Vec<u8> {
    let filling = "x".repeat(1000);
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": "bench"}}, "data": {"value": filling}})
        .to_string()
        .into_bytes()
}

pub fn pod(name: &str) -> Vec<u8> {
    let container = json!({
        "name": "main",
        "image": "docker.io/xebec/testtool:latest",
        "env": (0..4).map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "some value of a variable"})).collect::<Vec<Value>>(),
        "ports": [{"containerPort": 8080}],
        "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"memory": "64Mi"}},
    });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench", "tier": "test"}, "annotations": {"note": "x".repeat(100)}},
        "spec": {"containers": [container], "tolerations": [{"operator": "Exists"}], "terminationGracePeriodSeconds": 0},
    })
    .to_string()
    .into_bytes()
}

/// A Pod that the node can start at once.
pub fn sleeper(name: &str) -> Vec<u8> {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "main", "image": "docker.io/xebec/testtool:latest", "imagePullPolicy": "Never", "args": ["sleep", "forever"]}
        ]},
    })
    .to_string()
    .into_bytes()
}

pub fn node(name: &str) -> Vec<u8> {
    let room = json!({"cpu": "1000", "memory": "1000Gi", "pods": "100000"});
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"capacity": room, "allocatable": room, "conditions": [{"type": "Ready", "status": "True", "reason": "Bench",
            "message": "", "lastHeartbeatTime": "2024-01-01T00:00:00Z", "lastTransitionTime": "2024-01-01T00:00:00Z"}]},
    })
    .to_string()
    .into_bytes()
}
