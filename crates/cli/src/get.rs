//! `get`: objects as tables, YAML, JSON or names; once or as they change.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use form_urlencoded::Serializer;
use futures::StreamExt;
use serde_json::{Value, json};
use xebec_client::transport::{checked, collect};

use crate::create::complain;
use crate::names::{self, Target};
use crate::print::{self, Grid, TableStyle};
use crate::session::{Session, text};
use crate::manifests;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A type and names, or type/name: pods, pod a, rc/b
    words: Vec<String>,
    /// Files that name the objects
    #[arg(long = "filename", short = 'f', value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Output format: wide, yaml, json or name
    #[arg(long, short)]
    output: Option<String>,
    /// After showing, go on showing what changes
    #[arg(long, short)]
    watch: bool,
    /// Only those with these labels
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,
    /// Only those with these field values
    #[arg(long, value_name = "SELECTOR")]
    field_selector: Option<String>,
    /// In all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Leave the heading out
    #[arg(long)]
    no_headers: bool,
    /// Show the labels as the last column
    #[arg(long)]
    show_labels: bool,
}

pub async fn run(session: &Session, options: Options) -> anyhow::Result<i32> {
    let targets = named(session, &options).await?;
    match options.output.as_deref() {
        None | Some("wide") => tables(session, &options, &targets).await,
        Some("yaml" | "json" | "name") => objects(session, &options, &targets).await,
        Some(other) => bail!("unable to match a printer suitable for the output format {other:?}, allowed formats are: json,name,wide,yaml"),
    }
}

async fn named(session: &Session, options: &Options) -> anyhow::Result<Vec<Target>> {
    if options.files.is_empty() {
        return names::targets(session, &options.words).await;
    }
    let mut targets = Vec::new();
    for manifest in manifests::read(&options.files, false)? {
        let name = text(&manifest["metadata"], "name").to_owned();
        targets.push(Target { resource: session.resource_of(&manifest).await?, name: Some(name) });
    }
    Ok(targets)
}

fn path(session: &Session, options: &Options, target: &Target, watch: Option<&str>) -> String {
    let namespace = (!options.all_namespaces).then_some(session.namespace.as_str());
    let mut query = Serializer::new(String::new());
    let mut pair = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    };
    pair("labelSelector", options.selector.as_deref());
    pair("fieldSelector", options.field_selector.as_deref());
    if let Some(revision) = watch {
        pair("watch", Some("true"));
        pair("resourceVersion", Some(revision));
    }
    let base = match (&target.name, watch) {
        (Some(name), Some(_)) => {
            pair("fieldSelector", Some(&format!("metadata.name={name}")));
            target.resource.collection_path(namespace)
        }
        (Some(name), None) => target.resource.object_path(namespace, name),
        (None, _) => target.resource.collection_path(namespace),
    };
    let query = query.finish();
    if query.is_empty() { base } else { format!("{base}?{query}") }
}

/// Targets of one kind share one table.
fn by_kind(targets: &[Target]) -> Vec<&[Target]> {
    targets.chunk_by(|a, b| a.resource == b.resource).collect()
}

async fn tables(session: &Session, options: &Options, targets: &[Target]) -> anyhow::Result<i32> {
    let groups = by_kind(targets);
    let several = groups.len() > 1;
    let (mut failed, mut shown) = (false, 0);
    for group in &groups {
        let resource = &group[0].resource;
        let style = TableStyle {
            wide: options.output.as_deref() == Some("wide"),
            with_namespace: options.all_namespaces && resource.namespaced,
            no_headers: options.no_headers,
            show_labels: options.show_labels,
        };
        let prefix = if several { Target::label(resource, "") } else { String::new() };
        let (mut grid, mut rows, mut revision) = (Grid::default(), 0, String::from("0"));
        for target in *group {
            match session.get_table(&path(session, options, target, None)).await {
                Ok(table) => {
                    let count = table["rows"].as_array().map_or(0, Vec::len);
                    revision = text(&table["metadata"], "resourceVersion").to_owned();
                    if count > 0 {
                        print::table(&mut grid, &table, style, rows == 0, &prefix);
                    }
                    rows += count;
                }
                Err(error) => {
                    failed = true;
                    complain(&error);
                }
            }
        }
        let mut widths = Vec::new();
        if !grid.is_empty() {
            if shown > 0 {
                println!();
            }
            print!("{}", grid.render(&mut widths));
            shown += rows;
        }
        if options.watch {
            if several {
                bail!("you may only specify a single resource type to watch");
            }
            return watch(session, options, &group[0], style, &revision, &mut widths).await;
        }
    }
    if shown == 0 && !failed {
        nothing_found(session, options, targets);
    }
    Ok(i32::from(failed))
}

