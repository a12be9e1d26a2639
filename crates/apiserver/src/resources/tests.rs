//! Upstream's answers to a corpus of objects, against ours: what it stores of good ones and what it says of bad ones.
//!
//! `testdata/accepted.jsonl` and `refused.jsonl` were recorded from kube-apiserver 1.37 with `?dryRun=All`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use xebec_api::field::{FieldError, FieldErrors};
use xebec_api::object::Object;
use xebec_api::schema;

use super::RESOURCES;
use crate::authz::reviews::REVIEWS;
use crate::registry::erased::{AnyObject, AnyStrategy, Row};
use crate::registry::metadata;
use crate::registry::strategy::{Column, Generation};

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
    causes: BTreeSet<Cause>,
}

#[derive(Deserialize)]
struct Shown {
    object: Value,
    /// By the column's name.
    cells: Map<String, Value>,
}

#[derive(Deserialize)]
struct Updated {
    case: String,
    #[serde(default)]
    subresource: String,
    /// That of the case before where it is not given.
    old: Option<Value>,
    /// A merge patch of `old`.
    change: Value,
    /// A merge patch of the changed object.
    stored: Option<Value>,
    #[serde(default)]
    causes: BTreeSet<Cause>,
}

fn lines<T: serde::de::DeserializeOwned>(text: &str) -> Vec<T> {
    text.lines().map(|line| serde_json::from_str(line).expect("the recorded lines are JSON")).collect()
}

fn row_of(object: &Value) -> &'static Row {
    let of = |key: &str| object[key].as_str().unwrap_or_default();
    let row =
        RESOURCES.iter().find(|row| row.resource.api_version() == of("apiVersion") && row.resource.kind == of("kind"));
    row.unwrap_or_else(|| panic!("no row for {} {}", of("apiVersion"), of("kind")))
}

/// Stands for whatever uid an object is given; the recordings have it too.
const UID: &str = "00000000-0000-4000-8000-000000000000";

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
    // The registry keeps the plural in step with the singular.
    let plural = |spec: &Value| spec["clusterIP"].is_string() && spec["clusterIPs"].is_null();
    if let Some(spec) = fields.get_mut("spec").filter(|spec| row.resource.kind == "Service" && plural(spec)) {
        spec["clusterIPs"] = json!([spec["clusterIP"]]);
    }
    strategy.decode(tree.clone()).unwrap_or_else(|error| panic!("{error}: {tree}"))
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
    object.meta_mut().uid = Some(UID.to_owned());
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

/// Said for every request by the machinery, and about annotations that are gone by the time that we look for them.
const SILENT: [&str; 2] = ["v1 Endpoints is deprecated", "use the \"appArmorProfile\" field instead"];

/// What the types of `k8s-openapi` cannot tell apart, what admission warns of, and what is allocated.
fn is_known(path: &str, ours: &Value, theirs: &Value) -> bool {
    let field = path.rsplit('.').next().unwrap_or_default();
    match field {
        "name" => ours == "" && theirs.is_null(),
        // The time of the request, and what admission adds.
        "lastTransitionTime" => ours.is_string() && theirs.is_string(),
        "finalizers" => ours.is_null() && *theirs == json!(["kubernetes.io/vac-protection"]),
        "endpoints" | "ports" => *ours == json!([]) && theirs.is_null(),
        "ipFamilies" | "ipFamilyPolicy" | "nodePort" | "healthCheckNodePort" => ours.is_null(),
        _ => false,
    }
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
        _ if ours == theirs || is_known(path, ours, theirs) => {}
        _ => found.push(format!("  {path}: {ours}, upstream {theirs}")),
    }
}

#[test]
fn what_upstream_accepts_is_stored_alike() {
    let mut report = Vec::new();
    for Accepted { case, object, stored, warnings } in lines(include_str!("testdata/accepted.jsonl")) {
        let (ours, errors, warned) = created(row_of(&object), &object);
        let mut found: Vec<_> =
            errors.iter().map(|error| format!("  refused: {}: {}", error.field, error.body())).collect();
        differences("", &comparable(ours), &comparable(stored), &mut found);
        found.extend(warned.difference(&warnings).map(|text| format!("  warning not upstream's: {text}")));
        let silent = |text: &&String| !SILENT.iter().any(|known| text.contains(known));
        found.extend(warnings.difference(&warned).filter(silent).map(|text| format!("  warning missing: {text}")));
        if !found.is_empty() {
            report.push(format!("{case}\n{}", found.join("\n")));
        }
    }
    assert!(report.is_empty(), "{} differ:\n{}", report.len(), report.join("\n"));
}

type Cause = (String, String, String);

