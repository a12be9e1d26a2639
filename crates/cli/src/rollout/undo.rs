//! `rollout undo`: a Deployment gets the template and the annotations of an earlier state.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Value, json};
use xebec_client::Patch;

use super::{Which, deployment, kind, revision};
use crate::describe;
use crate::names::Target;
use crate::print;
use crate::session::Session;

/// What belongs to the Deployment itself, whatever state it is in.
const KEPT: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    super::REVISION,
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
];

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    pub which: Which,
    /// The state to go back to; 0 for the one before the present
    #[arg(long, default_value_t = 0)]
    to_revision: i64,
}

pub async fn run(session: &Session, options: &Options, target: &Target) -> anyhow::Result<()> {
    if target.resource.kind != "Deployment" {
        bail!("no rollbacker has been implemented for {:?}", kind(target));
    }
    let name = target.name.as_deref().unwrap_or("");
    let deployment = deployment(session, target).await?;
    let sets = describe::replica_sets(session, &deployment).await?;
    let set = chosen(&sets, options.to_revision, name)?;
    if deployment.spec.paused == Some(true) {
        bail!("you cannot rollback a paused deployment; resume it first with 'rollout resume' and try again");
    }
    let annotations = deployment.metadata.annotations.as_ref();
    if annotations.is_some_and(|all| all.contains_key(KEPT[0])) {
        eprintln!(
            "Warning: {}/{name} was applied from a file; the next apply of that file undoes this undo",
            target.resource.plural
        );
    }
    let label = Target::label(&target.resource, name);
    let mut template = set.spec.template.clone().unwrap_or_default();
    if describe::same_template(&template, &deployment.spec.template) {
        let revision = options.to_revision;
        print::line(format_args!("{label} skipped rollback (current template already matches revision {revision})"))?;
        return Ok(());
    }
    let patch = patch(&deployment, &set, &mut template);
    let sent = session.patch(&target.path(session), &patch).await;
    sent.with_context(|| format!("failed restoring revision {}", options.to_revision))?;
    print::line(format_args!("{label} rolled back"))?;
    Ok(())
}

/// The state with that number, or the last but one.
fn chosen(sets: &[Arc<ReplicaSet>], wanted: i64, name: &str) -> anyhow::Result<Arc<ReplicaSet>> {
    let revisions: BTreeMap<i64, &Arc<ReplicaSet>> =
        sets.iter().filter_map(|set| Some((revision(set)?, set))).collect();
    let found = if wanted == 0 { revisions.values().nth_back(1) } else { revisions.get(&wanted) };
    match found {
        Some(set) => Ok((*set).clone()),
        None if wanted == 0 => bail!("no rollout history found for deployment {name:?}"),
        None => bail!("unable to find specified revision {wanted} in history"),
    }
}

fn patch(deployment: &Deployment, set: &ReplicaSet, template: &mut PodTemplateSpec) -> Patch {
    if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove("pod-template-hash");
    }
    let annotations = |map: Option<&BTreeMap<String, String>>, kept: bool| -> Vec<(String, Value)> {
        let matching = map.into_iter().flatten().filter(|(key, _)| KEPT.contains(&key.as_str()) == kept);
        matching.map(|(key, value)| (key.clone(), json!(value))).collect()
    };
    let own = annotations(deployment.metadata.annotations.as_ref(), true);
    let earlier = annotations(set.metadata.annotations.as_ref(), false);
    let all: serde_json::Map<String, Value> = own.into_iter().chain(earlier).collect();
    Patch::Json(json!([
        {"op": "replace", "path": "/spec/template", "value": template},
        {"op": "add", "path": "/metadata/annotations", "value": all},
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_to_go_back_to() {
        let sets: Vec<Arc<ReplicaSet>> = ["2", "10", "9"]
            .iter()
            .map(|number| {
                let meta = json!({"name": number, "annotations": {super::super::REVISION: number}});
                let set = json!({"metadata": meta, "spec": {"selector": {}}});
                Arc::new(serde_json::from_value(set).unwrap())
            })
            .collect();
        let check = |sets: &[Arc<ReplicaSet>], wanted: i64, expected: &str| {
            let found = chosen(sets, wanted, "d");
            let found = found.map_or_else(|error| error.to_string(), |set| set.metadata.name.clone().unwrap());
            assert_eq!(found, expected);
        };
        check(&sets, 0, "9");
        check(&sets, 2, "2");
        check(&sets, 3, "unable to find specified revision 3 in history");
        check(&sets[..1], 0, "no rollout history found for deployment \"d\"");
    }
}
