//! `rollout history`: the earlier states of a Deployment, which its ReplicaSets keep.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use k8s_openapi::api::apps::v1::ReplicaSet;

use super::{Which, deployment, kind, revision};
use crate::describe;
use crate::names::Target;
use crate::print;
use crate::session::Session;
use crate::tabs;

/// What people note about a change.
const CAUSE: &str = "kubernetes.io/change-cause";

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    pub which: Which,
    /// Show this state in detail
    #[arg(long, default_value_t = 0)]
    revision: i64,
}

pub async fn run(session: &Session, options: &Options, target: &Target) -> anyhow::Result<()> {
    if target.resource.kind != "Deployment" {
        bail!("no history viewer has been implemented for {:?}", kind(target));
    }
    let sets = describe::replica_sets(session, &deployment(session, target).await?).await?;
    let revisions: BTreeMap<i64, Arc<ReplicaSet>> =
        sets.into_iter().filter_map(|set| Some((revision(&set)?, set))).collect();
    let label = Target::label(&target.resource, target.name.as_deref().unwrap_or(""));
    if options.revision > 0 {
        let set = revisions.get(&options.revision).and_then(|set| Some((set, set.spec.template.as_ref()?)));
        let Some((set, template)) = set else { bail!("unable to find the specified revision") };
        let mut template = template.clone();
        if let Some(cause) = cause(set) {
            let annotations = template.metadata.get_or_insert_default().annotations.get_or_insert_default();
            annotations.insert(CAUSE.to_owned(), cause.to_owned());
        }
        let text = describe::pod_template(&template);
        print::line(format_args!("{label} with revision #{}\n{text}", options.revision))?;
        return Ok(());
    }
    if revisions.is_empty() {
        print::line(format_args!("{label} \nNo rollout history found."))?;
        return Ok(());
    }
    let mut text = "REVISION\tCHANGE-CAUSE\n".to_owned();
    for (number, set) in &revisions {
        text.push_str(&format!("{number}\t{}\n", cause(set).unwrap_or("<none>")));
    }
    print::line(format_args!("{label} \n{}", tabs::DESCRIPTION.align(&text)))?;
    Ok(())
}

fn cause(set: &ReplicaSet) -> Option<&str> {
    set.metadata.annotations.as_ref()?.get(CAUSE).map(String::as_str).filter(|cause| !cause.is_empty())
}
