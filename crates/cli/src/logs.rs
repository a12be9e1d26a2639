//! `logs`: what containers wrote, once or as they write.

use std::io::Write;

use anyhow::{anyhow, bail};
use clap::Args;
use form_urlencoded::Serializer;
use futures::StreamExt;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use xebec_client::{Body, Error, ListOptions};

use crate::pods;
use crate::session::Session;

/// Of each of many Pods only the end is shown, unless more is asked for.
const TAIL_OF_MANY: i64 = 10;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A Pod, or type/name of what owns Pods: rc/a, deployment/b
    #[arg(required_unless_present = "selector", conflicts_with = "selector")]
    target: Option<String>,
    /// The container, where the Pod has several
    #[arg(conflicts_with = "container")]
    name: Option<String>,
    /// The container, where the Pod has several
    #[arg(long, short)]
    container: Option<String>,
    /// All containers
    #[arg(long, conflicts_with_all = ["container", "name"])]
    all_containers: bool,
    /// Of the Pods with these labels
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,
    /// Go on as the container writes
    #[arg(long, short)]
    follow: bool,
    /// Of the container's former run
    #[arg(long, short)]
    previous: bool,
    /// Only the last lines; -1 for all
    #[arg(long, allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Only what is at most this old: 10s, 2m, 3h
    #[arg(long, value_parser = seconds)]
    since: Option<u64>,
    /// Only what was written after this time
    #[arg(long, value_name = "RFC3339", conflicts_with = "since")]
    since_time: Option<String>,
    /// With the time of each line
    #[arg(long)]
    timestamps: bool,
    /// At most so many bytes
    #[arg(long)]
    limit_bytes: Option<u64>,
    /// Say before each line which Pod and container wrote it
    #[arg(long)]
    prefix: bool,
}

/// One container whose log is shown.
struct Source {
    path: String,
    prefix: String,
}

pub async fn run(session: &Session, options: Options) -> anyhow::Result<i32> {
    let sources = sources(session, &options).await?;
    if options.follow && sources.len() > 1 {
        try_join_all(sources.iter().map(|source| show(session, source))).await?;
    } else {
        for source in &sources {
            show(session, source).await?;
        }
    }
    Ok(0)
}

async fn sources(session: &Session, options: &Options) -> anyhow::Result<Vec<Source>> {
    let pods = match (&options.target, &options.selector) {
        (Some(word), _) => {
            vec![pods::of_word(session, word).await.map_err(|error| located(error, &session.namespace))?]
        }
        (None, selector) => {
            let selection = ListOptions { label_selector: selector.clone(), ..ListOptions::default() };
            session.client.namespaced::<Pod>(&session.namespace).list_typed(&selection).await?
        }
    };
    if pods.is_empty() {
        eprintln!("No resources found in {} namespace.", session.namespace);
    }
    let mut sources = Vec::new();
    for pod in &pods {
        if options.all_containers {
            let spec = pod.spec.as_ref();
            let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
            let main = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
            sources.extend(init.iter().chain(main).map(|container| source(session, options, pod, &container.name)));
        } else {
            let name = options.container.as_deref().or(options.name.as_deref());
            sources.push(source(session, options, pod, &pods::container(pod, name, false)?));
        }
    }
    Ok(sources)
}

/// kubectl says where it looked for a Pod in vain.
fn located(error: anyhow::Error, namespace: &str) -> anyhow::Error {
    match error.downcast_ref::<Error>().and_then(Error::status) {
        Some(status) if status.is_not_found() => {
            anyhow!("error from server ({}): {status} in namespace {namespace:?}", status.reason())
        }
        _ => error,
    }
}

fn source(session: &Session, options: &Options, pod: &Pod, container: &str) -> Source {
    let mut query = Serializer::new(String::new());
    let mut pair = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            query.append_pair(name, &value);
        }
    };
    let flag = |set: bool| set.then(|| "true".to_owned());
    let tail = options.tail.or(options.selector.as_ref().map(|_| TAIL_OF_MANY));
    pair("container", Some(container.to_owned()));
    pair("follow", flag(options.follow));
    pair("previous", flag(options.previous));
    pair("timestamps", flag(options.timestamps));
    pair("tailLines", tail.filter(|tail| *tail >= 0).map(|tail| tail.to_string()));
    pair("limitBytes", options.limit_bytes.map(|limit| limit.to_string()));
    pair("sinceSeconds", options.since.map(|seconds| seconds.to_string()));
    pair("sinceTime", options.since_time.clone());
    let name = pod.metadata.name.as_deref().unwrap_or("");
    Source {
        path: format!("/api/v1/namespaces/{}/pods/{name}/log?{}", session.namespace, query.finish()),
        prefix: if options.prefix { format!("[pod/{name}/{container}] ") } else { String::new() },
    }
}

async fn show(session: &Session, source: &Source) -> anyhow::Result<()> {
    let mut body: Body = session.open_stream(&source.path, false).await?;
    let mut line = Vec::new();
    // Several logs at once are mixed line by line; what is no whole line yet waits only where there is a prefix to set.
    while let Some(chunk) = body.next().await {
        if source.prefix.is_empty() {
            write(&chunk?)?;
            continue;
        }
        for piece in chunk?.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(piece);
            if line.ends_with(b"\n") {
                write(&[source.prefix.as_bytes(), &line].concat())?;
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        write(&[source.prefix.as_bytes(), &line].concat())?;
    }
    Ok(())
}

fn write(bytes: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// `10s`, `2m`, `3h`, `1h30m` in seconds.
pub fn seconds(text: &str) -> anyhow::Result<u64> {
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
            _ => bail!("write 10s, 2m or 3h"),
        };
        let amount: u64 = std::mem::take(&mut number).parse()?;
        total = total.saturating_add(amount.saturating_mul(unit));
    }
    if !number.is_empty() {
        bail!("it lacks a unit: write 10s, 2m or 3h");
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
