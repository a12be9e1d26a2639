//! Interfaces, addresses and routes of one network namespace, by rtnetlink.
//!
//! Each function is one or a few netlink messages; what to do in which order is `agent`'s. Names and numbers of the
//! kernel's interface stay in here.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::Path;

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteScope};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::task::AbortHandle;

use crate::{Error, Result, namespace};

/// The loopback interface is the first one of every network namespace.
const LOOPBACK: u32 = 1;

/// A netlink connection into one network namespace.
pub struct Links {
    handle: Handle,
    connection: AbortHandle,
}

/// The socket keeps its namespace alive, with every interface in it, so it must not wait for anything.
impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// An interface that exists.
#[derive(Clone, Debug)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub controller: Option<u32>,
    pub mac: Vec<u8>,
    pub mtu: u32,
}

/// Both ends of a Pod's cable.
pub struct VethPair<'a> {
    /// The end on the node.
    pub host: &'a str,
    /// The bridge that it is put into.
    pub bridge: u32,
    /// The end in the Pod.
    pub pod: &'a str,
    pub pod_mac: [u8; 6],
    pub pod_namespace: &'a std::fs::File,
    pub mtu: u32,
}

impl Links {
    /// Opens a connection into the namespace mounted at `path`, or into the process's own.
    pub async fn open(path: Option<&Path>) -> Result<Self> {
        let (connection, handle, _) = namespace::inside(path, rtnetlink::new_connection).await?;
        Ok(Self { handle, connection: tokio::spawn(connection).abort_handle() })
    }

    pub async fn by_name(&self, name: &str) -> Result<Link> {
        self.find(name).await?.ok_or_else(|| Error::NoLink { name: name.to_owned() })
    }

    pub async fn find(&self, name: &str) -> Result<Option<Link>> {
        let mut found = Box::pin(self.handle.link().get().match_name(name.to_owned()).execute());
        match found.try_next().await {
            Ok(message) => Ok(message.map(Link::from)),
            Err(error) if errno(&error) == Some(nix::errno::Errno::ENODEV) => Ok(None),
            Err(source) => Err(Error::Netlink { operation: format!("look for the interface {name}"), source }),
        }
    }

