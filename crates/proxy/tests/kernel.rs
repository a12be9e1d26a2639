//! A node with two Pods and a machine outside, each in a network namespace: connections through the rules arrive where
//! the model says, and changes touch what changed.

#[path = "../../netfilter/tests/namespace/mod.rs"]
mod namespace;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use namespace::Namespace;
use serde_json::{Value, json};
use xebec_api::ObjectKey;
use xebec_netfilter::{Netfilter, Nft};
use xebec_proxy::backend::Nftables;
use xebec_proxy::conntrack::{Program, stale};
use xebec_proxy::table::{self, Table};
use xebec_proxy::{Backend, Config, Conntrack, Scope};

const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
const POD_A: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 2);
const POD_B: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 3);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 7);

struct Node {
    node: Namespace,
    a: Namespace,
    b: Namespace,
    outside: Namespace,
    config: Config,
    table: Table,
    backend: Nftables,
    nft: Arc<Nft>,
}

impl Node {
    /// Pods as the Pod network makes them: a `/32` and a route to the gateway, the bridge's address. With `bridged`,
    /// packets between Pods of one bridge meet the IP rules inside the bridge already, as Docker hosts have it.
    fn create(bridged: bool) -> Option<Self> {
        let node = Namespace::create("node")?;
        let [a, b, outside] = ["a", "b", "out"].map(|name| Namespace::create(name).unwrap());
        node.run("ip link add br0 type bridge");
        node.run("ip address add 10.244.0.1/24 dev br0");
        node.run("ip link set br0 up");
        for (pod, ip, veth) in [(&a, POD_A, "veth-a"), (&b, POD_B, "veth-b")] {
            node.run(&format!("ip link add {veth} type veth peer name eth0 netns {}", pod.name));
            node.run(&format!("ip link set {veth} master br0 up"));
            node.run(&format!("ip link set {veth} type bridge_slave hairpin on"));
            pod.run(&format!("ip address add {ip}/32 dev eth0"));
            pod.run("ip link set eth0 up");
            pod.run("ip route add 10.244.0.1 dev eth0");
            pod.run("ip route add default via 10.244.0.1");
        }
        node.run(&format!("ip link add eth0 type veth peer name eth0 netns {}", outside.name));
        node.run("ip address add 192.0.2.1/24 dev eth0");
        node.run("ip link set eth0 up");
        outside.run("ip address add 192.0.2.2/24 dev eth0");
        outside.run("ip link set eth0 up");
        node.run("ip route add default via 192.0.2.2");
        node.inside(|| {
            for (key, value) in [
                ("ip_forward", "1"),
                ("conf/br0/route_localnet", "1"),
                ("conf/all/send_redirects", "0"),
                ("conf/br0/send_redirects", "0"),
            ] {
                std::fs::write(format!("/proc/sys/net/ipv4/{key}"), value).unwrap();
            }
            // Without the module there is nothing to switch.
            let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", if bridged { "1" } else { "0" });
        });
        let cluster_cidrs = vec!["10.244.0.0/16".parse().unwrap()];
        let config = Config { node_name: "n1".into(), cluster_cidrs, ..Config::default() };
        let nft = Arc::new(Nft::in_namespace(&node.path()));
        let backend = Nftables::new(nft.clone(), &config.cluster_cidrs).unwrap();
        for (pod, name) in [(&a, "a"), (&b, "b")] {
            serve(pod, name);
        }
        Some(Self { node, a, b, outside, config, table: Table::new(), backend, nft })
    }

    /// Puts a Service into the model; `endpoints` are `ADDRESS@NODE`.
    fn set(&mut self, name: &str, spec: &Value, endpoints: &[&str]) {
        let metadata = json!({"namespace": "default", "name": name});
        let service: Service = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
        let endpoint = |text: &&str| {
            let (ip, node) = text.split_once('@').unwrap();
            json!({"addresses": [ip], "nodeName": node})
        };
        let endpoints: Vec<Value> = endpoints.iter().map(endpoint).collect();
        let ports: Vec<Value> = spec["ports"].as_array().unwrap().iter().map(target).collect();
        let slice = json!({"addressType": "IPv4", "metadata": {}, "endpoints": endpoints, "ports": ports});
        let slice: Arc<EndpointSlice> = Arc::new(serde_json::from_value(slice).unwrap());
        let ports = table::ports(&self.config, &service, &[slice]);
        self.table.insert(ObjectKey::of(&service), ports);
    }

