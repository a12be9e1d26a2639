//! `apply -f FILE`: create what is missing, change what differs, remove what the last applied file said and this one does not.
//!
//! Client-side apply: the last applied manifest stands in an annotation, and the change is a strategic merge patch made of three
//! states. Which lists merge by which key comes from the schema table; a kind it does not know gets a JSON merge patch.

use std::path::PathBuf;

use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};
use xebec_api::ResourceType;
use xebec_client::{Error, Patch};

use crate::create::{complain, namespace_of, report};
use crate::manifests;
use crate::names::Target;
use crate::session::{Session, text};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Files or folders with the objects, or - for standard input
    #[arg(long = "filename", short = 'f', required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Go through folders below folders
    #[arg(long, short = 'R')]
    recursive: bool,
    /// Output format: name, json or yaml
    #[arg(long, short)]
    output: Option<String>,
}

pub async fn run(session: &Session, options: Options) -> anyhow::Result<i32> {
    let mut failed = false;
    for manifest in manifests::read(&options.files, options.recursive)? {
        let resource = session.resource_of(&manifest).await?;
        match one(session, &resource, manifest).await {
            Ok((object, what)) => {
                let label = Target::label(&resource, text(&object["metadata"], "name"));
                report(&label, what, &object, options.output.as_deref())?;
            }
            Err(error) => {
                failed = true;
                complain(&error);
            }
        }
    }
    Ok(i32::from(failed))
}

async fn one(session: &Session, resource: &ResourceType, manifest: Value) -> Result<(Value, &'static str), Error> {
    let namespace = namespace_of(session, &manifest);
    let name = text(&manifest["metadata"], "name").to_owned();
    let path = resource.object_path(Some(&namespace), &name);
    let wanted = with_annotation(manifest, resource, &namespace);
    let live: Value = match session.client.get_json(&path).await {
        Ok(live) => live,
        Err(error) if error.is_not_found() => {
            let created = session.send(Method::POST, &resource.collection_path(Some(&namespace)), &wanted).await?;
            return Ok((created, "created"));
        }
        Err(error) => return Err(error),
    };
    let last = live["metadata"]["annotations"][LAST_APPLIED].as_str().and_then(|text| serde_json::from_str(text).ok());
    let patch = Patch::Strategic(changes(&last.unwrap_or(json!({})), &wanted, &live, Lists::of(resource)));
    if patch.body().as_object().is_some_and(Map::is_empty) {
        return Ok((live, "unchanged"));
    }
    let body = serde_json::to_vec(patch.body()).map_err(|e| Error::decode("the patch", e))?;
    let answer = session.client.call(Method::PATCH, &path, patch.content_type(), body.into()).await?;
    let changed: Value = serde_json::from_slice(&answer).map_err(|e| Error::decode("the answer", e))?;
    let same = changed["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"];
    Ok((changed, if same { "unchanged" } else { "configured" }))
}

/// The manifest, with itself in the annotation by which the next apply knows what this one said.
fn with_annotation(mut manifest: Value, resource: &ResourceType, namespace: &str) -> Value {
    if resource.namespaced {
        manifest["metadata"]["namespace"] = json!(namespace);
    }
    if let Some(annotations) = manifest["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    } else {
        manifest["metadata"]["annotations"] = json!({});
    }
    let recorded = format!("{manifest}\n");
    manifest["metadata"]["annotations"][LAST_APPLIED] = json!(recorded);
    manifest
}

/// How the lists of a type merge.
#[derive(Clone, Copy)]
struct Lists {
    of: Option<xebec_api::schema::TypeRef>,
}

impl Lists {
    fn of(resource: &ResourceType) -> Self {
        Lists { of: xebec_api::schema::table().type_of(&resource.group, &resource.version, &resource.kind) }
    }

    fn member(self, name: &str) -> (Lists, Option<&'static str>) {
        let field = self.of.and_then(|of| of.field(name));
        let key = field.as_ref().and_then(|field| field.merge_key());
        (Lists { of: field.and_then(|field| field.type_ref()) }, key)
    }
}

/// The strategic merge patch that leads from `live` to `wanted`, and removes what `last` had and `wanted` has not.
fn changes(last: &Value, wanted: &Value, live: &Value, lists: Lists) -> Value {
    let empty = Map::new();
    let (last, wanted) = (last.as_object().unwrap_or(&empty), wanted.as_object().unwrap_or(&empty));
    let mut patch = Map::new();
    for name in last.keys().filter(|name| !wanted.contains_key(*name) && !live[name.as_str()].is_null()) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in wanted {
        let (member, merge_key) = lists.member(name);
        let (before, now) = (last.get(name).unwrap_or(&Value::Null), &live[name.as_str()]);
        let change = match (value, now, merge_key) {
            (Value::Object(_), Value::Object(_), _) => {
                Some(changes(before, value, now, member)).filter(|change| change.as_object().is_some_and(|all| !all.is_empty()))
            }
            (Value::Array(items), Value::Array(present), Some(key)) => list_changes(before, items, present, key, member),
            _ => (value != now).then(|| value.clone()),
        };
        if let Some(change) = change {
            patch.insert(name.clone(), change);
        }
    }
    Value::Object(patch)
}

fn list_changes(before: &Value, items: &[Value], present: &[Value], key: &str, lists: Lists) -> Option<Value> {
    let find = |all: &[Value], id: &Value| all.iter().find(|item| item[key] == *id).cloned();
    let mut patch = Vec::new();
    let before = before.as_array().map(Vec::as_slice).unwrap_or_default();
    for item in items {
        let id = &item[key];
        match find(present, id) {
            None => patch.push(item.clone()),
            Some(now) => {
                let mut change = changes(&find(before, id).unwrap_or(Value::Null), item, &now, lists);
                if change.as_object().is_some_and(|all| !all.is_empty()) {
                    change[key] = id.clone();
                    patch.push(change);
                }
            }
        }
    }
    for gone in before.iter().filter(|gone| find(items, &gone[key]).is_none() && find(present, &gone[key]).is_some()) {
        patch.push(json!({"$patch": "delete", key: gone[key]}));
    }
    (!patch.is_empty()).then_some(Value::Array(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(last: Value, wanted: Value, live: Value, expected: Value) {
        let lists = Lists::of(&ResourceType::new("", "v1", "Pod", "pods", true));
        assert_eq!(changes(&last, &wanted, &live, lists), expected);
    }

    #[test]
    fn patches_hold_only_what_differs() {
        let spec = |containers: Value| json!({"spec": {"containers": containers}});
        check(json!({}), json!({"a": 1}), json!({"a": 1, "b": 2}), json!({}));
        check(json!({"a": 1, "b": 2}), json!({"a": 3}), json!({"a": 1, "b": 2}), json!({"b": null, "a": 3}));
        check(
            spec(json!([{"name": "x", "image": "1"}, {"name": "y", "image": "1"}])),
            spec(json!([{"name": "x", "image": "2"}])),
            spec(json!([{"name": "x", "image": "1", "imagePullPolicy": "Always"}, {"name": "y", "image": "1"}])),
            spec(json!([{"image": "2", "name": "x"}, {"$patch": "delete", "name": "y"}])),
        );
    }
}
