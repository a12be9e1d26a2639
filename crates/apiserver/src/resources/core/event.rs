//! Events: one stored object with two faces, `v1` and `events.k8s.io/v1`.
//!
//! The stored form is the core one. The rules of the newer group are stricter; an object that came through it is told by its
//! `eventTime`, which the older recorders never set.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use serde_json::{Map, Value};
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::strategy::{Column, Generation, Strategy, column, wide};
use crate::registry::table::human_duration;
use crate::resources::columns;
use crate::resources::validation::{dns, report, required, text};

/// Limits of the newer group, in bytes.
const MAX_NAME: usize = 128;
const MAX_NOTE: usize = 1024;

#[derive(Default)]
pub struct EventStrategy;

impl Strategy for EventStrategy {
    type Object = Event;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn has_status(&self) -> bool {
        false
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn default(&self, event: &mut Event) {
        event.source.get_or_insert_default();
        event.reporting_component.get_or_insert_default();
        event.reporting_instance.get_or_insert_default();
    }

    fn validate(&self, event: &Event) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let own = text(&event.metadata.namespace);
        let regarding = text(&event.involved_object.namespace);
        let path = Path::new("involvedObject.namespace");
        // Events of cluster-scoped objects lie in `default`; those of the newer recorders may lie in `kube-system` too.
        let fits = match (regarding, event.event_time.is_some()) {
            ("", false) => matches!(own, "" | "default"),
            ("", true) => matches!(own, "default" | "kube-system"),
            (_, true) => true,
            (namespace, false) => namespace == own,
        };
        if !fits {
            errors.push(FieldError::invalid(&path, regarding, "does not match event.namespace"));
        }
        if event.event_time.is_some() {
            recorded(&mut errors, event);
        }
        errors
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ]
    }

    fn field<'a>(&self, event: &'a Event, field: &str) -> Cow<'a, str> {
        let object = &event.involved_object;
        let component = event.source.as_ref().map_or("", |source| text(&source.component));
        Cow::Borrowed(match field {
            "involvedObject.kind" => text(&object.kind),
            "involvedObject.namespace" => text(&object.namespace),
            "involvedObject.name" => text(&object.name),
            "involvedObject.uid" => text(&object.uid),
            "involvedObject.apiVersion" => text(&object.api_version),
            "involvedObject.resourceVersion" => text(&object.resource_version),
            "involvedObject.fieldPath" => text(&object.field_path),
            "reason" => text(&event.reason),
            "reportingComponent" => text(&event.reporting_component),
            "source" if !component.is_empty() => component,
            "source" => text(&event.reporting_component),
            "type" => text(&event.type_),
            _ => "",
        })
    }

    fn columns(&self) -> &'static [Column] {
        const NAME: Column =
            Column { name: "Name", kind: "string", format: "name", priority: 1, description: "The event's own name." };
        const COLUMNS: &[Column] = &[
            column("Last Seen", "string", "When it happened last."),
            column("Type", "string", "Normal or Warning."),
            column("Reason", "string", "Why, in one word for machines."),
            column("Object", "string", "What it is about."),
            wide("Subobject", "string", "Which part of that object it is about."),
            wide("Source", "string", "Who reported it."),
            column("Message", "string", "What happened, for people."),
            wide("First Seen", "string", "When it happened first."),
            wide("Count", "string", "How often it happened."),
            NAME,
        ];
        COLUMNS
    }

    fn cells(&self, event: &Event, now: Timestamp) -> Vec<Value> {
        let since = |time: Option<Timestamp>| match time {
            Some(time) => human_duration(now.as_second() - time.as_second()),
            None => "<unknown>".to_owned(),
        };
        let happened = event.event_time.as_ref().map(|time| time.0);
        let first = since(event.first_timestamp.as_ref().map(|time| time.0).or(happened));
        let (last, count) = match &event.series {
            Some(series) => (since(series.last_observed_time.as_ref().map(|time| time.0)), series.count.unwrap_or(0)),
            None => {
                let last = event.last_timestamp.as_ref().map(|time| since(Some(time.0)));
                (last.unwrap_or_else(|| first.clone()), event.count.filter(|count| *count != 0).unwrap_or(1))
            }
        };
        let object = &event.involved_object;
        let kind = text(&object.kind).to_lowercase();
        let target = match text(&object.name) {
            "" => kind,
            name => format!("{kind}/{name}"),
        };
        vec![
            Value::from(last),
            Value::from(text(&event.type_)),
            Value::from(text(&event.reason)),
            Value::from(target),
            Value::from(text(&object.field_path)),
            Value::from(reporter(event)),
            Value::from(text(&event.message).trim()),
            Value::from(first),
            Value::from(count),
            columns::name(&event.metadata),
        ]
    }
}