    async fn sync_all(&mut self) {
        self.backend.sync(&self.table, Scope::All).await.unwrap();
        assert!(self.backend.is_intact().await.unwrap());
    }

    async fn sync(&mut self, names: &[&str]) {
        let names: BTreeSet<ObjectKey> = names.iter().map(|name| ObjectKey::new("default", *name)).collect();
        self.backend.sync(&self.table, Scope::Changed(&names)).await.unwrap();
        assert!(self.backend.is_intact().await.unwrap());
    }
}

fn target(port: &Value) -> Value {
    json!({"name": port["name"], "protocol": port["protocol"], "port": 8080})
}

/// Answers on TCP and UDP port 8080 with its name and the client's address.
fn serve(pod: &Namespace, name: &'static str) {
    let (tcp, udp) =
        pod.inside(|| (TcpListener::bind("0.0.0.0:8080").unwrap(), UdpSocket::bind("0.0.0.0:8080").unwrap()));
    std::thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            let mut stream = stream;
            let _ = write!(stream, "{name} {}", stream.peer_addr().unwrap().ip());
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, client)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(format!("{name} {}", client.ip()).as_bytes(), client);
        }
    });
}

/// `name address` as the server tells them, or the error's kind.
fn connect(from: &Namespace, to: impl Into<SocketAddr>) -> Result<String, ErrorKind> {
    let to = to.into();
    from.inside(|| {
        // Longer than any answer here takes; a dropped packet costs it in full.
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_millis(500))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    })
    .map_err(|error| error.kind())
}

fn names(from: &Namespace, to: (Ipv4Addr, u16), times: usize) -> BTreeSet<char> {
    (0..times).map(|_| connect(from, to).unwrap().chars().next().unwrap()).collect()
}

fn web(extra: Value) -> Value {
    let ports = json!([{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}]);
    let mut spec = json!({"clusterIP": VIP, "type": "NodePort", "ports": ports});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

fn seen(name: &str, client: Ipv4Addr) -> Result<String, ErrorKind> {
    Ok(format!("{name} {client}"))
}

async fn reach(bridged: bool) {
    let Some(mut n) = Node::create(bridged) else { return };
    n.set("web", &web(json!({"externalIPs": ["198.51.100.5"]})), &["10.244.0.2@n1", "10.244.0.3@n1"]);
    n.sync_all().await;
    let both = BTreeSet::from(['a', 'b']);
    assert_eq!(names(&n.node, (VIP, 80), 40), both, "the node to the cluster IP");
    assert_eq!(names(&n.a, (VIP, 80), 40), both, "a Pod, an endpoint itself, to the cluster IP");
    assert_eq!(names(&n.outside, (NODE, 30080), 40), both, "the world to the node port");
    assert_eq!(names(&n.node, (NODE, 30080), 40), both, "the node to its own node port");
    assert_eq!(names(&n.node, (Ipv4Addr::LOCALHOST, 30080), 40), both, "the node through its loopback");
    assert_eq!(names(&n.a, (NODE, 30080), 40), both, "a Pod to the node port");
    assert_eq!(names(&n.a, (Ipv4Addr::new(198, 51, 100, 5), 80), 40), both, "a Pod to an external address");

    n.set("web", &web(json!({})), &["10.244.0.2@n1"]);
    n.sync(&["web"]).await;
    assert_eq!(connect(&n.b, (VIP, 80)), seen("a", POD_B), "Pods see each other's addresses");
    assert_eq!(connect(&n.a, (VIP, 80)), seen("a", GATEWAY), "a Pod that reaches itself sees the node");
    assert_eq!(connect(&n.outside, (NODE, 30080)), seen("a", GATEWAY), "policy Cluster hides the client");
    assert_eq!(connect(&n.node, (VIP, 81)), Err(ErrorKind::ConnectionRefused), "a port that the Service does not have");

    n.set("web", &web(json!({})), &[]);
    n.sync(&["web"]).await;
    for (from, to) in [(&n.node, (VIP, 80)), (&n.a, (VIP, 80)), (&n.outside, (NODE, 30080)), (&n.a, (NODE, 30080))] {
        assert_eq!(
            connect(from, to),
            Err(ErrorKind::ConnectionRefused),
            "no endpoints: {from:?} to {to:?}",
            from = from.name
        );
    }
    n.table.clear();
    n.sync(&["web"]).await;
    assert_eq!(connect(&n.outside, (NODE, 30080)), Err(ErrorKind::ConnectionRefused), "nobody listens any more");
    n.backend.remove().await.unwrap();
    assert!(n.nft.tables().await.unwrap().is_empty());
}

#[tokio::test]
async fn services_are_reached_and_refused() {
    reach(false).await;
}

#[tokio::test]
async fn services_are_reached_and_refused_with_bridged_packets_filtered() {
    reach(true).await;
}

#[tokio::test]
async fn a_client_keeps_its_endpoint() {
    let Some(mut n) = Node::create(false) else { return };
    let sticky = |seconds: u32| {
        web(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}))
    };
    let both = ["10.244.0.2@n1", "10.244.0.3@n1"];
    n.set("web", &sticky(100), &both);
    n.sync_all().await;
    let first = names(&n.node, (VIP, 80), 1);
    assert_eq!(names(&n.node, (VIP, 80), 30), first, "one client, one endpoint");
    assert_eq!(names(&n.node, (NODE, 30080), 1).len(), 1);

    let (left, other) = if first.contains(&'a') { (both[1], 'b') } else { (both[0], 'a') };
    n.set("web", &sticky(100), &[left]);
    n.sync(&["web"]).await;
    assert_eq!(names(&n.node, (VIP, 80), 5), BTreeSet::from([other]), "its endpoint is gone");
    n.set("web", &sticky(100), &both);
    n.sync(&["web"]).await;
    assert_eq!(names(&n.node, (VIP, 80), 30), BTreeSet::from([other]), "it stays with the new one");
    n.set("web", &sticky(200), &both);
    n.sync(&["web"]).await;
    n.set("web", &web(json!({})), &both);
    n.sync(&["web"]).await;
    assert_eq!(names(&n.node, (VIP, 80), 40).len(), 2, "without affinity");
}

