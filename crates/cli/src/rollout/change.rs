//! `rollout restart`, `pause` and `resume`: one field each.

use anyhow::bail;
use serde_json::{Value, json};
use xebec_base::clock::SystemClock;
use xebec_client::Patch;

use crate::names::Target;
use crate::print;
use crate::session::Session;

/// A new value of it makes new Pods; kubectl's name for it, so that both see the same.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

#[derive(Clone, Copy, Debug)]
pub enum Change {
    Restart,
    Pause,
    Resume,
}

pub async fn run(session: &Session, change: Change, target: &Target) -> anyhow::Result<()> {
    let name = target.name.as_deref().unwrap_or("");
    let object = session.get(&target.path(session)).await?;
    let (patch, done) = match patch(change, &target.resource.kind, &object) {
        Ok(patch) => patch,
        Err(why) => bail!("{} {name:?} {why}", target.resource.group_resource()),
    };
    let patch = Patch::Merge(patch);
    session.patch(&target.path(session), &patch).await?;
    print::line(format_args!("{} {done}", Target::label(&target.resource, name)))?;
    Ok(())
}

/// What to change and what it is called, or why it cannot be.
fn patch(change: Change, kind: &str, object: &Value) -> Result<(Value, &'static str), &'static str> {
    let paused = object["spec"]["paused"].as_bool().unwrap_or(false);
    match (change, kind) {
        (Change::Restart, "Deployment") if paused => Err("can't restart paused deployment (run rollout resume first)"),
        (Change::Restart, "Deployment" | "DaemonSet" | "StatefulSet") => {
            let now = SystemClock::shared().now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            Ok((json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: now}}}}}), "restarted"))
        }
        (Change::Restart, _) => Err("restarting is not supported"),
        (Change::Pause, "Deployment") if paused => Err("is already paused"),
        (Change::Pause, "Deployment") => Ok((json!({"spec": {"paused": true}}), "paused")),
        (Change::Pause, _) => Err("pausing is not supported"),
        (Change::Resume, "Deployment") if !paused => Err("is not paused"),
        (Change::Resume, "Deployment") => Ok((json!({"spec": {"paused": false}}), "resumed")),
        (Change::Resume, _) => Err("resuming is not supported"),
    }
}
