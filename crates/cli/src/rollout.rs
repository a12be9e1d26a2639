//! `rollout`: how the change of a workload goes, back to an earlier state, and holding it up.

mod change;
mod history;
mod status;
mod undo;

use clap::{Args, Subcommand};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use crate::failure;
use crate::manifests::Files;
use crate::names::{self, Selection, Target};
use crate::session::Session;

/// Where the Deployment controller numbers the states of a Deployment.
const REVISION: &str = "deployment.kubernetes.io/revision";

#[derive(Subcommand, Clone, Debug)]
pub enum Action {
    /// Say how far the change is, until it is done
    Status(status::Options),
    /// List the earlier states
    History(history::Options),
    /// Go back to an earlier state
    Undo(undo::Options),
    /// Replace all Pods by new ones
    Restart(Which),
    /// Hold up the change
    Pause(Which),
    /// Go on with the change
    Resume(Which),
}

/// The workloads that are meant.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// A type and names, or type/name: deployment a, deploy/b
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// Those with these labels
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,
}

impl Which {
    async fn targets(&self, session: &Session) -> anyhow::Result<Vec<Target>> {
        let selection = Selection { labels: self.selector.clone(), ..Selection::default() };
        let mut found = Vec::new();
        for target in names::of_files_or_words(session, &self.files, &self.words).await? {
            found.extend(names::objects(session, &target, &selection).await?);
        }
        if found.is_empty() {
            eprintln!("No resources found in {} namespace.", session.namespace);
        }
        Ok(found)
    }
}

pub async fn run(session: &Session, action: Action) -> anyhow::Result<i32> {
    let which = match &action {
        Action::Status(options) => &options.which,
        Action::History(options) => &options.which,
        Action::Undo(options) => &options.which,
        Action::Restart(which) | Action::Pause(which) | Action::Resume(which) => which,
    };
    let mut failures = Vec::new();
    for target in which.targets(session).await? {
        let done = match &action {
            Action::Status(options) => status::run(session, options, &target).await,
            Action::History(options) => history::run(session, options, &target).await,
            Action::Undo(options) => undo::run(session, options, &target).await,
            Action::Restart(_) => change::run(session, change::Change::Restart, &target).await,
            Action::Pause(_) => change::run(session, change::Change::Pause, &target).await,
            Action::Resume(_) => change::run(session, change::Change::Resume, &target).await,
        };
        failures.extend(done.err());
    }
    failure::all(failures)
}

/// The kind with its group, as messages name it.
fn kind(target: &Target) -> String {
    let resource = &target.resource;
    if resource.group.is_empty() { resource.kind.to_string() } else { format!("{}.{}", resource.kind, resource.group) }
}

async fn deployment(session: &Session, target: &Target) -> anyhow::Result<Deployment> {
    Ok(session.client.namespaced(target.namespace(session)).get(target.name.as_deref().unwrap_or("")).await?)
}

/// The number of the state that a ReplicaSet stands for.
fn revision(set: &ReplicaSet) -> Option<i64> {
    set.metadata.annotations.as_ref()?.get(REVISION)?.parse().ok()
}
