//! The nodes, what they offer and what is taken, kept by increments; a Pod is counted from the moment it is assumed.
//!
//! Pure: it is told of objects and asks nobody. What plugins need of a Pod is computed once, in [`PodFacts`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use xebec_api::{ObjectKey, Quantity, pod};

/// Upstream counts a container that requests nothing as this much, so that such Pods spread.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 << 20;

/// Amounts in the units the scheduler compares: thousandths of cores, bytes, pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral: i64,
    pub extended: BTreeMap<String, i64>,
}

impl Resources {
    fn of(amounts: &pod::Amounts) -> Self {
        let mut resources = Resources::default();
        for (name, amount) in amounts {
            match name.as_str() {
                "cpu" => resources.milli_cpu = amount.milli_value(),
                "memory" => resources.memory = amount.value(),
                "ephemeral-storage" => resources.ephemeral = amount.value(),
                "pods" => {}
                other => {
                    resources.extended.insert(other.to_owned(), amount.value());
                }
            }
        }
        resources
    }

    fn add(&mut self, other: &Resources, sign: i64) {
        self.milli_cpu += sign * other.milli_cpu;
        self.memory += sign * other.memory;
        self.ephemeral += sign * other.ephemeral;
        for (name, amount) in &other.extended {
            *self.extended.entry(name.clone()).or_default() += sign * amount;
        }
    }
}

/// A port of the node that a Pod takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// Two claims on a port clash on the same address, or when one of them is for all addresses.
    pub fn clashes(&self, other: &HostPort) -> bool {
        let any = |ip: &str| ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

/// What the plugins ask of a Pod, computed once.
#[derive(Debug)]
pub struct PodFacts {
    pub key: ObjectKey,
    pub uid: String,
    pub priority: i32,
    pub requests: Resources,
    /// With defaults for containers that request nothing; for scores only.
    pub weighed: Resources,
    pub ports: Vec<HostPort>,
    /// The controlling owner, by whose Pods spreading is judged.
    pub owner: Option<String>,
    pub pod: Arc<Pod>,
}

impl PodFacts {
    pub fn of(pod: &Arc<Pod>) -> Self {
        let meta = &pod.metadata;
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let requests = Resources::of(&pod::requests(spec));
        let mut owners = meta.owner_references.iter().flatten();
        PodFacts {
            key: ObjectKey::of(&**pod),
            uid: meta.uid.clone().unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
            weighed: weighed(spec, &requests),
            requests,
            ports: host_ports(spec),
            owner: owners.find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone()),
            pod: pod.clone(),
        }
    }

    pub fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }
}

fn weighed(spec: &PodSpec, requests: &Resources) -> Resources {
    let silent = |name: &str| {
        let asks = |container: &&k8s_openapi::api::core::v1::Container| {
            let amounts = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            amounts.is_some_and(|amounts| amounts.contains_key(name))
        };
        spec.containers.iter().filter(|container| !asks(container)).count() as i64
    };
    let mut weighed = requests.clone();
    weighed.milli_cpu += silent("cpu") * DEFAULT_MILLI_CPU;
    weighed.memory += silent("memory") * DEFAULT_MEMORY;
    weighed
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|init| pod::is_sidecar(init));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let ip = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some(HostPort { ip, protocol, port: number })
        })
        .collect()
}

/// One node and what is taken of it.
#[derive(Debug)]
pub struct NodeState {
    pub name: Arc<str>,
    pub node: Arc<Node>,
    pub allocatable: Resources,
    pub allowed_pods: i64,
    pub requested: Resources,
    pub weighed: Resources,
    pub pods: HashMap<String, Arc<PodFacts>>,
    /// Image names that the node has, with their sizes.
    pub images: HashMap<String, i64>,
}

impl NodeState {
    fn new(node: Arc<Node>) -> Self {
        let mut state = NodeState {
            name: node.metadata.name.clone().unwrap_or_default().into(),
            node: node.clone(),
            allocatable: Resources::default(),
            allowed_pods: 0,
            requested: Resources::default(),
            weighed: Resources::default(),
            pods: HashMap::new(),
            images: HashMap::new(),
        };
        state.update(node);
        state
    }

