//! Questions about names outside the cluster, asked of the node's own name servers.
//!
//! The servers are those of the node's `resolv.conf`; the file is looked at again when it has changed, because a node may
//! come to its network after its agent, or move to another one. Its search list is not used: what arrives here is a whole
//! name. The cache is hickory's and keeps what the servers' answers allow.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hickory_server::net::runtime::TokioRuntimeProvider;
use hickory_server::net::{DnsError, NetError};
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::{Name, Record, RecordType};
use hickory_server::resolver::TokioResolver;
use hickory_server::resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use parking_lot::Mutex;
use tracing::{debug, info, warn};
use xebec_base::Chain;

/// What the world says about a name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forwarded {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
    /// The SOA record of a negative answer.
    pub authority: Vec<Record>,
}

/// Answers that are kept; a few hundred bytes each.
const CACHE_SIZE: u64 = 4096;

/// For one server and one try. Clients ask again after five seconds, and two servers shall have had their turn by then.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Servers beyond the third are ignored, as by every resolver of the C library.
const SERVER_LIMIT: usize = 3;

pub struct Forwarder {
    resolv_conf: PathBuf,
    /// Our own addresses, which would be asked in a circle.
    excluded: Vec<IpAddr>,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    modified: Option<SystemTime>,
    resolver: Option<Arc<TokioResolver>>,
}

impl Forwarder {
    pub fn new(resolv_conf: PathBuf, excluded: Vec<IpAddr>) -> Self {
        Self { resolv_conf, excluded, current: Mutex::default() }
    }

    /// Asks the world. Without any server the answer is `ServFail`.
    pub async fn lookup(&self, name: &Name, kind: RecordType) -> Forwarded {
        let failed = Forwarded { code: ResponseCode::ServFail, ..Forwarded::default() };
        let Some(resolver) = self.resolver() else { return failed };
        match resolver.lookup(name.clone(), kind).await {
            Ok(lookup) => Forwarded { answers: lookup.answers().to_vec(), ..Forwarded::default() },
            Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => {
                let soa = nothing.soa.map(|soa| soa.into_record_of_rdata());
                Forwarded { code: nothing.response_code, authority: soa.into_iter().collect(), answers: Vec::new() }
            }
            Err(NetError::Dns(DnsError::ResponseCode(code))) => Forwarded { code, ..failed },
            Err(error) => {
                debug!(error = %Chain(&error), %name, %kind, "the node's name servers do not answer");
                failed
            }
        }
    }

    /// The resolver for what `resolv.conf` says now.
    fn resolver(&self) -> Option<Arc<TokioResolver>> {
        let modified = std::fs::metadata(&self.resolv_conf).and_then(|metadata| metadata.modified()).ok();
        let mut current = self.current.lock();
        if current.modified != modified {
            let content = std::fs::read_to_string(&self.resolv_conf).unwrap_or_default();
            let servers = name_servers(&content, &self.excluded);
            info!(?servers, "name servers of the node");
            *current = Current { modified, resolver: self.build(&servers).map(Arc::new) };
        }
        current.resolver.clone()
    }

    fn build(&self, servers: &[IpAddr]) -> Option<TokioResolver> {
        if servers.is_empty() {
            return None;
        }
        let configs = servers.iter().map(|ip| NameServerConfig::udp_and_tcp(*ip)).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), configs);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = TIMEOUT;
        options.cache_size = CACHE_SIZE;
        options.use_hosts_file = ResolveHosts::Never;
        options.edns0 = true;
        builder.build().inspect_err(|error| warn!(error = %Chain(error), "use the node's name servers")).ok()
    }
}

/// The addresses behind `nameserver` in a `resolv.conf`, without our own.
fn name_servers(content: &str, excluded: &[IpAddr]) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        // A link-local address may carry its interface, which the node's other resolvers need and this one cannot use.
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    };
    content.lines().filter_map(address).filter(|ip| !excluded.contains(ip)).take(SERVER_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_from_resolv_conf() {
        let content = "# nameserver 192.0.2.1\nsearch a b\nnameserver 10.96.0.10\n nameserver\t192.0.2.2 # x\n\
                       nameserver fe80::1%eth0\nnameserver fd00::3\nnameserver\nnameserver 192.0.2.4\nnameserver 192.0.2.5\n";
        let own = ["10.96.0.10".parse().unwrap()];
        let servers: Vec<String> = name_servers(content, &own).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.2", "fd00::3", "192.0.2.4"]);
    }
}