    pub async fn all(&self) -> Result<Vec<Link>> {
        let links: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|source| Error::Netlink { operation: "list the interfaces".into(), source })?;
        Ok(links.into_iter().map(Link::from).collect())
    }

    /// The bridge with this name, made where it is missing, with this MAC address, and up.
    pub async fn ensure_bridge(&self, name: &str, mac: [u8; 6], mtu: u32) -> Result<Link> {
        let failed = |source| Error::Netlink { operation: format!("make the bridge {name}"), source };
        let message = |builder: LinkMessageBuilder<LinkBridge>| builder.address(mac.to_vec()).mtu(mtu).up().build();
        match self.find(name).await? {
            None => self.handle.link().add(message(LinkBridge::new(name))).execute().await.map_err(failed)?,
            Some(link) => {
                let change = LinkUnspec::new_with_index(link.index).address(mac.to_vec()).mtu(mtu).up().build();
                self.handle.link().change(change).execute().await.map_err(failed)?;
            }
        }
        self.by_name(name).await
    }

    /// Makes both ends at once, each in its namespace; the host's is up, in the bridge, and allowed to send a packet back
    /// where it came from (a Pod may be its own Service's endpoint, and `br_netfilter` then keeps the packet in the
    /// bridge).
    pub async fn add_pair(&self, pair: &VethPair<'_>) -> Result<()> {
        let failed = |source| Error::Netlink { operation: format!("make the veth pair {}", pair.host), source };
        let peer = LinkUnspec::new_with_name(pair.pod)
            .setns_by_fd(pair.pod_namespace.as_raw_fd())
            .address(pair.pod_mac.to_vec())
            .mtu(pair.mtu)
            .build();
        let host = LinkMessageBuilder::<LinkVeth>::new(pair.host, pair.pod)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .controller(pair.bridge)
            .mtu(pair.mtu)
            .up()
            .build();
        self.handle.link().add(host).execute().await.map_err(failed)?;
        let port = LinkBridgePort::new(0).name(pair.host).hairpin(true).build();
        self.handle.link().set_port(port).execute().await.map_err(failed)
    }

    /// Deletes an interface; none is no error.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let Some(link) = self.find(name).await? else { return Ok(()) };
        match self.handle.link().del(link.index).execute().await {
            // The namespace of the other end may have ended in between.
            Err(error) if errno(&error) == Some(nix::errno::Errno::ENODEV) => Ok(()),
            Err(source) => Err(Error::Netlink { operation: format!("delete the interface {name}"), source }),
            Ok(()) => Ok(()),
        }
    }

    /// Sets the loopback interface and a Pod's end up (the kernel refuses to make that end up from the start).
    pub async fn set_up(&self, link: &Link) -> Result<()> {
        for index in [LOOPBACK, link.index] {
            let result = self.handle.link().change(LinkUnspec::new_with_index(index).up().build()).execute().await;
            result.map_err(|source| Error::Netlink { operation: "set the interfaces of the Pod up".into(), source })?;
        }
        Ok(())
    }

    pub async fn addresses(&self, link: &Link) -> Result<Vec<Ipv4Net>> {
        let request = self.handle.address().get().set_link_index_filter(link.index);
        let messages: Vec<_> = request
            .execute()
            .try_collect()
            .await
            .map_err(|source| Error::Netlink { operation: format!("list the addresses of {}", link.name), source })?;
        let address = |attribute: &AddressAttribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
            _ => None,
        };
        Ok(messages
            .iter()
            .filter(|m| m.header.family == AddressFamily::Inet && m.header.index == link.index)
            .filter_map(|m| Ipv4Net::new(m.attributes.iter().find_map(address)?, m.header.prefix_len).ok())
            .collect())
    }

    /// Gives the interface exactly these IPv4 addresses.
    pub async fn set_addresses(&self, link: &Link, wanted: &[Ipv4Net]) -> Result<()> {
        let failed = |source| Error::Netlink { operation: format!("set the addresses of {}", link.name), source };
        let present = self.addresses(link).await?;
        for old in present.iter().filter(|old| !wanted.contains(old)) {
            let message = rtnetlink::AddressMessageBuilder::<Ipv4Addr>::new()
                .index(link.index)
                .address(old.addr(), old.prefix_len());
            self.handle.address().del(message.build()).execute().await.map_err(failed)?;
        }
        for new in wanted.iter().filter(|new| !present.contains(new)) {
            self.add_address(link, *new).await?;
        }
        Ok(())
    }

    pub async fn add_address(&self, link: &Link, address: Ipv4Net) -> Result<()> {
        let request = self.handle.address().add(link.index, IpAddr::V4(address.addr()), address.prefix_len());
        let result = request.execute().await;
        result
            .map_err(|source| Error::Netlink { operation: format!("give {} the address {address}", link.name), source })
    }

    /// A Pod's two routes: the gateway lies on the link although it is in no range of the Pod's, and the rest behind it.
    pub async fn route_through(&self, link: &Link, gateway: Ipv4Addr) -> Result<()> {
        let failed = |source| Error::Netlink { operation: format!("set the routes of {}", link.name), source };
        let route = || RouteMessageBuilder::<Ipv4Addr>::new().output_interface(link.index);
        let on_link = route().destination_prefix(gateway, 32).scope(RouteScope::Link).build();
        self.handle.route().add(on_link).execute().await.map_err(failed)?;
        self.handle.route().add(route().gateway(gateway).build()).execute().await.map_err(failed)
    }

    /// The maximum packet size of the interface with the default route.
    pub async fn uplink_mtu(&self) -> Result<Option<u32>> {
        let failed = |source| Error::Netlink { operation: "list the routes".into(), source };
        let any = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes: Vec<_> = self.handle.route().get(any).execute().try_collect().await.map_err(failed)?;
        let uplink = routes.iter().filter(|route| route.header.destination_prefix_length == 0).find_map(|route| {
            route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            })
        });
        let Some(index) = uplink else { return Ok(None) };
        Ok(self.all().await?.into_iter().find(|link| link.index == index).map(|link| link.mtu))
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Link { index: message.header.index, name: String::new(), controller: None, mac: vec![], mtu: 0 };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Controller(index) => link.controller = Some(index),
                LinkAttribute::Address(mac) => link.mac = mac,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                _ => {}
            }
        }
        link
    }
}

fn errno(error: &rtnetlink::Error) -> Option<nix::errno::Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(nix::errno::Errno::from_raw(message.raw_code().abs())),
        _ => None,
    }
}

/// The MAC address that goes with an IPv4 address: locally administered, and the same each time.
pub fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

pub fn mac_text(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