fn reporter(event: &Event) -> String {
    let source = event.source.clone().unwrap_or_default();
    let first = |a: &str, b: &str| if a.is_empty() { b.to_owned() } else { a.to_owned() };
    let component = first(text(&source.component), text(&event.reporting_component));
    let instance = first(text(&source.host), text(&event.reporting_instance));
    if instance.is_empty() { component } else { format!("{component}, {instance}") }
}

/// What the newer recorders must say.
fn recorded(errors: &mut FieldErrors, event: &Event) {
    let controller = text(&event.reporting_component);
    let path = Path::new("reportingComponent");
    required(errors, &path, controller);
    report(errors, &path, controller, dns::label_key(controller));
    let limits = [
        ("reportingInstance", text(&event.reporting_instance), MAX_NAME, true),
        ("action", text(&event.action), MAX_NAME, true),
        ("reason", text(&event.reason), MAX_NAME, true),
        ("message", text(&event.message), MAX_NOTE, false),
    ];
    for (name, value, max, needed) in limits {
        let path = Path::new(name);
        if needed {
            required(errors, &path, value);
        }
        if value.len() > max {
            errors.push(FieldError::invalid(&path, "", format!("can have at most {max} characters")));
        }
    }
}

/// Names that differ between the two forms: core first.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// A JSON tree of `v1` as one of `events.k8s.io/v1`.
pub fn to_events_group(event: Value) -> Value {
    renamed(event, "events.k8s.io/v1", |name| {
        RENAMED.iter().find(|(core, _)| *core == name).map_or(name, |(_, newer)| newer)
    })
}

/// A JSON tree of `events.k8s.io/v1` as one of `v1`.
pub fn from_events_group(event: Value) -> Value {
    renamed(event, "v1", |name| RENAMED.iter().find(|(_, newer)| *newer == name).map_or(name, |(core, _)| core))
}

/// Fields that a selector of `events.k8s.io/v1` names differently.
pub const EVENTS_GROUP_FIELDS: &[(&str, &str)] = &[
    ("regarding.kind", "involvedObject.kind"),
    ("regarding.namespace", "involvedObject.namespace"),
    ("regarding.name", "involvedObject.name"),
    ("regarding.uid", "involvedObject.uid"),
    ("regarding.apiVersion", "involvedObject.apiVersion"),
    ("regarding.resourceVersion", "involvedObject.resourceVersion"),
    ("regarding.fieldPath", "involvedObject.fieldPath"),
    ("reportingController", "reportingComponent"),
];

fn renamed(event: Value, api_version: &str, name: impl Fn(&str) -> &str) -> Value {
    let Value::Object(fields) = event else { return event };
    let had_version = fields.contains_key("apiVersion");
    let mut renamed: Map<String, Value> =
        fields.into_iter().map(|(field, value)| (name(&field).to_owned(), value)).collect();
    if had_version {
        renamed.insert("apiVersion".to_owned(), Value::from(api_version));
    }
    Value::Object(renamed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_keeps_everything_through_both_forms() {
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "involvedObject": {"kind": "Pod"}, "message": "m",
            "source": {"component": "c"}, "firstTimestamp": null, "count": 2, "reportingComponent": "x", "reason": "R"
        });
        let newer = to_events_group(core.clone());
        assert_eq!(newer["regarding"]["kind"], "Pod");
        assert_eq!(newer["note"], "m");
        assert_eq!(newer["deprecatedCount"], 2);
        assert_eq!(newer["apiVersion"], "events.k8s.io/v1");
        assert_eq!(from_events_group(newer), core);
    }
}
