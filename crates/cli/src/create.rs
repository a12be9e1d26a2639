//! `create -f FILE`: every object of the files, as new.

use clap::Args;
use http::Method;
use serde_json::Value;

use crate::failure;
use crate::manifests::{self, Files, Manifest};
use crate::names::Target;
use crate::print;
use crate::session::{Session, text};

/// Unknown and duplicate fields are errors, as with kubectl; who wrote stands in the managed fields.
const QUERY: &str = "fieldManager=xebec-create&fieldValidation=Strict";

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    files: Files,
    /// Output format: name, json or yaml
    #[arg(long, short, value_parser = ["name", "json", "yaml"])]
    output: Option<String>,
}

pub async fn run(session: &Session, options: Options) -> anyhow::Result<i32> {
    let mut failures = Vec::new();
    for manifest in manifests::read(&options.files)? {
        if let Err(error) = one(session, &manifest, options.output.as_deref()).await {
            failures.push(error);
        }
    }
    failure::all(failures)
}

async fn one(session: &Session, manifest: &Manifest, output: Option<&str>) -> anyhow::Result<()> {
    let resource = session.resource_of(&manifest.object, &manifest.origin).await?;
    let path = format!("{}?{QUERY}", resource.collection_path(Some(manifest.namespace(session)?)));
    let created = session.send(Method::POST, &path, &manifest.object).await;
    let created = created.map_err(|error| failure::with_source("creating", &manifest.origin, error))?;
    report(&Target::label(&resource, text(&created["metadata"], "name")), "created", &created, output)?;
    Ok(())
}

/// Says what became of an object.
pub fn report(label: &str, what: &str, object: &Value, output: Option<&str>) -> std::io::Result<()> {
    match output {
        None => print::line(format_args!("{label} {what}")),
        Some(format) => print::out(print::object(object, format)),
    }
}
