//! Cluster IPs and node ports: given out so that no two Services have the same one.
//!
//! One lock serialises all reservations. What is in use follows from the Services themselves: the allocator reads their
//! changes from the cache's history before each reservation, and keeps what is reserved but not yet seen there; addresses
//! that somebody else has written down as IPAddresses are not given out either. It writes nothing. Behaviour: upstream's Service registry and its bands, in which dynamic allocation takes the upper part of a
//! range first so that requests for fixed values in the lower part do not collide with it.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{IPAddress, IPAddressSpec, ParentReference, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use rand::Rng;
use serde_json::json;
use xebec_api::field::{FieldError, Path};
use xebec_api::status::StatusError;

use crate::cache::{Change, ResourceCache, Watcher};
use crate::registry::erased::AnyObject;
use crate::registry::{Index, Served};

const NONE: &str = "None";

/// From what is given out.
#[derive(Clone, Debug)]
pub struct Ranges {
    pub cluster_ips: Ipv4Net,
    pub node_ports: RangeInclusive<u16>,
}

impl Default for Ranges {
    fn default() -> Self {
        let network = Ipv4Net::new(Ipv4Addr::new(10, 96, 0, 0), 16).expect("16 is a prefix length");
        Ranges { cluster_ips: network, node_ports: 30000..=32767 }
    }
}

impl Ranges {
    /// The address of the `kubernetes` Service: the first of the range.
    pub fn api_server(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.cluster_ips.network()) + 1)
    }
}

/// Something that only one Service may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Good {
    Ip(Ipv4Addr),
    Port(u16),
}

#[derive(Default)]
struct State {
    /// By whose uid it is held.
    held: HashMap<Good, Box<str>>,
    /// Given out, but the write has not been seen yet.
    reserved: HashSet<Good>,
    services: Option<Arc<ResourceCache>>,
    addresses: Option<Arc<ResourceCache>>,
    /// Further blocks of addresses.
    blocks: Option<Arc<ResourceCache>>,
    watcher: Option<Watcher>,
}

pub struct Allocator {
    ranges: Ranges,
    state: Mutex<State>,
}

/// What one write holds until it is carried out. Dropping it gives back what [`Reservation::keep`] has not kept.
pub struct Reservation<'a> {
    allocator: &'a Allocator,
    goods: Vec<Good>,
    uid: Box<str>,
    released: Vec<Good>,
}

impl<'a> Reservation<'a> {
    /// For writes that need nothing.
    pub fn nothing(allocator: &'a Allocator) -> Self {
        Reservation { allocator, goods: Vec::new(), uid: Box::from(""), released: Vec::new() }
    }

    /// The write has been carried out.
    pub fn keep(mut self) {
        if self.goods.is_empty() && self.released.is_empty() {
            return;
        }
        let mut state = self.allocator.state.lock();
        for good in self.goods.drain(..) {
            state.reserved.remove(&good);
            state.held.insert(good, self.uid.clone());
        }
        for good in self.released.drain(..) {
            if state.held.get(&good) == Some(&self.uid) {
                state.held.remove(&good);
            }
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.goods.is_empty() {
            let mut state = self.allocator.state.lock();
            for good in &self.goods {
                state.reserved.remove(good);
            }
        }
    }
}

impl Allocator {
    /// The caches hold what the store had at start.
    pub fn new(ranges: Ranges, index: &Index) -> Self {
        let cache = |group, plural| index.find(group, "v1", plural).map(|served| served.cache.clone());
        let services = cache("", "services");
        let (addresses, blocks) =
            (cache("networking.k8s.io", "ipaddresses"), cache("networking.k8s.io", "servicecidrs"));
        let mut state = State { services, addresses, blocks, ..State::default() };
        state.begin_anew();
        Allocator { ranges, state: Mutex::new(state) }
    }

    pub fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Fills in what the client left open and keeps the single and the plural address in step, as upstream does before
    /// anything is allocated or validated.
    pub fn complete(&self, object: &mut dyn AnyObject, old: Option<&dyn AnyObject>) {
        let Some(Service { spec: Some(new), .. }) = object.as_any_mut().downcast_mut::<Service>() else { return };
        if is_type(new, "ExternalName") {
            // Upstream shows none for these, whatever was set while the Service was of another type.
            new.internal_traffic_policy = None;
        }
        let old = old.and_then(|old| old.as_any().downcast_ref::<Service>());
        match old.and_then(|old| old.spec.as_ref()) {
            Some(old) => {
                carry_over(new, old);
                follow_single(new, old);
            }
            None => plural_of_single(new),
        }
    }

