//! The Pod and the container that `logs`, `exec` and `port-forward` mean.

use std::sync::Arc;

use anyhow::bail;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use xebec_api::{LabelSelector, pod};
use xebec_client::{ListOptions, WatchOptions};

use crate::names;
use crate::session::Session;

/// How long to wait for the first Pod of an owner.
const WAIT: std::time::Duration = std::time::Duration::from_secs(20);

/// By name, or the likeliest of those that an owner (`rc/a`, `deployment/b`, `svc/c`) selects.
pub async fn of_word(session: &Session, word: &str) -> anyhow::Result<Arc<Pod>> {
    let pods = session.client.namespaced::<Pod>(&session.namespace);
    let Some((kind, name)) = word.split_once('/') else { return Ok(pods.get(word).await?.into()) };
    let resource = names::resolve(session.served().await?, kind)?.remove(0);
    if resource.group.is_empty() && resource.plural == "pods" {
        return Ok(pods.get(name).await?.into());
    }
    let owner = session.get(&resource.object_path(Some(&session.namespace), name)).await?;
    let selector = selector_of(&owner)?;
    let options = ListOptions::labels(&selector);
    let mut list = pods.list_typed(&options).await?;
    if list.is_empty() {
        return first_to_come(session, &selector).await;
    }
    list.sort_by_key(|pod| rank(pod));
    if list.len() > 1 {
        let name = list[0].metadata.name.as_deref().unwrap_or("");
        eprintln!("Found {} pods, using pod/{name}", list.len());
    }
    Ok(list.remove(0))
}

/// Upstream's order of what is worth looking at: bound, running, ready, and of these the one that was ready first.
fn rank(one: &Pod) -> (bool, u8, bool, i32, Option<jiff::Timestamp>) {
    let phase = match pod::phase(one) {
        "Running" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let statuses = one.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let restarts = statuses.iter().map(|status| status.restart_count).max().unwrap_or(0);
    let created = one.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (pod::node_name(one).is_none(), phase, !pod::is_ready(one), restarts, created)
}

/// The Pods that an owner selects.
pub fn selector_of(owner: &Value) -> anyhow::Result<LabelSelector> {
    let selector = &owner["spec"]["selector"];
    let selector = match selector.as_object() {
        Some(object) if object.contains_key("matchLabels") || object.contains_key("matchExpressions") => {
            LabelSelector::from_object(serde_json::from_value(selector.clone()).ok().as_ref())?
        }
        Some(_) => LabelSelector::from_map(&serde_json::from_value(selector.clone())?),
        None => LabelSelector::nothing(),
    };
    if selector.requirements().is_empty() {
        bail!("cannot tell the Pods of this {}: it has no selector", owner["kind"].as_str().unwrap_or("object"));
    }
    Ok(selector)
}

async fn first_to_come(session: &Session, selector: &LabelSelector) -> anyhow::Result<Arc<Pod>> {
    use futures::StreamExt;
    let watch = WatchOptions { label_selector: Some(selector.to_string()), ..WatchOptions::default() };
    let mut events = session.client.namespaced::<Pod>(&session.namespace).watch(&watch).await?;
    let first = async {
        while let Some(event) = events.next().await {
            let event = event?;
            if matches!(event.kind, xebec_client::EventKind::Added | xebec_client::EventKind::Modified) {
                return Ok(event.object.typed::<Pod>()?);
            }
        }
        bail!("the watch for a Pod ended before there was one")
    };
    match tokio::time::timeout(WAIT, first).await {
        Ok(found) => found,
        Err(_) => bail!("timed out waiting for the condition"),
    }
}

/// The container that is meant: the named one, the annotated one, or the first, with a word about the others.
pub fn container(pod: &Pod, name: Option<&str>, quiet: bool) -> anyhow::Result<String> {
    const DEFAULT: &str = "kubectl.kubernetes.io/default-container";
    let all = container_names(pod);
    let annotated = pod.metadata.annotations.as_ref().and_then(|all| all.get(DEFAULT)).map(String::as_str);
    if let Some(name) = name.or(annotated) {
        if !all.iter().any(|(known, _)| *known == name) {
            let pod = pod.metadata.name.as_deref().unwrap_or("");
            bail!("container {name} is not valid for pod {pod} out of: {}", listed(&all));
        }
        return Ok(name.to_owned());
    }
    let Some((first, _)) = all.first() else { bail!("the Pod has no containers") };
    if all.len() > 1 && !quiet {
        eprintln!("Defaulted container {first:?} out of: {}", listed(&all));
    }
    Ok((*first).to_owned())
}

/// Names and what kind of container each is, as kubectl marks it.
fn container_names(pod: &Pod) -> Vec<(&str, &'static str)> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let containers = spec.containers.iter().map(|container| (container.name.as_str(), ""));
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| (container.name.as_str(), " (ephem)"));
    let init = spec.init_containers.iter().flatten().map(|container| (container.name.as_str(), " (init)"));
    containers.chain(ephemeral).chain(init).collect()
}

fn listed(names: &[(&str, &str)]) -> String {
    names.iter().map(|(name, mark)| format!("{name}{mark}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_are_chosen() {
        let pod = |annotations: Value| -> Pod {
            let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]});
            serde_json::from_value(json!({"metadata": {"name": "p", "annotations": annotations}, "spec": spec}))
                .unwrap()
        };
        let plain = pod(json!({}));
        let check = |pod: &Pod, name: Option<&str>, expected: &str| {
            let found = container(pod, name, true).unwrap_or_else(|error| error.to_string());
            assert_eq!(found, expected);
        };
        check(&plain, None, "a");
        check(&plain, Some("i"), "i");
        check(&plain, Some("x"), "container x is not valid for pod p out of: a, b, i (init)");
        check(&pod(json!({"kubectl.kubernetes.io/default-container": "b"})), None, "b");
    }
}
