//! The model: for each port of each Service, where it is reached and where its traffic goes.
//!
//! Pure. The rules are those of the API reference (Service v1, EndpointSlice discovery.k8s.io/v1) and KEP-1669
//! (terminating endpoints), KEP-2086 (internal traffic policy), KEP-2433 (topology hints). Knows no rule syntax.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort as ApiPort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice};
use xebec_api::ObjectKey;

use crate::Config;

/// All balanced ports by Service; a Service with none has no entry.
pub type Table = BTreeMap<ObjectKey, Vec<Port>>;

/// One port of a Service in one address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub service: ObjectKey,
    pub protocol: Protocol,
    pub port: u16,
    pub cluster_ip: IpAddr,
    pub external_ips: BTreeSet<IpAddr>,
    pub load_balancer_ips: BTreeSet<IpAddr>,
    /// Who may use the load-balancer addresses; everybody where it is empty.
    pub source_ranges: Vec<IpNet>,
    pub node_port: Option<u16>,
    /// How long a client stays with its endpoint after its last connection.
    pub affinity: Option<Duration>,
    pub internal_policy: Policy,
    pub external_policy: Policy,
    /// The endpoints for policy `Cluster`; empty where nothing uses it.
    pub cluster_endpoints: Vec<Endpoint>,
    /// The endpoints for policy `Local`; empty where nothing uses it.
    pub local_endpoints: Vec<Endpoint>,
    /// Whether any endpoint in the cluster could serve, reachable by the policies or not.
    pub served: bool,
    /// All endpoints that still serve: flows to others are stale.
    pub serving: BTreeSet<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// `internalTrafficPolicy` and `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Cluster,
    Local,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// Whether it runs on this node.
    pub local: bool,
}

/// What becomes of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// It goes to the endpoints of this policy.
    Endpoints(Policy),
    /// There are endpoints, but none that this node may use.
    Drop,
    /// There are no endpoints at all; the client is told.
    Reject,
}

impl Port {
    pub fn is_ipv4(&self) -> bool {
        self.cluster_ip.is_ipv4()
    }

    /// Whether it can be reached by anything but its cluster IP.
    pub fn is_external(&self) -> bool {
        self.node_port.is_some() || !self.external_ips.is_empty() || !self.load_balancer_ips.is_empty()
    }

    pub fn endpoints(&self, policy: Policy) -> &[Endpoint] {
        match policy {
            Policy::Cluster => &self.cluster_endpoints,
            Policy::Local => &self.local_endpoints,
        }
    }

    /// Where traffic to the cluster IP goes.
    pub fn internal(&self) -> Target {
        self.target(self.internal_policy)
    }

    /// Where traffic from outside to a node port, external or load-balancer address goes. Clients on the node and Pods
    /// count as inside and reach all endpoints.
    pub fn external(&self) -> Target {
        self.target(self.external_policy)
    }

    fn target(&self, policy: Policy) -> Target {
        match (self.served, self.endpoints(policy).is_empty()) {
            (false, _) => Target::Reject,
            (true, true) => Target::Drop,
            (true, false) => Target::Endpoints(policy),
        }
    }

    /// Every endpoint that a client on this node may be sent to.
    pub fn reachable(&self) -> BTreeSet<Endpoint> {
        self.cluster_endpoints.iter().chain(&self.local_endpoints).copied().collect()
    }

    /// A name for people: `default/redis-master:6379/tcp`.
    pub fn title(&self) -> String {
        format!("{}:{}/{}", self.service, self.port, self.protocol)
    }
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The label that hands a Service to another proxy.
const OTHER_PROXY_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// The balanced ports of one Service; none for headless ones, names of other places, and those left to others.
pub fn ports(config: &Config, service: &Service, slices: &[impl AsRef<EndpointSlice>]) -> Vec<Port> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let foreign = service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(OTHER_PROXY_LABEL));
    if foreign || spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let mut all = Vec::new();
    for cluster_ip in cluster_ips(spec).filter(|ip| !config.own_addresses.contains(ip)) {
        for api_port in spec.ports.iter().flatten() {
            let Some(mut port) = frontends(service, spec, api_port, cluster_ip) else { continue };
            let name = api_port.name.as_deref().unwrap_or_default();
            let candidates = candidates(config, slices, name, &port);
            choose_endpoints(config, &mut port, candidates);
            all.push(port);
        }
    }
    all
}

