//! Results as kubectl prints them: a server's Tables, YAML, JSON, names.

use std::fmt::Display;
use std::io::{self, Write};

use serde_json::{Map, Value};

use crate::session::text;
use crate::tabs;
use crate::yaml;

/// Writes to standard output. Whoever reads it may stop (`| head`): that is an error here, and no panic.
pub fn out(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    out.flush()
}

/// Writes a line to standard output.
pub fn line(text: impl Display) -> io::Result<()> {
    out(format_args!("{text}\n"))
}

/// How a server's Table is shown.
#[derive(Clone, Debug, Default)]
pub struct TableStyle {
    pub wide: bool,
    pub with_namespace: bool,
    pub no_headers: bool,
    pub show_labels: bool,
    /// Labels that get a column each.
    pub label_columns: Vec<String>,
    /// What goes before each name, `pod/`.
    pub prefix: String,
}

/// Prints Tables of one kind, whose heading is printed once.
#[derive(Default)]
pub struct TablePrinter {
    style: TableStyle,
    /// The server sends the columns once; later events of a watch have none.
    columns: Vec<Column>,
    text: String,
    widths: Vec<usize>,
}

#[derive(Clone, PartialEq)]
struct Column {
    name: String,
    is_name: bool,
    priority: i64,
}

impl TablePrinter {
    pub fn new(style: TableStyle) -> Self {
        TablePrinter { style, ..TablePrinter::default() }
    }

    /// Takes a Table; nothing of one without rows is shown.
    pub fn add(&mut self, table: &Value) {
        let columns = columns(table);
        let rows = table["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
        if rows.is_empty() {
            return;
        }
        if !columns.is_empty() && columns != self.columns {
            self.columns = columns;
            self.heading();
        }
        for row in rows {
            self.row(row);
        }
    }

    /// The lines since the last call, under the columns of all before.
    pub fn take(&mut self) -> String {
        tabs::TABLE.align_remembering(&std::mem::take(&mut self.text), &mut self.widths)
    }

    fn heading(&mut self) {
        if self.style.no_headers {
            return;
        }
        let mut names: Vec<String> = Vec::new();
        names.extend(self.style.with_namespace.then(|| "NAMESPACE".to_owned()));
        names.extend(self.shown().map(|(_, column)| column.name.to_uppercase()));
        let last = |label: &String| label.rsplit('/').next().unwrap_or(label).to_uppercase();
        names.extend(self.style.label_columns.iter().map(last));
        names.extend(self.style.show_labels.then(|| "LABELS".to_owned()));
        self.line(&names);
    }

    fn row(&mut self, row: &Value) {
        let meta = &row["object"]["metadata"];
        let mut cells: Vec<String> = Vec::new();
        cells.extend(self.style.with_namespace.then(|| text(meta, "namespace").to_owned()));
        for (at, column) in self.shown() {
            let text = cell(&row["cells"][at]);
            cells.push(if column.is_name { format!("{}{text}", self.style.prefix) } else { text });
        }
        cells.extend(self.style.label_columns.iter().map(|label| text(&meta["labels"], label).to_owned()));
        cells.extend(self.style.show_labels.then(|| labels(&meta["labels"])));
        self.line(&cells);
    }

    fn shown(&self) -> impl Iterator<Item = (usize, &Column)> {
        self.columns.iter().enumerate().filter(|(_, column)| self.style.wide || column.priority == 0)
    }

    fn line(&mut self, cells: &[String]) {
        self.text.push_str(&cells.join("\t"));
        self.text.push('\n');
    }
}

fn columns(table: &Value) -> Vec<Column> {
    let definitions = table["columnDefinitions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let column = |definition: &Value| Column {
        name: text(definition, "name").to_owned(),
        is_name: text(definition, "format") == "name",
        priority: definition["priority"].as_i64().unwrap_or(0),
    };
    definitions.iter().map(column).collect()
}

/// One line of text: a longer one is cut at its first line, and no control sequence reaches the terminal.
fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => match text.find(['\n', '\r', '\x0c']) {
            Some(end) => format!("{}...", escaped(&text[..end])),
            None => escaped(text),
        },
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Text that comes from the cluster, without the signs that would command a terminal.
pub fn escaped(text: &str) -> String {
    text.replace('\x1b', "^[").replace('\r', "\\r").replace(tabs::BREAK, "")
}

/// `a=b,c=d` or `<none>`.
pub fn labels(labels: &Value) -> String {
    let mut pairs: Vec<String> = match labels.as_object() {
        Some(labels) => labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or(""))).collect(),
        None => Vec::new(),
    };
    pairs.sort();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// An object in one of the formats that show all of it.
