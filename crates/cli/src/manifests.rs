//! Manifests from files, folders and standard input: YAML or JSON, several to a file, Lists opened.
//!
//! Values mean what they mean to kubectl (YAML 1.1: `yes` is true, `0644` is octal); keys are texts as they stand, where kubectl
//! makes `true` of a key `y`.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use crate::session::{Session, text};

const EXTENSIONS: [&str; 3] = ["json", "yaml", "yml"];

/// Where objects stand.
#[derive(Args, Clone, Debug, Default)]
pub struct Files {
    /// Files or folders with objects, or - for standard input
    #[arg(long = "filename", short = 'f', value_name = "FILE", value_delimiter = ',')]
    pub files: Vec<PathBuf>,
    /// Go through folders below folders
    #[arg(long, short = 'R')]
    pub recursive: bool,
}

/// An object and where it stands.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub object: Value,
    pub origin: String,
}

impl Manifest {
    pub fn name(&self) -> &str {
        text(&self.object["metadata"], "name")
    }

    /// Where the object goes.
    pub fn namespace<'a>(&'a self, session: &'a Session) -> anyhow::Result<&'a str> {
        match text(&self.object["metadata"], "namespace") {
            "" => Ok(&session.namespace),
            own if session.namespace_is_explicit && own != session.namespace => bail!(
                "the namespace from the provided object {own:?} does not match the namespace {:?}. You must pass \
                 '--namespace={own}' to perform this operation.",
                session.namespace
            ),
            own => Ok(own),
        }
    }
}

/// Every object that the named files hold, in their order.
pub fn read(Files { files, recursive }: &Files) -> anyhow::Result<Vec<Manifest>> {
    if files.is_empty() {
        bail!("must specify one of -f and a name");
    }
    let mut objects = Vec::new();
    for file in files {
        if file == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            parse(&text, "STDIN", &mut objects)?;
            continue;
        }
        for path in expand(file, *recursive)? {
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            parse(&text, &path.display().to_string(), &mut objects)?;
        }
    }
    if objects.is_empty() {
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        bail!("no objects in {}", names.join(", "));
    }
    Ok(objects)
}

fn expand(path: &Path, recursive: bool) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        if !path.exists() {
            bail!("the path {:?} does not exist", path.display().to_string());
        }
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
        .with_context(|| format!("cannot read the folder {}", path.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    entries.sort();
    for entry in entries {
        let extension = entry.extension().and_then(|extension| extension.to_str()).unwrap_or("");
        if entry.is_dir() {
            if recursive {
                found.extend(expand(&entry, true)?);
            }
        } else if EXTENSIONS.contains(&extension) {
            found.push(entry);
        }
    }
    Ok(found)
}

/// Adds every object of a text with one or more documents.
fn parse(text: &str, origin: &str, objects: &mut Vec<Manifest>) -> anyhow::Result<()> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| anyhow::anyhow!("error parsing {origin}: {error}"))?;
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        open(document, origin, objects)?;
    }
    Ok(())
}

fn open(document: Value, origin: &str, objects: &mut Vec<Manifest>) -> anyhow::Result<()> {
    let kind = document["kind"].as_str().unwrap_or("").to_owned();
    if kind.is_empty() || document["apiVersion"].as_str().is_none() {
        bail!("error parsing {origin}: apiVersion and kind must be set");
    }
    if kind.ends_with("List") && document["items"].is_array() {
        let mut document = document;
        let Value::Array(items) = document["items"].take() else { return Ok(()) };
        return items.into_iter().try_for_each(|item| open(item, origin, objects));
    }
    objects.push(Manifest { object: document, origin: origin.to_owned() });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_are_opened() {
        let check = |text: &str, expected: usize| {
            let mut objects = Vec::new();
            parse(text, "test", &mut objects).unwrap();
            assert_eq!(objects.len(), expected, "{text}");
        };
        check("apiVersion: v1\nkind: Pod\n---\napiVersion: v1\nkind: Service\n", 2);
        check("# nothing\n---\napiVersion: v1\nkind: Pod\n---\n", 1);
        check(r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod"}]}"#, 1);
    }

    #[test]
    fn yaml_means_what_users_write() {
        let mut objects = Vec::new();
        parse("apiVersion: v1\nkind: Pod\nmode: 0644\n", "test", &mut objects).unwrap();
        assert_eq!(objects[0].object["mode"], 420);
    }

    #[test]
    fn an_object_without_a_kind_is_refused() {
        assert!(parse("a: b\n", "test", &mut Vec::new()).is_err());
    }
}
