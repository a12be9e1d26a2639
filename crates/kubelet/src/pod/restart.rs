//! Whether a container that has ended runs again: its own rules, its own policy, the Pod's policy, in this order.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::observed::{Seen, State};

/// After this exit code. Source: "Container restarts" in the Kubernetes documentation, KEP-5307.
pub fn after_exit(pod: &Pod, container: &Container, code: i32) -> bool {
    let own = container.restart_policy.as_deref();
    if own.is_some() {
        let matching = container.restart_policy_rules.iter().flatten().find(|rule| {
            rule.exit_codes.as_ref().is_some_and(|codes| {
                let listed = codes.values.iter().flatten().any(|value| *value == code);
                listed == (codes.operator == "In")
            })
        });
        if matching.is_some_and(|rule| rule.action == "Restart") {
            return true;
        }
    }
    match own.or(pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref())).unwrap_or("Always") {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    }
}

/// Whether the container is to be started, given its newest instance.
pub fn wanted(pod: &Pod, container: &Container, newest: Option<&Seen>) -> bool {
    if pod.metadata.deletion_timestamp.is_some() {
        return false;
    }
    match newest.map(|seen| (seen.state, seen.exit_code)) {
        None | Some((State::Unknown | State::Created, _)) => true,
        Some((State::Running, _)) => false,
        Some((State::Exited, code)) => after_exit(pod, container, code),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(pod_policy: &str, container: serde_json::Value, code: i32, expected: bool) {
        let mut container = container;
        container["name"] = json!("c");
        let container: Container = serde_json::from_value(container).unwrap();
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {}, "spec": {"restartPolicy": pod_policy, "containers": []}}))
                .unwrap();
        assert_eq!(after_exit(&pod, &container, code), expected, "{pod_policy} {container:?} {code}");
    }

    #[test]
    fn policies_and_rules() {
        check("Always", json!({}), 0, true);
        check("OnFailure", json!({}), 0, false);
        check("OnFailure", json!({}), 1, true);
        check("Never", json!({}), 1, false);
        check("Never", json!({"restartPolicy": "OnFailure"}), 1, true);
        let rules = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
        check("Never", json!({"restartPolicy": "Never", "restartPolicyRules": rules}), 42, true);
        check("Never", json!({"restartPolicy": "Never", "restartPolicyRules": rules}), 43, false);
    }
}
