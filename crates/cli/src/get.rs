//! `get`: objects as tables, YAML, JSON or names; once or as they change.

use anyhow::{Context, bail};
use clap::Args;
use form_urlencoded::Serializer;
use futures::StreamExt;
use serde_json::{Value, json};
use xebec_client::Error;

use crate::failure;
use crate::manifests::Files;
use crate::names::{self, Target};
use crate::print::{self, TablePrinter, TableStyle};
use crate::session::{Session, text};

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A type and names, or type/name: pods, pod a, rc/b
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// Output format: wide, yaml, json or name
    #[arg(long, short, value_parser = ["wide", "yaml", "json", "name"])]
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
    /// Show these labels in a column each
    #[arg(long, short = 'L', value_name = "LABELS", value_delimiter = ',')]
    label_columns: Vec<String>,
    /// An object that is not there is no failure
    #[arg(long)]
    ignore_not_found: bool,
    /// Show the bookkeeping of who set which field
    #[arg(long)]
    show_managed_fields: bool,
    /// Print the server's answer to a GET of this path
    #[arg(long, value_name = "PATH")]
    raw: Option<String>,
}

pub async fn run(session: &Session, options: Options) -> anyhow::Result<i32> {
    if let Some(path) = &options.raw {
        let answer = session.client.call(http::Method::GET, path, "", bytes::Bytes::new()).await?;
        print::out(String::from_utf8_lossy(&answer))?;
        return Ok(0);
    }
    let targets = names::of_files_or_words(session, &options.files, &options.words).await?;
    if options.all_namespaces && targets.iter().any(|target| target.name.is_some() && target.namespace.is_none()) {
        bail!("a resource cannot be retrieved by name across all namespaces");
    }
    match options.output.as_deref() {
        _ if options.watch => watch(session, &options, &targets).await,
        None | Some("wide") => tables(session, &options, &targets).await,
        Some(format) => objects(session, &options, &targets, format).await,
    }
}

/// The path of a target; with a revision that of a watch from there.
fn path(session: &Session, options: &Options, target: &Target, watch: Option<&str>) -> String {
    let namespace = (!options.all_namespaces).then_some(target.namespace(session));
    let mut query = Serializer::new(String::new());
    let mut pair = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    };
    pair("labelSelector", options.selector.as_deref());
    let mut base = target.resource.collection_path(namespace);
    match (&target.name, watch) {
        (Some(name), None) => base = format!("{base}/{name}"),
        (Some(name), Some(_)) => pair("fieldSelector", Some(&format!("metadata.name={name}"))),
        (None, _) => pair("fieldSelector", options.field_selector.as_deref()),
    }
    if let Some(revision) = watch {
        pair("watch", Some("true"));
        pair("resourceVersion", Some(revision));
    }
    let query = query.finish();
    if query.is_empty() { base } else { format!("{base}?{query}") }
}

fn style(options: &Options, target: &Target) -> TableStyle {
    TableStyle {
        wide: options.output.as_deref() == Some("wide"),
        with_namespace: options.all_namespaces && target.resource.namespaced,
        no_headers: options.no_headers,
        show_labels: options.show_labels,
        label_columns: options.label_columns.clone(),
        prefix: String::new(),
    }
}