    fn update(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        let allocatable = status.and_then(|status| status.allocatable.as_ref());
        let amounts = allocatable
            .into_iter()
            .flatten()
            .map(|(name, amount)| (name.clone(), Quantity::of(Some(amount))))
            .collect();
        self.allocatable = Resources::of(&amounts);
        self.allowed_pods = amounts.get("pods").map_or(0, Quantity::value);
        let images = status.and_then(|status| status.images.as_ref()).into_iter().flatten();
        self.images = images
            .flat_map(|image| image.names.iter().flatten().map(|name| (name.clone(), image.size_bytes.unwrap_or(0))))
            .collect();
        self.node = node;
    }

    pub fn put(&mut self, facts: Arc<PodFacts>) {
        self.requested.add(&facts.requests, 1);
        self.weighed.add(&facts.weighed, 1);
        if let Some(old) = self.pods.insert(facts.uid.clone(), facts) {
            self.subtract(&old);
        }
    }

    pub fn take(&mut self, uid: &str) -> Option<Arc<PodFacts>> {
        let facts = self.pods.remove(uid)?;
        self.subtract(&facts);
        Some(facts)
    }

    fn subtract(&mut self, facts: &PodFacts) {
        self.requested.add(&facts.requests, -1);
        self.weighed.add(&facts.weighed, -1);
    }

    /// A copy to try things on.
    pub fn sketch(&self) -> NodeState {
        NodeState {
            name: self.name.clone(),
            node: self.node.clone(),
            allocatable: self.allocatable.clone(),
            allowed_pods: self.allowed_pods,
            requested: self.requested.clone(),
            weighed: self.weighed.clone(),
            pods: self.pods.clone(),
            images: HashMap::new(),
        }
    }
}

/// All nodes in one array, and where each Pod lies.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub nodes: Vec<NodeState>,
    index: HashMap<Arc<str>, usize>,
    placed: HashMap<String, Arc<str>>,
    /// Pods on nodes that are not known (yet).
    homeless: HashMap<Arc<str>, Vec<Arc<PodFacts>>>,
}

impl Snapshot {
    pub fn node(&self, name: &str) -> Option<&NodeState> {
        self.index.get(name).map(|at| &self.nodes[*at])
    }

    pub fn set_node(&mut self, node: &Arc<Node>) {
        let name = node.metadata.name.as_deref().unwrap_or("");
        if let Some(at) = self.index.get(name) {
            self.nodes[*at].update(node.clone());
            return;
        }
        let mut state = NodeState::new(node.clone());
        for facts in self.homeless.remove(name).unwrap_or_default() {
            state.put(facts);
        }
        self.index.insert(state.name.clone(), self.nodes.len());
        self.nodes.push(state);
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(at) = self.index.remove(name) else { return };
        let state = self.nodes.swap_remove(at);
        if let Some(moved) = self.nodes.get(at) {
            self.index.insert(moved.name.clone(), at);
        }
        self.homeless.insert(state.name, state.pods.into_values().collect());
    }

    /// Counts a Pod on a node, once, wherever it was counted before.
    pub fn place(&mut self, facts: Arc<PodFacts>, node: &str) {
        self.displace(&facts.uid);
        let name: Arc<str> = node.into();
        self.placed.insert(facts.uid.clone(), name.clone());
        match self.index.get(node) {
            Some(at) => self.nodes[*at].put(facts),
            None => self.homeless.entry(name).or_default().push(facts),
        }
    }

    pub fn displace(&mut self, uid: &str) {
        let Some(name) = self.placed.remove(uid) else { return };
        match self.index.get(&name) {
            Some(at) => {
                self.nodes[*at].take(uid);
            }
            None => {
                if let Some(pods) = self.homeless.get_mut(&name) {
                    pods.retain(|facts| facts.uid != uid);
                }
            }
        }
    }

    pub fn is_placed(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }
}
