use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    global: xebec_cli::Global,
    #[command(subcommand)]
    verb: xebec_cli::Verb,
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let line = Line::parse();
    std::process::ExitCode::from(xebec_cli::run(&line.global, line.verb).await as u8)
}
