//! A node, two Pods and a machine outside, each in a network namespace: the plugin's calls make networks that real
//! connections pass, survive the agent, and leave nothing behind.

#[path = "../../netfilter/tests/namespace/mod.rs"]
mod namespace;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use namespace::Namespace;
use serde_json::{Value, json};
use xebec_base::Shutdown;
use xebec_netfilter::{Netfilter, Nft};
use xebec_network::plugin::{self, Outcome};
use xebec_network::{Config, PodNetwork, remove_all};

struct Node {
    namespace: Namespace,
    config: Config,
    nft: Arc<Nft>,
    _folder: tempfile::TempDir,
}

impl Node {
    /// A node with one uplink, `192.0.2.1/24`, towards `outside`, which is `192.0.2.2` and knows no route to any Pod.
    fn create(outside: &Namespace) -> Option<Self> {
        let namespace = Namespace::create("node")?;
        namespace.run(&format!("ip link add eth0 mtu 1400 type veth peer name eth0 netns {}", outside.name));
        namespace.run("ip address add 192.0.2.1/24 dev eth0");
        namespace.run("ip link set eth0 up");
        outside.run("ip address add 192.0.2.2/24 dev eth0");
        outside.run("ip link set eth0 up");
        namespace.run("ip route add default via 192.0.2.2");
        let folder = tempfile::tempdir().unwrap();
        let within = |name: &str| folder.path().join(name);
        let config = Config {
            pod_cidr: "10.244.0.0/24".parse().unwrap(),
            cluster_cidr: "10.244.0.0/16".parse().unwrap(),
            bridge: "xebec0".into(),
            mtu: None,
            local_addresses: vec![Ipv4Addr::new(10, 96, 0, 10)],
            state_dir: within("attachments"),
            socket: within("run/cni.sock"),
            cni_conf_dir: within("net.d"),
            cni_bin_dir: within("bin"),
            program: "/proc/self/exe".into(),
            namespace: Some(namespace.path().into()),
        };
        let nft = Arc::new(Nft::in_namespace(&namespace.path()));
        Some(Self { namespace, config, nft, _folder: folder })
    }

    async fn agent(&self) -> Agent {
        let shutdown = Shutdown::new();
        let network = PodNetwork::start(self.config.clone(), self.nft.clone()).await.unwrap();
        let task = tokio::spawn(network.serve(shutdown.clone()));
        Agent { shutdown, task }
    }

    /// Calls the plugin as the container runtime does, with the configuration that was installed for it.
    async fn plugin(&self, command: &'static str, pod: &Namespace, extra: Value) -> (i32, Value) {
        let list = std::fs::read(self.config.cni_conf_dir.join("10-xebec.conflist")).unwrap();
        let list: Value = serde_json::from_slice(&list).unwrap();
        let mut conf = list["plugins"][0].clone();
        conf["cniVersion"] = list["cniVersion"].clone();
        conf["name"] = list["name"].clone();
        for (key, value) in extra.as_object().unwrap() {
            conf[key] = value.clone();
        }
        let (name, path) = (pod.name.clone(), pod.path());
        let call = move || {
            let variable = |wanted: &str| match wanted {
                "CNI_COMMAND" => Some(command.to_owned()),
                "CNI_CONTAINERID" => Some(name.clone()),
                "CNI_NETNS" => Some(path.clone()),
                "CNI_IFNAME" => Some("eth0".to_owned()),
                _ => None,
            };
            plugin::main(&variable, conf.to_string().as_bytes())
        };
        let Outcome { exit_code, stdout } = tokio::task::spawn_blocking(call).await.unwrap();
        (exit_code, serde_json::from_str(&stdout).unwrap_or(Value::Null))
    }

    async fn add(&self, pod: &Namespace, extra: Value) -> Ipv4Addr {
        let (exit, result) = self.plugin("ADD", pod, extra).await;
        assert_eq!(exit, 0, "{result}");
        let address = result["ips"][0]["address"].as_str().unwrap();
        address.strip_suffix("/32").unwrap().parse().unwrap()
    }
}

struct Agent {
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<()>,
}

impl Agent {
    async fn stop(self) {
        self.shutdown.trigger();
        self.task.await.unwrap();
        self.shutdown.drain().await;
    }
}

/// Serves on all addresses of the namespace and tells each client the address it comes from.
fn serve(namespace: &Namespace, port: u16) {
    let listener = namespace.inside(|| TcpListener::bind(("0.0.0.0", port)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = write!(stream, "{}", stream.peer_addr().unwrap().ip());
        }
    });
}

