//! Headings and names: every module says at its head what it is, no name is a drawer into which anything fits, and
//! nothing is committed unfinished.
use anyhow::Result;
use regex::Regex;

use super::source::Tree;

const DRAWERS: [&str; 6] = ["common", "helper", "helpers", "misc", "util", "utils"];
const UNFINISHED: &str = r"#\[ignore\b|\b(todo|unimplemented|dbg)!\s*[(\[{]";

pub fn headings(tree: &Tree) -> Result<Vec<String>> {
    let bare = tree.files.iter().filter(|file| !opens_with_heading(&file.text));
    Ok(bare.map(|file| format!("{} does not open with //!", file.path)).collect())
}

pub fn drawers(tree: &Tree) -> Result<Vec<String>> {
    let pattern = Regex::new(
        r"\b(?:struct|enum|trait|type|mod)\s+(\w*(?:Manager|Impl|Utils|Helpers?)|utils?|common|helpers?)\b",
    )?;
    let mut findings = Vec::new();
    for file in &tree.files {
        let folders = file.path.trim_end_matches(".rs").split('/');
        if let Some(name) = folders.into_iter().find(|name| DRAWERS.contains(name)) {
            findings.push(format!("{}: {name} says nothing about what is in it", file.path));
        }
        findings.extend(matches(&pattern, &file.code).map(|(line, name)| format!("{}:{line}: {name}", file.path)));
    }
    Ok(findings)
}

pub fn unfinished(tree: &Tree) -> Result<Vec<String>> {
    let pattern = Regex::new(UNFINISHED)?;
    let found = tree.files.iter().flat_map(|file| {
        matches(&pattern, &file.code).map(move |(line, text)| format!("{}:{line}: {text}", file.path))
    });
    Ok(found.collect())
}

/// Attributes of a crate (`#![no_std]`) may stand before its heading.
fn opens_with_heading(text: &str) -> bool {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("#!["));
    first.is_some_and(|line| line.starts_with("//! ") && line.len() > 8)
}

/// Each match with its line, counted from 1.
fn matches<'a>(pattern: &'a Regex, code: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let lines = code.lines().enumerate();
    lines.flat_map(|(number, line)| pattern.find_iter(line).map(move |found| (number + 1, found.as_str())))
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;

    fn tree(path: &str, text: &str) -> Tree {
        Tree { root: "/".into(), files: vec![Source::new(path, text)] }
    }

    #[test]
    fn names_and_headings_are_judged() {
        let check = |run: fn(&Tree) -> Result<Vec<String>>, path: &str, text: &str, expected: usize| {
            assert_eq!(run(&tree(path, text)).expect("runs").len(), expected, "{path}: {text}");
        };
        check(headings, "a.rs", "//! What it is.\n", 0);
        check(headings, "a.rs", "#![no_std]\n//! What it is.\n", 0);
        check(headings, "a.rs", "use b;\n", 1);
        check(drawers, "crates/a/src/utils.rs", "", 1);
        check(drawers, "crates/common/src/lib.rs", "", 1);
        check(drawers, "a.rs", "struct PodManager;\n// struct FooImpl\n", 1);
        check(drawers, "a.rs", "struct Managed; struct Implied;\n", 0);
        check(unfinished, "a.rs", &format!("fn a() {{ {}!() }}\n\"{0}!()\";\n", "todo"), 1);
        check(unfinished, "a.rs", &format!("#[{}]\n", "ignore"), 1);
    }
}
