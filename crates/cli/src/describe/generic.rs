//! Kinds that nobody wrote a description for, custom resources above all: every field by its name in words.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::page::{Labels, Page};
use super::{Subject, events};
use crate::session::text;

/// Shown before the others, or of no interest.
const SHOWN_ELSEWHERE: [&str; 5] =
    [".metadata.managedFields", ".metadata.name", ".metadata.namespace", ".metadata.labels", ".metadata.annotations"];
const ACRONYMS: [&str; 4] = ["API", "URL", "UID", "GUID"];

pub async fn describe(subject: &Subject<'_>, page: &mut Page) -> anyhow::Result<()> {
    let object = subject.session.get(&subject.path()).await?;
    let meta = &object["metadata"];
    page.field(0, "Name", text(meta, "name"));
    page.field(0, "Namespace", text(meta, "namespace"));
    let map = |member: &str| serde_json::from_value::<Labels>(meta[member].clone()).ok();
    page.labels("Labels", map("labels").as_ref());
    page.annotations("Annotations", map("annotations").as_ref());
    if let Value::Object(content) = &object {
        walk(content, 0, "", page);
    }
    let meta = serde_json::from_value(meta.clone()).unwrap_or_default();
    events::describe(subject, &meta, page).await;
    Ok(())
}

fn walk(content: &Map<String, Value>, level: usize, path: &str, page: &mut Page) {
    let sorted: BTreeMap<&String, &Value> = content.iter().collect();
    for (field, value) in sorted {
        let path = format!("{path}.{field}");
        if SHOWN_ELSEWHERE.contains(&path.as_str()) {
            continue;
        }
        let label = in_words(field);
        match value {
            Value::Object(inner) => {
                page.line(level, format_args!("{label}:"));
                walk(inner, level + 1, &path, page);
            }
            Value::Array(items) => {
                page.line(level, format_args!("{label}:"));
                for item in items {
                    match item {
                        Value::Object(inner) => walk(inner, level + 1, &path, page),
                        leaf => page.line(level + 1, plain(leaf)),
                    }
                }
            }
            leaf => page.field(level, &label, plain(leaf)),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        // Go's word for it.
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

/// `restartPolicy` is `Restart Policy`, `podCIDRs` is `Pod CIDRs`; names with other signs stay as they are.
fn in_words(field: &str) -> String {
    if field.chars().any(|c| !c.is_alphabetic() && c != '-') {
        return field.to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    let mut parts = split(field).into_iter().peekable();
    while let Some(mut part) = parts.next() {
        let capitals = part.chars().all(|c| !c.is_alphabetic() || c.is_uppercase());
        if part.len() >= 2
            && capitals
            && let Some(next) = parts.next_if(|next| next.starts_with(char::is_uppercase))
        {
            // The plural of an acronym.
            part.push_str(&next);
        }
        words.push(part);
    }
    let capital = |word: String| {
        if ACRONYMS.contains(&word.to_uppercase().as_str()) {
            return word.to_uppercase();
        }
        if word != word.to_lowercase() {
            return word;
        }
        let mut characters = word.chars();
        characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
    };
    words.into_iter().map(capital).collect::<Vec<_>>().join(" ")
}

/// Runs of lower case, of upper case and of other signs; the last capital before lower case belongs to what follows.
fn split(field: &str) -> Vec<String> {
    let class = |c: char| {
        if c.is_lowercase() {
            1
        } else if c.is_uppercase() {
            2
        } else {
            3
        }
    };
    let mut runs: Vec<String> = Vec::new();
    let mut last = 0;
    for c in field.chars() {
        match runs.last_mut().filter(|_| class(c) == last) {
            Some(run) => run.push(c),
            None => runs.push(c.to_string()),
        }
        last = class(c);
    }
    for at in 0..runs.len().saturating_sub(1) {
        if runs[at].starts_with(char::is_uppercase)
            && runs[at + 1].starts_with(char::is_lowercase)
            && let Some(capital) = runs[at].pop()
        {
            runs[at + 1].insert(0, capital);
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_in_words() {
        let check = |field: &str, expected: &str| assert_eq!(super::in_words(field), expected);
        check("restartPolicy", "Restart Policy");
        check("apiVersion", "API Version");
        check("uid", "UID");
        check("podCIDR", "Pod CIDR");
        check("podCIDRs", "Pod CIDRs");
        check("externalURL", "External URL");
        check("a.b/c", "a.b/c");
    }
}