/// The cluster IPs, one a family; `None` and the empty string are no addresses.
fn cluster_ips(spec: &ServiceSpec) -> impl Iterator<Item = IpAddr> + '_ {
    let many = spec.cluster_ips.as_deref().unwrap_or_default();
    let one = spec.cluster_ip.as_slice();
    let texts = if many.is_empty() { one } else { many };
    texts.iter().filter_map(|text| text.parse().ok())
}

/// Everything about a port but its endpoints; `None` for a protocol or number that no kernel knows.
fn frontends(service: &Service, spec: &ServiceSpec, port: &ApiPort, cluster_ip: IpAddr) -> Option<Port> {
    let same_family = |ip: &IpAddr| ip.is_ipv4() == cluster_ip.is_ipv4();
    let policy = |text: &Option<String>| if text.as_deref() == Some("Local") { Policy::Local } else { Policy::Cluster };
    let timeout = || spec.session_affinity_config.as_ref()?.client_ip.as_ref()?.timeout_seconds;
    // Three hours are the API's default for the time a client stays with its endpoint.
    let timeout = || Duration::from_secs(u64::try_from(timeout().unwrap_or(10_800)).unwrap_or(10_800));
    let external = spec.external_ips.iter().flatten().filter_map(|text| text.parse().ok());
    Some(Port {
        service: ObjectKey::of(service),
        protocol: Protocol::parse(port.protocol.as_deref())?,
        port: u16::try_from(port.port).ok()?,
        cluster_ip,
        external_ips: external.filter(same_family).collect(),
        load_balancer_ips: load_balancer_ips(service, spec).filter(same_family).collect(),
        source_ranges: source_ranges(service, spec, cluster_ip.is_ipv4()),
        node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
        affinity: (spec.session_affinity.as_deref() == Some("ClientIP")).then(timeout),
        internal_policy: policy(&spec.internal_traffic_policy),
        external_policy: policy(&spec.external_traffic_policy),
        cluster_endpoints: Vec::new(),
        local_endpoints: Vec::new(),
        served: false,
        serving: BTreeSet::new(),
    })
}

/// The addresses at which a load balancer passes packets on unchanged (`ipMode` `VIP`, the default).
fn load_balancer_ips<'a>(service: &'a Service, spec: &'a ServiceSpec) -> impl Iterator<Item = IpAddr> + 'a {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
    let applies = spec.type_.as_deref() == Some("LoadBalancer");
    let virtual_ip = |mode: &Option<String>| mode.as_deref().is_none_or(|mode| mode == "VIP");
    ingress.iter().filter(move |i| applies && virtual_ip(&i.ip_mode)).filter_map(|i| i.ip.as_ref()?.parse().ok())
}

/// The annotation is the older form of the field and still honoured where the field is empty.
const SOURCE_RANGES_ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

fn source_ranges(service: &Service, spec: &ServiceSpec, ipv4: bool) -> Vec<IpNet> {
    let annotation = || service.metadata.annotations.as_ref()?.get(SOURCE_RANGES_ANNOTATION);
    let texts: Vec<&str> = match spec.load_balancer_source_ranges.as_deref().unwrap_or_default() {
        [] => annotation().map(|text| text.split(',').collect()).unwrap_or_default(),
        ranges => ranges.iter().map(String::as_str).collect(),
    };
    let ranges = texts.into_iter().filter_map(|text| text.trim().parse::<IpNet>().ok());
    ranges.map(|range| range.trunc()).filter(|range| range.addr().is_ipv4() == ipv4).collect()
}

/// An endpoint with what is needed to choose.
struct Candidate<'a> {
    endpoint: Endpoint,
    ready: bool,
    /// It serves although it is about to end.
    draining: bool,
    serving: bool,
    api: &'a ApiEndpoint,
}

