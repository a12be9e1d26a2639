//! `label` and `annotate`: keys of an object's two maps set (`key=value`) and removed (`key-`).

use anyhow::bail;
use clap::Args;
use serde_json::{Map as Members, Value, json};
use xebec_client::Patch;

use crate::failure;
use crate::manifests::Files;
use crate::names::{self, Selection, Target};
use crate::print;
use crate::session::Session;

/// The note about a change may always be written anew.
const CAUSE: &str = "kubernetes.io/change-cause";

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A type and names, or type/name, and then keys: pod a colour=red size-
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// All of the named type
    #[arg(long, conflicts_with = "selector")]
    all: bool,
    /// Those with these labels
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,
    /// In all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Change keys that have another value
    #[arg(long)]
    overwrite: bool,
    /// Show what is set
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    Labels,
    Annotations,
}

impl Map {
    fn member(self) -> &'static str {
        match self {
            Map::Labels => "labels",
            Map::Annotations => "annotations",
        }
    }

    fn singular(self) -> &'static str {
        match self {
            Map::Labels => "label",
            Map::Annotations => "annotation",
        }
    }
}

/// What is to become of each key; none is removal.
type Changes = Vec<(String, Option<String>)>;

/// What is asked for, of every object that is meant.
struct Request {
    map: Map,
    changes: Changes,
    overwrite: bool,
    list: bool,
}

pub async fn run(session: &Session, options: Options, map: Map) -> anyhow::Result<i32> {
    let is_change = |word: &&String| word.contains('=') || word.ends_with('-');
    let (words, rest): (Vec<&String>, Vec<&String>) = {
        let first = options.words.iter().position(|word| is_change(&word)).unwrap_or(options.words.len());
        (options.words[..first].iter().collect(), options.words[first..].iter().collect())
    };
    let changes = changes(&rest, map)?;
    if changes.is_empty() && !options.list {
        bail!("at least one {} update is required", map.singular());
    }
    let request = Request { map, changes, overwrite: options.overwrite, list: options.list };
    let words: Vec<String> = words.into_iter().cloned().collect();
    let selection =
        Selection { labels: options.selector.clone(), fields: None, all_namespaces: options.all_namespaces };
    let mut failures = Vec::new();
    for target in names::of_files_or_words(session, &options.files, &words).await? {
        if target.name.is_none() && !options.all && options.selector.is_none() {
            bail!("resource(s) were provided, but no name was specified");
        }
        for one in names::objects(session, &target, &selection).await? {
            failures.extend(change(session, &one, &request).await.err());
        }
    }
    failure::all(failures)
}

fn changes(words: &[&String], map: Map) -> anyhow::Result<Changes> {
    let mut changes = Changes::new();
    for word in words {
        let change = match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) if !key.is_empty() => (key.to_owned(), Some(value.to_owned())),
            (None, Some(key)) if !key.is_empty() => (key.to_owned(), None),
            _ => bail!("unknown {} spec: {word}", map.singular()),
        };
        if changes.iter().any(|(key, value)| *key == change.0 && value.is_some() != change.1.is_some()) {
            bail!("can not both modify and remove a {} in the same command", map.singular());
        }
        changes.push(change);
    }
    Ok(changes)
}

async fn change(session: &Session, target: &Target, request: &Request) -> anyhow::Result<()> {
    let (map, changes) = (request.map, &request.changes);
    let object = session.get(&target.path(session)).await?;
    let none = Members::new();
    let present = object["metadata"][map.member()].as_object().unwrap_or(&none);
    if request.list {
        for (key, value) in present {
            print::line(format_args!("{key}={}", value.as_str().unwrap_or("")))?;
        }
        return Ok(());
    }
    if !request.overwrite {
        refuse_overwriting(present, map, changes)?;
    }
    let (mut patch, mut set, mut removed) = (Members::new(), false, false);
    for (key, value) in changes {
        match (value, present.get(key)) {
            (Some(value), before) if before.and_then(Value::as_str) != Some(value) => {
                patch.insert(key.clone(), json!(value));
                set = true;
            }
            (None, Some(_)) => {
                patch.insert(key.clone(), Value::Null);
                removed = true;
            }
            (None, None) if map == Map::Labels => print::line(format_args!("label {key:?} not found."))?,
            _ => {}
        }
    }
    if set || removed {
        let patch = Patch::Merge(json!({"metadata": {map.member(): patch}}));
        session.patch(&target.path(session), &patch).await?;
    }
    let label = Target::label(&target.resource, target.name.as_deref().unwrap_or(""));
    print::line(format_args!("{label} {}", done(map, set, removed)))?;
    Ok(())
}

fn refuse_overwriting(present: &Members<String, Value>, map: Map, changes: &Changes) -> anyhow::Result<()> {
    let mut taken = Vec::new();
    for (key, value) in changes.iter().filter(|(key, value)| value.is_some() && key != CAUSE) {
        let before = present.get(key).and_then(Value::as_str);
        if let Some(before) = before.filter(|before| Some(*before) != value.as_deref()) {
            taken.push(format!("'{key}' already has a value ({before})"));
        }
    }
    match (taken.is_empty(), map) {
        (true, _) => Ok(()),
        (false, Map::Labels) => bail!("{}, and --overwrite is false", taken.join(", ")),
        (false, Map::Annotations) => {
            bail!("--overwrite is false but found the following declared annotation(s): {}", taken.join("; "))
        }
    }
}

/// kubectl's word for what happened; of annotations it has one only.
fn done(map: Map, set: bool, removed: bool) -> &'static str {
    match (map, set, removed) {
        (Map::Annotations, _, _) => "annotated",
        (Map::Labels, true, true) => "modified",
        (Map::Labels, true, false) => "labeled",
        (Map::Labels, false, true) => "unlabeled",
        (Map::Labels, false, false) => "not labeled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read() {
        let check = |words: &[&str], expected: Result<Changes, &str>| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let found = changes(&words.iter().collect::<Vec<_>>(), Map::Labels);
            assert_eq!(found.map_err(|error| error.to_string()), expected.map_err(str::to_owned));
        };
        check(&["a=b", "c-"], Ok(vec![("a".to_owned(), Some("b".to_owned())), ("c".to_owned(), None)]));
        check(&["a="], Ok(vec![("a".to_owned(), Some(String::new()))]));
        check(&["a=b", "a-"], Err("can not both modify and remove a label in the same command"));
        check(&["=b"], Err("unknown label spec: =b"));
    }
}
