//! One decision: which node suits a Pod best, or for each node why it does not. Pure.

use std::collections::BTreeMap;
use std::fmt;

use crate::plugins::{self, Misfit};
use crate::snapshot::{PodFacts, Snapshot};

/// With more nodes than this not all are tried; upstream's figures: at least 100 that fit are scored, and a share of the
/// rest that shrinks as the cluster grows.
const ALWAYS_ALL: usize = 100;

/// No node takes the Pod.
#[derive(Debug, Default)]
pub struct Unfit {
    pub nodes: usize,
    /// By node.
    pub misfits: Vec<(String, Misfit)>,
}

impl fmt::Display for Unfit {
    /// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s).`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "{}", counted(self.nodes, self.misfits.iter().flat_map(|(_, misfit)| misfit.reasons.iter())))
    }
}

/// The counts of reasons in the order in which upstream prints them: as sorted texts.
pub fn counted(nodes: usize, reasons: impl Iterator<Item = impl AsRef<str>>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason.as_ref().to_owned()).or_default() += 1;
    }
    let mut texts: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    texts.sort();
    format!("0/{nodes} nodes are available: {}.", texts.join(", "))
}

/// The place in `snapshot.nodes` of the best node. `start` rotates, so that large clusters fill evenly.
pub fn decide(snapshot: &Snapshot, pod: &PodFacts, start: usize) -> Result<usize, Unfit> {
    let nodes = &snapshot.nodes;
    let prepared = plugins::prepare(pod, nodes);
    let wanted = wanted(nodes.len());
    let mut unfit = Unfit { nodes: nodes.len(), misfits: Vec::new() };
    let (mut best, mut found) = (None::<(f64, usize)>, 0);
    for step in 0..nodes.len() {
        let at = (start + step) % nodes.len();
        let node = &nodes[at];
        if let Some(misfit) = plugins::filter(&prepared, pod, node) {
            unfit.misfits.push((node.name.to_string(), misfit));
            continue;
        }
        let score = plugins::total_score(&prepared, pod, node);
        if best.is_none_or(|(standing, _)| score > standing) {
            best = Some((score, at));
        }
        found += 1;
        if found >= wanted {
            break;
        }
    }
    best.map(|(_, at)| at).ok_or(unfit)
}

fn wanted(nodes: usize) -> usize {
    if nodes <= ALWAYS_ALL {
        return nodes;
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(ALWAYS_ALL)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn snapshot(nodes: Value, pods: Value) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for node in nodes.as_array().unwrap() {
            snapshot.set_node(&Arc::new(serde_json::from_value(node.clone()).unwrap()));
        }
        for pod in pods.as_array().unwrap() {
            let facts = facts(pod.clone());
            let node = facts.spec().unwrap().node_name.clone().unwrap();
            snapshot.place(Arc::new(facts), &node);
        }
        snapshot
    }

    fn facts(pod: Value) -> PodFacts {
        PodFacts::of(&Arc::new(serde_json::from_value(pod).unwrap()))
    }

    fn node(name: &str, more: Value) -> Value {
        let mut node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {}, "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}}});
        if let Some(spec) = more.get("spec") {
            node["spec"] = spec.clone();
        }
        node
    }

    fn pod(name: &str, spec: Value) -> Value {
        let mut pod = json!({"metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "a"}},
            "spec": {"containers": [{"name": "c"}]}});
        pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        pod
    }

    fn check(nodes: Value, placed: Value, wanted: Value, expected: &str) {
        let snapshot = snapshot(nodes, placed);
        let answer = match decide(&snapshot, &facts(wanted), 0) {
            Ok(at) => snapshot.nodes[at].name.to_string(),
            Err(unfit) => unfit.to_string(),
        };
        assert_eq!(answer, expected);
    }

    fn asks(cpu: &str) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
    }

    #[test]
    fn each_cause_is_counted() {
        let none = json!([]);
        check(none.clone(), none.clone(), pod("p", json!({})), "no nodes available to schedule pods");
        let tainted = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
        check(
            json!([node("a", json!({})), node("b", tainted), node("c", json!({"spec": {"unschedulable": true}}))]),
            none.clone(),
            pod("p", asks("3")),
            "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable.",
        );
        check(
            json!([node("a", json!({}))]),
            none,
            pod("p", json!({"nodeSelector": {"disk": "ssd"}})),
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        );
    }

    #[test]
    fn the_emptier_node_wins() {
        let mut busy = pod("q", asks("1"));
        busy["spec"]["nodeName"] = json!("a");
        check(json!([node("a", json!({})), node("b", json!({}))]), json!([busy]), pod("p", asks("1")), "b");
    }

    #[test]
    fn host_ports_and_anti_affinity_keep_pods_apart() {
        let port = json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
        let mut first = pod("q", port.clone());
        first["spec"]["nodeName"] = json!("a");
        check(
            json!([node("a", json!({}))]),
            json!([first]),
            pod("p", port),
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.",
        );
        let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "a"}}, "topologyKey": "kubernetes.io/hostname"}]}}});
        let mut first = pod("q", json!({}));
        first["spec"]["nodeName"] = json!("a");
        check(json!([node("a", json!({})), node("b", json!({}))]), json!([first]), pod("p", apart), "b");
    }
}
