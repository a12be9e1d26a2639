//! The server over sockets: plain requests, upgraded streams to a node, and its end.

mod cluster;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::Cluster;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use xebec_apiserver::Listener;
use xebec_base::SystemClock;
use xebec_pki::{Authority, Profile, RotatingIdentity};

/// Longer than anything here takes, short enough to wait for when it hangs.
const LIMIT: Duration = Duration::from_secs(5);

async fn listen(cluster: &Cluster) -> (SocketAddr, JoinHandle<()>) {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), None, cluster.api.state.clone()).await.unwrap();
    let address = listener.local_address().unwrap();
    (address, tokio::spawn(listener.run(cluster.shutdown.clone())))
}

/// The head of a message, without its end.
async fn head(stream: &mut (impl AsyncBufReadExt + Unpin)) -> String {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        assert_ne!(stream.read_line(&mut text).await.unwrap(), 0, "{text}");
    }
    text.trim_end().to_owned()
}

#[tokio::test]
async fn watches_end_with_the_server() {
    let cluster = Cluster::start().await;
    let (address, server) = listen(&cluster).await;
    let mut client = BufStream::new(TcpStream::connect(address).await.unwrap());
    client.write_all(b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    client.flush().await.unwrap();
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let length = answer.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    client.read_exact(&mut vec![0; length]).await.unwrap();
    client.write_all(b"GET /api/v1/pods?watch=1 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    client.flush().await.unwrap();
    assert!(head(&mut client).await.contains("transfer-encoding: chunked"));
    cluster.shutdown.trigger();
    let mut rest = String::new();
    tokio::time::timeout(LIMIT, client.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, "0\r\n\r\n");
    tokio::time::timeout(LIMIT, server).await.unwrap().unwrap();
}

/// Answers one exec as a kubelet would, then says back what it is told.
async fn node(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut stream = BufStream::new(stream);
    let request = head(&mut stream).await;
    assert!(request.starts_with("POST /exec/n/p/c?command=ls&command=-l&input=1&output=1 HTTP/1.1"), "{request}");
    assert!(!request.to_lowercase().contains("authorization"), "{request}");
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\nhello ";
    stream.write_all(answer).await.unwrap();
    stream.flush().await.unwrap();
    let mut word = [0; 4];
    stream.read_exact(&mut word).await.unwrap();
    stream.write_all(&word).await.unwrap();
    stream.flush().await.unwrap();
}

/// Answers one request for a log.
async fn logging_node(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut stream = BufStream::new(stream);
    let request = head(&mut stream).await;
    assert!(request.starts_with("GET /containerLogs/n/p/c?tailLines=1 HTTP/1.1"), "{request}");
    assert!(!request.to_lowercase().contains("upgrade"), "{request}");
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
    stream.flush().await.unwrap();
}

type Served = Box<dyn AsyncStream>;

trait AsyncStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> AsyncStream for T {}

/// A cluster with a Pod `p` on a node that answers one connection with `serve`.
async fn with_node<F>(serve: impl FnOnce(Served) -> F + Send + 'static) -> (Cluster, JoinHandle<()>)
where
    F: Future<Output = ()> + Send,
{
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(folder.path(), "ca", SystemClock::shared()).unwrap();
    let profile = Profile::server("node", Vec::<String>::new(), ["127.0.0.1".parse().unwrap()]);
    let identity = RotatingIdentity::new(&authority.issue(&profile).unwrap()).unwrap();
    let tls = TlsAcceptor::from(Arc::new(xebec_pki::server_config(identity, None).unwrap()));
    let kubelet = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = kubelet.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (tcp, _) = kubelet.accept().await.unwrap();
        let stream: Served = Box::new(tls.accept(tcp).await.unwrap());
        serve(stream).await;
    });

    let client = xebec_pki::client_config(&authority.pem(), None).unwrap();
    let cluster = Cluster::reaching_nodes(Some(Arc::new(client))).await;
    let status = json!({
        "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": port } }
    });
    cluster.post("/api/v1/nodes", &json!({ "metadata": { "name": "n1" }, "status": status })).await;
    let pod = json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    cluster.post(PODS, &pod).await;
    let binding = json!({ "metadata": { "name": "p" }, "target": { "name": "n1" } });
    cluster.post(&format!("{PODS}/p/binding"), &binding).await;
    (cluster, serving)
}

