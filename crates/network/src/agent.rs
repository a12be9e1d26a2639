//! The agent's side: makes and unmakes the networks of Pods when the plugin asks.
//!
//! Requests run side by side; only the choice of an address and the change of host ports are done one after the other.
//! Relies on the record files (`attachments`) for what a former process gave out. Does not decide when a Pod's network
//! is needed: the container runtime does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use ipnet::Ipv4Net;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, info, warn};
use xebec_base::{Chain, Shutdown};
use xebec_netfilter::{Change, Netfilter, Transaction};

use crate::addresses::Addresses;
use crate::attachments::{Attachment, Records, host_interface, is_ours};
use crate::links::{Link, Links, VethPair, mac_of, mac_text};
use crate::plugin::MESSAGE_LIMIT;
use crate::protocol::{Attached, AttachmentKey, Failure, PortMapping, Reply, Request, code};
use crate::{Config, Error, Result, install, namespace, rules};

/// The Pod network of this node.
pub struct PodNetwork {
    config: Config,
    netfilter: Arc<dyn Netfilter>,
    links: Links,
    bridge: Link,
    mtu: u32,
    records: Records,
    state: Mutex<State>,
    listener: UnixListener,
}

struct State {
    addresses: Addresses,
    attachments: BTreeMap<AttachmentKey, Attachment>,
}

/// What a Pod asks for.
struct NewPod<'a> {
    key: AttachmentKey,
    namespace: &'a Path,
    pod: String,
    ports: Vec<PortMapping>,
}

impl PodNetwork {
    /// Makes the bridge and the rules, takes up what a former process left, listens on the socket and then installs the
    /// plugin: from the moment the runtime sees its configuration, Pods can start.
    pub async fn start(config: Config, netfilter: Arc<dyn Netfilter>) -> Result<Self> {
        let links = Links::open(config.namespace.as_deref()).await?;
        let mtu = match config.mtu {
            Some(mtu) => mtu,
            // 1500 is Ethernet's; a node without a default route has nobody to disagree.
            None => links.uplink_mtu().await?.unwrap_or(1500),
        };
        let bridge = links.ensure_bridge(&config.bridge, mac_of(config.gateway()), mtu).await?;
        links.set_addresses(&bridge, &bridge_addresses(&config)).await?;
        set_sysctls(&config).await?;

        let records = Records::open(&config.state_dir)?;
        let state = take_up(&config, &links, &bridge, &records).await?;
        netfilter.apply(&Change::ReplaceTable(rules::table(&config, state.attachments.values())?).into()).await?;
        let listener = listen(&config.socket)?;
        install::install(&config)?;
        info!(range = %config.pod_cidr, bridge = %config.bridge, mtu, pods = state.attachments.len(), "Pod network ready");
        Ok(Self { config, netfilter, links, bridge, mtu, records, state: Mutex::new(state), listener })
    }

