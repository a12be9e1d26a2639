//! The verbs of kubectl that a machine without kubectl needs, one file a verb, printing as kubectl prints.
//!
//! Every verb is an ordinary API user over a [`session::Session`]; what there is to name is asked of discovery, and Tables come
//! from the server, so a kind that the server serves works here without a line about it. What went wrong goes to standard error
//! in kubectl's words ([`failure`]).

pub mod apply;
pub mod create;
pub mod delete;
pub mod describe;
pub mod exec;
pub mod get;
pub mod label;
pub mod logs;
pub mod port_forward;
pub mod rollout;
pub mod scale;

pub mod age;
pub mod failure;
pub mod manifests;
pub mod names;
pub mod pods;
pub mod print;
pub mod session;
pub mod tabs;
pub mod three_way;
pub mod yaml;

use clap::{Args, Subcommand};

pub use session::Session;

/// Where the API server is and as whom to speak to it.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// The kubeconfig file to use
    #[arg(long, global = true, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<std::path::PathBuf>,
    /// The context of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The namespace of the request
    #[arg(long, short, global = true, value_name = "NAME", overrides_with = "namespace")]
    pub namespace: Option<String>,
}

#[derive(Subcommand, Clone, Debug)]
pub enum Verb {
    /// Create what a file describes
    Create(create::Options),
    /// Make the cluster hold what a file describes, changing only what the file says
    Apply(apply::Options),
    /// Show objects
    Get(get::Options),
    /// Show objects in detail, with their events
    Describe(describe::Options),
    /// Delete objects by name, file or selector
    Delete(delete::Options),
    /// Print what a container wrote
    Logs(logs::Options),
    /// Run a command in a container
    Exec(exec::Options),
    /// Forward local ports to a Pod
    PortForward(port_forward::Options),
    /// Set the number of replicas
    Scale(scale::Options),
    /// Follow, undo, repeat or hold up the change of a workload
    #[command(subcommand)]
    Rollout(rollout::Action),
    /// Set and remove labels
    Label(label::Options),
    /// Set and remove annotations
    Annotate(label::Options),
}

/// Runs a verb and says on standard error what went wrong; the number is the exit code.
pub async fn run(global: &Global, verb: Verb) -> i32 {
    match attempt(global, verb).await {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}

async fn attempt(global: &Global, verb: Verb) -> anyhow::Result<i32> {
    let session = Session::open(global).await?;
    match verb {
        Verb::Create(options) => create::run(&session, options).await,
        Verb::Apply(options) => apply::run(&session, options).await,
        Verb::Get(options) => get::run(&session, options).await,
        Verb::Describe(options) => describe::run(&session, options).await,
        Verb::Delete(options) => delete::run(&session, options).await,
        Verb::Logs(options) => logs::run(&session, options).await,
        Verb::Exec(options) => exec::run(&session, options).await,
        Verb::PortForward(options) => port_forward::run(&session, options).await,
        Verb::Scale(options) => scale::run(&session, options).await,
        Verb::Rollout(action) => rollout::run(&session, action).await,
        Verb::Label(options) => label::run(&session, options, label::Map::Labels).await,
        Verb::Annotate(options) => label::run(&session, options, label::Map::Annotations).await,
    }
}
