//! `autoscaling/v1`, a narrower view of the same objects: CPU utilisation is a field of its own, all else is kept in annotations.
//!
//! The annotations' names are upstream's, so that objects survive a round through either server.

use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// A JSON tree of `autoscaling/v2` as one of `autoscaling/v1`.
pub fn from_version_two(mut object: Value) -> Value {
    let mut kept: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let mut metrics = list(spec.remove("metrics"));
        if let Some(at) = metrics.iter().position(is_cpu_utilization) {
            let percent = metrics.remove(at)["resource"]["target"]["averageUtilization"].take();
            spec.insert("targetCPUUtilizationPercentage".to_owned(), percent);
        }
        if !metrics.is_empty() {
            kept.push((METRICS, Value::Array(metrics)));
        }
        if let Some(behavior) = spec.remove("behavior").filter(|behavior| !behavior.is_null()) {
            kept.push((BEHAVIOR, behavior));
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let current = list(status.remove("currentMetrics"));
        if let Some(cpu) = current.iter().find(|one| one["resource"]["name"] == "cpu") {
            let percent = cpu["resource"]["current"]["averageUtilization"].clone();
            if !percent.is_null() {
                status.insert("currentCPUUtilizationPercentage".to_owned(), percent);
            }
        }
        if !current.is_empty() {
            kept.push((CURRENT, Value::Array(current)));
        }
        let conditions = list(status.remove("conditions"));
        if !conditions.is_empty() {
            kept.push((CONDITIONS, Value::Array(conditions)));
        }
        // The older version always shows it.
        status.entry("currentReplicas").or_insert_with(|| json!(0));
    }
    if !kept.is_empty()
        && let Some(annotations) = annotations(&mut object)
    {
        for (name, value) in kept {
            annotations.insert(name.to_owned(), Value::String(value.to_string()));
        }
    }
    versioned(object, "autoscaling/v1")
}

/// A JSON tree of `autoscaling/v1` as one of `autoscaling/v2`.
pub fn to_version_two(mut object: Value) -> Value {
    let mut kept = Map::new();
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        for name in [METRICS, BEHAVIOR, CURRENT, CONDITIONS] {
            let value = annotations.remove(name);
            let parsed = value.as_ref().and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok());
            if let Some(value) = parsed {
                kept.insert(name.to_owned(), value);
            }
        }
    }
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let mut metrics = list(kept.remove(METRICS));
        if let Some(percent) = spec.remove("targetCPUUtilizationPercentage").filter(|percent| !percent.is_null()) {
            let target = json!({"type": "Utilization", "averageUtilization": percent});
            metrics.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        if !metrics.is_empty() {
            spec.insert("metrics".to_owned(), Value::Array(metrics));
        }
        if let Some(behavior) = kept.remove(BEHAVIOR) {
            spec.insert("behavior".to_owned(), behavior);
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let mut current = list(kept.remove(CURRENT));
        let percent = status.remove("currentCPUUtilizationPercentage").filter(|percent| !percent.is_null());
        if let Some(percent) = percent.filter(|_| !current.iter().any(|one| one["resource"]["name"] == "cpu")) {
            let resource = json!({"name": "cpu", "current": {"averageUtilization": percent}});
            current.insert(0, json!({"type": "Resource", "resource": resource}));
        }
        if !current.is_empty() {
            status.insert("currentMetrics".to_owned(), Value::Array(current));
        }
        if let Some(conditions) = kept.remove(CONDITIONS) {
            status.insert("conditions".to_owned(), conditions);
        }
    }
    versioned(object, "autoscaling/v2")
}

fn is_cpu_utilization(metric: &Value) -> bool {
    let resource = &metric["resource"];
    metric["type"] == "Resource" && resource["name"] == "cpu" && resource["target"]["averageUtilization"].is_number()
}

fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn annotations(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    metadata.entry("annotations").or_insert_with(|| json!({})).as_object_mut()
}

fn versioned(mut object: Value, api_version: &str) -> Value {
    if let Some(version) = object.get_mut("apiVersion") {
        *version = Value::from(api_version);
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_between_the_versions() {
        let two = json!({
            "apiVersion": "autoscaling/v2", "metadata": {"name": "a", "annotations": {"x": "y"}},
            "spec": {
                "maxReplicas": 3,
                "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                    {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1"}}}
                ],
                "behavior": {"scaleUp": {"selectPolicy": "Max"}}
            },
            "status": {"currentReplicas": 1, "desiredReplicas": 1, "conditions": [{"type": "AbleToScale", "status": "True"}]}
        });
        let one = from_version_two(two.clone());
        assert_eq!(one["spec"]["targetCPUUtilizationPercentage"], 50);
        assert!(one["spec"].get("metrics").is_none());
        assert_eq!(to_version_two(one), two);
    }
}
