//! Which images were loaded into the node by hand (`xebec images import`). They are never pulled: on a machine without a
//! registry a Pod with the pull policy `Always`, which is the default of `:latest`, could else not start.
//!
//! The record is a file of one name a line; the command appends to it, the agent reads it when it matters.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The record of one node; without a path nothing was ever imported.
#[derive(Clone, Debug, Default)]
pub struct Record {
    path: Option<PathBuf>,
}

impl Record {
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Record { path: Some(path.into()) }
    }

    /// Whether the image of this full name (`docker.io/library/redis:latest`) was imported. A short name is completed as the
    /// runtime completes it.
    pub fn holds(&self, image: &str) -> bool {
        let Some(path) = &self.path else { return false };
        names(path).contains(&completed(image))
    }

    /// Adds names to the record.
    pub fn add(&self, images: impl IntoIterator<Item = String>) -> std::io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut all = names(path);
        all.extend(images);
        let temporary = path.with_extension("new");
        let mut file = std::fs::File::create(&temporary)?;
        for name in all {
            writeln!(file, "{name}")?;
        }
        std::fs::rename(&temporary, path)
    }
}

fn names(path: &Path) -> BTreeSet<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn completed(image: &str) -> String {
    match image.split_once('/') {
        Some((domain, _)) if domain.contains(['.', ':']) || domain == "localhost" => image.to_owned(),
        Some(_) => format!("docker.io/{image}"),
        None => format!("docker.io/library/{image}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imported_images_are_known_by_any_name() {
        let folder = std::env::temp_dir().join(format!("xebec-imported-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let record = Record::at(folder.join("images"));
        record.add(["docker.io/library/redis:latest".to_owned(), "docker.io/a/b:1".to_owned()]).unwrap();
        let check = |image: &str, expected: bool| assert_eq!(record.holds(image), expected, "{image}");
        check("redis:latest", true);
        check("a/b:1", true);
        check("docker.io/a/b:1", true);
        check("a/b:2", false);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
