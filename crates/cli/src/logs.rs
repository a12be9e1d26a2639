//! `logs`: what a container wrote, once or as it writes.

use std::io::Write;

use anyhow::bail;
use clap::Args;
use form_urlencoded::Serializer;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use xebec_api::LabelSelector;
use xebec_client::ListOptions;
use xebec_client::transport::{checked, collect};

use crate::names;
use crate::session::Session;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A Pod, or type/name of what owns Pods: rc/a, deployment/b
    target: String,
    /// The container, where the Pod has several
    name: Option<String>,
    /// The container, where the Pod has several
    #[arg(long, short)]
    container: Option<String>,
    /// Go on as the container writes
    #[arg(long, short)]
    follow: bool,
    /// Of the container's former run
    #[arg(long, short)]
    previous: bool,
    /// Only the last lines; -1 for all
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    tail: i64,
    /// Only what is at most this old: 10s, 2m, 3h
    #[arg(long)]
    since: Option<String>,
    /// With the time of each line
    #[arg(long)]
    timestamps: bool,
    /// At most so many bytes
    #[arg(long)]
    limit_bytes: Option<u64>,
}

pub async fn run(session: &Session, options: Options) -> anyhow::Result<i32> {
    let pod = pod_of(session, &options.target).await?;
    let container = options.container.clone().or_else(|| options.name.clone());
    let mut query = Serializer::new(String::new());
    let mut pair = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            query.append_pair(name, &value);
        }
    };
    pair("container", container.or_else(|| default_container(&pod)));
    pair("follow", options.follow.then(|| "true".to_owned()));
    pair("previous", options.previous.then(|| "true".to_owned()));
    pair("timestamps", options.timestamps.then(|| "true".to_owned()));
    pair("tailLines", (options.tail >= 0).then(|| options.tail.to_string()));
    pair("limitBytes", options.limit_bytes.map(|limit| limit.to_string()));
    pair("sinceSeconds", options.since.as_deref().map(seconds).transpose()?.map(|seconds| seconds.to_string()));
    let name = pod.metadata.name.as_deref().unwrap_or("");
    let path = format!("/api/v1/namespaces/{}/pods/{name}/log?{}", session.namespace, query.finish());
    let response = session.client.open(&path).await?;
    if !response.status().is_success() {
        let (parts, body) = response.into_parts();
        checked(http::Response::from_parts(parts, collect(body).await?))?;
        return Ok(1);
    }
    let mut body = response.into_body();
    let mut out = std::io::stdout();
    while let Some(chunk) = body.next().await {
        out.write_all(&chunk?)?;
        out.flush()?;
    }
    Ok(0)
}

/// The Pod that is meant: by name, or the first of what an owner selects.
pub async fn pod_of(session: &Session, target: &str) -> anyhow::Result<std::sync::Arc<Pod>> {
    let pods = session.client.namespaced::<Pod>(&session.namespace);
    let Some((kind, name)) = target.split_once('/') else { return Ok(pods.get(target).await?.into()) };
    let resource = names::resolve(session.served().await?, kind)?.remove(0);
    if resource.group.is_empty() && resource.plural == "pods" {
        return Ok(pods.get(name).await?.into());
    }
    let owner: serde_json::Value = session.client.get_json(&resource.object_path(Some(&session.namespace), name)).await?;
    let selector = &owner["spec"]["selector"];
    let selector = if selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some() {
        LabelSelector::from_object(serde_json::from_value(selector.clone()).ok().as_ref())?
    } else {
        LabelSelector::from_map(&serde_json::from_value(selector.clone()).unwrap_or_default())
    };
    if selector.is_everything() || selector.requirements().is_empty() {
        bail!("cannot tell the Pods of {target}: it has no selector");
    }
    let mut list = pods.list_typed(&ListOptions::labels(&selector)).await?;
    if list.is_empty() {
        bail!("timed out waiting for the condition: no Pod of {target} is there");
    }
    list.sort_by_key(|pod| !xebec_api::pod::is_ready(pod));
    Ok(list.remove(0))
}

/// The annotated default container, or the first; a word about the others goes to standard error.
pub fn default_container(pod: &Pod) -> Option<String> {
    let annotations = pod.metadata.annotations.as_ref();
    if let Some(name) = annotations.and_then(|all| all.get("kubectl.kubernetes.io/default-container")) {
        return Some(name.clone());
    }
    let containers = &pod.spec.as_ref()?.containers;
    let first = containers.first()?.name.clone();
    if containers.len() > 1 {
        let names: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
        eprintln!("Defaulted container {first:?} out of: {}", names.join(", "));
    }
    Some(first)
}

/// `10s`, `2m`, `3h`, `1h30m` in seconds.
fn seconds(text: &str) -> anyhow::Result<u64> {
    let (mut total, mut number) = (0u64, String::new());
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                number.push(c);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            _ => bail!("invalid duration {text:?}: write 10s, 2m or 3h"),
        };
        total += number.parse::<u64>()? * unit;
        number.clear();
    }
    if !number.is_empty() {
        bail!("invalid duration {text:?}: it lacks a unit, write 10s, 2m or 3h");
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(super::seconds(text).ok(), expected, "{text}");
        check("10s", Some(10));
        check("1h30m", Some(5400));
        check("10", None);
        check("x", None);
    }
}
