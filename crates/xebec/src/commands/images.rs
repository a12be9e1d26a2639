//! `images import FILE`: loads an archive of images into the node's own containerd.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
    let socket = DataDir::new(data_dir).containerd().join("c.sock");
    if !socket.exists() {
        anyhow::bail!("there is no containerd at {}: start a node with 'xebec up' first", socket.display());
    }
    for file in files {
        let said = xebec_cri::containerd::import_images(&socket, &file).await?;
        print!("{said}");
    }
    Ok(0)
}
