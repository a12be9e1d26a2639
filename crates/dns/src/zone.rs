//! The cluster's zone as a pure function.
//!
//! What names there are, below the cluster's domain:
//!
//! | name | what it is |
//! |---|---|
//! | `SERVICE.NAMESPACE.svc` | the cluster IPs; of a headless Service its ready endpoints; of an ExternalName an alias |
//! | `HOST.SERVICE.NAMESPACE.svc` | one endpoint, by its host name or, without one, its address with hyphens |
//! | `_PORT._PROTOCOL.SERVICE.NAMESPACE.svc` | where that port is served (SRV) |
//! | `1-2-3-4.NAMESPACE.pod` | the address in the name |
//! | `dns-version`, `ns.dns` | the specification's version; this name server |
//!
//! and in `in-addr.arpa` and `ip6.arpa` the names of cluster IPs and of endpoints with a host name. A name that exists
//! without records of the type asked for is NODATA; a headless Service without ready endpoints does not exist.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::rdata::{CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::directory::{Directory, cluster_ips, service_name};

/// The zone's own facts.
#[derive(Clone, Debug)]
pub struct Zone {
    /// The cluster's domain, absolute and in lower case.
    pub domain: Name,
    /// The addresses of this name server.
    pub addresses: Vec<IpAddr>,
    /// The serial number in the SOA record; secondaries would look at it, and there are none.
    pub serial: u32,
}

/// What is said about a name.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Records, and others that whoever asked will want next.
    Records { answers: Vec<Record>, additionals: Vec<Record> },
    /// There are no records: of this type (`NoError`), or at all (`NXDomain`).
    Nothing { code: ResponseCode, soa: Box<Record> },
    /// The name is none of the cluster's.
    Elsewhere,
}

/// Seconds for which an answer may be kept; what CoreDNS's Kubernetes plugin says by default.
const TTL: u32 = 5;

const SPECIFICATION: &str = "1.1.0";

/// Looks up a name in the zone.
pub fn lookup(zone: &Zone, directory: &dyn Directory, name: &Name, kind: RecordType) -> Answer {
    let lower = name.to_lowercase();
    let found = if zone.domain.zone_of(&lower) {
        Question { zone, directory, owner: name, kind }.in_domain(&labels(zone, &lower))
    } else {
        match reverse(directory, zone, name, &lower) {
            Some(found) => found,
            None => return Answer::Elsewhere,
        }
    };
    let nothing = |code| Answer::Nothing { code, soa: Box::new(soa(zone)) };
    let Found::Records(mut records, additionals) = found else { return nothing(ResponseCode::NXDomain) };
    records.retain(|record| kind == RecordType::ANY || [kind, RecordType::CNAME].contains(&record.record_type()));
    match records.is_empty() {
        true => nothing(ResponseCode::NoError),
        false => Answer::Records { answers: records, additionals },
    }
}

/// What a name stands for, whatever type was asked for.
enum Found {
    /// The name exists; with the records that come along.
    Records(Vec<Record>, Vec<Record>),
    Nothing,
}

impl Found {
    fn empty() -> Self {
        Self::Records(Vec::new(), Vec::new())
    }

    fn records(records: Vec<Record>) -> Self {
        Self::Records(records, Vec::new())
    }
}

/// The labels before the cluster's domain. A label that is no text is in no name of ours.
fn labels(zone: &Zone, name: &Name) -> Vec<String> {
    let before = usize::from(name.num_labels()).saturating_sub(usize::from(zone.domain.num_labels()));
    name.iter().take(before).map(|label| String::from_utf8_lossy(label).into_owned()).collect()
}

struct Question<'a> {
    zone: &'a Zone,
    directory: &'a dyn Directory,
    /// The name as it was asked for: resolvers compare its case.
    owner: &'a Name,
    kind: RecordType,
}

