//! `apply -f FILE`: create what is missing, change what differs, remove what the last applied file said and this one does not.
//!
//! Client-side apply, as kubectl does it by default and so that both can be used on the same objects: the last applied manifest
//! stands in an annotation, and the change is a patch made of three states ([`crate::three_way`]).

use anyhow::bail;
use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};
use xebec_api::ResourceType;
use xebec_client::Error;

use crate::create::report;
use crate::failure;
use crate::manifests::{self, Files, Manifest};
use crate::names::Target;
use crate::print;
use crate::session::{Session, text};
use crate::three_way;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// kubectl's own name: by it a later server-side apply recognises the fields that client-side apply set.
const QUERY: &str = "fieldManager=kubectl-client-side-apply&fieldValidation=Strict";

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    files: Files,
    /// Output format: name, json or yaml
    #[arg(long, short, value_parser = ["name", "json", "yaml"])]
    output: Option<String>,
}

/// A manifest on its way.
struct Applied<'a> {
    resource: &'a ResourceType,
    origin: &'a str,
    namespace: &'a str,
    wanted: Value,
}

pub async fn run(session: &Session, options: Options) -> anyhow::Result<i32> {
    let mut failures = Vec::new();
    for manifest in manifests::read(&options.files)? {
        if let Err(error) = one(session, &manifest, options.output.as_deref()).await {
            failures.push(error);
        }
    }
    failure::all(failures)
}

async fn one(session: &Session, manifest: &Manifest, output: Option<&str>) -> anyhow::Result<()> {
    let resource = session.resource_of(&manifest.object, &manifest.origin).await?;
    let namespace = manifest.namespace(session)?;
    let name = manifest.name();
    if name.is_empty() {
        bail!("from {}: apply needs a name, it cannot be left to generateName", manifest.origin);
    }
    let wanted = with_annotation(manifest.object.clone(), &resource, namespace);
    let applied = Applied { resource: &resource, origin: &manifest.origin, namespace, wanted };
    let (object, what) = match session.get(&resource.object_path(Some(namespace), name)).await {
        Ok(live) => change(session, &applied, live).await?,
        Err(error) if error.is_not_found() => (create(session, &applied).await?, "created"),
        Err(error) => return Err(failure::with_source("retrieving current configuration for", applied.origin, error)),
    };
    report(&Target::label(&resource, name), what, &object, output)?;
    Ok(())
}

async fn create(session: &Session, applied: &Applied<'_>) -> anyhow::Result<Value> {
    let path = format!("{}?{QUERY}", applied.resource.collection_path(Some(applied.namespace)));
    let mut wanted = applied.wanted.clone();
    prune_nulls(&mut wanted);
    let created = session.send(Method::POST, &path, &wanted).await;
    created.map_err(|error| failure::with_source("creating", applied.origin, error))
}

async fn change(session: &Session, applied: &Applied<'_>, live: Value) -> anyhow::Result<(Value, &'static str)> {
    let (resource, name) = (applied.resource, text(&live["metadata"], "name").to_owned());
    let recorded = live["metadata"]["annotations"][LAST_APPLIED].as_str();
    if recorded.is_none() {
        eprintln!(
            "Warning: {}/{name} has no annotation {LAST_APPLIED}: it was not made by apply. What this file leaves out stays \
             as it is; the annotation is added now",
            resource.plural
        );
    }
    let last = recorded.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(json!({}));
    let patch = three_way::patch(resource, &last, &applied.wanted, &live);
    if patch.body().as_object().is_some_and(Map::is_empty) {
        return Ok((live, "unchanged"));
    }
    let path = format!("{}?{QUERY}", resource.object_path(Some(applied.namespace), &name));
    match session.patch(&path, &patch).await {
        Ok(changed) => Ok((changed, "configured")),
        Err(error) => Err(refused(applied, &name, &patch, error)),
    }
}

/// Shows the patch that was refused, for it stands in no file.
fn refused(applied: &Applied<'_>, name: &str, patch: &xebec_client::Patch, error: Error) -> anyhow::Error {
    let (resource, origin) = (applied.resource, applied.origin);
    let shown = format!(
        "error when applying patch:\n{}\nto:\nResource: \"{}, Resource={}\", GroupVersionKind: \"{}, Kind={}\"\nName: {name:?}, \
         Namespace: {:?}\nfor: {origin:?}: error when patching {origin:?}",
        print::compact_json(patch.body()),
        group_version(resource),
        resource.plural,
        group_version(resource),
        resource.kind,
        if resource.namespaced { applied.namespace } else { "" },
    );
    match error {
        Error::Status(mut status) => {
            status.0.message = Some(format!("{shown}: {status}"));
            Error::Status(status).into()
        }
        other => anyhow::Error::from(other).context(shown),
    }
}

fn group_version(resource: &ResourceType) -> String {
    format!("{}/{}", resource.group, resource.version)
}

/// The manifest, with itself in the annotation by which the next apply knows what this one said.
fn with_annotation(mut manifest: Value, resource: &ResourceType, namespace: &str) -> Value {
    if resource.namespaced {
        manifest["metadata"]["namespace"] = json!(namespace);
    }
    match manifest["metadata"]["annotations"].as_object_mut() {
        Some(annotations) => drop(annotations.remove(LAST_APPLIED)),
        None => manifest["metadata"]["annotations"] = json!({}),
    }
    let recorded = format!("{}\n", print::compact_json(&manifest));
    manifest["metadata"]["annotations"][LAST_APPLIED] = json!(recorded);
    manifest
}

/// A null in a manifest means "not set": a patch would remove the field, so creation leaves it out.
fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(prune_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_is_what_kubectl_would_write() {
        let resource = ResourceType::new("", "v1", "ConfigMap", "configmaps", true);
        let manifest =
            json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"b": "<", "a": "1"}});
        let wanted = with_annotation(manifest, &resource, "n");
        assert_eq!(
            wanted["metadata"]["annotations"][LAST_APPLIED],
            "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"1\",\"b\":\"\\u003c\"},\"kind\":\"ConfigMap\",\"metadata\":{\"annotations\":{},\"name\":\"a\",\"namespace\":\"n\"}}\n"
        );
    }
}
