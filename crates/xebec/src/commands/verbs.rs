#[cfg(feature = "verbs")]
pub use xebec_cli::{Global, Verb, run};
#[cfg(not(feature = "verbs"))]
mod stub {
    #[derive(clap::Args, Clone, Debug, Default)]
    pub struct Global {
        #[arg(long, global = true)]
        pub kubeconfig: Option<std::path::PathBuf>,
        #[arg(long, global = true)]
        pub context: Option<String>,
    }
    #[derive(clap::Subcommand, Clone, Debug)]
    pub enum Verb {
        None,
    }
    pub async fn run(_: &Global, _: Verb) -> anyhow::Result<i32> {
        Ok(1)
    }
}
#[cfg(not(feature = "verbs"))]
pub use stub::*;
