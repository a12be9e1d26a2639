//! `up`: control plane and node in one process, over the in-process transport.

use std::time::Instant;

use clap::Args;
use xebec_base::{Shutdown, SystemClock};

use super::control::{self, NodeOptions};
use super::{agent, server};
use crate::control_plane::ControlPlane;
use crate::data_dir::DataDir;

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    server: server::Options,
    #[command(flatten)]
    node: NodeOptions,
}

pub async fn run(options: Options) -> anyhow::Result<i32> {
    let began = Instant::now();
    let shutdown = Shutdown::new();
    let data = DataDir::new(&options.server.data_dir);
    let plane = ControlPlane::start(options.server.control_plane(), SystemClock::shared(), shutdown.clone()).await?;
    let pid_file = agent::write_pid(&data)?;
    let config = agent::node_config(&options.node, data, options.server.net.net());
    let started = match plane.node(&config) {
        Ok(around) => crate::node::start(config, around).await,
        Err(error) => Err(error),
    };
    if let Err(error) = started {
        control::end(&shutdown).await;
        plane.close().await;
        return Err(error);
    }
    println!("ready in {} ms, kubeconfig {}", began.elapsed().as_millis(), plane.kubeconfig.display());
    control::until_signal().await?;
    control::end(&shutdown).await;
    plane.close().await;
    drop(pid_file);
    Ok(0)
}
