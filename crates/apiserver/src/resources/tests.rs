//! Upstream's answers to a corpus of objects, against ours: what it stores of good ones and what it says of bad ones.
//!
//! `testdata/accepted.jsonl` and `refused.jsonl` were recorded from kube-apiserver 1.37 with `?dryRun=All`.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use xebec_api::field::FieldErrors;
use xebec_api::schema;

use super::RESOURCES;
use crate::registry::erased::{AnyObject, AnyStrategy, Row};
use crate::registry::metadata;
use crate::registry::strategy::Generation;

#[derive(Deserialize)]
struct Accepted {
    case: String,
    object: Value,
    stored: Value,
    #[serde(default)]
    warnings: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Refused {
    case: String,
    object: Value,
    causes: BTreeSet<(String, String, String)>,
}

fn lines<T: serde::de::DeserializeOwned>(text: &str) -> Vec<T> {
    text.lines().map(|line| serde_json::from_str(line).expect("the recorded lines are JSON")).collect()
}

fn row_of(object: &Value) -> &'static Row {
    let of = |key: &str| object[key].as_str().unwrap_or_default();
    let row = RESOURCES.iter().find(|row| row.resource.api_version() == of("apiVersion") && row.resource.kind == of("kind"));
    row.unwrap_or_else(|| panic!("no row for {} {}", of("apiVersion"), of("kind")))
}

/// A body as the registry's strategies get it.
fn decoded(row: &Row, strategy: &dyn AnyStrategy, body: &Value) -> Box<dyn AnyObject> {
    let of = |resource: &xebec_api::resource::ResourceType| {
        schema::table().type_of(&resource.group, &resource.version, &resource.kind).expect("the kind has a schema")
    };
    let decoded = schema::decode_value(body.clone(), of(&row.resource)).expect("the recorded bodies decode");
    let mut tree = match row.conversion {
        Some(conversion) => (conversion.to_stored)(decoded.value),
        None => decoded.value,
    };
    schema::canonical(&mut tree, of(&row.stored));
    let fields = tree.as_object_mut().expect("an object");
    fields.remove("kind");
    fields.remove("apiVersion");
    strategy.decode(tree).expect("a canonical tree decodes")
}

/// The object as it is stored, with what is wrong with it and what is warned of.
fn created(row: &Row, body: &Value) -> (Value, FieldErrors, BTreeSet<String>) {
    let strategy = (row.strategy)();
    let mut object = decoded(row, &*strategy, body);
    strategy.default(&mut *object);
    let meta = object.meta_mut();
    let namespace = if row.resource.namespaced { "default" } else { "" };
    meta.namespace.get_or_insert_with(|| namespace.to_owned());
    metadata::begin(meta, Timestamp::UNIX_EPOCH, strategy.generation() == Generation::Spec);
    strategy.default(&mut *object);
    strategy.prepare_create(&mut *object);
    let mut errors = metadata::validate(object.meta(), strategy.name_rule(), row.resource.namespaced);
    errors.extend(strategy.validate(&*object));
    let warnings = strategy.warnings(&*object, None).into_iter().collect();
    let mut tree: Value = serde_json::from_slice(&object.encode()).expect("it encodes to JSON");
    if let Some(conversion) = row.conversion {
        tree = (conversion.from_stored)(tree);
    }
    (tree, errors, warnings)
}

/// Without what differs from one creation to the next.
fn comparable(mut tree: Value) -> Value {
    let fields = tree.as_object_mut().expect("an object");
    fields.remove("kind");
    fields.remove("apiVersion");
    let meta = fields["metadata"].as_object_mut().expect("metadata");
    for key in ["uid", "creationTimestamp", "managedFields"] {
        meta.remove(key);
    }
    tree
}

fn differences(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
                let (one, other) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                differences(&format!("{path}.{key}"), one, other, found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (one, other)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{index}]"), one, other, found);
            }
        }
        _ if ours == theirs => {}
        _ => found.push(format!("  {path}: {ours}, upstream {theirs}")),
    }
}

#[test]
fn what_upstream_accepts_is_stored_alike() {
    let mut report = Vec::new();
    for Accepted { case, object, stored, warnings } in lines(include_str!("testdata/accepted.jsonl")) {
        let (ours, errors, warned) = created(row_of(&object), &object);
        let mut found: Vec<_> = errors.iter().map(|error| format!("  refused: {}: {}", error.field, error.body())).collect();
        differences("", &comparable(ours), &comparable(stored), &mut found);
        found.extend(warned.difference(&warnings).map(|text| format!("  warning not upstream's: {text}")));
        found.extend(warnings.difference(&warned).map(|text| format!("  warning missing: {text}")));
        if !found.is_empty() {
            report.push(format!("{case}\n{}", found.join("\n")));
        }
    }
    assert!(report.is_empty(), "{} differ:\n{}", report.len(), report.join("\n"));
}

#[test]
fn what_upstream_refuses_is_refused_alike() {
    let mut report = Vec::new();
    for Refused { case, object, causes } in lines(include_str!("testdata/refused.jsonl")) {
        let (_, errors, _) = created(row_of(&object), &object);
        let ours: BTreeSet<_> = errors
            .iter()
            .map(|error| (error.field.to_string(), error.kind.reason().to_owned(), error.body()))
            .collect();
        if ours != causes {
            let extra = ours.difference(&causes).map(|one| format!("  not upstream's: {one:?}"));
            let missing = causes.difference(&ours).map(|one| format!("  missing:        {one:?}"));
            report.push(format!("{case}\n{}", missing.chain(extra).collect::<Vec<_>>().join("\n")));
        }
    }
    assert!(report.is_empty(), "{} differ:\n{}", report.len(), report.join("\n"));
}
