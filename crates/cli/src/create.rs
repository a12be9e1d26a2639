//! `create -f FILE`: every object of the files, as new.

use std::path::PathBuf;

use clap::Args;
use http::Method;

use crate::names::Target;
use crate::session::{Session, text};
use crate::{manifests, print};

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Files or folders with the objects, or - for standard input
    #[arg(long = "filename", short = 'f', required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Go through folders below folders
    #[arg(long, short = 'R')]
    recursive: bool,
    /// Output format: name, json or yaml
    #[arg(long, short)]
    output: Option<String>,
}

pub async fn run(session: &Session, options: Options) -> anyhow::Result<i32> {
    let mut failed = false;
    for manifest in manifests::read(&options.files, options.recursive)? {
        let resource = session.resource_of(&manifest).await?;
        let namespace = namespace_of(session, &manifest);
        match session.send(Method::POST, &resource.collection_path(Some(&namespace)), &manifest).await {
            Ok(created) => {
                let label = Target::label(&resource, text(&created["metadata"], "name"));
                report(&label, "created", &created, options.output.as_deref())?;
            }
            Err(error) => {
                failed = true;
                complain(&error);
            }
        }
    }
    Ok(i32::from(failed))
}

/// Where a manifest's object goes.
pub fn namespace_of(session: &Session, manifest: &serde_json::Value) -> String {
    manifest["metadata"]["namespace"].as_str().unwrap_or(&session.namespace).to_owned()
}

/// Says what became of an object.
pub fn report(label: &str, what: &str, object: &serde_json::Value, output: Option<&str>) -> anyhow::Result<()> {
    match output {
        None => println!("{label} {what}"),
        Some("name") => println!("{label}"),
        Some("json") => print!("{}", print::json(object)?),
        Some("yaml") => print!("{}", print::yaml(object)?),
        Some(other) => anyhow::bail!("unable to match a printer suitable for the output format {other:?}, allowed formats are: json,name,yaml"),
    }
    Ok(())
}

/// Prints a failed call as kubectl does.
pub fn complain(error: &xebec_client::Error) {
    match error.status() {
        Some(status) => eprintln!("Error from server ({}): {status}", status.reason()),
        None => eprintln!("error: {}", Chained(error)),
    }
}

/// An error with its sources, for people.
struct Chained<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chained<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