const PODS: &str = "/api/v1/namespaces/n/pods";

#[tokio::test]
async fn streams_to_a_node_are_copied_both_ways() {
    let (cluster, serving) = with_node(node).await;
    let (address, _server) = listen(&cluster).await;
    let mut client = BufStream::new(TcpStream::connect(address).await.unwrap());
    let request = format!(
        "POST {PODS}/p/exec?command=ls&command=-l&stdin=true&stdout=true&stderr=false HTTP/1.1\r\nHost: a\r\n\
         Authorization: Bearer x\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n"
    );
    client.write_all(request.as_bytes()).await.unwrap();
    client.flush().await.unwrap();
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    client.write_all(b"echo").await.unwrap();
    client.flush().await.unwrap();
    let mut said = String::new();
    tokio::time::timeout(LIMIT, client.read_to_string(&mut said)).await.unwrap().unwrap();
    assert_eq!(said, "hello echo");
    serving.await.unwrap();
}

#[tokio::test]
async fn logs_come_over_websockets_too() {
    let (cluster, serving) = with_node(logging_node).await;
    let (address, _server) = listen(&cluster).await;
    let mut client = BufStream::new(TcpStream::connect(address).await.unwrap());
    let request = format!(
        "GET {PODS}/p/log?tailLines=1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: binary.k8s.io\r\n\r\n"
    );
    client.write_all(request.as_bytes()).await.unwrap();
    client.flush().await.unwrap();
    let answer = head(&mut client).await.to_lowercase();
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    // The key and its answer are the example of RFC 6455.
    assert!(answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{answer}");
    assert!(answer.contains("sec-websocket-protocol: binary.k8s.io"), "{answer}");
    let mut frames = [0; 9];
    tokio::time::timeout(LIMIT, client.read_exact(&mut frames)).await.unwrap().unwrap();
    // One binary message, then the end.
    assert_eq!(frames, *b"\x82\x05hello\x88\x00");
    serving.await.unwrap();
}

/// Reads a watch over a socket until `count` objects have been added; returns their revisions.
async fn added(address: SocketAddr, count: usize) -> Vec<u64> {
    let mut client = BufStream::new(TcpStream::connect(address).await.unwrap());
    let request = b"GET /api/v1/namespaces/n/configmaps?watch=1&resourceVersion=1 HTTP/1.1\r\nHost: a\r\n\r\n";
    client.write_all(request).await.unwrap();
    client.flush().await.unwrap();
    head(&mut client).await;
    let (mut revisions, mut line) = (Vec::new(), String::new());
    while revisions.len() < count {
        line.clear();
        assert_ne!(client.read_line(&mut line).await.unwrap(), 0, "cut off after {}", revisions.len());
        // Between the events stand the sizes of HTTP's chunks.
        if line.starts_with('{') {
            let event: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(event["type"], "ADDED");
            revisions.push(event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap());
        }
    }
    revisions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_watcher_sees_every_event_once_and_in_order() {
    const WATCHERS: usize = 20;
    const WRITERS: usize = 8;
    const OBJECTS: usize = 400;
    let cluster = Arc::new(Cluster::start().await);
    let (address, _server) = listen(&cluster).await;
    let watchers: Vec<_> = (0..WATCHERS).map(|_| tokio::spawn(added(address, OBJECTS))).collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let cluster = cluster.clone();
            tokio::spawn(async move {
                for index in 0..OBJECTS / WRITERS {
                    let object = json!({ "metadata": { "name": format!("o-{writer}-{index}") } });
                    let created = cluster.post("/api/v1/namespaces/n/configmaps", &object).await;
                    let path = format!("/api/v1/namespaces/n/configmaps/o-{writer}-{index}");
                    // What has been acknowledged is read.
                    assert_eq!(cluster.get(&path).await.body, created.body);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let mut seen = Vec::new();
    for watcher in watchers {
        seen.push(tokio::time::timeout(LIMIT, watcher).await.unwrap().unwrap());
    }
    assert!(seen[0].is_sorted_by(|a, b| a < b), "{:?}", seen[0]);
    assert!(seen.iter().all(|one| *one == seen[0]));
}
