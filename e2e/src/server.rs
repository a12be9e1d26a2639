//! `xebec server` alone: the control plane on loopback with a token, for tests of the API's promises and for measurements.
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{Process, binary, wait_for};

/// The token of the tests' administrator.
pub const TOKEN: &str = "e2e-administrator";
const READY: Duration = Duration::from_secs(30);

pub struct Server {
    pub process: Process,
    pub address: SocketAddr,
    log: PathBuf,
}

impl Server {
    /// Starts a server on the folder `data` and waits until it says that it is ready. `disabled` names the parts that
    /// are not to run, as `--disable` takes them.
    ///
    /// # Errors
    /// It ended, or did not become ready; the end of its log is the message.
    pub fn start(data: &Path, port: u16, disabled: &str) -> Result<Self> {
        let tokens = data.join("tokens.csv");
        std::fs::create_dir_all(data)?;
        std::fs::write(&tokens, format!("{TOKEN},admin,admin,system:masters\n"))?;
        let mut command = Command::new(binary());
        command.arg("server").arg("--data-dir").arg(data).args(["--bind-address", "127.0.0.1", "--secure-port"]);
        command.arg(port.to_string()).arg("--token-auth-file").arg(&tokens);
        if !disabled.is_empty() {
            command.args(["--disable", disabled]);
        }
        let log = data.join("server.log");
        // The line of an earlier start would be taken for this one's.
        let before = std::fs::metadata(&log).map_or(0, |file| file.len()) as usize;
        let mut process = Process::start(&mut command, &log)?;
        wait_for("the server's line about being ready", READY, || {
            let text = std::fs::read(&log)?;
            ensure_running(&mut process, &text[before..])?;
            Ok(String::from_utf8_lossy(&text[before..]).contains("ready in ").then_some(()))
        })?;
        Ok(Self { process, address: (Ipv4Addr::LOCALHOST, port).into(), log })
    }

    /// What the server wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// A port on which nothing listens at the moment.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").context("asking for a free port")?.local_addr()?.port())
}

fn ensure_running(process: &mut Process, log: &[u8]) -> Result<()> {
    let ended = process.has_ended()?;
    ensure!(!ended, "the server has ended:\n{}", String::from_utf8_lossy(log));
    Ok(())
}
