//! The priority levels and flow schemas that a cluster begins with, under upstream's names and with its numbers.
//!
//! They are also what the server goes by as long as no such objects exist.

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The annotation by which upstream knows the objects that it may bring up to date.
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// A level that limits: name, shares of the server's seats, percentage that it lends, queues and hand.
const LIMITED: &[(&str, i32, i32, i32, i32)] = &[
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
];
const QUEUE_LENGTH: i32 = 50;

/// A schema: name, level, precedence, distinguisher, subjects and rules.
type SchemaRow = (&'static str, &'static str, i32, &'static str, &'static [SubjectRow], RulesRow);
type SubjectRow = (&'static str, &'static str);

enum RulesRow {
    Everything,
    Paths(&'static [&'static str]),
    /// Verbs, group, resources, and whether the cluster's scope is meant too.
    Resources(&'static [(&'static [&'static str], &'static str, &'static [&'static str], bool)]),
}

const EVERYONE: &[SubjectRow] = &[("Group", "system:unauthenticated"), ("Group", "system:authenticated")];
const LEASES: &str = "coordination.k8s.io";

const SCHEMAS: &[SchemaRow] = &[
    ("exempt", "exempt", 1, "", &[("Group", "system:masters")], RulesRow::Everything),
    ("probes", "exempt", 2, "", EVERYONE, RulesRow::Paths(&["/healthz", "/readyz", "/livez"])),
    (
        "system-leader-election",
        "leader-election",
        100,
        "ByUser",
        &[
            ("User", "system:kube-controller-manager"),
            ("User", "system:kube-scheduler"),
            ("ServiceAccount", "kube-system"),
        ],
        RulesRow::Resources(&[(&["get", "create", "update"], LEASES, &["leases"], false)]),
    ),
    (
        "system-node-high",
        "node-high",
        400,
        "ByUser",
        &[("Group", "system:nodes")],
        RulesRow::Resources(&[(&["*"], "", &["nodes", "nodes/status"], true), (&["*"], LEASES, &["leases"], false)]),
    ),
    ("system-nodes", "system", 500, "ByUser", &[("Group", "system:nodes")], RulesRow::Everything),
    (
        "kube-controller-manager",
        "workload-high",
        800,
        "ByNamespace",
        &[("User", "system:kube-controller-manager")],
        RulesRow::Everything,
    ),
    ("kube-scheduler", "workload-high", 800, "ByNamespace", &[("User", "system:kube-scheduler")], RulesRow::Everything),
    (
        "kube-system-service-accounts",
        "workload-high",
        900,
        "ByNamespace",
        &[("ServiceAccount", "kube-system")],
        RulesRow::Everything,
    ),
    ("service-accounts", "workload-low", 9000, "ByUser", &[("Group", "system:serviceaccounts")], RulesRow::Everything),
    ("global-default", "global-default", 9900, "ByUser", EVERYONE, RulesRow::Everything),
    ("catch-all", "catch-all", 10000, "ByUser", EVERYONE, RulesRow::Everything),
];

pub fn priority_levels() -> Vec<PriorityLevelConfiguration> {
    let exempt = json!({ "type": "Exempt", "exempt": { "nominalConcurrencyShares": 0, "lendablePercent": 0 } });
    let limited = |shares: i32, lendable: i32, response: Value| {
        let limits =
            json!({ "nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response });
        json!({ "type": "Limited", "limited": limits })
    };
    let mut levels = vec![("exempt", exempt), ("catch-all", limited(5, 0, json!({ "type": "Reject" })))];
    for (name, shares, lendable, queues, hand) in LIMITED {
        let queuing = json!({ "queues": queues, "handSize": hand, "queueLengthLimit": QUEUE_LENGTH });
        levels.push((name, limited(*shares, *lendable, json!({ "type": "Queue", "queuing": queuing }))));
    }
    levels.into_iter().map(|(name, spec)| object(name, spec)).collect()
}

pub fn flow_schemas() -> Vec<FlowSchema> {
    let all = SCHEMAS.iter().map(|(name, level, precedence, distinguisher, subjects, rules)| {
        let mut rules = rules.tree();
        rules["subjects"] = subjects.iter().map(|(kind, name)| subject(kind, name)).collect();
        let mut spec = json!({
            "priorityLevelConfiguration": { "name": level }, "matchingPrecedence": precedence, "rules": [rules]
        });
        if !distinguisher.is_empty() {
            spec["distinguisherMethod"] = json!({ "type": distinguisher });
        }
        object(name, spec)
    });
    all.collect()
}

fn subject(kind: &str, name: &str) -> Value {
    match kind {
        "User" => json!({ "kind": kind, "user": { "name": name } }),
        "Group" => json!({ "kind": kind, "group": { "name": name } }),
        // All accounts of the namespace.
        _ => json!({ "kind": kind, "serviceAccount": { "namespace": name, "name": "*" } }),
    }
}

impl RulesRow {
    fn tree(&self) -> Value {
        let resource = |verbs: &[&str], group: &str, resources: &[&str], cluster: bool| {
            let mut rule = json!({ "verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"] });
            if cluster {
                rule["clusterScope"] = json!(true);
            }
            rule
        };
        match self {
            RulesRow::Everything => json!({
                "resourceRules": [resource(&["*"], "*", &["*"], true)],
                "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }]
            }),
            RulesRow::Paths(paths) => json!({ "nonResourceRules": [{ "verbs": ["get"], "nonResourceURLs": paths }] }),
            RulesRow::Resources(rules) => {
                let rules = rules.iter().map(|(verbs, group, names, cluster)| resource(verbs, group, names, *cluster));
                json!({ "resourceRules": rules.collect::<Vec<_>>() })
            }
        }
    }
}

/// The rows above are constant, and the tests read all of them.
fn object<T: DeserializeOwned>(name: &str, spec: Value) -> T {
    let metadata = json!({ "name": name, "annotations": { AUTO_UPDATE: "true" } });
    serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).expect("the built-in rows are well-formed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_an_object() {
        let levels: Vec<String> = priority_levels().into_iter().filter_map(|level| level.metadata.name).collect();
        let schemas = flow_schemas();
        assert_eq!((levels.len(), schemas.len()), (8, 11));
        for schema in schemas {
            assert!(levels.contains(&schema.spec.priority_level_configuration.name));
        }
    }
}
