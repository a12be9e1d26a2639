//! `delete`: objects by name, by file or by selector; by default it waits until they are gone.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use http::Method;
use serde_json::{Value, json};
use xebec_client::{DeleteOptions, Error, Propagation};

use crate::failure;
use crate::manifests::Files;
use crate::names::{self, Selection, Target};
use crate::print;
use crate::session::Session;

/// Between looks whether an object is gone.
const POLL: Duration = Duration::from_millis(200);

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A type and names, or type/name
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// Those with these labels
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,
    /// Those with these field values
    #[arg(long, value_name = "SELECTOR")]
    field_selector: Option<String>,
    /// All of the named type
    #[arg(long, conflicts_with_all = ["selector", "field_selector"])]
    all: bool,
    /// In all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Seconds that Pods are given to end; 0 only with --force
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// Do not wait for a graceful end
    #[arg(long)]
    force: bool,
    /// End at once: a grace period of 1
    #[arg(long, conflicts_with_all = ["force", "grace_period"])]
    now: bool,
    /// Wait until the objects are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    wait: bool,
    /// An object that is not there is no failure
    #[arg(long)]
    ignore_not_found: bool,
    /// What becomes of dependents: background, foreground or orphan
    #[arg(long, default_value = "background")]
    #[arg(num_args = 0..=1, default_missing_value = "background", require_equals = true)]
    cascade: String,
    /// Output format: name
    #[arg(long, short, value_parser = ["name"])]
    output: Option<String>,
}

/// An object that was deleted and may still be ending.
struct Going {
    path: String,
    uid: String,
}

pub async fn run(session: &Session, options: Options) -> anyhow::Result<i32> {
    let wanted = delete_options(&options)?;
    let doomed = doomed(session, &options).await?;
    let (mut failures, mut going) = (Vec::new(), Vec::new());
    let none = doomed.is_empty();
    for target in doomed {
        match session.send(Method::DELETE, &target.path(session), &wanted.body()).await {
            Ok(answer) => {
                print::line(deleted(session, &options, &target, wanted.grace_period_seconds))?;
                let uid = answer["metadata"]["uid"].as_str().or(answer["details"]["uid"].as_str()).unwrap_or("");
                going.push(Going { path: target.path(session), uid: uid.to_owned() });
            }
            Err(error) if error.is_not_found() && options.ignore_not_found => {}
            Err(error) => failures.push(match &target.origin {
                Some(origin) => failure::with_source("deleting", origin, error),
                None => error.into(),
            }),
        }
    }
    if none {
        print::line("No resources found")?;
    }
    if options.wait {
        for one in going {
            wait_until_gone(session, &one).await?;
        }
    }
    failure::all(failures)
}

fn delete_options(options: &Options) -> anyhow::Result<DeleteOptions> {
    if options.grace_period > 0 && options.force {
        bail!("--force and --grace-period greater than 0 cannot be specified together");
    }
    let propagation = match options.cascade.as_str() {
        "background" => Propagation::Background,
        "foreground" => Propagation::Foreground,
        "orphan" => Propagation::Orphan,
        other => bail!("invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""),
    };
    let grace = match options.grace_period {
        _ if options.now => Some(1),
        ..0 if options.force => Some(0),
        // As kubectl: without --force nothing is cut off, it gets a second.
        0 if !options.force => Some(1),
        given => Some(given).filter(|grace| *grace >= 0),
    };
    if grace == Some(0) {
        eprintln!("Warning: a deletion by force does not wait for the node: what ran may go on running.");
    }
    Ok(DeleteOptions { grace_period_seconds: grace, propagation: Some(propagation), ..DeleteOptions::default() })
}

fn deleted(session: &Session, options: &Options, target: &Target, grace: Option<i64>) -> String {
    let (resource, name) = (&target.resource, target.name.as_deref().unwrap_or(""));
    if options.output.is_some() {
        return Target::label(resource, name);
    }
    let kind = resource.kind.to_lowercase();
    let kind = if resource.group.is_empty() { kind } else { format!("{kind}.{}", resource.group) };
    let how = if grace == Some(0) { "force deleted" } else { "deleted" };
    let within = format!(" from {} namespace", target.namespace(session));
    format!("{kind} {name:?} {how}{}", if resource.namespaced { within.as_str() } else { "" })
}

async fn doomed(session: &Session, options: &Options) -> anyhow::Result<Vec<Target>> {
    let mut found = Vec::new();
    let selection = Selection {
        labels: options.selector.clone(),
        fields: options.field_selector.clone(),
        all_namespaces: options.all_namespaces,
    };
    for target in names::of_files_or_words(session, &options.files, &options.words).await? {
        if target.name.is_some() {
            found.push(target);
            continue;
        }
        if !options.all && options.selector.is_none() && options.field_selector.is_none() {
            bail!("resource(s) were provided, but no name was specified");
        }
        found.extend(names::objects(session, &target, &selection).await?);
    }
    Ok(found)
}

async fn wait_until_gone(session: &Session, going: &Going) -> Result<(), Error> {
    loop {
        match session.get(&going.path).await {
            Ok(Value::Object(object)) if !going.uid.is_empty() && object["metadata"]["uid"] != json!(going.uid) => {
                return Ok(());
            }
            Ok(_) => tokio::time::sleep(POLL).await,
            Err(error) if error.is_not_found() => return Ok(()),
            // Who may delete but not look has nothing to wait for.
            Err(error) if error.is_forbidden() => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
