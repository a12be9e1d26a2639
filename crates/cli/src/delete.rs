//! `delete`: objects by name, by file or by selector; by default it waits until they are gone.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use http::Method;
use serde_json::{Value, json};
use xebec_client::{DeleteOptions, Error, ListOptions, Propagation};

use crate::create::{complain, namespace_of};
use crate::manifests;
use crate::names::{self, Target};
use crate::session::{Session, text};

/// Between looks whether an object is gone.
const POLL: Duration = Duration::from_millis(200);

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A type and names, or type/name
    words: Vec<String>,
    /// Files that name the objects
    #[arg(long = "filename", short = 'f', value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Go through folders below folders
    #[arg(long, short = 'R')]
    recursive: bool,
    /// Those with these labels
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,
    /// All of the named type
    #[arg(long)]
    all: bool,
    /// Seconds that Pods are given to end; 0 only with --force
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// Do not wait for a graceful end
    #[arg(long)]
    force: bool,
    /// Wait until the objects are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    wait: bool,
    /// An object that is not there is no failure
    #[arg(long)]
    ignore_not_found: bool,
    /// What becomes of dependents: background, foreground or orphan
    #[arg(long, default_value = "background", num_args = 0..=1, default_missing_value = "background")]
    cascade: String,
}

/// One object to delete.
struct Doomed {
    target: Target,
    namespace: String,
}

pub async fn run(session: &Session, options: Options) -> anyhow::Result<i32> {
    let wanted = delete_options(&options)?;
    let mut failed = false;
    let mut going = Vec::new();
    for doomed in doomed(session, &options).await? {
        let name = doomed.target.name.as_deref().unwrap_or("");
        let path = doomed.target.resource.object_path(Some(&doomed.namespace), name);
        match session.client.send_json::<Value>(Method::DELETE, &path, &wanted.body()).await {
            Ok(answer) => {
                let resource = &doomed.target.resource;
                let kind = resource.kind.to_lowercase();
                let kind = if resource.group.is_empty() { kind } else { format!("{kind}.{}", resource.group) };
                let within = if resource.namespaced { format!(" from {} namespace", doomed.namespace) } else { String::new() };
                let how = if options.force { "force deleted" } else { "deleted" };
                println!("{kind} {name:?} {how}{within}");
                let uid = answer["metadata"]["uid"].as_str().or(answer["details"]["uid"].as_str()).unwrap_or("").to_owned();
                going.push((path, uid));
            }
            Err(error) if error.is_not_found() && options.ignore_not_found => {}
            Err(error) => {
                failed = true;
                complain(&error);
            }
        }
    }
    if options.wait {
        for (path, uid) in going {
            wait_until_gone(session, &path, &uid).await?;
        }
    }
    Ok(i32::from(failed))
}

fn delete_options(options: &Options) -> anyhow::Result<DeleteOptions> {
    if options.grace_period == 0 && !options.force {
        bail!("a grace period of 0 leaves processes behind: say --force with it, or use 1");
    }
    let propagation = match options.cascade.as_str() {
        "background" | "true" => Propagation::Background,
        "foreground" => Propagation::Foreground,
        "orphan" | "false" => Propagation::Orphan,
        other => bail!("invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""),
    };
    let grace = if options.force && options.grace_period < 0 { Some(0) } else { Some(options.grace_period).filter(|g| *g >= 0) };
    Ok(DeleteOptions { grace_period_seconds: grace, propagation: Some(propagation), ..DeleteOptions::default() })
}

async fn doomed(session: &Session, options: &Options) -> anyhow::Result<Vec<Doomed>> {
    let mut found = Vec::new();
    if !options.files.is_empty() {
        for manifest in manifests::read(&options.files, options.recursive)? {
            let target = Target {
                resource: session.resource_of(&manifest).await?,
                name: Some(text(&manifest["metadata"], "name").to_owned()),
            };
            found.push(Doomed { target, namespace: namespace_of(session, &manifest) });
        }
        return Ok(found);
    }
    for target in names::targets(session, &options.words).await? {
        if target.name.is_some() {
            found.push(Doomed { target, namespace: session.namespace.clone() });
            continue;
        }
        if !options.all && options.selector.is_none() {
            bail!("resource(s) were provided, but no name was specified");
        }
        let selection = ListOptions { label_selector: options.selector.clone(), ..ListOptions::default() };
        let list = session.client.transport().list(&target.resource, Some(&session.namespace), &selection).await?;
        found.extend(list.items.iter().map(|item| Doomed {
            target: Target { resource: target.resource.clone(), name: Some(item.name().to_owned()) },
            namespace: item.namespace().to_owned(),
        }));
    }
    if found.is_empty() {
        println!("No resources found");
    }
    Ok(found)
}

async fn wait_until_gone(session: &Session, path: &str, uid: &str) -> Result<(), Error> {
    loop {
        match session.client.get_json::<Value>(path).await {
            Ok(object) if !uid.is_empty() && object["metadata"]["uid"] != json!(uid) => return Ok(()),
            Ok(_) => tokio::time::sleep(POLL).await,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
