//! The text of the rules: from ports of the model to chains, sets and elements.
//!
//! Pure. The layout follows what upstream's proxy does in its nftables mode where clients can tell the difference:
//! which traffic is masqueraded, dropped or rejected, and at which hook.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use xebec_netfilter::{Chain, Element, Hook, HookKind, HookPoint, Name, Rule, Set, Table, TableId};

use super::{Fragment, IPV4, Ip};
use crate::backend::Error;
use crate::table::{Endpoint, Policy, Port, Target};

const CLUSTER_IPS: &str = "cluster-ips";
const SERVICE_IPS: &str = "service-ips";
const NODE_PORTS: &str = "node-ports";
const NO_ENDPOINT_IPS: &str = "no-endpoint-ips";
const NO_ENDPOINT_NODE_PORTS: &str = "no-endpoint-node-ports";
const FIREWALL_IPS: &str = "firewall-ips";
const HAIRPIN: &str = "hairpin";

/// Upstream's mark for packets whose source shall be rewritten; others on the node know to leave it alone.
const MASQUERADE: &str = "meta mark set meta mark | 0x4000";

/// Source ranges of load balancers are looked at before the destination is rewritten.
const BEFORE_DSTNAT: i32 = Hook::DSTNAT - 10;

type Rules = Result<Vec<Rule>, xebec_netfilter::InvalidText>;

/// The table without any Service.
pub fn base(ip: Ip, id: TableId, cluster_cidrs: &[IpNet]) -> Result<Table, Error> {
    let Ip { word, address_type, .. } = ip;
    let mut table = Table::new(id);
    let by_address = format!("{address_type} . inet_proto . inet_service");
    let both_ends = format!("{address_type} . {address_type} . inet_proto . inet_service");
    let sets = [
        (CLUSTER_IPS, Set::of(address_type)),
        (SERVICE_IPS, Set::map(&by_address, "verdict")),
        (NODE_PORTS, Set::map("inet_proto . inet_service", "verdict")),
        (NO_ENDPOINT_IPS, Set::map(&by_address, "verdict")),
        (NO_ENDPOINT_NODE_PORTS, Set::map("inet_proto . inet_service", "verdict")),
        (FIREWALL_IPS, Set::map(&by_address, "verdict")),
        (HAIRPIN, Set::of(&both_ends)),
    ];
    table.sets.extend(sets.map(|(name, set)| (Name::fixed(name), set)));

    let destination = format!("{word} daddr . meta l4proto . th dport");
    let rules = |texts: &[String]| -> Rules { texts.iter().map(Rule::new).collect() };
    table.chain(Name::fixed("services"), None, services(ip, &destination, cluster_cidrs)?);
    table.chain(Name::fixed("refuse"), None, vec![Rule::fixed("reject")]);

    let nat = |point, priority| Some(Hook::new(HookKind::Nat, point, priority));
    let to_services = || vec![Rule::fixed("jump services")];
    table.chain(Name::fixed("nat-prerouting"), nat(HookPoint::Prerouting, Hook::DSTNAT), to_services());
    table.chain(Name::fixed("nat-output"), nat(HookPoint::Output, Hook::DSTNAT), to_services());
    let sources = rules(&[
        "meta mark & 0x4000 != 0 meta mark set meta mark ^ 0x4000 masquerade fully-random".into(),
        format!("ct status dnat {word} saddr . {destination} @{HAIRPIN} masquerade fully-random"),
    ])?;
    table.chain(Name::fixed("nat-postrouting"), nat(HookPoint::Postrouting, Hook::SRCNAT), sources);

    let filter = |point, priority| Some(Hook::new(HookKind::Filter, point, priority));
    let no_endpoints = format!("ct state new {destination} vmap @{NO_ENDPOINT_IPS}");
    let no_node_port = format!("ct state new meta l4proto . th dport vmap @{NO_ENDPOINT_NODE_PORTS}");
    // A packet to a cluster IP that no rule above sent elsewhere asks for a port that the Service does not have.
    let wrong_port = format!("ct state new {word} daddr @{CLUSTER_IPS} reject");
    let input = rules(&[no_node_port, no_endpoints.clone()])?;
    table.chain(Name::fixed("filter-input"), filter(HookPoint::Input, Hook::FILTER), input);
    let passing = rules(&[no_endpoints, wrong_port])?;
    table.chain(Name::fixed("filter-forward"), filter(HookPoint::Forward, Hook::FILTER), passing.clone());
    table.chain(Name::fixed("filter-output"), filter(HookPoint::Output, Hook::FILTER), passing);
    let firewall = rules(&[format!("ct state new {destination} vmap @{FIREWALL_IPS}")])?;
    table.chain(Name::fixed("firewall-prerouting"), filter(HookPoint::Prerouting, BEFORE_DSTNAT), firewall.clone());
    table.chain(Name::fixed("firewall-output"), filter(HookPoint::Output, BEFORE_DSTNAT), firewall);
    Ok(table)
}