#[tokio::test]
async fn local_policies_keep_traffic_on_the_node() {
    let Some(mut n) = Node::create(false) else { return };
    n.set("web", &web(json!({"externalTrafficPolicy": "Local"})), &["10.244.0.2@n1", "10.244.0.3@n2"]);
    n.sync_all().await;
    assert_eq!(names(&n.outside, (NODE, 30080), 20), BTreeSet::from(['a']));
    assert_eq!(connect(&n.outside, (NODE, 30080)), seen("a", OUTSIDE), "policy Local shows the client");
    assert_eq!(names(&n.node, (NODE, 30080), 40).len(), 2, "the node reaches all");
    assert_eq!(names(&n.a, (NODE, 30080), 40).len(), 2, "and so do Pods");

    n.set("web", &web(json!({"externalTrafficPolicy": "Local"})), &["10.244.0.3@n2"]);
    n.sync(&["web"]).await;
    assert_eq!(connect(&n.outside, (NODE, 30080)), Err(ErrorKind::TimedOut), "no endpoint here: dropped");
    assert_eq!(names(&n.node, (NODE, 30080), 3), BTreeSet::from(['b']));

    n.set("web", &web(json!({"internalTrafficPolicy": "Local"})), &["10.244.0.2@n1", "10.244.0.3@n2"]);
    n.sync(&["web"]).await;
    assert_eq!(names(&n.node, (VIP, 80), 20), BTreeSet::from(['a']));
    n.set("web", &web(json!({"internalTrafficPolicy": "Local"})), &["10.244.0.3@n2"]);
    n.sync(&["web"]).await;
    assert_eq!(connect(&n.node, (VIP, 80)), Err(ErrorKind::TimedOut));
}