    /// Gives a Service what it needs and does not have. Other kinds need nothing.
    pub fn reserve<'a>(
        &'a self,
        object: &mut dyn AnyObject,
        old: Option<&dyn AnyObject>,
        served: &Served,
    ) -> Result<Reservation<'a>, StatusError> {
        let mut reservation = Reservation::nothing(self);
        reservation.uid = object.meta().uid.clone().unwrap_or_default().into_boxed_str();
        let Some(service) = object.as_any_mut().downcast_mut::<Service>() else { return Ok(reservation) };
        let old = old.and_then(|old| old.as_any().downcast_ref::<Service>());
        let name = service.metadata.name.clone().unwrap_or_default();
        let invalid = |error: FieldError| StatusError::invalid(served.resource(), &name, vec![error]);
        let Some(spec) = service.spec.as_mut() else { return Ok(reservation) };

        let mut state = self.state.lock();
        state.catch_up();
        let before: Vec<Good> = old.map(goods_of).unwrap_or_default();
        let mut grant = Grant { ranges: &self.ranges, state: &mut state, before: &before, taken: Vec::new() };
        let granted = families(spec, old.and_then(|old| old.spec.as_ref()))
            .map_err(invalid)
            .and_then(|()| grant.cluster_ip(spec).map_err(invalid))
            .and_then(|()| grant.node_ports(spec, invalid));
        reservation.goods = grant.taken;
        drop(state);
        granted?;
        let after = goods_of(service);
        reservation.released = before.into_iter().filter(|good| !after.contains(good)).collect();
        Ok(reservation)
    }
}

impl State {
    fn note(&mut self, service: &Service) {
        let uid = service.metadata.uid.clone().unwrap_or_default().into_boxed_str();
        self.forget(&uid);
        for good in goods_of(service) {
            self.held.insert(good, uid.clone());
        }
    }

    fn forget(&mut self, uid: &str) {
        self.held.retain(|_, holder| &**holder != uid);
    }

    /// Reads all Services there are, and their changes from then on.
    fn begin_anew(&mut self) {
        let Some(cache) = self.services.clone() else { return };
        let (watcher, snapshot) = cache.follow();
        self.held.clear();
        for service in snapshot.scan("", None).filter_map(|item| item.object.typed::<Service>().ok()) {
            self.note(&service);
        }
        self.watcher = Some(watcher);
    }

    /// Takes in what has happened to Services since the last call.
    fn catch_up(&mut self) {
        let mut seen = Vec::new();
        loop {
            match self.watcher.as_mut().map(|watcher| watcher.poll_seen(&mut seen)) {
                Some(Ok(true)) => {}
                Some(Ok(false)) => break,
                // Nobody has asked for so long that the history has moved on.
                None | Some(Err(_)) => return self.begin_anew(),
            }
        }
        for one in seen {
            match one.change {
                Change::Deleted => self.forget(&one.object.meta().uid),
                Change::Added | Change::Modified => {
                    if let Ok(service) = one.object.typed::<Service>() {
                        self.note(&service);
                    }
                }
            }
        }
    }

    fn is_free(&self, good: Good) -> bool {
        let written_down = |address: Ipv4Addr| {
            self.addresses.as_ref().is_some_and(|cache| cache.get("", &address.to_string()).is_some())
        };
        let is_written_down = matches!(good, Good::Ip(address) if written_down(address));
        !self.held.contains_key(&good) && !self.reserved.contains(&good) && !is_written_down
    }

    /// The blocks that may be given out from besides the server's own.
    fn further_blocks(&self) -> Vec<Ipv4Net> {
        let Some(cache) = &self.blocks else { return Vec::new() };
        let snapshot = cache.snapshot();
        let ranges = snapshot.scan("", None).filter_map(|item| item.object.typed::<ServiceCIDR>().ok());
        let ready = |range: &Arc<ServiceCIDR>| {
            let mut conditions = range.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let ready = conditions.any(|one| one.type_ == "Ready" && one.status == "True");
            ready && range.metadata.deletion_timestamp.is_none()
        };
        let blocks = |range: Arc<ServiceCIDR>| -> Vec<Ipv4Net> {
            let texts = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
            texts.filter_map(|text| text.parse().ok()).collect()
        };
        ranges.filter(ready).flat_map(blocks).collect()
    }
}

/// One write's reservations under the lock.
struct Grant<'a> {
    ranges: &'a Ranges,
    state: &'a mut State,
    before: &'a [Good],
    taken: Vec<Good>,
}