impl Question<'_> {
    fn in_domain(&self, labels: &[String]) -> Found {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match labels.as_slice() {
            [] => self.apex(),
            ["dns-version"] => self.one(RData::TXT(TXT::new(vec![SPECIFICATION.to_owned()]))),
            ["dns"] | ["svc"] | ["pod"] => Found::empty(),
            ["ns", "dns"] => Found::records(self.zone.addresses.iter().map(|ip| self.address(*ip)).collect()),
            [namespace, "svc" | "pod"] => match self.directory.has_namespace(namespace) {
                true => Found::empty(),
                false => Found::Nothing,
            },
            [dashed, namespace, "pod"] => self.pod(dashed, namespace),
            [rest @ .., service, namespace, "svc"] => match self.directory.service(namespace, service) {
                Some(service) => self.service(&service, rest),
                None => Found::Nothing,
            },
            _ => Found::Nothing,
        }
    }

    fn apex(&self) -> Found {
        let server = name_server(self.zone);
        let mut soa = soa(self.zone);
        soa.name = self.owner.clone();
        let ns = self.record(RData::NS(NS(server.clone())));
        let addresses = self.zone.addresses.iter();
        let additionals = match self.kind {
            RecordType::NS => addresses.map(|ip| Record::from_rdata(server.clone(), TTL, RData::from(*ip))).collect(),
            _ => Vec::new(),
        };
        Found::Records(vec![soa, ns], additionals)
    }

    fn pod(&self, dashed: &str, namespace: &str) -> Found {
        let ip = dashed_ip(dashed).filter(|_| self.directory.has_namespace(namespace));
        ip.map_or(Found::Nothing, |ip| Found::records(vec![self.address(ip)]))
    }

    /// A name of a Service; `rest` are the labels before the Service's own.
    fn service(&self, service: &Service, rest: &[&str]) -> Found {
        let spec = service.spec.clone().unwrap_or_default();
        if spec.type_.as_deref() == Some("ExternalName") {
            let target = spec.external_name.as_deref().and_then(absolute);
            return match (rest, target) {
                ([], Some(target)) => self.one(RData::CNAME(CNAME(target))),
                ([], None) => Found::empty(),
                _ => Found::Nothing,
            };
        }
        let headless = spec.cluster_ip.as_deref() == Some("None");
        let all = match rest {
            [] if headless => self.endpoints(service, |_, _| true, |_| true),
            [] => self.own_ports(service, |_, _| true),
            [host] if !host.starts_with('_') => self.endpoints(service, |_, _| true, |endpoint| endpoint.host == *host),
            [port, protocol] => {
                let (Some(port), Some(protocol)) = (port.strip_prefix('_'), protocol.strip_prefix('_')) else {
                    return Found::Nothing;
                };
                let wanted = |name: &str, number_protocol: &str| {
                    name.eq_ignore_ascii_case(port) && number_protocol.eq_ignore_ascii_case(protocol)
                };
                match headless {
                    true => self.endpoints(service, wanted, |_| true),
                    false => self.own_ports(service, wanted),
                }
            }
            _ => return Found::Nothing,
        };
        match all {
            // A Service that waits for its cluster IP exists; one whose endpoints are not ready does not.
            all if all.is_empty() && (headless || !rest.is_empty()) => Found::Nothing,
            all => self.servers(&service_domain(self.zone, service), all, rest.len() == 1 || headless),
        }
    }

    /// The cluster IPs, once for each port that is wanted.
    fn own_ports(&self, service: &Service, wanted: impl Fn(&str, &str) -> bool) -> Vec<Server> {
        let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        let mut all = Vec::new();
        for port in ports {
            let (name, protocol) = (port.name.as_deref().unwrap_or_default(), port.protocol.as_deref());
            if wanted(name, protocol.unwrap_or("TCP")) {
                let number = u16::try_from(port.port).ok();
                all.extend(cluster_ips(service).map(|ip| Server { host: String::new(), ip, port: number }));
            }
        }
        all
    }

    /// The ready endpoints, once for each port that is wanted; once without a port where there are none at all.
    fn endpoints(
        &self,
        service: &Service,
        wanted: impl Fn(&str, &str) -> bool,
        accept: impl Fn(&Server) -> bool,
    ) -> Vec<Server> {
        let meta = &service.metadata;
        let (namespace, name) =
            (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let mut all = Vec::new();
        for slice in self.directory.slices(namespace, name) {
            let ports = slice.ports.as_deref().unwrap_or_default();
            let portless = ports.is_empty() && wanted("", "");
            for (ip, host) in slice.endpoints.iter().flatten().filter(|e| is_ready(e)).flat_map(hosts) {
                let named = |p: &&k8s_openapi::api::discovery::v1::EndpointPort| {
                    wanted(p.name.as_deref().unwrap_or_default(), p.protocol.as_deref().unwrap_or("TCP"))
                };
                let numbers =
                    ports.iter().filter(named).map(|port| port.port.and_then(|port| u16::try_from(port).ok()));
                let servers = numbers.chain(portless.then_some(None));
                all.extend(servers.map(|port| Server { host: host.clone(), ip, port }).filter(|server| accept(server)));
            }
        }
        all
    }

    /// Address records for the servers, and SRV records whose targets are the servers' own names where they have some.
    fn servers(&self, service: &Name, servers: Vec<Server>, own_names: bool) -> Found {
        let addresses: BTreeSet<IpAddr> = servers.iter().map(|server| server.ip).collect();
        let mut records: Vec<Record> = addresses.into_iter().map(|ip| self.address(ip)).collect();
        if ![RecordType::SRV, RecordType::ANY].contains(&self.kind) {
            return Found::records(records);
        }
        let target = |server: &Server| match own_names {
            true => service.prepend_label(server.host.as_str()).unwrap_or_else(|_| service.clone()),
            false => service.clone(),
        };
        let places: BTreeSet<(u16, Name)> = servers.iter().filter_map(|s| Some((s.port?, target(s)))).collect();
        // The weights of all servers make 100, as with CoreDNS; the priority is the same for all.
        let weight = u16::try_from(100 / places.len().max(1)).unwrap_or(1).max(1);
        let additionals: BTreeSet<(Name, IpAddr)> = servers.iter().map(|s| (target(s), s.ip)).collect();
        records.extend(
            places.into_iter().map(|(port, target)| self.record(RData::SRV(SRV::new(0, weight, port, target)))),
        );
        let additionals = additionals.into_iter().map(|(name, ip)| Record::from_rdata(name, TTL, RData::from(ip)));
        Found::Records(records, additionals.collect())
    }

    fn one(&self, data: RData) -> Found {
        Found::records(vec![self.record(data)])
    }

    fn address(&self, ip: IpAddr) -> Record {
        self.record(RData::from(ip))
    }

    fn record(&self, data: RData) -> Record {
        Record::from_rdata(self.owner.clone(), TTL, data)
    }
}