/// What the server answered about each target, and what went wrong.
async fn answers<'a>(
    session: &Session,
    options: &Options,
    targets: &'a [Target],
    as_tables: bool,
) -> (Vec<(&'a Target, Value)>, Vec<anyhow::Error>) {
    let (mut answers, mut failures) = (Vec::new(), Vec::new());
    for target in targets {
        let path = path(session, options, target, None);
        let answer: Result<Value, Error> =
            if as_tables { session.get_table(&path).await } else { session.get(&path).await };
        match answer {
            Ok(answer) => answers.push((target, answer)),
            Err(error) if error.is_not_found() && options.ignore_not_found => {}
            Err(error) => failures.push(error.into()),
        }
    }
    (answers, failures)
}

async fn tables(session: &Session, options: &Options, targets: &[Target]) -> anyhow::Result<i32> {
    let (answers, failures) = answers(session, options, targets, true).await;
    let several = answers.iter().any(|(target, _)| target.resource != answers[0].0.resource);
    let mut shown = false;
    for group in answers.chunk_by(|a, b| a.0.resource == b.0.resource) {
        let target = group[0].0;
        let mut style = style(options, target);
        if several {
            style.prefix = Target::label(&target.resource, "");
        }
        let mut printer = TablePrinter::new(style);
        group.iter().for_each(|(_, table)| printer.add(table));
        let text = printer.take();
        if text.is_empty() {
            continue;
        }
        if shown && !options.no_headers {
            print::line("")?;
        }
        print::out(&text)?;
        shown = true;
    }
    if !shown && failures.is_empty() && !options.ignore_not_found {
        nothing_found(session, options, targets);
    }
    failure::all(failures)
}

fn nothing_found(session: &Session, options: &Options, targets: &[Target]) {
    if !options.all_namespaces && targets.iter().all(|target| target.resource.namespaced) {
        eprintln!("No resources found in {} namespace.", session.namespace);
    } else {
        eprintln!("No resources found");
    }
}

async fn watch(session: &Session, options: &Options, targets: &[Target]) -> anyhow::Result<i32> {
    let [target] = targets else { bail!("you may only specify a single resource type to watch") };
    let mut shower = match options.output.as_deref() {
        None | Some("wide") => Shower::Table(TablePrinter::new(style(options, target))),
        Some(format) => Shower::Objects { format, shown: false, managed_fields: options.show_managed_fields },
    };
    let tables = matches!(shower, Shower::Table(_));
    let first = path(session, options, target, None);
    let first = if tables { session.get_table(&first).await? } else { session.get(&first).await? };
    shower.show(&first, target)?;
    // A watch of one object starts anywhere, for its own revision may be too old, and then shows it once more.
    let single = target.name.is_some();
    let revision = if single { "0" } else { text(&first["metadata"], "resourceVersion") };
    let mut skipped = !single;
    let mut body = session.open_stream(&path(session, options, target, Some(revision)), tables).await?;
    let mut buffer = Vec::new();
    while let Some(chunk) = body.next().await {
        buffer.extend_from_slice(&chunk?);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).context("cannot read a watch event")?;
            if text(&event, "type") == "ERROR" {
                bail!("{}", text(&event["object"], "message"));
            }
            if std::mem::replace(&mut skipped, true) {
                shower.show(&event["object"], target)?;
            }
        }
    }
    Ok(0)
}

/// What prints the objects of a watch.
enum Shower<'a> {
    Table(TablePrinter),
    Objects { format: &'a str, shown: bool, managed_fields: bool },
}

impl Shower<'_> {
    fn show(&mut self, answer: &Value, target: &Target) -> std::io::Result<()> {
        match self {
            Shower::Table(printer) => {
                printer.add(answer);
                print::out(printer.take())?;
            }
            Shower::Objects { format, shown, managed_fields } => {
                let items = match answer["items"].as_array() {
                    Some(items) => items.iter().map(|item| typed(item.clone(), target)).collect(),
                    None => vec![answer.clone()],
                };
                for item in items {
                    if *format == "yaml" && std::mem::replace(shown, true) {
                        print::line("---")?;
                    }
                    print::out(print::object(&readable(item, *managed_fields), format))?;
                }
            }
        }
        Ok(())
    }
}

async fn objects(session: &Session, options: &Options, targets: &[Target], format: &str) -> anyhow::Result<i32> {
    let (answers, failures) = answers(session, options, targets, false).await;
    let single = targets.len() == 1 && targets[0].name.is_some();
    if answers.is_empty() && (single || options.ignore_not_found) {
        return failure::all(failures);
    }
    let mut found: Vec<Value> = Vec::new();
    for (target, mut answer) in answers {
        match (&target.name, answer.get_mut("items").map(Value::take)) {
            (Some(_), _) => found.push(answer),
            (None, Some(Value::Array(items))) => found.extend(items.into_iter().map(|item| typed(item, target))),
            (None, _) => {}
        }
    }
    let mut found: Vec<Value> = found.into_iter().map(|object| readable(object, options.show_managed_fields)).collect();
    if format == "name" {
        let names: String = found.iter().map(|object| print::object(object, format)).collect();
        print::out(names)?;
        return failure::all(failures);
    }
    let shown = if single {
        found.remove(0)
    } else {
        json!({"apiVersion": "v1", "items": found, "kind": "List", "metadata": {"resourceVersion": ""}})
    };
    print::out(print::object(&shown, format))?;
    failure::all(failures)
}

/// Items of a list do not say their type; alone they must.
fn typed(item: Value, target: &Target) -> Value {
    let mut full = json!({"apiVersion": target.resource.api_version(), "kind": target.resource.kind});
    if let (Value::Object(full), Value::Object(item)) = (&mut full, item) {
        full.extend(item);
    }
    full
}

/// Without the bookkeeping that interests few.
fn readable(mut object: Value, managed_fields: bool) -> Value {
    if let Some(Value::Object(meta)) = object.get_mut("metadata").filter(|_| !managed_fields) {
        meta.remove("managedFields");
    }
    object
}
