//! The rules of the tree that a program can check, as one table of checks. They run as `cargo xtask tidy` and as an
//! ordinary test. They rely on the text of the sources and on `cargo metadata`; they judge no style that rustfmt or
//! clippy judge already.
use anyhow::{Result, bail};

mod dependencies;
mod names;
mod size;
mod source;
mod tables;

use source::Tree;

struct Check {
    name: &'static str,
    /// Returns one line for each finding.
    run: fn(&Tree) -> Result<Vec<String>>,
}

const CHECKS: &[Check] = &[
    Check { name: "the dependency table of ARCHITECTURE.md is what cargo sees", run: dependencies::table },
    Check { name: "no component imports another component", run: dependencies::components },
    Check { name: "files and functions keep their size", run: size::check },
    Check { name: "every module opens with what it is", run: names::headings },
    Check { name: "no name is a drawer for anything", run: names::drawers },
    Check { name: "nothing is left open", run: names::unfinished },
    Check { name: "every file of a family has its row in the family's table", run: tables::families },
    Check { name: "the schema table is what codegen makes", run: tables::schema },
];

/// Runs every check and prints what each found.
///
/// # Errors
/// At least one check found something, or could not run.
pub fn run() -> Result<()> {
    let tree = Tree::read(crate::workspace::root())?;
    let mut count = 0;
    for check in CHECKS {
        for finding in (check.run)(&tree)? {
            println!("{}: {finding}", check.name);
            count += 1;
        }
    }
    if count > 0 {
        bail!("{count} findings");
    }
    println!("{} files are tidy", tree.files.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tree_is_tidy() {
        if let Err(error) = super::run() {
            panic!("{error:#}, printed above");
        }
    }
}
