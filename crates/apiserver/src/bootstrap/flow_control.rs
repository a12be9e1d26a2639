//! The FlowSchemas and levels of every cluster, as long as their owner does not take them over.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use serde_json::{Value, json};

use crate::registry::metadata::whole_seconds;
use crate::resources::flowcontrol::standard::{AUTO_UPDATE, is_mandatory};

/// What is said of a schema whose level exists from the same moment.
pub fn schema_status(schema: &FlowSchema, now: Timestamp) -> Value {
    let level = &schema.spec.priority_level_configuration.name;
    json!({ "conditions": [{
        "type": "Dangling",
        "status": "False",
        "lastTransitionTime": whole_seconds(now),
        "reason": "Found",
        "message": format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} and it exists"),
    }] })
}

/// Whether the server may write its own specification over the stored one.
fn is_ours(name: Option<&String>, annotations: Option<&BTreeMap<String, String>>) -> bool {
    let auto = annotations.and_then(|all| all.get(AUTO_UPDATE)).map(String::as_str);
    name.is_some_and(|name| is_mandatory(name)) || auto == Some("true")
}

pub fn merge_schema(stored: &FlowSchema, wanted: &FlowSchema) -> Option<FlowSchema> {
    let ours = is_ours(stored.metadata.name.as_ref(), stored.metadata.annotations.as_ref());
    (ours && stored.spec != wanted.spec).then(|| FlowSchema { spec: wanted.spec.clone(), ..stored.clone() })
}

/// How much of the server the exempt level counts for is its owner's to say.
pub fn merge_level(
    stored: &PriorityLevelConfiguration,
    wanted: &PriorityLevelConfiguration,
) -> Option<PriorityLevelConfiguration> {
    let ours = is_ours(stored.metadata.name.as_ref(), stored.metadata.annotations.as_ref());
    let same = stored.spec.type_ == wanted.spec.type_ && stored.spec.limited == wanted.spec.limited;
    (ours && !same).then(|| PriorityLevelConfiguration { spec: wanted.spec.clone(), ..stored.clone() })
}