impl Grant<'_> {
    fn take(&mut self, good: Good) {
        self.state.reserved.insert(good);
        self.taken.push(good);
    }

    fn fixed(&mut self, good: Good, in_range: bool, range: String, what: &str) -> Result<(), String> {
        if self.before.contains(&good) || self.taken.contains(&good) {
            return Ok(());
        }
        if !in_range {
            return Err(range);
        }
        if !self.state.is_free(good) {
            return Err(format!("provided {what} is already allocated"));
        }
        self.take(good);
        Ok(())
    }

    fn cluster_ip(&mut self, spec: &mut ServiceSpec) -> Result<(), FieldError> {
        let asked = spec.cluster_ip.clone().unwrap_or_default();
        if is_type(spec, "ExternalName") || asked == NONE {
            return Ok(());
        }
        let path = Path::new("spec").child("clusterIPs");
        if asked.is_empty() {
            let address = self.next_ip().ok_or_else(|| {
                FieldError::invalid(&path, json!(spec.cluster_ips), "failed to allocate IP: range is full")
            })?;
            self.take(Good::Ip(address));
            spec.cluster_ip = Some(address.to_string());
            spec.cluster_ips = Some(vec![address.to_string()]);
            return Ok(());
        }
        spec.cluster_ips.get_or_insert_with(|| vec![asked.clone()]);
        // Validation has refused what is no address; addresses of another family were refused with their family.
        let Ok(IpAddr::V4(address)) = asked.parse::<IpAddr>() else { return Ok(()) };
        let usable = self.blocks().any(|network| {
            network.contains(&address) && address != network.network() && address != network.broadcast()
        });
        self.fixed(Good::Ip(address), usable, "the provided network does not match the current range".to_owned(), "IP")
            .map_err(|why| {
                FieldError::invalid(&path, json!(spec.cluster_ips), format!("failed to allocate IP {asked}: {why}"))
            })
    }

    fn blocks(&self) -> impl Iterator<Item = Ipv4Net> + use<> {
        let own = self.ranges.cluster_ips;
        std::iter::once(own).chain(self.state.further_blocks().into_iter().filter(move |block| *block != own))
    }

    fn next_ip(&self) -> Option<Ipv4Addr> {
        self.blocks().find_map(|network| self.next_ip_of(network))
    }

    fn next_ip_of(&self, network: Ipv4Net) -> Option<Ipv4Addr> {
        let base = u32::from(network.network());
        let size = u32::from(network.broadcast()).saturating_sub(base).saturating_sub(1);
        let lower = (size / 16).clamp(16, 256).min(size);
        let address = |offset: u32| Ipv4Addr::from(base + 1 + offset);
        let free = |offset: &u32| self.state.is_free(Good::Ip(address(*offset)));
        pick(lower, size, &free).or_else(|| pick(0, lower, &free)).map(address)
    }

    fn next_port(&self) -> Option<u16> {
        let (first, last) = (u32::from(*self.ranges.node_ports.start()), u32::from(*self.ranges.node_ports.end()));
        let size = (last + 1).saturating_sub(first);
        let lower = if size < 16 { 0 } else { (size / 32).clamp(16, 128).min(size) };
        let free = |offset: &u32| self.state.is_free(Good::Port((first + offset) as u16));
        let offset = pick(lower, size, &free).or_else(|| pick(0, lower, &free))?;
        u16::try_from(first + offset).ok()
    }

    fn node_ports(
        &mut self,
        spec: &mut ServiceSpec,
        invalid: impl Fn(FieldError) -> StatusError,
    ) -> Result<(), StatusError> {
        let balanced = is_type(spec, "LoadBalancer");
        if !balanced && !is_type(spec, "NodePort") {
            return Ok(());
        }
        let dynamic = !balanced || spec.allocate_load_balancer_node_ports != Some(false);
        let full = || StatusError::internal("failed to allocate a nodePort: range is full");
        // Ports with the same number and different protocols share one node port.
        let mut shared: HashMap<i32, i32> = HashMap::new();
        let mut ports = spec.ports.take().unwrap_or_default();
        for index in 0..ports.len() {
            let (number, asked) = (ports[index].port, ports[index].node_port.unwrap_or(0));
            if asked == 0 && !dynamic {
                continue;
            }
            let sibling = || requested(&ports, number);
            let wanted = if asked != 0 { Some(asked) } else { shared.get(&number).copied().or_else(sibling) };
            let granted = match wanted {
                Some(wanted) => {
                    let path = Path::new("spec").child("ports").index(index).child("nodePort");
                    self.fixed_port(wanted).map_err(|why| invalid(FieldError::invalid(&path, wanted, why)))?;
                    wanted
                }
                None => {
                    let port = self.next_port().ok_or_else(full)?;
                    self.take(Good::Port(port));
                    i32::from(port)
                }
            };
            shared.insert(number, granted);
            ports[index].node_port = Some(granted);
        }
        spec.ports = (!ports.is_empty()).then_some(ports);
        if balanced && spec.external_traffic_policy.as_deref() == Some("Local") {
            self.health_check_port(spec, full)?;
        }
        Ok(())
    }

    fn health_check_port(&mut self, spec: &mut ServiceSpec, full: impl Fn() -> StatusError) -> Result<(), StatusError> {
        match spec.health_check_node_port.unwrap_or(0) {
            0 => {
                let port = self.next_port().ok_or_else(full)?;
                self.take(Good::Port(port));
                spec.health_check_node_port = Some(i32::from(port));
                Ok(())
            }
            asked => self.fixed_port(asked).map_err(|why| {
                StatusError::internal(format!("failed to allocate requested HealthCheck NodePort {asked}: {why}"))
            }),
        }
    }

    fn fixed_port(&mut self, asked: i32) -> Result<(), String> {
        let range = &self.ranges.node_ports;
        let outside = format!(
            "provided port is not in the valid range. The range of valid ports is {}-{}",
            range.start(),
            range.end()
        );
        match u16::try_from(asked) {
            Ok(port) => self.fixed(Good::Port(port), range.contains(&port), outside, "port"),
            Err(_) => Err(outside),
        }
    }
}

