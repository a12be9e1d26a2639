//! The command line of the binary: the server's verbs here, kubectl's in `xebec-cli`.

pub mod agent;
pub mod control;
pub mod down;
pub mod images;
pub mod server;
pub mod up;

use clap::{Parser, Subcommand};

/// Kubernetes in one binary.
#[derive(Parser, Debug)]
#[command(name = "xebec", version, about)]
pub struct CommandLine {
    #[command(flatten)]
    pub global: xebec_cli::Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the control plane: API server, store, controllers and scheduler
    Server(server::Options),
    /// Run a node: kubelet, Pod network, Service proxy and DNS
    Agent(agent::Options),
    /// Run a whole cluster of one node in one process
    Up(up::Options),
    /// Stop what 'up' or 'agent' started and remove what it made in the kernel
    Down(down::Options),
    /// Manage the images of the node
    Images(images::Options),
    #[command(flatten)]
    Verb(xebec_cli::Verb),
}

/// Runs a command; the number is the exit code.
pub async fn run(line: CommandLine) -> anyhow::Result<i32> {
    match line.command {
        Command::Server(options) => server::run(options).await,
        Command::Agent(options) => agent::run(options, &line.global).await,
        Command::Up(options) => up::run(options).await,
        Command::Down(options) => down::run(options).await,
        Command::Images(options) => images::run(options).await,
        Command::Verb(verb) => Ok(xebec_cli::run(&line.global, verb).await),
    }
}
