//! `scale --replicas=N TYPE/NAME`.

use anyhow::bail;
use clap::Args;
use serde_json::json;
use xebec_client::Patch;

use crate::failure;
use crate::manifests::Files;
use crate::names::{self, Target};
use crate::print;
use crate::session::Session;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A type and names, or type/name: rc/a, deployment b
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// How many there should be
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    replicas: i32,
    /// Only if there are this many now
    #[arg(long, value_name = "COUNT")]
    current_replicas: Option<i32>,
}

pub async fn run(session: &Session, options: Options) -> anyhow::Result<i32> {
    if options.replicas < 0 {
        bail!("The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0");
    }
    let mut failures = Vec::new();
    for target in names::of_files_or_words(session, &options.files, &options.words).await? {
        let Some(name) = &target.name else { bail!("resource(s) were provided, but no name was specified") };
        match one(session, &options, &target).await {
            Ok(()) => print::line(format_args!("{} scaled", Target::label(&target.resource, name)))?,
            Err(error) => failures.push(error),
        }
    }
    failure::all(failures)
}

async fn one(session: &Session, options: &Options, target: &Target) -> anyhow::Result<()> {
    let path = format!("{}/scale", target.path(session));
    let mut change = json!({"spec": {"replicas": options.replicas}});
    if let Some(expected) = options.current_replicas {
        let scale = session.get(&path).await?;
        let current = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        if current != i64::from(expected) {
            bail!("Expected replicas to be {expected}, was {current}");
        }
        // Whoever changes it in between is not overridden.
        change["metadata"] = json!({"resourceVersion": scale["metadata"]["resourceVersion"]});
    }
    let patch = Patch::Merge(change);
    session.patch(&path, &patch).await?;
    Ok(())
}