/// A free one of `from..to`, beginning at a random place.
fn pick(from: u32, to: u32, free: &impl Fn(&u32) -> bool) -> Option<u32> {
    if from >= to {
        return None;
    }
    let start = rand::rng().random_range(from..to);
    (start..to).chain(from..start).find(free)
}

/// The node port that was asked for with another protocol of the same port.
fn requested(ports: &[ServicePort], number: i32) -> Option<i32> {
    ports.iter().filter(|port| port.port == number).filter_map(|port| port.node_port).find(|port| *port != 0)
}

/// The addresses that a Service holds.
pub fn addresses_of(service: &Service) -> impl Iterator<Item = Ipv4Addr> + use<> {
    let addresses = goods_of(service).into_iter().filter_map(|good| match good {
        Good::Ip(address) => Some(address),
        Good::Port(_) => None,
    });
    addresses.collect::<Vec<_>>().into_iter()
}

/// The object that says whose an address is.
pub fn ip_address(address: Ipv4Addr, owner: &ObjectMeta) -> IPAddress {
    let labels = [("ip-family", "IPv4"), ("managed-by", "ipallocator.k8s.io")];
    let labels = labels.map(|(key, value)| (format!("ipaddress.kubernetes.io/{key}"), value.to_owned()));
    IPAddress {
        metadata: ObjectMeta {
            name: Some(address.to_string()),
            labels: Some(labels.into_iter().collect()),
            ..ObjectMeta::default()
        },
        spec: IPAddressSpec {
            parent_ref: ParentReference {
                group: None,
                name: owner.name.clone().unwrap_or_default(),
                namespace: owner.namespace.clone(),
                resource: "services".to_owned(),
            },
        },
    }
}

fn is_type(spec: &ServiceSpec, name: &str) -> bool {
    spec.type_.as_deref().unwrap_or("ClusterIP") == name
}

fn goods_of(service: &Service) -> Vec<Good> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let mut goods = Vec::new();
    if !is_type(spec, "ExternalName")
        && let Some(Ok(address)) = spec.cluster_ip.as_deref().map(str::parse::<Ipv4Addr>)
    {
        goods.push(Good::Ip(address));
    }
    let ports = spec.ports.iter().flatten().filter_map(|port| port.node_port).chain(spec.health_check_node_port);
    for port in ports.filter(|port| *port != 0).filter_map(|port| u16::try_from(port).ok()) {
        if !goods.contains(&Good::Port(port)) {
            goods.push(Good::Port(port));
        }
    }
    goods
}