/// All endpoints for a port, each address once; an address in two slices is that of the first one.
fn candidates<'a>(
    config: &Config,
    slices: &'a [impl AsRef<EndpointSlice>],
    name: &str,
    port: &Port,
) -> Vec<Candidate<'a>> {
    let family = if port.is_ipv4() { "IPv4" } else { "IPv6" };
    let mut found: BTreeMap<SocketAddr, Candidate<'a>> = BTreeMap::new();
    for slice in slices.iter().map(AsRef::as_ref).filter(|slice| slice.address_type == family) {
        let numbers = slice.ports.iter().flatten().filter(|p| {
            p.name.as_deref().unwrap_or_default() == name
                && Protocol::parse(p.protocol.as_deref()) == Some(port.protocol)
        });
        for number in numbers.filter_map(|p| u16::try_from(p.port?).ok()) {
            for api in slice.endpoints.iter().flatten() {
                // The API allows several addresses but says that consumers use the first.
                let Some(ip) = api.addresses.first().and_then(|text| text.parse().ok()) else { continue };
                let address = SocketAddr::new(ip, number);
                found.entry(address).or_insert_with(|| candidate(config, address, api));
            }
        }
    }
    found.into_values().collect()
}

/// An absent condition `ready` or `serving` means yes, an absent `terminating` no.
fn candidate<'a>(config: &Config, address: SocketAddr, api: &'a ApiEndpoint) -> Candidate<'a> {
    let conditions = api.conditions.clone().unwrap_or_default();
    let serving = conditions.serving.unwrap_or(true);
    Candidate {
        endpoint: Endpoint { address, local: api.node_name.as_deref() == Some(config.node_name.as_str()) },
        ready: conditions.ready.unwrap_or(true),
        draining: serving && conditions.terminating.unwrap_or(false),
        serving,
        api,
    }
}

fn choose_endpoints(config: &Config, port: &mut Port, all: Vec<Candidate<'_>>) {
    let pick = |accept: &dyn Fn(&Candidate<'_>) -> bool| -> Vec<Endpoint> {
        all.iter().filter(|c| accept(c)).map(|c| c.endpoint).collect()
    };
    // Even with the external policy Local, clients on the node and Pods reach all endpoints by an external address.
    let uses_cluster = port.internal_policy == Policy::Cluster || port.is_external();
    let uses_local =
        port.internal_policy == Policy::Local || port.is_external() && port.external_policy == Policy::Local;
    if uses_cluster {
        let near = nearness(config, &all);
        port.cluster_endpoints = pick(&|c| c.ready && near.is_none_or(|near| near(config, c)));
        if port.cluster_endpoints.is_empty() {
            port.cluster_endpoints = pick(&|c| c.draining);
        }
    }
    if uses_local {
        port.local_endpoints = pick(&|c| c.endpoint.local && c.ready);
        if port.local_endpoints.is_empty() {
            port.local_endpoints = pick(&|c| c.endpoint.local && c.draining);
        }
    }
    port.served = all.iter().any(|c| c.ready || c.draining);
    port.serving = all.iter().filter(|c| c.serving).map(|c| c.endpoint.address).collect();
}

