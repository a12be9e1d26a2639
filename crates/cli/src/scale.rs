//! `scale --replicas=N TYPE/NAME`.

use std::path::PathBuf;

use clap::Args;
use http::Method;
use serde_json::{Value, json};
use xebec_client::Patch;

use crate::create::complain;
use crate::manifests;
use crate::names::{self, Target};
use crate::session::{Session, text};

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A type and names, or type/name: rc/a, deployment b
    words: Vec<String>,
    /// Files that name the objects
    #[arg(long = "filename", short = 'f', value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How many there should be
    #[arg(long)]
    replicas: i32,
    /// Only if there are this many now
    #[arg(long)]
    current_replicas: Option<i32>,
}

pub async fn run(session: &Session, options: Options) -> anyhow::Result<i32> {
    if options.replicas < 0 {
        anyhow::bail!("The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0");
    }
    let mut targets = Vec::new();
    if options.files.is_empty() {
        targets = names::targets(session, &options.words).await?;
    } else {
        for manifest in manifests::read(&options.files, false)? {
            let name = Some(text(&manifest["metadata"], "name").to_owned());
            targets.push(Target { resource: session.resource_of(&manifest).await?, name });
        }
    }
    let mut failed = false;
    for target in targets {
        let Some(name) = &target.name else { anyhow::bail!("resource(s) were provided, but no name was specified") };
        let path = format!("{}/scale", target.resource.object_path(Some(&session.namespace), name));
        if let Some(expected) = options.current_replicas {
            let scale: Value = session.client.get_json(&path).await?;
            let current = scale["spec"]["replicas"].as_i64().unwrap_or(0);
            if current != i64::from(expected) {
                anyhow::bail!("Expected replicas to be {expected}, was {current}");
            }
        }
        let patch = Patch::Merge(json!({"spec": {"replicas": options.replicas}}));
        let body = serde_json::to_vec(patch.body())?;
        match session.client.call(Method::PATCH, &path, patch.content_type(), body.into()).await {
            Ok(_) => println!("{} scaled", Target::label(&target.resource, name)),
            Err(error) => {
                failed = true;
                complain(&error);
            }
        }
    }
    Ok(i32::from(failed))
}
