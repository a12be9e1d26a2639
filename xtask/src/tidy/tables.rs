//! Agreement of tables with what they stand for: a family of things is a folder of files of one shape plus one static
//! table, and a file without its row is dead code; the schema table is what codegen makes of the published documents.
use anyhow::Result;

use super::source::Tree;

/// A folder whose files each have a row in a table.
struct Family {
    folder: &'static str,
    /// The file that holds the table.
    table: &'static str,
    /// Files of the folder that serve the whole family.
    shared: &'static [&'static str],
}

/// A new family joins by a row here.
const FAMILIES: &[Family] = &[
    Family { folder: "xtask/src/tidy", table: "xtask/src/tidy.rs", shared: &["source"] },
    Family { folder: "testtool/src", table: "testtool/src/main.rs", shared: &["main", "dns"] },
];

pub fn families(tree: &Tree) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for family in FAMILIES {
        let Some(table) = tree.files.iter().find(|file| file.path == family.table) else {
            findings.push(format!("{} holds no table", family.table));
            continue;
        };
        let members = tree
            .files
            .iter()
            .filter(|file| file.path.rsplit_once('/').is_some_and(|(folder, _)| folder == family.folder));
        for file in members.filter(|file| file.path != family.table && !family.shared.contains(&file.stem())) {
            if !table.code.contains(&format!("{}::", file.stem())) {
                findings.push(format!("{} has no row in {}", file.path, family.table));
            }
        }
    }
    Ok(findings)
}

pub fn schema(_: &Tree) -> Result<Vec<String>> {
    Ok(crate::codegen::run(&["--check".to_owned()]).err().map(|error| format!("{error:#}")).into_iter().collect())
}