/// From a destination to its Service. Node ports are open on every address of the node, the loopback included.
fn services(ip: Ip, destination: &str, cluster_cidrs: &[IpNet]) -> Rules {
    let Ip { word, .. } = ip;
    let mut rules = Vec::new();
    for pods in of_family(ip, cluster_cidrs) {
        let outsiders = format!("{word} daddr @{CLUSTER_IPS} {word} saddr != {pods} {MASQUERADE}");
        rules.push(
            Rule::new(outsiders)?.with_comment("replies to clients that are no Pods come back through this node"),
        );
    }
    rules.push(Rule::new(format!("{destination} vmap @{SERVICE_IPS}"))?);
    rules.push(Rule::new(format!("fib daddr type local meta l4proto . th dport vmap @{NODE_PORTS}"))?);
    Ok(rules)
}

/// What the ports of one Service need in one family.
pub fn fragment(ip: Ip, cluster_cidrs: &[IpNet], ports: &[Port]) -> Result<Fragment, Error> {
    let mut fragment = Fragment::default();
    for port in ports.iter().filter(|port| port.is_ipv4() == (ip == IPV4)) {
        Renderer { ip, cluster_cidrs, port, fragment: &mut fragment }.port()?;
    }
    Ok(fragment)
}

struct Renderer<'a> {
    ip: Ip,
    cluster_cidrs: &'a [IpNet],
    port: &'a Port,
    fragment: &'a mut Fragment,
}

