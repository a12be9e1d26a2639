//! `rollout status`: how far the change of a workload is, line by line until it is done.

use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Args;
use futures::StreamExt;
use serde_json::Value;
use xebec_client::{EventKind, WatchOptions};

use super::{REVISION, Which, kind};
use crate::names::Target;
use crate::print;
use crate::session::{Session, text};

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    pub which: Which,
    /// Wait until the change is done
    #[arg(long, short, default_value_t = true, action = clap::ArgAction::Set)]
    #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    watch: bool,
    /// Only if this is the state that is being rolled out
    #[arg(long, default_value_t = 0)]
    revision: i64,
    /// Give up after this time: 30s, 5m; 0s never
    #[arg(long, default_value = "0s", value_parser = crate::logs::seconds)]
    timeout: u64,
}

/// How far it is.
#[derive(Debug, PartialEq)]
struct Progress {
    text: String,
    done: bool,
}

pub async fn run(session: &Session, options: &Options, target: &Target) -> anyhow::Result<()> {
    if !matches!(&*target.resource.kind, "Deployment" | "DaemonSet" | "StatefulSet") {
        bail!("no status viewer has been implemented for {}", kind(target));
    }
    // A missing object is an error at once, not something to wait for.
    session.get(&target.path(session)).await?;
    let following = follow(session, options, target);
    match options.timeout {
        0 => following.await,
        seconds => match tokio::time::timeout(Duration::from_secs(seconds), following).await {
            Ok(done) => done,
            Err(_) => bail!("timed out waiting for the condition"),
        },
    }
}

async fn follow(session: &Session, options: &Options, target: &Target) -> anyhow::Result<()> {
    let name = target.name.as_deref().unwrap_or("");
    let watch = WatchOptions { field_selector: Some(format!("metadata.name={name}")), ..WatchOptions::default() };
    // A watch ends by itself from time to time and begins again with the present state.
    loop {
        let namespace = Some(target.namespace(session));
        let mut events = session.client.transport().watch(&target.resource, namespace, &watch).await?;
        while let Some(event) = events.next().await {
            let event = event?;
            match event.kind {
                EventKind::Bookmark => continue,
                EventKind::Deleted => bail!("object has been deleted"),
                EventKind::Added | EventKind::Modified => {}
            }
            let object: Value = event.object.value()?;
            let progress = progress(&target.resource.kind, &object, options.revision)?;
            print::line(&progress.text)?;
            if progress.done || !options.watch {
                return Ok(());
            }
        }
    }
}

fn progress(kind: &str, object: &Value, revision: i64) -> anyhow::Result<Progress> {
    match kind {
        "Deployment" => deployment(object, revision),
        "DaemonSet" => daemon_set(object),
        _ => stateful_set(object),
    }
}

fn waiting(text: String) -> anyhow::Result<Progress> {
    Ok(Progress { text, done: false })
}

fn done(text: String) -> anyhow::Result<Progress> {
    Ok(Progress { text, done: true })
}

fn number(object: &Value, path: &str) -> i64 {
    object.pointer(path).and_then(Value::as_i64).unwrap_or(0)
}

/// Whether the controller has seen the last change.
fn observed(object: &Value) -> bool {
    number(object, "/metadata/generation") <= number(object, "/status/observedGeneration")
}

fn deployment(object: &Value, revision: i64) -> anyhow::Result<Progress> {
    let name = text(&object["metadata"], "name");
    if revision > 0 {
        let running = text(&object["metadata"]["annotations"], REVISION).parse().unwrap_or(0);
        ensure!(
            revision == running,
            "desired revision ({revision}) is different from the running revision ({running})"
        );
    }
    if !observed(object) {
        return waiting("Waiting for deployment spec update to be observed...".to_owned());
    }
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let late = |one: &Value| text(one, "type") == "Progressing" && text(one, "reason") == "ProgressDeadlineExceeded";
    ensure!(!conditions.iter().any(late), "deployment {name:?} exceeded its progress deadline");
    let of = |member: &str| number(&object["status"], member);
    let (wanted, updated) = (number(object, "/spec/replicas"), of("/updatedReplicas"));
    let (total, available) = (of("/replicas"), of("/availableReplicas"));
    let finish = format!("Waiting for deployment {name:?} rollout to finish:");
    if updated < wanted {
        return waiting(format!("{finish} {updated} out of {wanted} new replicas have been updated..."));
    }
    if total > updated {
        return waiting(format!("{finish} {} old replicas are pending termination...", total - updated));
    }
    if available < updated {
        return waiting(format!("{finish} {available} of {updated} updated replicas are available..."));
    }
    done(format!("deployment {name:?} successfully rolled out"))
}

