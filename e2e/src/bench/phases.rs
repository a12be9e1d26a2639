//! What is done to a server, and which rows come of it. A phase starts the servers it needs and lets them go at its end.
use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use xebec_e2e::Usage;

use crate::Values;
use crate::feed::Feed;
use crate::load::{self, Call};
use crate::objects;
use crate::target::{Parts, Running, Target};

type Measured<'a> = Pin<Box<dyn Future<Output = Result<Values>> + Send + 'a>>;

pub struct Phase {
    pub name: &'static str,
    pub run: for<'a> fn(&'a Target, usize) -> Measured<'a>,
}

pub const PHASES: &[Phase] = &[
    Phase { name: "start", run: |target, _| Box::pin(start(target)) },
    Phase { name: "idle", run: |target, _| Box::pin(idle(target)) },
    Phase { name: "api", run: |target, count| Box::pin(api(target, count)) },
    Phase { name: "watch", run: |target, _| Box::pin(watch(target)) },
    Phase { name: "bound", run: |target, _| Box::pin(bound(target)) },
];

const CALLERS: usize = 64;
/// Calls of the single client, and LISTs in a row: enough for a median, and for processor time that is counted in 10 ms.
const SINGLE: usize = 500;
const LISTS: usize = 20;
const WATCHERS: usize = 100;
const WATCHED: usize = 1000;
const BOUND: usize = 1000;
/// How long a control plane settles before it counts as idle, and how long it is looked at.
const SETTLE: Duration = Duration::from_secs(20);
const IDLE: Duration = Duration::from_secs(20);
/// Longer than any phase of the slowest server takes.
const LIMIT: Duration = Duration::from_secs(120);
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

async fn start(target: &Target) -> Result<Values> {
    let running = target.start(Parts::Api).await?;
    Ok(vec![("start", running.started.as_secs_f64() * 1e3), ("start cpu", running.start_cpu * 1e3)])
}

async fn idle(target: &Target) -> Result<Values> {
    let running = target.start(Parts::All).await?;
    tokio::time::sleep(SETTLE).await;
    let before = running.usage()?;
    tokio::time::sleep(IDLE).await;
    let after = running.usage()?;
    let share = (after.cpu - before.cpu) / IDLE.as_secs_f64() * 100.0;
    Ok(vec![
        ("idle rss", after.resident as f64 / 1e6),
        ("idle pss", after.proportional as f64 / 1e6),
        ("idle cpu", share),
    ])
}

async fn api(target: &Target, count: usize) -> Result<Values> {
    let running = target.start(Parts::Api).await?;
    namespace(&running, "bench").await?;
    let maps = "/api/v1/namespaces/bench/configmaps";
    let pods = "/api/v1/namespaces/bench/pods";
    let mut values = Values::new();
    let (times, cost) =
        timed(&running, CALLERS, count, |number| post(maps, objects::config_map(&name(number)))).await?;
    values.extend([("create configmap", cost), ("create configmap rate", times.rate())]);
    let patch = move |number| Call {
        method: Method::PATCH,
        path: format!("{maps}/{}", name(number)),
        kind: MERGE,
        body: json!({"metadata": {"labels": {"round": number.to_string()}}}).to_string().into_bytes(),
    };
    values.push(("patch", timed(&running, CALLERS, count, patch).await?.1));
    let get = move |number| Call {
        method: Method::GET,
        path: format!("{maps}/{}", name(number)),
        kind: "",
        body: Vec::new(),
    };
    values.push(("get", timed(&running, CALLERS, count, get).await?.1));
    let one = |number| post(maps, objects::config_map(&format!("one-{number}")));
    values.push(("create one", timed(&running, 1, SINGLE, one).await?.0.percentile(0.5)));
    let (times, cost) = timed(&running, CALLERS, count, |number| post(pods, objects::pod(&name(number)))).await?;
    values.extend([
        ("create pod", cost),
        ("create pod rate", times.rate()),
        ("create pod p99", times.percentile(0.99)),
    ]);
    let mut client = running.connect().await?;
    // The first LIST after many writes may build what later ones share.
    let size = client.get(pods).await?.success()?.len();
    let before = running.usage()?;
    for _ in 0..LISTS {
        ensure!(client.get(pods).await?.success()?.len() == size, "two LISTs differ in size");
    }
    let cost = (running.usage()?.cpu - before.cpu) / LISTS as f64;
    let memory = running.usage()?.resident as f64 / 1e6;
    values.extend([("list", cost * 1e3), ("list size", size as f64 / 1e6), ("api rss", memory)]);
    Ok(values)
}

