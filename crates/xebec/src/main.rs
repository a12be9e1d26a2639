//! The program: a CNI plugin when it is started by the plugin's name, else the command line.

use std::process::ExitCode;

use clap::Parser;
use xebec::commands::{self, CommandLine};
use xebec::heap::SamplingAllocator;

#[global_allocator]
static ALLOCATOR: SamplingAllocator = SamplingAllocator;

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&name).file_name().unwrap_or_default();
    let variable = |name: &str| std::env::var(name).ok();
    if name == xebec_network::PLUGIN_NAME {
        return plugin(xebec_network::plugin::main(&variable, std::io::stdin()));
    }
    if name == xebec_network::LOOPBACK_NAME {
        return plugin(xebec_network::plugin::loopback(&variable, std::io::stdin()));
    }
    let line = CommandLine::parse();
    xebec_base::telemetry::init("warn,xebec=info");
    xebec_apiserver::profile::set_heap_source(xebec::heap::profile);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let code = match runtime.block_on(commands::run(line)) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => complain(&error),
    };
    // Threads that wait for standard input or the like hold nobody up.
    runtime.shutdown_background();
    code
}

fn complain(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<xebec_client::Error>().and_then(xebec_client::Error::status) {
        Some(status) => eprintln!("Error from server ({}): {status}", status.reason()),
        None => eprintln!("error: {error:#}"),
    }
    ExitCode::FAILURE
}

fn plugin(outcome: xebec_network::plugin::Outcome) -> ExitCode {
    use std::io::Write;
    if std::io::stdout().write_all(outcome.stdout.as_bytes()).is_err() {
        return ExitCode::FAILURE;
    }
    ExitCode::from(u8::try_from(outcome.exit_code).unwrap_or(1))
}