    /// Answers the plugin until shutdown. The Pods' networks stay.
    pub async fn serve(self, shutdown: Shutdown) {
        let network = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                () = shutdown.triggered() => return,
                accepted = network.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let network = Arc::clone(&network);
                    // A request in work is finished even during shutdown: half a network helps nobody.
                    shutdown.spawn_draining(async move { network.answer(stream).await });
                }
                Err(error) => warn!(%error, "accept a request of the CNI plugin"),
            }
        }
    }

    async fn answer(&self, mut stream: UnixStream) {
        let mut input = Vec::new();
        let reply = match (&mut stream).take(MESSAGE_LIMIT).read_to_end(&mut input).await {
            Ok(_) => match serde_json::from_slice::<Request>(&input) {
                Ok(request) => self.handle(request).await,
                Err(error) => {
                    Reply::Failed(Failure::new(code::DECODE_FAILURE, format!("understand the request: {error}")))
                }
            },
            Err(error) => return debug!(%error, "read a request of the CNI plugin"),
        };
        let bytes = serde_json::to_vec(&reply).unwrap_or_default();
        if let Err(error) = stream.write_all(&bytes).await {
            debug!(%error, "answer the CNI plugin");
        }
    }

    async fn handle(&self, request: Request) -> Reply {
        let result = match request {
            Request::Add { key, namespace, pod, ports } => {
                self.add(NewPod { key, namespace: &namespace, pod, ports }).await.map(Reply::Attached)
            }
            Request::Del { key } => self.remove(&key).await.map(|()| Reply::Done),
            Request::Check { key, namespace } => self.check(&key, &namespace).await.map(|()| Reply::Done),
            Request::Gc { valid } => self.collect(valid).await.map(|()| Reply::Done),
            Request::Status => Ok(Reply::Done),
        };
        result.unwrap_or_else(|error| {
            let code = match error {
                Error::Exhausted { .. } => code::TRY_AGAIN_LATER,
                Error::Request(_) => code::UNKNOWN_CONTAINER,
                _ => code::NETWORK_FAILURE,
            };
            warn!(error = %Chain(&error), "request of the CNI plugin failed");
            Reply::Failed(Failure::new(code, Chain(&error).to_string()))
        })
    }

    async fn add(&self, new: NewPod<'_>) -> Result<Attached> {
        // A runtime that asks twice has lost what the first answer made.
        self.remove(&new.key).await?;
        let attachment = self.reserve(&new)?;
        let made = self.make(&attachment, new.namespace).await;
        match &made {
            Ok(_) => debug!(pod = attachment.pod, address = %attachment.address, "Pod network made"),
            Err(_) => {
                if let Err(error) = self.remove(&new.key).await {
                    warn!(error = %Chain(&error), pod = attachment.pod, "undo half a Pod network");
                }
            }
        }
        made
    }

    fn reserve(&self, new: &NewPod<'_>) -> Result<Attachment> {
        let mut state = self.state.lock();
        let exhausted = Error::Exhausted { range: self.config.pod_cidr, size: state.addresses.used() };
        let address = state.addresses.allocate().ok_or(exhausted)?;
        let attachment = Attachment {
            key: new.key.clone(),
            pod: new.pod.clone(),
            address,
            host_interface: host_interface(&new.key),
            ports: new.ports.iter().filter(|port| rules::applies(port)).cloned().collect(),
            namespace: new.namespace.to_owned(),
        };
        if let Err(error) = self.records.write(&attachment) {
            state.addresses.release(address);
            return Err(error);
        }
        state.attachments.insert(new.key.clone(), attachment.clone());
        Ok(attachment)
    }

    async fn make(&self, attachment: &Attachment, path: &Path) -> Result<Attached> {
        let (interface, mac) = (attachment.key.interface.as_str(), mac_of(attachment.address));
        let file =
            fs::File::open(path).map_err(|source| Error::Namespace { path: path.display().to_string(), source })?;
        let pair = VethPair {
            host: &attachment.host_interface,
            bridge: self.bridge.index,
            pod: interface,
            pod_mac: mac,
            pod_namespace: &file,
            mtu: self.mtu,
        };
        let (inside, made) = tokio::join!(Links::open(Some(path)), self.links.add_pair(&pair));
        made?;
        let inside = inside?;
        let loopback = inside.by_name("lo").await?;
        inside.set_up(&loopback).await?;
        let link = inside.by_name(interface).await?;
        inside.set_up(&link).await?;
        inside.add_address(&link, Ipv4Net::from(attachment.address)).await?;
        inside.route_through(&link, self.config.gateway()).await?;
        if !attachment.ports.is_empty() {
            let transaction: Transaction = rules::open_ports(attachment)?.into_iter().collect();
            self.netfilter.apply(&transaction).await?;
        }
        let host = self.links.by_name(&attachment.host_interface).await?;
        Ok(Attached {
            host_interface: attachment.host_interface.clone(),
            host_mac: mac_text(&host.mac),
            interface: interface.to_owned(),
            mac: mac_text(&mac),
            namespace: path.to_owned(),
            address: attachment.address,
            gateway: self.config.gateway(),
            mtu: self.mtu,
        })
    }

    /// Unmakes what there is; nothing is no error, as the specification wants it for DEL.
    async fn remove(&self, key: &AttachmentKey) -> Result<()> {
        self.links.delete(&host_interface(key)).await?;
        let Some(attachment) = self.state.lock().attachments.get(key).cloned() else { return Ok(()) };
        if !attachment.ports.is_empty() {
            self.close_ports(&attachment).await?;
        }
        self.records.remove(key)?;
        let mut state = self.state.lock();
        if state.attachments.remove(key).is_some() {
            state.addresses.release(attachment.address);
        }
        Ok(())
    }

    /// Where the ports were never opened, or the table was flushed by somebody, the table is written anew without them.
    async fn close_ports(&self, attachment: &Attachment) -> Result<()> {
        let transaction: Transaction = rules::close_ports(attachment)?.into_iter().collect();
        if self.netfilter.apply(&transaction).await.is_ok() {
            return Ok(());
        }
        let table = {
            let state = self.state.lock();
            rules::table(&self.config, state.attachments.values().filter(|other| other.key != attachment.key))?
        };
        Ok(self.netfilter.apply(&Change::ReplaceTable(table).into()).await?)
    }

    async fn check(&self, key: &AttachmentKey, path: &Path) -> Result<()> {
        let attachment = self.state.lock().attachments.get(key).cloned();
        let unknown = || Error::Request(format!("nothing is known of the container {}", key.container));
        let attachment = attachment.ok_or_else(unknown)?;
        self.links.by_name(&attachment.host_interface).await?;
        let inside = Links::open(Some(path)).await?;
        let link = inside.by_name(&key.interface).await?;
        if !inside.addresses(&link).await?.contains(&Ipv4Net::from(attachment.address)) {
            let message = format!("{} has lost its address {}", key.interface, attachment.address);
            return Err(Error::Request(message));
        }
        Ok(())
    }

    async fn collect(&self, valid: Vec<AttachmentKey>) -> Result<()> {
        let valid: BTreeSet<AttachmentKey> = valid.into_iter().collect();
        let stale: Vec<AttachmentKey> =
            self.state.lock().attachments.keys().filter(|key| !valid.contains(*key)).cloned().collect();
        for key in stale {
            self.remove(&key).await?;
        }
        Ok(())
    }
}

