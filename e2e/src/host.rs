//! A host for one cluster: a network namespace with a veth pair to the machine. A program enters it with `nsenter`, which
//! keeps the control-group mounts that `ip netns exec` would hide.
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result};

use crate::capture;

/// Hosts of one test program count from 0; the program's id keeps those of several programs apart.
static NUMBER: AtomicU8 = AtomicU8::new(0);

pub struct Host {
    name: String,
    network: [u8; 3],
}

impl Host {
    /// Makes the namespace; its address is `.2` of a network of its own, the machine's side is `.1`.
    ///
    /// # Errors
    /// Not root, or iproute2 is missing.
    pub fn new() -> Result<Self> {
        let (program, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        // 198.18.0.0/15 is set aside for tests of networks (RFC 2544), so that no real one is hidden.
        let network = [198, 18 + (program >> 8 & 1) as u8, (program as u8).wrapping_add(number.wrapping_mul(37))];
        let host = Self { name: format!("xe{program}-{number}"), network };
        let (name, near, far) = (host.name.as_str(), host.near().to_string(), host.address().to_string());
        let inside = format!("ve{program}-{number}");
        for words in [
            vec!["netns", "add", name],
            vec!["link", "add", &inside, "type", "veth", "peer", "name", "eth0", "netns", name],
            vec!["addr", "add", &format!("{near}/24"), "dev", &inside],
            vec!["link", "set", &inside, "up"],
            vec!["-n", name, "link", "set", "lo", "up"],
            vec!["-n", name, "addr", "add", &format!("{far}/24"), "dev", "eth0"],
            // A link-local address would complete itself at some later moment, and change the host behind a test's back.
            vec!["-n", name, "link", "set", "eth0", "addrgenmode", "none"],
            vec!["-n", name, "link", "set", "eth0", "up"],
            vec!["-n", name, "route", "add", "default", "via", &near],
        ] {
            capture(Command::new("ip").args(&words))?.success().with_context(|| format!("ip {}", words.join(" ")))?;
        }
        Ok(host)
    }

    /// The address under which the machine reaches this host.
    pub fn address(&self) -> Ipv4Addr {
        let [a, b, c] = self.network;
        Ipv4Addr::new(a, b, c, 2)
    }

    /// `program` inside of the namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        command
    }

    fn near(&self) -> Ipv4Addr {
        let [a, b, c] = self.network;
        Ipv4Addr::new(a, b, c, 1)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Its links go with the namespace.
        let _ = capture(Command::new("ip").args(["netns", "del", &self.name]));
    }
}
