//! Agreement of tables with what they stand for: a family of things is a folder of files of one shape plus one static
//! table, and a file without its row is dead code; the schema table is what codegen makes of the published documents.
use anyhow::Result;

use super::source::Tree;

/// A folder whose files each have a row in a table.
struct Family {
    /// With `/*` at its end: the folders in it, one level down.
    folder: &'static str,
    /// The file that holds the table.
    table: &'static str,
    /// What only a member's code holds; the other files are parts of members.
    mark: &'static str,
    /// Files of the folder that serve the whole family.
    shared: &'static [&'static str],
}

/// A new family joins by a row here.
const FAMILIES: &[Family] = &[
    Family {
        folder: "crates/apiserver/src/resources/*",
        table: "crates/apiserver/src/resources/mod.rs",
        mark: " Strategy for ",
        shared: &[],
    },
    Family {
        folder: "crates/controllers/src",
        table: "crates/controllers/src/table.rs",
        mark: "",
        shared: &["lib", "discovered", "history", "pod_writer"],
    },
    Family {
        folder: "crates/scheduler/src/plugins",
        table: "crates/scheduler/src/plugins/mod.rs",
        mark: "",
        shared: &[],
    },
    Family {
        folder: "crates/cli/src",
        table: "crates/cli/src/lib.rs",
        mark: "",
        shared: &["age", "failure", "manifests", "names", "pods", "print", "session", "tabs", "three_way", "yaml"],
    },
    Family {
        folder: "crates/xebec/src/commands",
        table: "crates/xebec/src/commands/mod.rs",
        mark: "",
        shared: &["control"],
    },
    Family { folder: "xtask/src/tidy", table: "xtask/src/tidy.rs", mark: "", shared: &["source"] },
    Family { folder: "testtool/src", table: "testtool/src/main.rs", mark: "", shared: &["main", "dns"] },
];

pub fn families(tree: &Tree) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for family in FAMILIES {
        let Some(table) = tree.files.iter().find(|file| file.path == family.table) else {
            findings.push(format!("{} holds no table", family.table));
            continue;
        };
        for file in tree.files.iter().filter(|file| belongs(&file.path, family) && file.code.contains(family.mark)) {
            if !table.code.contains(&format!("{}::", file.stem())) {
                findings.push(format!("{} has no row in {}", file.path, family.table));
            }
        }
    }
    Ok(findings)
}

fn belongs(path: &str, family: &Family) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else { return false };
    let inside = match family.folder.strip_suffix("/*") {
        Some(above) => folder.rsplit_once('/').is_some_and(|(parent, _)| parent == above),
        None => folder == family.folder,
    };
    let stem = name.trim_end_matches(".rs");
    inside && stem != "mod" && path != family.table && !family.shared.contains(&stem)
}

pub fn schema(_: &Tree) -> Result<Vec<String>> {
    Ok(crate::codegen::run(&["--check".to_owned()]).err().map(|error| format!("{error:#}")).into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_belong_to_the_family_of_their_folder() {
        let family = |folder| Family { folder, table: "a/table.rs", mark: "", shared: &["words"] };
        let check = |path: &str, folder, expected| assert_eq!(belongs(path, &family(folder)), expected, "{path}");
        check("a/one.rs", "a", true);
        check("a/table.rs", "a", false);
        check("a/words.rs", "a", false);
        check("a/b/one.rs", "a", false);
        check("a/b/one.rs", "a/*", true);
        check("a/b/mod.rs", "a/*", false);
        check("a/one.rs", "a/*", false);
    }
}