fn nothing_found(session: &Session, options: &Options, targets: &[Target]) {
    let namespaced = targets.iter().any(|target| target.resource.namespaced);
    if namespaced && !options.all_namespaces {
        eprintln!("No resources found in {} namespace.", session.namespace);
    } else {
        eprintln!("No resources found");
    }
}

async fn watch(
    session: &Session,
    options: &Options,
    target: &Target,
    style: TableStyle,
    revision: &str,
    widths: &mut Vec<usize>,
) -> anyhow::Result<i32> {
    let request = Session::table_request(&path(session, options, target, Some(revision)))?;
    let response = session.client.transport().open(request).await?;
    if !response.status().is_success() {
        let (parts, body) = response.into_parts();
        checked(http::Response::from_parts(parts, collect(body).await?))?;
        return Ok(1);
    }
    let (mut body, mut buffer, mut header) = (response.into_body(), Vec::new(), widths.is_empty());
    while let Some(chunk) = body.next().await {
        buffer.extend_from_slice(&chunk?);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).context("cannot read a watch event")?;
            if text(&event, "type") == "ERROR" {
                bail!("{}", text(&event["object"], "message"));
            }
            let mut grid = Grid::default();
            print::table(&mut grid, &event["object"], style, header, "");
            header = false;
            print!("{}", grid.render(widths));
        }
    }
    Ok(0)
}

async fn objects(session: &Session, options: &Options, targets: &[Target]) -> anyhow::Result<i32> {
    let (mut found, mut failed) = (Vec::new(), false);
    for target in targets {
        match session.client.get_json::<Value>(&path(session, options, target, None)).await {
            Ok(mut answer) => match (&target.name, answer["items"].take()) {
                (None, Value::Array(items)) => found.extend(items.into_iter().map(|item| typed(item, target))),
                _ => found.push(answer),
            },
            Err(error) => {
                failed = true;
                complain(&error);
            }
        }
    }
    for object in &mut found {
        // As kubectl: bookkeeping of no interest to a reader.
        if let Some(meta) = object["metadata"].as_object_mut() {
            meta.remove("managedFields");
        }
    }
    show(options, targets, found, failed)?;
    Ok(i32::from(failed))
}

/// Items of a list do not say their type; alone they must.
fn typed(item: Value, target: &Target) -> Value {
    let mut full = json!({"apiVersion": target.resource.api_version(), "kind": target.resource.kind});
    if let (Value::Object(full), Value::Object(item)) = (&mut full, item) {
        full.extend(item);
    }
    full
}

fn show(options: &Options, targets: &[Target], mut found: Vec<Value>, failed: bool) -> anyhow::Result<()> {
    if options.output.as_deref() == Some("name") {
        for object in &found {
            let (group, _) = text(object, "apiVersion").split_once('/').unwrap_or(("", ""));
            let kind = text(object, "kind").to_lowercase();
            let dot = if group.is_empty() { "" } else { "." };
            println!("{kind}{dot}{group}/{}", text(&object["metadata"], "name"));
        }
        return Ok(());
    }
    let single = targets.len() == 1 && targets[0].name.is_some();
    if found.is_empty() && (single || failed) {
        return Ok(());
    }
    let shown = if single {
        found.remove(0)
    } else {
        json!({"apiVersion": "v1", "items": found, "kind": "List", "metadata": {"resourceVersion": ""}})
    };
    let text = if options.output.as_deref() == Some("yaml") { print::yaml(&shown)? } else { print::json(&shown)? };
    print!("{text}");
    Ok(())
}