type Near = fn(&Config, &Candidate<'_>) -> bool;

/// Which endpoints the hints keep for this node: those of the node, else those of the zone, and only where every ready
/// endpoint has a hint and at least one is meant for here.
fn nearness(config: &Config, all: &[Candidate<'_>]) -> Option<Near> {
    fn same_node(config: &Config, c: &Candidate<'_>) -> bool {
        node_hints(c).any(|node| node == config.node_name)
    }
    fn same_zone(config: &Config, c: &Candidate<'_>) -> bool {
        zone_hints(c).any(|zone| zone == config.zone)
    }
    let ready = || all.iter().filter(|c| c.ready);
    if ready().any(|c| same_node(config, c)) && ready().all(|c| node_hints(c).next().is_some()) {
        return Some(same_node);
    }
    if ready().any(|c| same_zone(config, c)) && ready().all(|c| zone_hints(c).next().is_some()) {
        return Some(same_zone);
    }
    None
}

fn node_hints<'a>(c: &'a Candidate<'_>) -> impl Iterator<Item = &'a str> {
    let hints = c.api.hints.as_ref().and_then(|hints| hints.for_nodes.as_deref()).unwrap_or_default();
    hints.iter().map(|hint| hint.name.as_str())
}

fn zone_hints<'a>(c: &'a Candidate<'_>) -> impl Iterator<Item = &'a str> {
    let hints = c.api.hints.as_ref().and_then(|hints| hints.for_zones.as_deref()).unwrap_or_default();
    hints.iter().map(|hint| hint.name.as_str())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn config() -> Config {
        Config { node_name: "n1".into(), zone: "z1".into(), ..Config::default() }
    }

    fn service(spec: Value) -> Service {
        let mut all = json!({"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]});
        for (key, value) in spec.as_object().unwrap() {
            all[key] = value.clone();
        }
        let status =
            json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.50"}, {"ip": "192.0.2.51", "ipMode": "Proxy"}]}});
        let metadata = json!({"namespace": "default", "name": "web"});
        serde_json::from_value(json!({"metadata": metadata, "spec": all, "status": status})).unwrap()
    }

    /// `10.244.0.2@n1` with conditions after it: `ready`, `unready`, `draining`, and hints `zone=z`, `node=n`.
    fn slice(endpoints: &[&str]) -> Arc<EndpointSlice> {
        let parse = |text: &&str| {
            let mut words = text.split(' ');
            let (ip, node) = words.next().unwrap().split_once('@').unwrap();
            let mut endpoint = json!({"addresses": [ip], "nodeName": node, "conditions": {}});
            for word in words {
                match word.split_once('=') {
                    Some(("zone", zone)) => endpoint["hints"]["forZones"] = json!([{"name": zone}]),
                    Some((_, node)) => endpoint["hints"]["forNodes"] = json!([{"name": node}]),
                    None if word == "draining" => {
                        endpoint["conditions"] = json!({"ready": false, "serving": true, "terminating": true});
                    }
                    None if word == "unready" => endpoint["conditions"] = json!({"ready": false, "serving": false}),
                    None => {}
                }
            }
            endpoint
        };
        let endpoints: Vec<Value> = endpoints.iter().map(parse).collect();
        let ports = json!([{"name": "http", "port": 8080, "protocol": "TCP"}]);
        let slice = json!({"addressType": "IPv4", "metadata": {}, "endpoints": endpoints, "ports": ports});
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    fn addresses(endpoints: &[Endpoint]) -> String {
        let last = |endpoint: &Endpoint| match endpoint.address.ip() {
            IpAddr::V4(ip) => ip.octets()[3].to_string(),
            IpAddr::V6(ip) => ip.to_string(),
        };
        endpoints.iter().map(last).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn endpoints_follow_policy_readiness_and_hints() {
        let local = json!({"internalTrafficPolicy": "Local"});
        let node_port = json!({"ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
        let mut external_local = node_port.clone();
        external_local["externalTrafficPolicy"] = json!("Local");
        let (plain, cluster) = (json!({}), Target::Endpoints(Policy::Cluster));
        let on_node = Target::Endpoints(Policy::Local);
        // Service, endpoints; chosen for Cluster, for Local; what becomes of internal and of external traffic.
        type Case<'a> = (&'a Value, &'a [&'a str], &'a str, &'a str, Target, Target);
        let cases: &[Case<'_>] = &[
            (&plain, &[], "", "", Target::Reject, Target::Reject),
            (&plain, &["10.0.0.2@n1", "10.0.0.3@n2"], "2,3", "", cluster, cluster),
            (&plain, &["10.0.0.2@n1 unready"], "", "", Target::Reject, Target::Reject),
            (&plain, &["10.0.0.2@n1 draining", "10.0.0.3@n2"], "3", "", cluster, cluster),
            (&plain, &["10.0.0.2@n1 draining", "10.0.0.3@n2 unready"], "2", "", cluster, cluster),
            (&local, &["10.0.0.2@n1", "10.0.0.3@n2"], "", "2", on_node, Target::Drop),
            (&local, &["10.0.0.3@n2"], "", "", Target::Drop, Target::Drop),
            (&local, &["10.0.0.2@n1 draining", "10.0.0.3@n2"], "", "2", on_node, Target::Drop),
            (&node_port, &["10.0.0.3@n2"], "3", "", cluster, cluster),
            (&external_local, &["10.0.0.2@n1", "10.0.0.3@n2"], "2,3", "2", cluster, on_node),
            (&external_local, &["10.0.0.3@n2"], "3", "", cluster, Target::Drop),
            (&plain, &["10.0.0.2@n1 zone=z1", "10.0.0.3@n2 zone=z2"], "2", "", cluster, cluster),
            (&plain, &["10.0.0.2@n1 zone=z2", "10.0.0.3@n2 zone=z2"], "2,3", "", cluster, cluster),
            (&plain, &["10.0.0.2@n1 zone=z1", "10.0.0.3@n2"], "2,3", "", cluster, cluster),
            (&plain, &["10.0.0.2@n1 zone=z1 node=n1", "10.0.0.3@n3 zone=z1 node=n3"], "2", "", cluster, cluster),
        ];
        for (spec, endpoints, for_cluster, for_local, internal, external) in cases {
            let all = ports(&config(), &service((*spec).clone()), &[slice(endpoints)]);
            let [port] = all.as_slice() else { panic!("{endpoints:?}: {all:?}") };
            let seen = (addresses(&port.cluster_endpoints), addresses(&port.local_endpoints));
            assert_eq!(seen, ((*for_cluster).into(), (*for_local).into()), "{spec} {endpoints:?}");
            assert_eq!((port.internal(), port.external()), (*internal, *external), "{spec} {endpoints:?}");
        }
    }

    #[test]
    fn services_for_others_have_no_ports() {
        let own = Config { own_addresses: vec!["10.96.0.7".parse().unwrap()], ..config() };
        let cases: &[(&Config, Value, usize)] = &[
            (&config(), json!({}), 1),
            (&config(), json!({"clusterIP": "None"}), 0),
            (&config(), json!({"clusterIP": ""}), 0),
            (&config(), json!({"type": "ExternalName"}), 0),
            (&own, json!({}), 0),
            (&config(), json!({"clusterIPs": ["10.96.0.7", "fd00::7"]}), 2),
        ];
        for (config, spec, expected) in cases {
            let all = ports(config, &service(spec.clone()), &[slice(&[])]);
            assert_eq!(all.len(), *expected, "{spec}");
        }
        let mut foreign = service(json!({}));
        foreign.metadata.labels = Some([(OTHER_PROXY_LABEL.to_owned(), "mesh".to_owned())].into());
        assert!(ports(&config(), &foreign, &[slice(&[])]).is_empty());
    }

    #[test]
    fn frontends_are_taken_from_spec_and_status() {
        let spec = json!({
            "type": "LoadBalancer",
            "externalIPs": ["192.0.2.9", "fd00::9"],
            "loadBalancerSourceRanges": ["198.51.100.7/24", "fd00::/8"],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        });
        let all = ports(&config(), &service(spec), &[slice(&["10.0.0.2@n1"])]);
        let [http, dns] = all.as_slice() else { panic!("{all:?}") };
        let texts = |ips: &BTreeSet<IpAddr>| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&http.external_ips), ["192.0.2.9"]);
        assert_eq!(texts(&http.load_balancer_ips), ["192.0.2.50"]);
        assert_eq!(http.source_ranges, ["198.51.100.0/24".parse().unwrap()]);
        assert_eq!((http.node_port, http.affinity), (Some(30080), Some(Duration::from_secs(60))));
        assert_eq!(http.title(), "default/web:80/tcp");
        assert_eq!((dns.protocol, dns.node_port, dns.served), (Protocol::Udp, None, false));
    }
}