fn causes_of(errors: &FieldErrors) -> BTreeSet<Cause> {
    let cause = |error: &FieldError| (error.field.clone(), error.kind.reason().to_owned(), error.body());
    errors.iter().map(cause).collect()
}

/// A message without what upstream shows of its internal types: whole objects, and differences between them.
fn essence((field, reason, message): &Cause) -> Cause {
    let mut text = message.split('\n').next().unwrap_or_default().to_owned();
    for intro in ["Invalid value: ", "Duplicate value: "] {
        let Some(rest) = text.strip_prefix(intro).filter(|rest| rest.starts_with(['{', '['])) else { continue };
        let mut shown = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let end = shown.next().map_or(0, |_| shown.byte_offset());
        text = format!("{intro}{}", rest[end..].trim_start_matches(": "));
    }
    (field.clone(), reason.clone(), text)
}

fn disagreements(ours: &BTreeSet<Cause>, theirs: &BTreeSet<Cause>) -> Vec<String> {
    let [ours, theirs] = [ours, theirs].map(|causes| causes.iter().map(essence).collect::<BTreeSet<_>>());
    let missing = theirs.difference(&ours).map(|one| format!("  missing:        {one:?}"));
    let extra = ours.difference(&theirs).map(|one| format!("  not upstream's: {one:?}"));
    missing.chain(extra).collect()
}

#[test]
fn what_upstream_refuses_is_refused_alike() {
    let mut report = Vec::new();
    for Refused { case, object, causes } in lines(include_str!("testdata/refused.jsonl")) {
        let (_, errors, _) = created(row_of(&object), &object);
        let found = disagreements(&causes_of(&errors), &causes);
        if !found.is_empty() {
            report.push(format!("{case}\n{}", found.join("\n")));
        }
    }
    assert!(report.is_empty(), "{} differ:\n{}", report.len(), report.join("\n"));
}

/// The object as it is stored after an update, and what is wrong with the update.
fn updated(row: &Row, subresource: &str, old: &Value, new: &Value) -> (Value, FieldErrors) {
    let strategy = (row.strategy)();
    let before = decoded(row, &*strategy, old);
    let mut tree = new.clone();
    match subresource {
        "status" => {
            tree = old.clone();
            tree["metadata"] = new["metadata"].clone();
            tree["status"] = new["status"].clone();
        }
        "" if strategy.has_status() => tree["status"] = old["status"].clone(),
        _ => {}
    }
    if tree["spec"]["clusterIP"] != old["spec"]["clusterIP"] && tree["spec"]["clusterIPs"] == old["spec"]["clusterIPs"]
    {
        tree["spec"]["clusterIPs"] = json!([tree["spec"]["clusterIP"]]);
    }
    let mut object = decoded(row, &*strategy, &tree);
    metadata::carry_over(object.meta_mut(), before.meta());
    strategy.default(&mut *object);
    match subresource {
        "" => strategy.prepare_update(&mut *object, &*before),
        "status" => strategy.prepare_status_update(&mut *object, &*before),
        part => strategy.prepare_part_update(part, &mut *object, &*before),
    }
    let mut errors = metadata::validate_update(object.meta(), before.meta(), row.resource.namespaced);
    errors.extend(match subresource {
        "" => strategy.validate_update(&*object, &*before),
        "status" => strategy.validate_status_update(&*object, &*before),
        part => strategy.validate_part_update(part, &*object, &*before),
    });
    let mut tree: Value = serde_json::from_slice(&object.encode()).expect("it encodes to JSON");
    if let Some(conversion) = row.conversion {
        tree = (conversion.from_stored)(tree);
    }
    (tree, errors)
}

#[test]
fn what_upstream_says_of_updates_we_say() {
    let mut report = Vec::new();
    let mut previous = Value::Null;
    for Updated { case, subresource, old, change, stored, causes } in lines(include_str!("testdata/updated.jsonl")) {
        previous = old.unwrap_or(previous);
        let mut new = previous.clone();
        json_patch::merge(&mut new, &change);
        let (ours, errors) = updated(row_of(&previous), &subresource, &previous, &new);
        let said = causes_of(&errors);
        let mut found = disagreements(&said, &causes);
        if let Some(stored) = stored {
            let mut theirs = new;
            json_patch::merge(&mut theirs, &stored);
            // The registry counts.
            let uncounted = |mut tree: Value| {
                tree["metadata"].as_object_mut().expect("metadata").remove("generation");
                tree
            };
            differences("", &comparable(uncounted(ours)), &comparable(uncounted(theirs)), &mut found);
        }
        if !found.is_empty() {
            report.push(format!("{case}\n{}", found.join("\n")));
        }
    }
    assert!(report.is_empty(), "{} differ:\n{}", report.len(), report.join("\n"));
}