pub fn object(value: &Value, format: &str) -> String {
    match format {
        "yaml" => yaml::to_string(value),
        "json" => json(value),
        _ => format!("{}\n", name(value)),
    }
}

/// `pod/a`, `deployment.apps/b`.
pub fn name(object: &Value) -> String {
    let (group, _) = text(object, "apiVersion").split_once('/').unwrap_or(("", ""));
    let dot = if group.is_empty() { "" } else { "." };
    format!("{}{dot}{group}/{}", text(object, "kind").to_lowercase(), text(&object["metadata"], "name"))
}

/// Indented and in the order of Go's maps, as kubectl writes JSON.
fn json(value: &Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    // A value that is in memory can be written to memory.
    serde::Serialize::serialize(&sorted(value), &mut serializer).unwrap_or_default();
    out.push(b'\n');
    html_safe(&String::from_utf8_lossy(&out))
}

/// On one line, in the order of Go's maps: what kubectl records as the last applied configuration.
pub fn compact_json(value: &Value) -> String {
    html_safe(&sorted(value).to_string())
}

/// Go's encoder escapes the signs of HTML, which can stand only within strings.
fn html_safe(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => safe.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => safe.push(c),
        }
    }
    safe
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries = entries.into_iter().map(|(key, value)| (key.clone(), sorted(value)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        leaf => leaf.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_print_as_kubectl_prints_them() {
        let value = json!({
            "columnDefinitions": [{"name": "Name", "format": "name"}, {"name": "Ready"}, {"name": "IP", "priority": 1}],
            "rows": [{"cells": ["a", "1/1", "10.0.0.1"], "object": {"metadata": {"namespace": "n", "labels": {"x/y": "z"}}}},
                     {"cells": ["longer", "two\nlines", null], "object": {"metadata": {"namespace": "n"}}}]});
        let check = |style: TableStyle, expected: &str| {
            let mut printer = TablePrinter::new(style);
            printer.add(&value);
            assert_eq!(printer.take(), expected);
        };
        check(TableStyle::default(), "NAME     READY\na        1/1\nlonger   two...\n");
        check(
            TableStyle { prefix: "pod/".into(), no_headers: true, ..TableStyle::default() },
            "pod/a        1/1\npod/longer   two...\n",
        );
        check(
            TableStyle { wide: true, with_namespace: true, label_columns: vec!["x/y".into()], ..TableStyle::default() },
            concat!(
                "NAMESPACE   NAME     READY    IP         Y\n",
                "n           a        1/1      10.0.0.1   z\n",
                "n           longer   two...              \n"
            ),
        );
    }

    #[test]
    fn later_rows_stay_under_the_heading() {
        let row = |name: &str| json!({"rows": [{"cells": [name, "x"]}]});
        let mut printer = TablePrinter::new(TableStyle::default());
        let mut first = row("a-long-name");
        first["columnDefinitions"] = json!([{"name": "Name"}, {"name": "Up"}]);
        printer.add(&first);
        assert_eq!(printer.take(), "NAME          UP\na-long-name   x\n");
        printer.add(&row("b"));
        assert_eq!(printer.take(), "b             x\n");
    }

    #[test]
    fn json_is_written_as_go_writes_it() {
        let value = json!({"b": "<&>", "a": [1]});
        assert_eq!(
            object(&value, "json"),
            "{\n    \"a\": [\n        1\n    ],\n    \"b\": \"\\u003c\\u0026\\u003e\"\n}\n"
        );
        assert_eq!(compact_json(&value), "{\"a\":[1],\"b\":\"\\u003c\\u0026\\u003e\"}");
    }
}