impl Renderer<'_> {
    fn port(&mut self) -> Result<(), Error> {
        let port = self.port;
        for policy in [Policy::Cluster, Policy::Local] {
            if !port.endpoints(policy).is_empty() {
                self.balance(policy)?;
            }
        }
        if port.affinity.is_some() {
            for endpoint in port.reachable() {
                self.endpoint(endpoint)?;
            }
        }
        for endpoint in port.reachable().iter().filter(|endpoint| endpoint.local) {
            let (to, protocol) = (endpoint.address, port.protocol);
            let key = format!("{0} . {0} . {protocol} . {1}", to.ip(), to.port());
            self.element(HAIRPIN, key, None)?;
        }

        self.element(CLUSTER_IPS, port.cluster_ip.to_string(), None)?;
        match port.internal() {
            Target::Endpoints(policy) => self.address(SERVICE_IPS, port.cluster_ip, &self.goto(policy_word(policy)))?,
            Target::Drop => self.address(NO_ENDPOINT_IPS, port.cluster_ip, "drop")?,
            Target::Reject => self.address(NO_ENDPOINT_IPS, port.cluster_ip, "goto refuse")?,
        }
        if port.is_external() {
            self.external()?;
        }
        Ok(())
    }

    /// Everything for traffic to other addresses than the cluster IP.
    fn external(&mut self) -> Result<(), Error> {
        let port = self.port;
        let target = port.external();
        if port.served {
            self.external_chain(target)?;
            let goal = self.goto("ext");
            for ip in port.external_ips.union(&port.load_balancer_ips) {
                self.address(SERVICE_IPS, *ip, &goal)?;
            }
            if let Some(number) = port.node_port {
                self.element(NODE_PORTS, format!("{} . {number}", port.protocol), Some(&goal))?;
            }
        }
        // With policy Local and no local endpoint, what the chain above did not send to the cluster's endpoints (clients
        // on the node, Pods) arrives here.
        let refusal = match target {
            Target::Endpoints(_) => None,
            Target::Drop => Some("drop"),
            Target::Reject => Some("goto refuse"),
        };
        if let Some(verdict) = refusal {
            for ip in port.external_ips.union(&port.load_balancer_ips) {
                self.address(NO_ENDPOINT_IPS, *ip, verdict)?;
            }
            if let Some(number) = port.node_port {
                self.element(NO_ENDPOINT_NODE_PORTS, format!("{} . {number}", port.protocol), Some(verdict))?;
            }
        }
        if !port.source_ranges.is_empty() && !port.load_balancer_ips.is_empty() {
            let ranges: Vec<String> = port.source_ranges.iter().map(ToString::to_string).collect();
            let rule = format!("{} saddr != {{ {} }} drop", self.ip.word, ranges.join(", "));
            self.chain("fw", vec![Rule::new(rule)?])?;
            for ip in &port.load_balancer_ips {
                self.address(FIREWALL_IPS, *ip, &self.goto("fw"))?;
            }
        }
        Ok(())
    }

    /// Which endpoints a client from outside reaches, and whether they see its address.
    fn external_chain(&mut self, target: Target) -> Result<(), Error> {
        let mut rules = Vec::new();
        match self.port.external_policy {
            // The endpoint may be on another node, whose reply must come back through this one.
            Policy::Cluster => rules.push(Rule::new(MASQUERADE)?),
            Policy::Local => {
                let node = "fib saddr type local".to_owned();
                rules.push(Rule::new(format!("{node} {MASQUERADE}"))?);
                let pods = of_family(self.ip, self.cluster_cidrs).map(|cidr| format!("{} saddr {cidr}", self.ip.word));
                for inside in pods.chain([node]).filter(|_| !self.port.cluster_endpoints.is_empty()) {
                    rules.push(Rule::new(format!("{inside} {}", self.goto("svc")))?);
                }
            }
        }
        if let Target::Endpoints(policy) = target {
            rules.push(Rule::new(self.goto(policy_word(policy)))?);
        }
        self.chain("ext", rules)
    }

    /// The chain that picks one of a policy's endpoints.
    fn balance(&mut self, policy: Policy) -> Result<(), Error> {
        let (endpoints, protocol) = (self.port.endpoints(policy), self.port.protocol);
        let rules = match (self.port.affinity, endpoints) {
            (Some(_), _) => {
                let mut rules = Vec::new();
                for endpoint in endpoints {
                    let (set, goal) = (self.affinity_set(*endpoint)?, self.endpoint_name(*endpoint)?);
                    rules.push(Rule::new(format!("{} saddr @{set} goto {goal}", self.ip.word))?);
                }
                let mut goals = Vec::new();
                for (i, endpoint) in endpoints.iter().enumerate() {
                    goals.push(format!("{i} : goto {}", self.endpoint_name(*endpoint)?));
                }
                let pick = format!("numgen random mod {} vmap {{ {} }}", endpoints.len(), goals.join(", "));
                rules.push(Rule::new(pick)?);
                rules
            }
            (None, [only]) => vec![Rule::new(format!("meta l4proto {protocol} dnat to {}", only.address))?],
            (None, _) => {
                let pair = |(i, endpoint): (usize, &Endpoint)| {
                    format!("{i} : {} . {}", endpoint.address.ip(), endpoint.address.port())
                };
                let pairs: Vec<String> = endpoints.iter().enumerate().map(pair).collect();
                vec![Rule::new(format!(
                    "meta l4proto {protocol} dnat {} to numgen random mod {} map {{ {} }}",
                    self.ip.word,
                    endpoints.len(),
                    pairs.join(", ")
                ))?]
            }
        };
        self.chain(policy_word(policy), rules)
    }

    /// The chain and the set of clients of one endpoint, with session affinity.
    fn endpoint(&mut self, endpoint: Endpoint) -> Result<(), Error> {
        let Some(timeout) = self.port.affinity else { return Ok(()) };
        let (set, chain) = (self.affinity_set(endpoint)?, self.endpoint_name(endpoint)?);
        let rules = vec![
            Rule::new(format!("update @{set} {{ {} saddr }}", self.ip.word))?,
            Rule::new(format!("meta l4proto {} dnat to {}", self.port.protocol, endpoint.address))?,
        ];
        self.fragment.sets.insert(set, Set::expiring(self.ip.address_type, timeout));
        self.fragment.chains.insert(chain, Chain { hook: None, rules });
        Ok(())
    }

    fn chain(&mut self, word: &str, rules: Vec<Rule>) -> Result<(), Error> {
        self.fragment.chains.insert(Name::new(self.path(word))?, Chain { hook: None, rules });
        Ok(())
    }

    fn address(&mut self, set: &'static str, ip: IpAddr, verdict: &str) -> Result<(), Error> {
        self.element(set, format!("{ip} . {} . {}", self.port.protocol, self.port.port), Some(verdict))
    }

    fn element(&mut self, set: &'static str, key: String, verdict: Option<&str>) -> Result<(), Error> {
        let element = match verdict {
            Some(verdict) => Element::pair(key.clone(), verdict)?,
            None => Element::key(key.clone())?,
        };
        self.fragment.elements.insert((set, key), element);
        Ok(())
    }

    fn goto(&self, word: &str) -> String {
        format!("goto {}", self.path(word))
    }

    /// `svc/default/redis-master/tcp/6379`
    fn path(&self, word: &str) -> String {
        let Port { service, protocol, port, .. } = self.port;
        format!("{word}/{}/{}/{protocol}/{port}", service.namespace, service.name)
    }

    fn endpoint_name(&self, endpoint: Endpoint) -> Result<Name, Error> {
        Ok(Name::new(format!("{}/{}", self.path("ep"), address_path(endpoint.address)))?)
    }

    /// The time is part of the name because the kernel cannot change that of a set which exists.
    fn affinity_set(&self, endpoint: Endpoint) -> Result<Name, Error> {
        let seconds = self.port.affinity.unwrap_or_default().as_secs();
        Ok(Name::new(format!("{}/{}/{seconds}", self.path("aff"), address_path(endpoint.address)))?)
    }
}

fn of_family(ip: Ip, cidrs: &[IpNet]) -> impl Iterator<Item = &IpNet> {
    cidrs.iter().filter(move |cidr| cidr.addr().is_ipv4() == (ip == IPV4))
}

fn policy_word(policy: Policy) -> &'static str {
    match policy {
        Policy::Cluster => "svc",
        Policy::Local => "local",
    }
}

/// Names have no place for the colons of an IPv6 address.
fn address_path(address: SocketAddr) -> String {
    format!("{}/{}", address.ip().to_string().replace(':', "."), address.port())
}
