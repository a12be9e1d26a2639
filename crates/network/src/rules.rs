//! The packet filter rules of the Pod network: masquerading, host ports, and what must not pass.
//!
//! Pure: makes a table and elements as values. Services have a table of their own (`proxy`).

use std::net::Ipv4Addr;

use xebec_netfilter::{Change, Element, Family, Hook, HookKind, HookPoint, Name, Rule, Set, Table, TableId};

use crate::attachments::Attachment;
use crate::protocol::PortMapping;
use crate::{Config, Result};

const HOST_PORTS: &str = "hostports";
const HOST_PORTS_AT: &str = "hostports-at";
const HAIRPIN: &str = "hairpin";

/// Host ports are looked at before node ports, as the ports of upstream's portmap plugin are.
const BEFORE_SERVICES: i32 = Hook::DSTNAT - 5;

pub fn table_id() -> TableId {
    TableId::new(Family::Ip, Name::fixed("xebec-pods"))
}

/// The whole table for the attachments that exist.
pub fn table<'a>(config: &Config, attachments: impl Iterator<Item = &'a Attachment>) -> Result<Table> {
    let mut table = Table::new(table_id());
    table.sets.insert(Name::fixed(HOST_PORTS), Set::map("inet_proto . inet_service", "ipv4_addr . inet_service"));
    let with_address = Set::map("ipv4_addr . inet_proto . inet_service", "ipv4_addr . inet_service");
    table.sets.insert(Name::fixed(HOST_PORTS_AT), with_address);
    let both_ends = Set::of("ipv4_addr . ipv4_addr . inet_proto . inet_service");
    table.sets.insert(Name::fixed(HAIRPIN), both_ends);
    for attachment in attachments {
        for (set, element) in elements(attachment)? {
            if let Some(set) = table.sets.get_mut(&set) {
                set.elements.insert(element);
            }
        }
    }

    let to_ports = || {
        vec![
            Rule::fixed("dnat ip to ip daddr . meta l4proto . th dport map @hostports-at"),
            Rule::fixed("fib daddr type local dnat ip to meta l4proto . th dport map @hostports"),
        ]
    };
    let nat = |point, priority| Some(Hook::new(HookKind::Nat, point, priority));
    table.chain(Name::fixed("nat-prerouting"), nat(HookPoint::Prerouting, BEFORE_SERVICES), to_ports());
    table.chain(Name::fixed("nat-output"), nat(HookPoint::Output, BEFORE_SERVICES), to_ports());
    let (bridge, pods, cluster) = (&config.bridge, config.pod_cidr, config.cluster_cidr);
    let sources = vec![
        Rule::fixed("ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin masquerade fully-random")
            .with_comment("a Pod that reaches itself through its host port"),
        Rule::new(format!("ip saddr 127.0.0.0/8 oifname \"{bridge}\" masquerade fully-random"))?
            .with_comment("the node to a Pod through 127.0.0.1"),
        Rule::new(format!(
            "ip saddr {pods} ip daddr != {cluster} ip daddr != 224.0.0.0/4 oifname != \"{bridge}\" masquerade fully-random"
        ))?
        .with_comment("Pods to the world outside the cluster"),
    ];
    table.chain(Name::fixed("nat-postrouting"), nat(HookPoint::Postrouting, Hook::SRCNAT), sources);

    let filter = |point, priority| Some(Hook::new(HookKind::Filter, point, priority));
    // route_localnet lets replies from Pods find back to 127.0.0.1; a Pod must not reach the node's loopback by it
    // (CVE-2020-8558).
    let loopback = vec![
        Rule::new(format!("iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop"))?,
        Rule::new(format!("iifname \"{bridge}\" ip saddr 127.0.0.0/8 drop"))?,
    ];
    table.chain(Name::fixed("filter-prerouting"), filter(HookPoint::Prerouting, Hook::RAW), loopback);
    Ok(table)
}

/// The elements that open an attachment's host ports.
pub fn open_ports(attachment: &Attachment) -> Result<Vec<Change>> {
    Ok(elements(attachment)?.into_iter().map(|(set, element)| Change::AddElement(table_id(), set, element)).collect())
}

pub fn close_ports(attachment: &Attachment) -> Result<Vec<Change>> {
    Ok(elements(attachment)?
        .into_iter()
        .map(|(set, element)| Change::DeleteElement(table_id(), set, element))
        .collect())
}

fn elements(attachment: &Attachment) -> Result<Vec<(Name, Element)>> {
    let mut all = Vec::new();
    for port in &attachment.ports {
        let (protocol, host_port) = (port.protocol.to_ascii_lowercase(), port.host_port);
        let target = format!("{} . {}", attachment.address, port.container_port);
        let (map, key) = match host_address(port) {
            Some(address) => (HOST_PORTS_AT, format!("{address} . {protocol} . {host_port}")),
            None => (HOST_PORTS, format!("{protocol} . {host_port}")),
        };
        all.push((Name::fixed(map), Element::pair(key, target)?));
        let itself = format!("{0} . {0} . {protocol} . {1}", attachment.address, port.container_port);
        let itself = (Name::fixed(HAIRPIN), Element::key(itself)?);
        if !all.contains(&itself) {
            all.push(itself);
        }
    }
    Ok(all)
}

/// The one address of the node that the port is open on; `None` for all of them.
fn host_address(port: &PortMapping) -> Option<Ipv4Addr> {
    port.host_ip.parse().ok().filter(|address: &Ipv4Addr| !address.is_unspecified())
}

/// Whether the mapping is one we make: no host port means none is wanted, and an IPv6 host address is another family's.
pub fn applies(port: &PortMapping) -> bool {
    let ours = port.host_ip.is_empty() || port.host_ip.parse::<Ipv4Addr>().is_ok();
    ours && port.host_port != 0 && ["tcp", "udp", "sctp"].contains(&port.protocol.to_ascii_lowercase().as_str())
}