/// Somewhere that a Service is served.
struct Server {
    /// The endpoint's own label; empty for a cluster IP.
    host: String,
    ip: IpAddr,
    port: Option<u16>,
}

/// An absent condition means ready.
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

/// The endpoint's addresses, each with its label: the host name, or the address with hyphens.
fn hosts(endpoint: &Endpoint) -> impl Iterator<Item = (IpAddr, String)> + '_ {
    let ips = endpoint.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok());
    ips.map(|ip| (ip, endpoint.hostname.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| dashed(ip))))
}

fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}

fn dashed_ip(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse();
    v4.or_else(|_| label.replace('-', ":").parse()).ok()
}

/// The name behind an address, if it is one of ours. `None` leaves the question to others: the ranges of Pods and
/// Services are not known here, and an address outside of them may have a name in the world.
fn reverse(directory: &dyn Directory, zone: &Zone, name: &Name, lower: &Name) -> Option<Found> {
    let network = lower.parse_arpa_name().ok()?;
    let ip = network.addr();
    if network.prefix_len() != network.max_prefix_len() {
        return None;
    }
    let mut targets: Vec<Name> = directory.services_at(ip).iter().map(|s| service_domain(zone, s)).collect();
    if targets.is_empty() {
        let slices = directory.slices_at(ip);
        targets = slices.iter().flat_map(|slice| named_endpoints(zone, slice, ip)).collect();
        targets.sort();
        targets.dedup();
    }
    let records: Vec<Record> =
        targets.into_iter().map(|target| Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(target)))).collect();
    (!records.is_empty()).then_some(Found::Records(records, Vec::new()))
}

/// Only a host name that was given makes a name for an address; one made from the address says nothing.
fn named_endpoints(zone: &Zone, slice: &Arc<EndpointSlice>, ip: IpAddr) -> Vec<Name> {
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    let Some(service) = service_name(slice) else { return Vec::new() };
    let Some(domain) = below(&zone.domain, &[service, namespace, "svc"]) else { return Vec::new() };
    let here = |endpoint: &&Endpoint| is_ready(endpoint) && hosts(endpoint).any(|(address, _)| address == ip);
    let endpoints = slice.endpoints.iter().flatten().filter(here);
    endpoints.filter_map(|e| below(&domain, &[e.hostname.as_deref().filter(|host| !host.is_empty())?])).collect()
}

/// `labels` before `domain`.
fn below(domain: &Name, labels: &[&str]) -> Option<Name> {
    labels.iter().rev().try_fold(domain.clone(), |name, label| name.prepend_label(*label).ok())
}

/// `SERVICE.NAMESPACE.svc.DOMAIN`. Names of Services are DNS labels, so they always fit.
fn service_domain(zone: &Zone, service: &Service) -> Name {
    let meta = &service.metadata;
    let labels = [meta.name.as_deref().unwrap_or_default(), meta.namespace.as_deref().unwrap_or_default(), "svc"];
    below(&zone.domain, &labels).unwrap_or_else(|| zone.domain.clone())
}

fn absolute(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn name_server(zone: &Zone) -> Name {
    below(&zone.domain, &["ns", "dns"]).unwrap_or_else(|| zone.domain.clone())
}

/// The SOA record also says how long a negative answer may be kept: its last number.
fn soa(zone: &Zone) -> Record {
    let mailbox = below(&zone.domain, &["hostmaster"]).unwrap_or_else(|| zone.domain.clone());
    let data = SOA::new(name_server(zone), mailbox, zone.serial, 7200, 1800, 86_400, TTL);
    Record::from_rdata(zone.domain.clone(), TTL, RData::SOA(data))
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