/// The address families of a cluster that has one, with the refusal of what would take two.
fn families(spec: &mut ServiceSpec, old: Option<&ServiceSpec>) -> Result<(), FieldError> {
    if is_type(spec, "ExternalName") {
        return Ok(());
    }
    let headless = spec.cluster_ip.as_deref() == Some(NONE);
    let selectorless = spec.selector.as_ref().is_none_or(|selector| selector.is_empty());
    if headless {
        spec.cluster_ips.get_or_insert_with(|| vec![NONE.to_owned()]);
    }
    if spec.ip_family_policy.is_none() {
        let before = old.and_then(|old| old.ip_family_policy.clone());
        let default = if headless && selectorless { "RequireDualStack" } else { "SingleStack" };
        spec.ip_family_policy = before.or_else(|| Some(default.to_owned()));
    }
    let policy = spec.ip_family_policy.clone().unwrap_or_default();
    let families = spec.ip_families.get_or_insert_default();
    let path = Path::new("spec");
    if policy == "SingleStack" && families.len() > 1 {
        let text = "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified";
        return Err(FieldError::invalid(&path.child("ipFamilyPolicy"), policy, text));
    }
    if headless && selectorless {
        if families.is_empty() {
            families.push("IPv4".to_owned());
        }
        if families.len() < 2 && policy != "SingleStack" {
            let other = if families[0] == "IPv4" { "IPv6" } else { "IPv4" };
            families.push(other.to_owned());
        }
        return Ok(());
    }
    if policy == "RequireDualStack" {
        let text = "this cluster is not configured for dual-stack services";
        return Err(FieldError::invalid(&path.child("ipFamilyPolicy"), policy, text));
    }
    if let Some(index) = families.iter().position(|family| family != "IPv4") {
        let path = path.child("ipFamilies").index(index);
        return Err(FieldError::invalid(&path, families[index].clone(), "not configured on this cluster"));
    }
    if families.is_empty() {
        families.push("IPv4".to_owned());
    }
    Ok(())
}

fn plural_of_single(spec: &mut ServiceSpec) {
    if let Some(address) = spec.cluster_ip.clone().filter(|address| !address.is_empty())
        && spec.cluster_ips.as_ref().is_none_or(Vec::is_empty)
    {
        spec.cluster_ips = Some(vec![address]);
    }
}

/// A client that knows the single address only has changed it: the plural follows.
fn follow_single(new: &mut ServiceSpec, old: &ServiceSpec) {
    let single = |spec: &ServiceSpec| spec.cluster_ip.clone().unwrap_or_default();
    let plural = |spec: &ServiceSpec| spec.cluster_ips.clone().unwrap_or_default();
    if single(new) == single(old) || plural(new) != plural(old) {
        return;
    }
    let address = single(new);
    new.cluster_ips = (!address.is_empty()).then(|| vec![address]);
}

fn carry_over(new: &mut ServiceSpec, old: &ServiceSpec) {
    let needs_ip = |spec: &ServiceSpec| !is_type(spec, "ExternalName");
    if needs_ip(new) && needs_ip(old) {
        if new.cluster_ip.as_deref().unwrap_or("").is_empty() {
            new.cluster_ip = old.cluster_ip.clone();
        }
        if new.cluster_ips.as_ref().is_none_or(Vec::is_empty) {
            new.cluster_ips = old.cluster_ips.clone();
        }
    }
    let needs_ports = |spec: &ServiceSpec| {
        is_type(spec, "NodePort")
            || (is_type(spec, "LoadBalancer") && spec.allocate_load_balancer_node_ports != Some(false))
    };
    if needs_ports(new) && needs_ports(old) {
        carry_over_ports(new, old);
    }
    let checked =
        |spec: &ServiceSpec| is_type(spec, "LoadBalancer") && spec.external_traffic_policy.as_deref() == Some("Local");
    if checked(new) && checked(old) && new.health_check_node_port.unwrap_or(0) == 0 {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// Node ports are matched by the ports' names: other properties may be what the client changes.
fn carry_over_ports(new: &mut ServiceSpec, old: &ServiceSpec) {
    let numbers = |spec: &ServiceSpec| -> HashSet<i32> {
        spec.ports.iter().flatten().filter_map(|port| port.node_port).filter(|number| *number != 0).collect()
    };
    let (before, after) = (numbers(old), numbers(new));
    let named: HashMap<&str, i32> = old
        .ports
        .iter()
        .flatten()
        .filter_map(|port| Some((port.name.as_deref().unwrap_or(""), port.node_port?)))
        .collect();
    for port in new.ports.iter_mut().flatten().filter(|port| port.node_port.unwrap_or(0) == 0) {
        let number = named.get(port.name.as_deref().unwrap_or("")).copied().unwrap_or(0);
        if number != 0 && !(before.contains(&number) && after.contains(&number)) {
            port.node_port = Some(number);
        }
    }
}
