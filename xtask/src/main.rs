//! The project's chores: `images` builds container images without a registry, `tidy` checks the tree against its rules,
//! `codegen` makes the schema table from the published API documents, `fixtures` gathers their filled objects. Nothing here ends up in the binary.
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod codegen;
mod fixtures;
mod images;
mod tidy;
mod workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's chores")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Builds container images as OCI archives; what has not changed is not built again.
    Images(images::Arguments),
    /// Checks the tree against the rules of ARCHITECTURE.md and CONTRIBUTING.md.
    Tidy,
    /// Gathers the filled objects of the Go module k8s.io/api for the protobuf tests.
    Fixtures(fixtures::Arguments),
    /// Makes the schema table from the published API documents.
    #[command(disable_help_flag = true)]
    Codegen {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    match chore {
        Chore::Images(arguments) => images::run(&arguments),
        Chore::Tidy => tidy::run(),
        Chore::Fixtures(arguments) => fixtures::run(&arguments),
        Chore::Codegen { arguments } => codegen::run(&arguments),
    }
}
