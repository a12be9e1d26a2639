//! Real questions over UDP and TCP, in a network namespace where the world is one small name server.

#[path = "../../proxy/tests/cluster/mod.rs"]
mod cluster;
#[path = "../../netfilter/tests/namespace/mod.rs"]
mod namespace;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use cluster::Cluster;
use hickory_server::proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::{Namespace as ApiNamespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use namespace::Namespace;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use xebec_base::{Shutdown, SystemClock};
use xebec_dns::{Config, NameServer, Sockets};

const OURS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10)), 53);
const WORLD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), 53);

fn message(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

async fn over_udp(name: &str, kind: RecordType) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&message(name, kind), OURS).await.unwrap();
    let mut buffer = [0; 4096];
    let received = tokio::time::timeout(Duration::from_secs(10), socket.recv_from(&mut buffer)).await;
    let (length, from) = received.expect("an answer comes").unwrap();
    assert_eq!(from, OURS);
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn over_tcp(name: &str, kind: RecordType) -> Message {
    let mut stream = TcpStream::connect(OURS).await.unwrap();
    let question = message(name, kind);
    stream.write_u16(u16::try_from(question.len()).unwrap()).await.unwrap();
    stream.write_all(&question).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

fn data(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

/// Knows `www.example.com` and says of everything else that it does not exist.
async fn world() {
    let socket = UdpSocket::bind(WORLD).await.unwrap();
    let mut buffer = [0; 4096];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        let question = Message::from_vec(&buffer[..length]).unwrap();
        let query = question.queries[0].clone();
        let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
        answer.metadata.recursion_available = true;
        if query.name().to_lowercase().to_string() == "www.example.com." {
            let data = RData::from(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 80)));
            answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
        } else {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        answer.add_query(query);
        socket.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
    }
}

fn cluster() -> Cluster {
    let cluster = Cluster::default();
    cluster.put::<ApiNamespace>("", "default", json!({}));
    let ports = json!([{"name": "redis", "port": 6379}]);
    cluster.put::<Service>("default", "redis-master", json!({"spec": {"clusterIP": "10.96.0.7", "ports": ports}}));
    cluster.put::<Service>(
        "default",
        "away",
        json!({"spec": {"type": "ExternalName", "externalName": "www.example.com"}}),
    );
    cluster.put::<Service>("default", "many", json!({"spec": {"clusterIP": "None"}}));
    let endpoints: Vec<_> = (1..=100).map(|i| json!({"addresses": [format!("10.244.0.{i}")]})).collect();
    let labels = json!({"kubernetes.io/service-name": "many"});
    let slice = json!({"metadata": {"labels": labels}, "addressType": "IPv4", "endpoints": endpoints, "ports": []});
    cluster.put::<EndpointSlice>("default", "many-1", slice);
    cluster
}

async fn questions() {
    let folder = tempfile::tempdir().unwrap();
    let resolv_conf = folder.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 127.0.0.10\n").unwrap();
    let (cluster, shutdown) = (cluster(), Shutdown::new());
    let addresses = vec![OURS.ip()];
    let sockets = Sockets::bind(&addresses, 53).await.unwrap();
    let config = Config { domain: "cluster.local".into(), addresses, resolv_conf: resolv_conf.clone() };
    let informers = cluster.informers(&shutdown);
    let server = NameServer { config, sockets, informers, clock: SystemClock::shared() };
    let server = tokio::spawn(server.run(shutdown.clone()));
    tokio::spawn(world());

    let known = over_udp("Redis-Master.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!((known.metadata.response_code, data(&known)), (ResponseCode::NoError, vec!["10.96.0.7".to_owned()]));
    assert!(known.metadata.authoritative && known.metadata.recursion_available);
    assert_eq!(known.answers[0].name.to_string(), "Redis-Master.default.svc.cluster.local.");
    let unknown = over_udp("nobody.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!((unknown.metadata.response_code, unknown.authorities.len()), (ResponseCode::NXDomain, 1));
    let other_type = over_tcp("redis-master.default.svc.cluster.local.", RecordType::AAAA).await;
    assert_eq!((other_type.metadata.response_code, other_type.answers.len()), (ResponseCode::NoError, 0));

    let long = over_udp("many.default.svc.cluster.local.", RecordType::A).await;
    assert!(long.metadata.truncation && long.answers.len() < 100);
    assert_eq!(over_tcp("many.default.svc.cluster.local.", RecordType::A).await.answers.len(), 100);

    let nobody_to_ask = over_udp("www.example.com.", RecordType::A).await;
    assert_eq!(nobody_to_ask.metadata.response_code, ResponseCode::ServFail, "our own address is not asked");
    std::fs::write(folder.path().join("new"), "nameserver 127.0.0.2\n").unwrap();
    std::fs::rename(folder.path().join("new"), &resolv_conf).unwrap();
    let forwarded = over_udp("www.example.com.", RecordType::A).await;
    assert_eq!(data(&forwarded), ["192.0.2.80"]);
    assert!(!forwarded.metadata.authoritative);
    let missing = over_udp("nobody.example.com.", RecordType::A).await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    let alias = over_udp("away.default.svc.cluster.local.", RecordType::A).await;
    assert_eq!(data(&alias), ["www.example.com.", "192.0.2.80"], "an alias is followed out of the zone");

    cluster.put::<Service>("default", "late", json!({"spec": {"clusterIP": "10.96.0.8", "ports": [{"port": 80}]}}));
    let tries = async {
        while data(&over_udp("late.default.svc.cluster.local.", RecordType::A).await) != ["10.96.0.8"] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), tries).await.expect("a new Service has its name at once");
    shutdown.trigger();
    server.await.unwrap().unwrap();
}

#[test]
fn questions_over_the_wire() {
    let Some(namespace) = Namespace::create("dns") else { return };
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    namespace.inside(|| runtime().block_on(questions()));
}
