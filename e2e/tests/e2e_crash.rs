//! `kill -9` of the server under writers, again and again: nothing acknowledged is lost, no revision is given twice, and
//! watches go on where they were or are told to start anew. `XEBEC_CRASH_ROUNDS` sets how often.
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use xebec_e2e::{Api, Server, TOKEN, free_port};

const ROUNDS: usize = 20;
const WRITERS: usize = 8;
const PATH: &str = "/api/v1/namespaces/default/configmaps";
/// How long writers run before a crash; a number that grows and shrinks over the rounds hits different moments.
const SHORTEST: u64 = 60;
const SPREAD: u64 = 240;
/// A watch that has sent nothing for this long has caught up.
const QUIET: Duration = Duration::from_millis(1500);

/// What one writer knows of its objects: by name, the revision and the value that were acknowledged last.
type Known = BTreeMap<String, (u64, u64)>;

#[derive(Default)]
struct Ledger {
    known: Known,
    revisions: BTreeSet<u64>,
    /// Up to where the watch of the last round was followed.
    seen: u64,
}

#[test]
fn nothing_acknowledged_is_lost() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(rounds()).expect("every round");
}

async fn rounds() -> Result<()> {
    let rounds = std::env::var("XEBEC_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let folder = tempfile::Builder::new().prefix("xebec-e2e-crash-").tempdir()?;
    let port = free_port()?;
    let mut ledger = Ledger::default();
    for round in 0..rounds {
        let mut server = Server::start(folder.path(), port, "controllers,scheduler")?;
        check(&mut ledger, server.address).await.with_context(|| format!("after crash {round}"))?;
        let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write(server.address, round, writer))).collect();
        tokio::time::sleep(Duration::from_millis(SHORTEST + round as u64 * 97 % SPREAD)).await;
        server.process.crash()?;
        for writer in writers {
            for (name, revision, value) in writer.await?? {
                ensure!(ledger.revisions.insert(revision), "revision {revision} was given twice");
                ledger.known.insert(name, (revision, value));
            }
        }
    }
    let mut server = Server::start(folder.path(), port, "controllers,scheduler")?;
    check(&mut ledger, server.address).await?;
    let time = server.process.end(Duration::from_secs(2))?;
    println!("{} writes were acknowledged over {rounds} crashes; the last end took {time:?}", ledger.revisions.len());
    ensure!(ledger.revisions.len() > rounds, "hardly anything was written");
    Ok(())
}

/// Creates objects and changes each a few times until the server is gone; returns what was acknowledged, in order.
async fn write(address: SocketAddr, round: usize, writer: usize) -> Result<Vec<(String, u64, u64)>> {
    let mut acknowledged = Vec::new();
    let Ok(mut api) = Api::connect(address, TOKEN).await else { return Ok(acknowledged) };
    for number in 0.. {
        let name = format!("r{round}-w{writer}-{number}");
        for value in 0..3u64 {
            let answer = match value {
                0 => api.post(PATH, object(&name)).await,
                _ => {
                    let patch = json!({"data": {"value": value.to_string()}}).to_string();
                    api.call(Method::PATCH, &format!("{PATH}/{name}"), "application/merge-patch+json", patch).await
                }
            };
            // The connection broke: whether this write counts is open.
            let Ok(answer) = answer else { return Ok(acknowledged) };
            // A server that is about to be killed answers in full or not at all.
            ensure!(answer.status.is_success(), "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
            acknowledged.push((name.clone(), revision(&serde_json::from_slice(&answer.body)?)?, value));
        }
    }
    Ok(acknowledged)
}

/// Holds a restarted server against the ledger.
async fn check(ledger: &mut Ledger, address: SocketAddr) -> Result<()> {
    let mut api = Api::connect(address, TOKEN).await?;
    let list = api.get(PATH).await?.json()?;
    let mut found = BTreeMap::new();
    for item in list["items"].as_array().context("a list")? {
        let name = item["metadata"]["name"].as_str().context("a name")?.to_owned();
        let value: u64 = item["data"]["value"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
        found.insert(name, (revision(item)?, value));
    }
    for (name, (revision, value)) in &ledger.known {
        let Some(now) = found.get(name) else { bail!("{name} of revision {revision} is lost") };
        // One more change may have been under way when the server died.
        let same = *now == (*revision, *value);
        ensure!(same || now.0 > *revision && now.1 == value + 1, "{name}: {now:?} instead of {:?}", (revision, value));
    }
    let reached = revision(&list)?;
    let highest = ledger.revisions.last().copied().unwrap_or_default();
    ensure!(reached >= highest, "the list is of revision {reached}, but {highest} was acknowledged");
    follow(ledger, &mut api, reached).await?;
    // What the list showed and nobody acknowledged is a fact from now on.
    ledger.revisions.extend(found.values().map(|(revision, _)| revision));
    ledger.known = found.into_iter().filter(|(name, _)| name.starts_with('r')).collect();
    Ok(())
}

/// Resumes the watch where the last round left it: it must deliver every acknowledged revision since, in order, or say 410.
async fn follow(ledger: &mut Ledger, api: &mut Api, reached: u64) -> Result<()> {
    let start = std::mem::replace(&mut ledger.seen, reached);
    if start == 0 || start == reached {
        return Ok(());
    }
    let path = format!("{PATH}?watch=true&resourceVersion={start}");
    let mut body = api.watch(&path).await?;
    let (mut text, mut seen) = (Vec::new(), Vec::new());
    while let Ok(Some(frame)) = tokio::time::timeout(QUIET, body.frame()).await {
        text.extend(frame?.into_data().unwrap_or_else(|_| Bytes::new()));
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let event: Value = serde_json::from_slice(&text[..end])?;
            text.drain(..=end);
            if event["type"] == "ERROR" {
                ensure!(event["object"]["code"] == StatusCode::GONE.as_u16(), "{event}");
                return Ok(());
            }
            seen.push(revision(&event["object"])?);
        }
        if seen.last() >= Some(&reached) {
            break;
        }
    }
    ensure!(seen.is_sorted_by(|one, next| one < next), "the watch from {start} goes back: {seen:?}");
    let seen: BTreeSet<_> = seen.into_iter().collect();
    let missed: Vec<_> = ledger.revisions.range(start + 1..).filter(|revision| !seen.contains(revision)).collect();
    ensure!(missed.is_empty(), "the watch from {start} missed {missed:?}");
    Ok(())
}

fn object(name: &str) -> Vec<u8> {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": "0"}});
    object.to_string().into_bytes()
}

fn revision(object: &Value) -> Result<u64> {
    let text = object["metadata"]["resourceVersion"].as_str().with_context(|| format!("no revision in {object}"))?;
    Ok(text.parse()?)
}
