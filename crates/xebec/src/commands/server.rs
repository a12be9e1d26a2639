//! `server`: the control plane alone.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use xebec_base::{Shutdown, SystemClock};

use super::control::{self, NetOptions};
use crate::access::options::AccessOptions;
use crate::control_plane::{self, ControlPlane};
use crate::data_dir::{self, DataDir};

#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Options {
    /// The folder that everything is kept in
    #[arg(long, default_value = data_dir::DEFAULT, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The address to serve on
    #[arg(long, default_value = "0.0.0.0", value_name = "ADDRESS")]
    pub bind_address: IpAddr,
    /// The address that others are told; by default the bound one, or that of the interface with the default route
    #[arg(long, value_name = "ADDRESS")]
    pub advertise_address: Option<IpAddr>,
    /// The port to serve HTTPS on; 0 takes a free one
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    pub secure_port: u16,
    /// Parts to leave out, for others to do their work
    #[arg(long, value_delimiter = ',', value_name = "PARTS")]
    pub disable: Vec<Part>,
    #[command(flatten)]
    pub access: AccessOptions,
    #[command(flatten)]
    pub net: NetOptions,
}

/// A part of the control plane that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    Controllers,
    Scheduler,
}

impl Options {
    pub fn control_plane(&self) -> control_plane::Config {
        control_plane::Config {
            data: DataDir::new(&self.data_dir),
            bind_address: self.bind_address,
            advertise_address: self.advertise_address,
            secure_port: self.secure_port,
            access: self.access.clone(),
            controllers: !self.disable.contains(&Part::Controllers),
            scheduler: !self.disable.contains(&Part::Scheduler),
            net: self.net.net(),
        }
    }
}

pub async fn run(options: Options) -> anyhow::Result<i32> {
    let began = Instant::now();
    let shutdown = Shutdown::new();
    let plane = ControlPlane::start(options.control_plane(), SystemClock::shared(), shutdown.clone()).await?;
    println!("ready in {} ms, kubeconfig {}", began.elapsed().as_millis(), plane.kubeconfig.display());
    control::until_signal().await?;
    control::end(&shutdown).await;
    plane.close().await;
    Ok(0)
}