#[tokio::test]
async fn changes_touch_what_changed() {
    let Some(mut n) = Node::create(false) else { return };
    let at =
        |ip: &str| json!({"clusterIP": ip, "externalIPs": ["198.51.100.5"], "ports": [{"name": "http", "port": 80}]});
    n.sync_all().await;
    assert!(n.nft.tables().await.unwrap().is_empty(), "no Service, no table");
    let shared = (Ipv4Addr::new(198, 51, 100, 5), 80);
    n.set("one", &at("10.96.0.21"), &["10.244.0.2@n1"]);
    n.sync(&["one"]).await;
    n.set("two", &at("10.96.0.22"), &["10.244.0.3@n1"]);
    n.sync(&["two"]).await;
    assert_eq!(names(&n.node, (Ipv4Addr::new(10, 96, 0, 21), 80), 3), BTreeSet::from(['a']));
    assert_eq!(names(&n.node, (Ipv4Addr::new(10, 96, 0, 22), 80), 3), BTreeSet::from(['b']));
    assert_eq!(names(&n.a, shared, 3), BTreeSet::from(['a']), "the first by name has the shared address");
    n.table.remove(&ObjectKey::new("default", "one"));
    n.sync(&["one"]).await;
    assert_eq!(names(&n.a, shared, 3), BTreeSet::from(['b']), "the other one takes over");

    n.node.run("nft flush ruleset");
    assert!(!n.backend.is_intact().await.unwrap());
    n.sync_all().await;
    assert_eq!(names(&n.a, shared, 3), BTreeSet::from(['b']));
}

#[tokio::test]
async fn udp_clients_leave_an_endpoint_that_is_gone() {
    let Some(mut n) = Node::create(false) else { return };
    let spec = json!({"clusterIP": VIP, "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]});
    n.set("dns", &spec, &["10.244.0.2@n1"]);
    n.sync_all().await;
    let client = n.b.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let ask = || {
        client.send_to(b"?", (VIP, 53)).unwrap();
        let mut buffer = [0; 64];
        let (length, _) = client.recv_from(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(ask(), format!("a {POD_B}"));
    n.set("dns", &spec, &["10.244.0.3@n1"]);
    n.sync(&["dns"]).await;
    assert_eq!(ask(), format!("a {POD_B}"), "the kernel remembers the flow");
    let conntrack = Program::in_namespace(&n.node.path());
    let flows = stale(&n.table, conntrack.udp_flows().await.unwrap());
    assert_eq!(flows.len(), 1);
    for flow in flows {
        conntrack.delete(flow).await.unwrap();
        conntrack.delete(flow).await.unwrap();
    }
    assert_eq!(ask(), format!("b {GATEWAY}"));
}

#[tokio::test]
async fn the_kernel_takes_every_form_of_rule() {
    let Some(namespace) = Namespace::create("rules") else { return };
    let config = Config { node_name: "n1".into(), ..Config::default() };
    let cidrs = ["10.244.0.0/16".parse().unwrap(), "fd00:244::/56".parse().unwrap()];
    let mut backend = Nftables::new(Arc::new(Nft::in_namespace(&namespace.path())), &cidrs).unwrap();
    let families =
        [("IPv4", "10.96.0.7", ["10.244.0.2", "10.244.0.3"]), ("IPv6", "fd00:96::7", ["fd00:244::2", "fd00:244::3"])];
    for (family, ip, endpoints) in families {
        for (protocol, affinity, count) in
            [("TCP", "None", 2), ("UDP", "ClientIP", 2), ("SCTP", "None", 1), ("SCTP", "ClientIP", 1)]
        {
            let port = json!({"port": 80, "protocol": protocol, "nodePort": 30080});
            let spec = json!({
                "type": "LoadBalancer", "clusterIP": ip, "sessionAffinity": affinity, "externalTrafficPolicy": "Local",
                "loadBalancerSourceRanges": ["198.51.100.0/24", "fd00:51::/64"], "ports": [port],
            });
            let status = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}, {"ip": "fd00:113::9"}]}});
            let service = json!({"metadata": {"namespace": "default", "name": "all"}, "spec": spec, "status": status});
            let service: Service = serde_json::from_value(service).unwrap();
            let endpoints: Vec<Value> =
                endpoints[..count].iter().map(|ip| json!({"addresses": [ip], "nodeName": "n1"})).collect();
            let ports = json!([{"port": 8080, "protocol": protocol}]);
            let slice = json!({"addressType": family, "metadata": {}, "endpoints": endpoints, "ports": ports});
            let slice: Arc<EndpointSlice> = Arc::new(serde_json::from_value(slice).unwrap());
            let table: Table = [(ObjectKey::of(&service), table::ports(&config, &service, &[slice]))].into();
            backend.sync(&table, Scope::Changed(&table.keys().cloned().collect())).await.unwrap();
            assert!(backend.is_intact().await.unwrap(), "{family} {protocol} {affinity}");
        }
    }
}