fn daemon_set(object: &Value) -> anyhow::Result<Progress> {
    let name = text(&object["metadata"], "name");
    rolling(object)?;
    if !observed(object) {
        return waiting("Waiting for daemon set spec update to be observed...".to_owned());
    }
    let of = |member: &str| number(&object["status"], member);
    let (wanted, updated) = (of("/desiredNumberScheduled"), of("/updatedNumberScheduled"));
    let finish = format!("Waiting for daemon set {name:?} rollout to finish:");
    if updated < wanted {
        return waiting(format!("{finish} {updated} out of {wanted} new pods have been updated..."));
    }
    let available = of("/numberAvailable");
    if available < wanted {
        return waiting(format!("{finish} {available} of {wanted} updated pods are available..."));
    }
    done(format!("daemon set {name:?} successfully rolled out"))
}

fn stateful_set(object: &Value) -> anyhow::Result<Progress> {
    rolling(object)?;
    if number(object, "/status/observedGeneration") == 0 || !observed(object) {
        return waiting("Waiting for statefulset spec update to be observed...".to_owned());
    }
    let (wanted, ready) = (number(object, "/spec/replicas"), number(object, "/status/readyReplicas"));
    if ready < wanted {
        return waiting(format!("Waiting for {} pods to be ready...", wanted - ready));
    }
    let updated = number(object, "/status/updatedReplicas");
    if object["spec"]["updateStrategy"]["rollingUpdate"].is_object() {
        let part = wanted - number(object, "/spec/updateStrategy/rollingUpdate/partition");
        if updated < part {
            let finish = "Waiting for partitioned roll out to finish:";
            return waiting(format!("{finish} {updated} out of {part} new pods have been updated..."));
        }
        return done(format!("partitioned roll out complete: {updated} new pods have been updated..."));
    }
    let (update, current) = (text(&object["status"], "updateRevision"), text(&object["status"], "currentRevision"));
    if update != current {
        let rolling = "waiting for statefulset rolling update to complete";
        return waiting(format!("{rolling} {updated} pods at revision {update}..."));
    }
    let replicas = number(object, "/status/currentReplicas");
    done(format!("statefulset rolling update complete {replicas} pods at revision {current}..."))
}

fn rolling(object: &Value) -> anyhow::Result<()> {
    let strategy = text(&object["spec"]["updateStrategy"], "type");
    ensure!(strategy == "RollingUpdate", "rollout status is only available for RollingUpdate strategy type");
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn deployments_on_their_way() {
        let check = |status: Value, expected: &str, done: bool| {
            let object = json!({"metadata": {"name": "d", "generation": 2}, "spec": {"replicas": 3}, "status": status});
            let found = progress("Deployment", &object, 0).unwrap();
            assert_eq!(found, Progress { text: expected.to_owned(), done });
        };
        check(json!({"observedGeneration": 1}), "Waiting for deployment spec update to be observed...", false);
        let status = |updated: i64, total: i64, available: i64| {
            let mut status = json!({"observedGeneration": 2, "updatedReplicas": updated, "replicas": total});
            status["availableReplicas"] = json!(available);
            status
        };
        let finish = "Waiting for deployment \"d\" rollout to finish:";
        check(status(1, 4, 3), &format!("{finish} 1 out of 3 new replicas have been updated..."), false);
        check(status(3, 4, 3), &format!("{finish} 1 old replicas are pending termination..."), false);
        check(status(3, 3, 2), &format!("{finish} 2 of 3 updated replicas are available..."), false);
        check(status(3, 3, 3), "deployment \"d\" successfully rolled out", true);
    }

    #[test]
    fn a_late_deployment_is_an_error() {
        let condition = json!({"type": "Progressing", "reason": "ProgressDeadlineExceeded"});
        let object = json!({"metadata": {"name": "d"}, "status": {"conditions": [condition]}});
        let error = progress("Deployment", &object, 0).unwrap_err();
        assert_eq!(error.to_string(), "deployment \"d\" exceeded its progress deadline");
    }
}