/// The address that the server saw, or the error's kind.
fn connect(from: &Namespace, to: (Ipv4Addr, u16)) -> Result<String, std::io::ErrorKind> {
    from.inside(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from(to), Duration::from_secs(3))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    })
    .map_err(|error| error.kind())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_reach_each_other_the_node_and_the_world() {
    let Some(outside) = Namespace::create("out") else { return };
    let node = Node::create(&outside).unwrap();
    let (a, b) = (Namespace::create("a").unwrap(), Namespace::create("b").unwrap());
    let agent = node.agent().await;
    let (ip_a, ip_b) = (node.add(&a, json!({})).await, node.add(&b, json!({})).await);
    assert_eq!((ip_a, ip_b), (Ipv4Addr::new(10, 244, 0, 2), Ipv4Addr::new(10, 244, 0, 3)));
    assert!(a.run("ip link show eth0").contains("mtu 1400"));
    for (namespace, port) in [(&a, 80), (&b, 80), (&outside, 80), (&node.namespace, 53)] {
        serve(namespace, port);
    }
    let text = |ip: Ipv4Addr| Ok(ip.to_string());
    let node_ip = Ipv4Addr::new(192, 0, 2, 1);
    assert_eq!(connect(&a, (ip_b, 80)), text(ip_a), "a Pod sees another Pod's own address");
    assert_eq!(connect(&a, (ip_a, 80)), text(ip_a), "a Pod reaches itself");
    assert_eq!(connect(&node.namespace, (ip_b, 80)), text(Ipv4Addr::new(10, 244, 0, 1)));
    assert_eq!(connect(&b, (node_ip, 53)), text(ip_b), "a Pod reaches the node");
    assert_eq!(connect(&b, (Ipv4Addr::new(10, 96, 0, 10), 53)), text(ip_b), "a Pod reaches the name server");
    assert_eq!(connect(&a, (Ipv4Addr::new(192, 0, 2, 2), 80)), text(node_ip), "the world sees the node's address");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_ports_lead_to_the_pod() {
    let Some(outside) = Namespace::create("out") else { return };
    let node = Node::create(&outside).unwrap();
    let (a, b) = (Namespace::create("a").unwrap(), Namespace::create("b").unwrap());
    let agent = node.agent().await;
    let ports = json!({"runtimeConfig": {"portMappings": [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""},
        {"hostPort": 8081, "containerPort": 80, "protocol": "TCP", "hostIP": "192.0.2.1"},
    ]}});
    node.add(&a, ports).await;
    let ip_b = node.add(&b, json!({})).await;
    serve(&a, 80);
    let (node_ip, gateway) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(10, 244, 0, 1));
    let text = |ip: Ipv4Addr| Ok(ip.to_string());
    assert_eq!(connect(&outside, (node_ip, 8080)), text(Ipv4Addr::new(192, 0, 2, 2)));
    assert_eq!(connect(&outside, (node_ip, 8081)), text(Ipv4Addr::new(192, 0, 2, 2)));
    assert_eq!(connect(&b, (node_ip, 8080)), text(ip_b), "another Pod");
    assert_eq!(connect(&a, (node_ip, 8080)), text(gateway), "the Pod itself");
    assert_eq!(connect(&node.namespace, (node_ip, 8080)).unwrap(), node_ip.to_string());
    assert_eq!(connect(&node.namespace, (Ipv4Addr::LOCALHOST, 8080)), text(gateway), "the node's loopback");
    assert_eq!(connect(&node.namespace, (Ipv4Addr::LOCALHOST, 8081)), Err(std::io::ErrorKind::ConnectionRefused));
    assert_eq!(node.plugin("DEL", &a, json!({})).await.0, 0);
    assert_eq!(connect(&outside, (node_ip, 8080)), Err(std::io::ErrorKind::ConnectionRefused));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_knows_what_runs() {
    let Some(outside) = Namespace::create("out") else { return };
    let node = Node::create(&outside).unwrap();
    let (a, b, c) = (Namespace::create("a").unwrap(), Namespace::create("b").unwrap(), Namespace::create("c").unwrap());
    let agent = node.agent().await;
    let ports = json!({"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}});
    let ip_a = node.add(&a, ports).await;
    node.add(&b, json!({})).await;
    agent.stop().await;

    let (exit, error) = node.plugin("ADD", &c, json!({})).await;
    assert_eq!((exit, &error["code"]), (1, &json!(11)), "without an agent the runtime shall try again: {error}");
    assert_eq!(node.plugin("DEL", &b, json!({})).await, (0, Value::Null));
    drop(b);
    serve(&a, 80);
    assert!(connect(&outside, (Ipv4Addr::new(192, 0, 2, 1), 8080)).is_ok(), "packets need no agent");

    // The kernel takes a namespace down in the background; the agent must not meet the veth of b any more.
    let deadline = Instant::now() + Duration::from_secs(10);
    while node.namespace.run("ip -o link show type veth").matches("master xebec0").count() > 1 {
        assert!(Instant::now() < deadline, "the veth pair goes with its namespace");
        tokio::task::yield_now().await;
    }
    let agent = node.agent().await;
    assert_eq!(std::fs::read_dir(&node.config.state_dir).unwrap().count(), 1);
    assert_eq!(node.plugin("CHECK", &a, json!({})).await, (0, Value::Null));
    assert_eq!(node.plugin("CHECK", &c, json!({})).await.1["code"], 3);
    let ip_c = node.add(&c, json!({})).await;
    assert_ne!(ip_a, ip_c);
    assert!(connect(&outside, (Ipv4Addr::new(192, 0, 2, 1), 8080)).is_ok());
    let gc = json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": [{"containerID": c.name, "ifname": "eth0"}]});
    assert_eq!(node.plugin("GC", &c, gc).await, (0, Value::Null));
    assert_eq!(node.plugin("CHECK", &a, json!({})).await.1["code"], 3);
    assert_eq!(node.plugin("CHECK", &c, json!({})).await, (0, Value::Null));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_or_repeated_add_leaves_one_network_at_most() {
    let Some(outside) = Namespace::create("out") else { return };
    let node = Node::create(&outside).unwrap();
    let (a, b) = (Namespace::create("a").unwrap(), Namespace::create("b").unwrap());
    let agent = node.agent().await;
    let veths = || node.namespace.run("ip -o link show type veth").matches("master xebec0").count();
    let records = || std::fs::read_dir(&node.config.state_dir).unwrap().count();
    let conflict = json!({"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}});
    node.add(&a, conflict.clone()).await;
    let (exit, error) = node.plugin("ADD", &b, conflict).await;
    assert_eq!((exit, &error["code"], veths(), records()), (1, &json!(100), 1, 1), "the port is taken: {error}");
    serve(&a, 80);
    assert!(connect(&outside, (Ipv4Addr::new(192, 0, 2, 1), 8080)).is_ok(), "and stays with whom it had");
    let first = node.add(&b, json!({})).await;
    let second = node.add(&b, json!({})).await;
    assert_ne!(first, second);
    assert_eq!((veths(), records()), (2, 2));
    serve(&b, 80);
    assert!(connect(&a, (second, 80)).is_ok());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removal_leaves_nothing() {
    let Some(outside) = Namespace::create("out") else { return };
    let node = Node::create(&outside).unwrap();
    let a = Namespace::create("a").unwrap();
    let look = || {
        let n = &node.namespace;
        [
            n.run("ip -o link show"),
            n.run("ip -o -4 address show"),
            n.run("ip route show table all"),
            n.run("nft list ruleset"),
        ]
    };
    let settle = |text: String| text.lines().filter(|l| !l.contains("fe80") && !l.contains("ff00")).count();
    let before = look().map(settle);
    let agent = node.agent().await;
    node.add(&a, json!({"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}})).await;
    agent.stop().await;
    assert_ne!(look().map(settle), before);
    remove_all(&node.config, node.nft.as_ref()).await.unwrap();
    assert_eq!(look().map(settle), before);
    assert!(node.nft.tables().await.unwrap().is_empty());
    let left = |folder: &Path| std::fs::read_dir(folder).map_or(0, Iterator::count);
    assert_eq!(
        [&node.config.cni_conf_dir, &node.config.cni_bin_dir, &node.config.state_dir].map(|f| left(f)),
        [0, 0, 0]
    );
    remove_all(&node.config, node.nft.as_ref()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_pods_at_once_get_thirty_networks() {
    let Some(outside) = Namespace::create("out") else { return };
    let node = Node::create(&outside).unwrap();
    let agent = node.agent().await;
    let pods: Vec<Namespace> = (0..30).map(|_| Namespace::create("p").unwrap()).collect();
    let start = Instant::now();
    let alone = node.add(&pods[0], json!({})).await;
    let one = start.elapsed();
    let all = futures::future::join_all(pods[1..].iter().map(|pod| node.add(pod, json!({})))).await;
    eprintln!("one ADD in {one:?}, 29 more at once in {:?}", start.elapsed() - one);
    let mut addresses: Vec<Ipv4Addr> = all.into_iter().chain([alone]).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 30);
    agent.stop().await;
}