/// Name, type, format and priority of each column; what the columns mean is told in our own words.
type Header = (String, String, String, i32);

#[test]
fn the_columns_are_upstreams() {
    let theirs: BTreeMap<String, Vec<Header>> =
        serde_json::from_str(include_str!("testdata/columns.json")).expect("the recorded columns are JSON");
    let mut report = Vec::new();
    for row in RESOURCES {
        let kind = format!("{}/{}", row.resource.api_version(), row.resource.kind);
        let strategy = (row.strategy)();
        let header = |one: &Column| (one.name.into(), one.kind.into(), one.format.into(), one.priority);
        let ours: Vec<Header> = strategy.columns().iter().map(header).collect();
        if theirs.get(&kind) != Some(&ours) {
            report.push(format!("{kind}\n  ours     {ours:?}\n  upstream {:?}", theirs.get(&kind)));
        }
    }
    assert!(report.is_empty(), "{} differ:\n{}", report.len(), report.join("\n"));
}

#[test]
fn the_cells_are_upstreams() {
    let mut report = Vec::new();
    for Shown { object, cells } in lines(include_str!("testdata/rows.jsonl")) {
        let row = row_of(&object);
        let strategy = (row.strategy)();
        let stored = decoded(row, &*strategy, &object).encode();
        let key = format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", row.stored.kind, row.stored.api_version());
        let stored = Object::from_wire([key.as_bytes(), &stored[1..]].concat().into()).expect("it is an object");
        let ours = strategy.cells(&stored, Timestamp::UNIX_EPOCH).expect("it decodes");
        assert_eq!(ours.len(), strategy.columns().len(), "{}: a cell for each column", row.resource.kind);
        let named = strategy.columns().iter().map(|column| column.name).zip(ours);
        // How long ago something was changes from one recording to the next.
        let timeless =
            named.filter(|(name, _)| !matches!(*name, "Age" | "Last Seen" | "First Seen" | "Created At" | "Duration"));
        let found: Vec<String> = timeless
            .filter(|(name, cell)| cells.get(*name) != Some(cell))
            .map(|(name, cell)| format!("  {name}: {cell}, upstream {:?}", cells.get(name)))
            .collect();
        if !found.is_empty() {
            report.push(format!("{} {}\n{}", row.resource.kind, object["metadata"]["name"], found.join("\n")));
        }
    }
    assert!(report.is_empty(), "{} differ:\n{}", report.len(), report.join("\n"));
}

#[test]
fn what_is_served_is_upstreams() {
    for row in RESOURCES {
        let resource = &row.resource;
        let known = schema::table().resource(&resource.group, &resource.version, &resource.plural);
        let known = known.unwrap_or_else(|| panic!("{} is no resource of upstream", resource.plural));
        assert_eq!((known.kind, known.namespaced), (&*resource.kind, resource.namespaced));
        let strategy = (row.strategy)();
        let own = [("status", strategy.has_status()), ("scale", strategy.has_scale())];
        let own = own.iter().filter(|(_, has)| *has).map(|(name, _)| *name);
        let served: BTreeSet<&str> = own.chain(row.subresources.iter().copied()).collect();
        let known: BTreeSet<&str> =
            known.subresources.iter().map(|one| one.name).filter(|name| !name.contains('/')).collect();
        let absent: BTreeSet<&str> = known.difference(&served).copied().collect();
        let odd: Vec<_> = served.difference(&known).collect();
        assert!(odd.is_empty(), "{}: {odd:?} are no subresources of upstream's", resource.plural);
        assert_eq!(absent, BTreeSet::new(), "{}", resource.plural);
    }
}

/// What answers without storing anything.
const VIRTUAL: [&str; 2] = ["bindings", "componentstatuses"];

#[test]
fn all_that_upstream_serves_is_served() {
    let is_stable = |version: &str| version.strip_prefix('v').is_some_and(|rest| rest.parse::<u32>().is_ok());
    let is_served = |group: &str, version: &str, plural: &str| {
        let rows = RESOURCES.iter().map(|row| &row.resource);
        let mut stored = rows.map(|one| (&*one.group, &*one.version, &*one.plural));
        let mut reviews = REVIEWS.iter().map(|one| (one.group, one.version, one.plural));
        let wanted = (group, version, plural);
        VIRTUAL.contains(&plural) || stored.any(|one| one == wanted) || reviews.any(|one| one == wanted)
    };
    let known = schema::table().resources().iter().filter(|one| is_stable(one.version));
    let missing: Vec<String> = known
        .filter(|one| !is_served(one.group, one.version, one.plural))
        .map(|one| format!("{}/{} {}", one.group, one.version, one.plural))
        .collect();
    assert_eq!(missing, Vec::<String>::new());
}