async fn watch(target: &Target) -> Result<Values> {
    let running = target.start(Parts::Api).await?;
    namespace(&running, "bench").await?;
    let path = "/api/v1/namespaces/bench/configmaps";
    let mut feeds = Vec::new();
    for _ in 0..WATCHERS {
        feeds.push(Feed::open(running.address, path).await?);
    }
    let before = running.usage()?;
    let began = Instant::now();
    let watchers = feeds.into_iter().map(|feed| tokio::time::timeout(LIMIT, events(feed, WATCHED)));
    let watchers = tokio::spawn(try_join_all(watchers));
    load::run(running.address, CALLERS, WATCHED, |number| post(path, objects::config_map(&name(number)))).await?;
    watchers.await?.context("a watcher waits for events in vain")?.into_iter().collect::<Result<()>>()?;
    let (elapsed, all) = (began.elapsed().as_secs_f64(), (WATCHERS * WATCHED) as f64);
    Ok(vec![("watch", (running.usage()?.cpu - before.cpu) / all * 1e6), ("watch rate", all / elapsed)])
}

async fn bound(target: &Target) -> Result<Values> {
    let running = target.start(Parts::All).await?;
    namespace(&running, "bench").await?;
    let mut client = running.connect().await?;
    client.post("/api/v1/nodes", objects::node("bench")).await?.success()?;
    let path = "/api/v1/namespaces/bench/pods";
    let feed = Feed::open(running.address, path).await?;
    let before = running.usage()?;
    let began = Instant::now();
    let watcher = tokio::spawn(tokio::time::timeout(LIMIT, all_bound(feed, BOUND)));
    load::run(running.address, CALLERS, BOUND, |number| post(path, objects::pod(&name(number)))).await?;
    watcher.await?.context("not all Pods were bound")??;
    let (elapsed, cost) = (began.elapsed().as_secs_f64(), running.usage()?.cpu - before.cpu);
    Ok(vec![("bound", BOUND as f64 / elapsed), ("bound cpu", cost / BOUND as f64 * 1e6)])
}

/// Makes the calls, and returns with their times the servers' processor time a call in microseconds.
async fn timed<F>(running: &Running, callers: usize, count: usize, call: F) -> Result<(load::Times, f64)>
where
    F: Fn(usize) -> Call + Send + Sync + 'static,
{
    let before: Usage = running.usage()?;
    let times = load::run(running.address, callers, count, call).await?;
    let cost = (running.usage()?.cpu - before.cpu) / count as f64 * 1e6;
    Ok((times, cost))
}

/// Makes a namespace with the service account that Pods need, which a controller may make at the same time.
async fn namespace(running: &Running, name: &str) -> Result<()> {
    let mut client = running.connect().await?;
    let named =
        |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}).to_string();
    client.post("/api/v1/namespaces", named("Namespace", name)).await?.success()?;
    let answer =
        client.post(&format!("/api/v1/namespaces/{name}/serviceaccounts"), named("ServiceAccount", "default")).await?;
    if answer.status != StatusCode::CONFLICT {
        answer.success()?;
    }
    Ok(())
}

fn name(number: usize) -> String {
    format!("bench-{number}")
}

fn post(path: &str, body: Vec<u8>) -> Call {
    Call { method: Method::POST, path: path.to_owned(), kind: JSON, body }
}

/// Follows a watch until `count` events have come.
async fn events(mut feed: Feed, count: usize) -> Result<()> {
    let mut seen = 0;
    while seen < count {
        feed.next(|_| {
            seen += 1;
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Follows a watch of Pods until `count` of them have a node.
async fn all_bound(mut feed: Feed, count: usize) -> Result<()> {
    let mut found = HashSet::new();
    while found.len() < count {
        feed.next(|line| {
            let event: Value = serde_json::from_slice(line)?;
            if event["object"]["spec"]["nodeName"].is_string() {
                found.insert(event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned());
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}
