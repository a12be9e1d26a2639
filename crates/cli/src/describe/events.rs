//! What happened to an object: the table at the end of most descriptions.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use xebec_client::ListOptions;

use super::Subject;
use super::page::Page;
use crate::age;

/// Whose events are looked for.
pub struct Involved<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    /// Any kind if it is empty.
    pub kind: &'a str,
    pub uid: &'a str,
}

/// Writes the events of the subject, if they are wanted and can be read.
pub async fn describe(subject: &Subject<'_>, meta: &ObjectMeta, page: &mut Page) {
    let involved = Involved {
        namespace: meta.namespace.as_deref().unwrap_or(""),
        name: subject.name,
        kind: &subject.resource.kind,
        uid: meta.uid.as_deref().unwrap_or(""),
    };
    if subject.with_events {
        write(find(subject, &involved).await, page);
    }
}

/// Who may not read events gets none, and the description all the same.
pub async fn find(subject: &Subject<'_>, involved: &Involved<'_>) -> Vec<Arc<Event>> {
    let mut fields = format!("involvedObject.name={},involvedObject.namespace={}", involved.name, involved.namespace);
    for (field, value) in [("kind", involved.kind), ("uid", involved.uid)] {
        if !value.is_empty() {
            fields.push_str(&format!(",involvedObject.{field}={value}"));
        }
    }
    let client = &subject.session.client;
    // What is in no namespace has its events in any.
    let events = if involved.namespace.is_empty() { client.all() } else { client.namespaced(involved.namespace) };
    events.list_typed(&ListOptions::fields(fields)).await.unwrap_or_default()
}

pub fn write(mut events: Vec<Arc<Event>>, page: &mut Page) {
    if events.is_empty() {
        page.field(0, "Events", "<none>");
        return;
    }
    page.end_columns();
    page.line(0, "Events:");
    page.line(1, "Type\tReason\tAge\tFrom\tMessage");
    page.line(1, "----\t------\t----\t----\t-------");
    events.sort_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0));
    for event in events {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let source = event.source.as_ref().map(|source| text(&source.component)).filter(|source| !source.is_empty());
        let source = source.unwrap_or_else(|| text(&event.reporting_component));
        let mut message = text(&event.message).trim().to_owned();
        if let Some(field) = event.involved_object.field_path.as_deref().filter(|field| !field.is_empty()) {
            message = format!("{field}: {message}");
        }
        let (kind, reason) = (text(&event.type_), text(&event.reason));
        page.line(1, format_args!("{kind}\t{reason}\t{}\t{source}\t{message}", ages(&event)));
    }
}

/// `5m`, or `10s (x3 over 5m)` of what happened again and again.
fn ages(event: &Event) -> String {
    let first = event.event_time.as_ref().map(|time| time.0).or(of(&event.first_timestamp));
    let first = age::since(first);
    match (&event.series, event.count.unwrap_or(0)) {
        (Some(series), _) => {
            let last = age::since(series.last_observed_time.as_ref().map(|time| time.0));
            format!("{last} (x{} over {first})", series.count.unwrap_or(0))
        }
        (None, count @ 2..) => format!("{} (x{count} over {first})", age::since(of(&event.last_timestamp))),
        _ => first,
    }
}

fn of(time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>) -> Option<Timestamp> {
    time.as_ref().map(|time| time.0)
}
