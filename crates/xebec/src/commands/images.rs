//! `images import FILE`: loads an archive of images into the node's own containerd.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use xebec_kubelet::image::imported::Record;

use crate::data_dir::{self, DataDir};

#[derive(Args, Debug)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Load an OCI or Docker archive
    Import {
        /// The archives
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The data directory of the agent
        #[arg(long, default_value = data_dir::DEFAULT, value_name = "DIR")]
        data_dir: PathBuf,
    },
}

pub async fn run(options: Options) -> anyhow::Result<i32> {
    let Command::Import { files, data_dir } = options.command;
    let data = DataDir::new(data_dir);
    let record = Record::at(data.imported_images());
    let socket = data.containerd().join("c.sock");
    if !socket.exists() {
        anyhow::bail!("there is no containerd at {}: start a node with 'xebec up' first", socket.display());
    }
    for file in files {
        let said = xebec_cri::containerd::import_images(&socket, &file).await?;
        let names: Vec<String> = said.lines().filter_map(imported_name).map(str::to_owned).collect();
        record
            .add(names.iter().cloned())
            .with_context(|| format!("cannot write {}", data.imported_images().display()))?;
        names.iter().for_each(|name| println!("imported {name}"));
    }
    Ok(0)
}

/// The image in a line of what ctr says: `unpacking NAME (sha256:…)...done` until 1.7, `NAME saved` from 2.0.
fn imported_name(line: &str) -> Option<&str> {
    let line = line.trim();
    let name = line.strip_prefix("unpacking ").unwrap_or(line).split_whitespace().next()?;
    (name.contains('/') && name.contains(':')).then_some(name)
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_of_imported_images() {
        let check = |line: &str, expected: Option<&str>| assert_eq!(super::imported_name(line), expected);
        check("unpacking docker.io/library/redis:latest (sha256:abc)...done", Some("docker.io/library/redis:latest"));
        check("docker.io/library/redis:latest     saved", Some("docker.io/library/redis:latest"));
        check("elapsed: 0.9 s", None);
    }
}
