//! What a container may learn about its own Pod: fields and resources, as variables and as files.
//!
//! A limit that is not declared counts as what the node can give, as upstream has it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use xebec_api::Quantity;

use crate::qos;

/// The Pod with what only the agent knows about it.
pub struct Facts<'a> {
    pub pod: &'a Pod,
    pub pod_ips: Vec<String>,
    pub host_ips: Vec<String>,
    /// The node's allocatable amounts: `cpu`, `memory`, `ephemeral-storage`.
    pub allocatable: BTreeMap<String, Quantity>,
}

impl<'a> Facts<'a> {
    pub fn new(pod: &'a Pod, pod_ips: Vec<String>, host_ips: Vec<String>) -> Facts<'a> {
        Facts { pod, pod_ips, host_ips, allocatable: BTreeMap::new() }
    }

    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The value of a field path; the whole of the labels or annotations only where files are made.
    pub fn field(&self, path: &str) -> Result<String, String> {
        let meta = &self.pod.metadata;
        let spec = self.pod.spec.as_ref();
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        if let Some((map, key)) = subscript(path) {
            let entries = match map {
                "metadata.labels" => meta.labels.as_ref(),
                "metadata.annotations" => meta.annotations.as_ref(),
                _ => return Err(format!("unsupported fieldPath: {path}")),
            };
            return Ok(entries.and_then(|entries| entries.get(key)).cloned().unwrap_or_default());
        }
        Ok(match path {
            "metadata.name" => text(&meta.name),
            "metadata.namespace" => text(&meta.namespace),
            "metadata.uid" => text(&meta.uid),
            "metadata.labels" => lines(meta.labels.as_ref()),
            "metadata.annotations" => lines(meta.annotations.as_ref()),
            "spec.nodeName" => spec.map(|spec| text(&spec.node_name)).unwrap_or_default(),
            "spec.serviceAccountName" => spec.map(|spec| text(&spec.service_account_name)).unwrap_or_default(),
            "status.hostIP" => self.host_ips.first().cloned().unwrap_or_default(),
            "status.hostIPs" => self.host_ips.join(","),
            "status.podIP" => self.pod_ips.first().cloned().unwrap_or_default(),
            "status.podIPs" => self.pod_ips.join(","),
            _ => return Err(format!("unsupported fieldPath: {path}")),
        })
    }

    /// An amount in units of the divisor, rounded up. `own` is the container that asks when the selector names none.
    pub fn resource(&self, selector: &ResourceFieldSelector, own: &Container) -> Result<String, String> {
        let container = match selector.container_name.as_deref().filter(|name| !name.is_empty()) {
            None => own,
            Some(name) => qos::containers(self.pod)
                .find(|container| container.name == name)
                .ok_or_else(|| format!("container {name} not found"))?,
        };
        let (side, name) = selector
            .resource
            .split_once('.')
            .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
        let resources = container.resources.as_ref();
        let limit = || resources.and_then(|it| it.limits.as_ref()).and_then(|map| map.get(name));
        let declared = match side {
            "limits" => limit(),
            "requests" => resources.and_then(|it| it.requests.as_ref()).and_then(|map| map.get(name)),
            _ => return Err(format!("unsupported container resource : {}", selector.resource)),
        };
        let amount = match declared.map(|it| Quantity::of(Some(it))).filter(|amount| !amount.is_zero()) {
            Some(amount) => amount,
            None if side == "limits" => self.allocatable.get(name).copied().unwrap_or(Quantity::ZERO),
            None => Quantity::ZERO,
        };
        let divisor = Quantity::of(selector.divisor.as_ref());
        let divisor = if divisor.is_zero() { Quantity::from_integer(1) } else { divisor };
        // CPU is divided in thousandths, so that a divisor of 1m gives thousandths; the rest in whole units.
        let (value, unit) = match name {
            "cpu" => (amount.milli_value(), divisor.milli_value()),
            _ => (amount.value(), divisor.value()),
        };
        Ok(((value as f64) / (unit.max(1) as f64)).ceil().to_string())
    }
}

/// `metadata.labels['key']` as its map and its key.
pub fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// `key="value"` lines, sorted; the values quoted as Go quotes.
fn lines(entries: Option<&BTreeMap<String, String>>) -> String {
    let lines = entries.into_iter().flatten().map(|(key, value)| format!("{key}={}", go_quote(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Go's `%q`: control characters escaped, printable Unicode kept.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{b}' => out.push_str("\\v"),
            control if control.is_control() => out.push_str(&format!("\\x{:02x}", control as u32)),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "x\ny"}},
            "spec": {"nodeName": "node", "serviceAccountName": "sa", "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "100Mi"}}},
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn fields() {
        let pod = pod();
        let facts = Facts::new(&pod, vec!["10.0.0.1".into(), "fd00::1".into()], vec!["192.0.2.1".into()]);
        let check = |path: &str, expected: &str| {
            assert_eq!(facts.field(path).unwrap_or_else(|error| error), expected, "{path}")
        };
        check("metadata.name", "web");
        check("metadata.labels['b']", "2");
        check("metadata.labels['none']", "");
        check("metadata.labels", "a=\"x\\ny\"\nb=\"2\"");
        check("status.podIPs", "10.0.0.1,fd00::1");
        check("status.hostIP", "192.0.2.1");
        check("spec.nodeName", "node");
        check("spec.none", "unsupported fieldPath: spec.none");
    }

    #[test]
    fn resources_are_rounded_up_and_default_to_the_node() {
        let pod = pod();
        let mut facts = Facts::new(&pod, vec![], vec![]);
        facts.allocatable.insert("memory".into(), Quantity::from_bytes(1 << 30));
        let own = &pod.spec.as_ref().unwrap().containers[0];
        let check = |resource: &str, divisor: &str, expected: &str| {
            let selector = serde_json::from_value(json!({"resource": resource, "divisor": divisor})).unwrap();
            assert_eq!(facts.resource(&selector, own).unwrap_or_else(|error| error), expected, "{resource} {divisor}");
        };
        check("limits.cpu", "0", "2");
        check("limits.cpu", "1m", "1500");
        check("requests.memory", "1Mi", "100");
        check("limits.memory", "1Gi", "1");
        check("requests.cpu", "0", "0");
    }
}