fn bridge_addresses(config: &Config) -> Vec<Ipv4Net> {
    let gateway = Ipv4Net::new(config.gateway(), config.pod_cidr.prefix_len());
    gateway.into_iter().chain(config.local_addresses.iter().map(|address| Ipv4Net::from(*address))).collect()
}

/// Packets are passed on between interfaces, and replies of Pods may find back to 127.0.0.1 (`rules` says what may not).
/// Pods reach each other through the gateway on purpose: a redirect would tell them the short way, past connection
/// tracking, and use up the kernel's allowance of messages to that Pod, so that a refused connection would hang. The
/// kernel sends redirects where `all` or the interface says so; other interfaces keep their own setting.
async fn set_sysctls(config: &Config) -> Result<()> {
    let bridge = &config.bridge;
    let settings = [
        (String::from("ip_forward"), "1"),
        (format!("conf/{bridge}/route_localnet"), "1"),
        (String::from("conf/all/send_redirects"), "0"),
        (format!("conf/{bridge}/send_redirects"), "0"),
    ];
    let write =
        move || settings.iter().try_for_each(|(key, value)| fs::write(format!("/proc/sys/net/ipv4/{key}"), value));
    namespace::inside(config.namespace.as_deref(), write).await
}

/// Keeps the records whose interface exists, drops the others, and deletes what hangs on our bridge without a record.
async fn take_up(config: &Config, links: &Links, bridge: &Link, records: &Records) -> Result<State> {
    let present = links.all().await?;
    let names: BTreeSet<&str> = present.iter().map(|link| link.name.as_str()).collect();
    let reserved = config.local_addresses.iter().copied().chain([config.gateway()]);
    let mut state = State { addresses: Addresses::new(config.pod_cidr, reserved), attachments: BTreeMap::new() };
    for attachment in records.all()? {
        if names.contains(attachment.host_interface.as_str()) && state.addresses.claim(attachment.address) {
            state.attachments.insert(attachment.key.clone(), attachment);
        } else {
            records.remove(&attachment.key)?;
        }
    }
    let known: BTreeSet<&str> = state.attachments.values().map(|a| a.host_interface.as_str()).collect();
    for stray in present.iter().filter(|link| is_ours(link, bridge.index) && !known.contains(link.name.as_str())) {
        links.delete(&stray.name).await?;
    }
    Ok(state)
}

fn listen(socket: &Path) -> Result<UnixListener> {
    let failed = |source| Error::File { operation: "listen on", path: socket.to_owned(), source };
    if let Some(folder) = socket.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    match fs::remove_file(socket) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(failed(source)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(failed)?;
    // Whoever may connect may change the node's network.
    fs::set_permissions(socket, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_bridge_is_gateway_and_name_server() {
        let config = Config {
            pod_cidr: "10.244.7.0/24".parse().unwrap(),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            bridge: "xebec0".into(),
            mtu: None,
            local_addresses: vec![Ipv4Addr::new(10, 96, 0, 10)],
            state_dir: "/s".into(),
            socket: "/s/s".into(),
            cni_conf_dir: "/c".into(),
            cni_bin_dir: "/b".into(),
            program: "/p".into(),
            namespace: None,
        };
        let addresses: Vec<String> = bridge_addresses(&config).iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.244.7.1/24", "10.96.0.10/32"]);
    }
}
