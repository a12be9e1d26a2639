//! The table of crates in ARCHITECTURE.md against `cargo metadata`: every crate has a row, every row a crate, and each
//! depends on exactly what its row names. From the same table follows which crates are components, and that none of them
//! depends on another. Dependencies of tests alone do not count.
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::source::Tree;
use crate::workspace::output;

const PAGE: &str = "ARCHITECTURE.md";
const COLUMNS: &str = "| crate | kind | what | depends on |";

struct Row {
    kind: String,
    dependencies: BTreeSet<String>,
}

pub fn table(tree: &Tree) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(tree.root.join(PAGE)).with_context(|| format!("reading {PAGE}"))?;
    Ok(compare(&rows(&text)?, &crates(tree)?))
}

pub fn components(tree: &Tree) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(tree.root.join(PAGE)).with_context(|| format!("reading {PAGE}"))?;
    Ok(imports(&rows(&text)?, &crates(tree)?))
}

fn compare(rows: &BTreeMap<String, Row>, crates: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, real) in crates {
        let Some(row) = rows.get(name) else {
            findings.push(format!("{name} has no row"));
            continue;
        };
        let extra =
            real.difference(&row.dependencies).map(|other| format!("{name} depends on {other}, its row does not"));
        let stale =
            row.dependencies.difference(real).map(|other| format!("{name} does not depend on {other}, its row does"));
        findings.extend(extra.chain(stale));
    }
    let gone = rows.keys().filter(|name| !crates.contains_key(*name));
    findings.extend(gone.map(|name| format!("{name} has a row but is no crate")));
    findings
}

fn imports(rows: &BTreeMap<String, Row>, crates: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let is_component = |name: &str| rows.get(name).is_some_and(|row| row.kind == "component");
    let users = crates.iter().filter(|(name, _)| is_component(name));
    let pairs = users.flat_map(|(name, real)| real.iter().map(move |other| (name, other)));
    pairs.filter(|(_, other)| is_component(other)).map(|(name, other)| format!("{name} imports {other}")).collect()
}

/// The rows below the table's head; `-` stands for no dependency.
fn rows(page: &str) -> Result<BTreeMap<String, Row>> {
    let lines = page.lines().skip_while(|line| line.trim() != COLUMNS).skip(2).take_while(|line| line.starts_with('|'));
    let mut rows = BTreeMap::new();
    for line in lines {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, _, dependencies] = cells.as_slice() else { bail!("{PAGE}: {line} has not four cells") };
        let dependencies = dependencies.split_whitespace().filter(|word| *word != "-").map(str::to_owned).collect();
        rows.insert(name.trim_matches('`').to_owned(), Row { kind: (*kind).to_owned(), dependencies });
    }
    if rows.is_empty() {
        bail!("{PAGE} has no table with the head {COLUMNS}");
    }
    Ok(rows)
}

/// The crates below `crates/`, by the names of their folders, with the crates of ours that each depends on.
fn crates(tree: &Tree) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--no-deps", "--format-version=1", "--offline"];
    let text = output(Command::new(cargo).args(arguments).current_dir(&tree.root))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let house = tree.root.join("crates");
    let folder = |path: &str| {
        let path = std::path::Path::new(path);
        let folder = if path.ends_with("Cargo.toml") { path.parent()? } else { path };
        let inside = folder.strip_prefix(house.canonicalize().ok()?).or_else(|_| folder.strip_prefix(&house)).ok()?;
        Some(inside.to_string_lossy().into_owned())
    };
    let mut crates = BTreeMap::new();
    for package in metadata["packages"].as_array().context("cargo metadata names no packages")? {
        let Some(name) = package["manifest_path"].as_str().and_then(&folder) else { continue };
        let all = package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
        let real = all.iter().filter(|dependency| dependency["kind"] != "dev");
        crates.insert(name, real.filter_map(|dependency| folder(dependency["path"].as_str()?)).collect());
    }
    Ok(crates)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "text\n\n| crate | kind | what | depends on |\n|---|---|---|---|\n| `base` | vocabulary | x | - |\n\
                         | `dns` | component | y | base |\n| `proxy` | component | z | base |\n\nmore\n| a | b | c | d |\n";

    fn check(crates: &[(&str, &[&str])], expected: &[&str]) {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let crates = crates.iter().map(|(name, others)| ((*name).to_owned(), set(others))).collect();
        let rows = rows(TABLE).expect("a table");
        let found = [compare(&rows, &crates), imports(&rows, &crates)].concat();
        assert_eq!(found, expected);
    }

    #[test]
    fn table_and_crates_agree() {
        check(&[("base", &[]), ("dns", &["base"]), ("proxy", &["base"])], &[]);
        check(&[("base", &[]), ("dns", &[]), ("proxy", &["base"])], &["dns does not depend on base, its row does"]);
        check(&[("base", &[]), ("dns", &["base"]), ("proxy", &["base"]), ("new", &[])], &["new has no row"]);
        check(&[("base", &[]), ("dns", &["base"])], &["proxy has a row but is no crate"]);
        check(
            &[("base", &[]), ("dns", &["base", "proxy"]), ("proxy", &["base"])],
            &["dns depends on proxy, its row does not", "dns imports proxy"],
        );
    }
}
