//! `port-forward`: connections to local ports come out at ports of a Pod.
//!
//! SPDY in a WebSocket, as kubectl does it from 1.31 on (KEP-4006): a pair of streams for each connection, one for data and one
//! for what goes wrong.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http::{Method, Request};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::protocol::Role;
use xebec_streaming::port_forward::TUNNEL_PROTOCOL;
use xebec_streaming::spdy::{Connection, Headers, Stream};
use xebec_streaming::tunnel::Tunnel;
use xebec_streaming::{upgrade, websocket};

use crate::names;
use crate::pods;
use crate::print;
use crate::session::Session;

/// The most of an error that is read.
const MAX_ERROR: u64 = 64 << 10;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A Pod, or type/name of what owns Pods: deployment/a, svc/b
    target: String,
    /// Ports: 8080 (both sides), 8080:80, :80 (any free local one); a port of the Pod may be a name
    #[arg(required = true, value_name = "[LOCAL:]REMOTE")]
    ports: Vec<String>,
    /// The local addresses to listen on
    #[arg(long, default_value = "localhost", value_delimiter = ',')]
    address: Vec<String>,
}

/// A local port and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping {
    /// 0 for any.
    local: u16,
    remote: u16,
}

/// The way to the Pod, shared by all connections.
struct Forwarder {
    connection: Connection,
    next: AtomicU32,
}

pub async fn run(session: &Session, options: Options) -> anyhow::Result<i32> {
    let pod = pods::of_word(session, &options.target).await?;
    let name = pod.metadata.name.as_deref().unwrap_or("");
    let phase = xebec_api::pod::phase(&pod);
    if phase != "Running" {
        bail!("unable to forward port because pod is not running. Current status={phase}");
    }
    let service = service(session, &options.target).await?;
    let mappings = options.ports.iter().map(|port| mapping(port, service.as_ref(), &pod));
    let mappings = mappings.collect::<anyhow::Result<Vec<_>>>()?;
    let path = format!("/api/v1/namespaces/{}/pods/{name}/portforward", session.namespace);
    let mut request = Request::builder().method(Method::GET).uri(path).body(Bytes::new())?;
    request.headers_mut().extend(upgrade::websocket_request_headers(&[TUNNEL_PROTOCOL]));
    let (_, io) = session.client.upgrade(request).await?;
    let connection = Connection::client(Tunnel::new(websocket::over(io, Role::Client).await));
    let closed = connection.closed();
    let forwarder = Arc::new(Forwarder { connection, next: AtomicU32::new(0) });
    for mapping in mappings {
        listen(&options.address, mapping, &forwarder).await?;
    }
    closed.cancelled().await;
    bail!("lost connection to pod")
}

/// The Service, if the target is one: its ports are not those of its Pods.
async fn service(session: &Session, word: &str) -> anyhow::Result<Option<Service>> {
    let Some((kind, name)) = word.split_once('/') else { return Ok(None) };
    let resource = names::resolve(session.served().await?, kind)?.remove(0);
    if resource.group.is_empty() && resource.plural == "services" {
        return Ok(Some(session.client.namespaced(&session.namespace).get(name).await?));
    }
    Ok(None)
}

fn mapping(word: &str, service: Option<&Service>, pod: &Pod) -> anyhow::Result<Mapping> {
    let (local, remote) = match word.split_once(':') {
        Some((local, remote)) => (Some(local), remote),
        None => (None, word),
    };
    let (named, remote) = match service {
        Some(service) => of_service(remote, service, pod)?,
        None => {
            let port = of_pod(remote, pod)?;
            (port, port)
        }
    };
    let local = match local {
        None => named,
        Some("") => 0,
        Some(local) => local.parse().with_context(|| format!("{local:?} is not a port"))?,
    };
    Ok(Mapping { local, remote })
}

/// The port of a Service by number or name, and the port of the Pod behind it.
fn of_service(word: &str, service: &Service, pod: &Pod) -> anyhow::Result<(u16, u16)> {
    let spec = service.spec.as_ref();
    let mut ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default().iter();
    let is = |name: Option<&str>, number: i32| name == Some(word) || word.parse() == Ok(number);
    let Some(port) = ports.find(|port| is(port.name.as_deref(), port.port)) else {
        let name = service.metadata.name.as_deref().unwrap_or("");
        bail!("Service {name} does not have a service port {word}");
    };
    if port.protocol.as_deref() == Some("UDP") {
        bail!("UDP protocol is not supported for {word}");
    }
    let number = u16::try_from(port.port)?;
    let headless = spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None");
    let remote = match &port.target_port {
        Some(IntOrString::Int(target)) if *target != 0 && !headless => u16::try_from(*target)?,
        Some(IntOrString::String(name)) if !headless => of_pod(name, pod)?,
        _ => number,
    };
    Ok((number, remote))
}

/// A port of a Pod by number, or by the name that a container gives it.
fn of_pod(word: &str, pod: &Pod) -> anyhow::Result<u16> {
    if let Ok(number) = word.parse::<u16>() {
        if number == 0 {
            bail!("remote port must be > 0");
        }
        return Ok(number);
    }
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let mut ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
    match ports.find(|port| port.name.as_deref() == Some(word)) {
        Some(port) => Ok(u16::try_from(port.container_port)?),
        None => bail!("Pod '{}' does not have a named port '{word}'", pod.metadata.name.as_deref().unwrap_or("")),
    }
}

/// Listens on every address; at least one has to work.
async fn listen(addresses: &[String], mapping: Mapping, forwarder: &Arc<Forwarder>) -> anyhow::Result<()> {
    let localhost = ["127.0.0.1", "::1"];
    let each = addresses.iter().flat_map(|address| match address.as_str() {
        "localhost" => localhost.to_vec(),
        other => vec![other],
    });
    let (mut listening, mut local, mut failures) = (0, mapping.local, Vec::new());
    for address in each {
        let address: IpAddr = address.parse().with_context(|| format!("{address:?} is not an address"))?;
        let bound =
            TcpListener::bind((address, local)).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
        match bound {
            Ok((bound, listener)) => {
                // A free port that was found for one address is taken on the others too.
                local = bound.port();
                print::line(format_args!("Forwarding from {bound} -> {}", mapping.remote))?;
                tokio::spawn(serve(listener, Mapping { local, ..mapping }, forwarder.clone()));
                listening += 1;
            }
            Err(error) => failures.push(format!("{address}:{local}: {error}")),
        }
    }
    if listening == 0 {
        bail!("unable to listen on any of the requested ports: {}", failures.join(", "));
    }
    Ok(())
}

async fn serve(listener: TcpListener, mapping: Mapping, forwarder: Arc<Forwarder>) {
    while let Ok((socket, _)) = listener.accept().await {
        // Nobody need listen to what is said about it.
        let _ = print::line(format_args!("Handling connection for {}", mapping.local));
        let forwarder = forwarder.clone();
        tokio::spawn(async move {
            if let Err(error) = forwarder.carry(socket, mapping.remote).await {
                eprintln!("error: forwarding {} -> {}: {error}", mapping.local, mapping.remote);
            }
        });
    }
}

impl Forwarder {
    async fn carry(&self, socket: TcpStream, port: u16) -> io::Result<()> {
        let (id, port) = (self.next.fetch_add(1, Ordering::Relaxed).to_string(), port.to_string());
        let mut errors = self.open("error", &id, &port).await?;
        errors.shutdown().await?;
        let data = self.open("data", &id, &port).await?;
        let (mut from_pod, mut to_pod) = data.into_split();
        let (mut from_us, mut to_us) = socket.into_split();
        let there = async {
            let copied = copy(&mut from_us, &mut to_pod).await;
            to_pod.shutdown().await.and(copied)
        };
        let back = async {
            let copied = copy(&mut from_pod, &mut to_us).await;
            to_us.shutdown().await.and(copied)
        };
        // What the Pod ends is at its end; what we end may still be answered.
        tokio::pin!(there, back);
        let carried = tokio::select! {
            result = &mut back => result,
            result = &mut there => match result {
                Ok(_) => back.await,
                Err(error) => Err(error),
            },
        };
        let mut message = String::new();
        errors.take(MAX_ERROR).read_to_string(&mut message).await?;
        match message.is_empty() {
            true => carried.map(drop),
            false => Err(io::Error::other(message)),
        }
    }

    async fn open(&self, kind: &str, id: &str, port: &str) -> io::Result<Stream> {
        let headers = Headers::new([("streamtype", kind), ("port", port), ("requestid", id)]);
        self.connection.open(headers).await?.established().await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_mapped() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]}}))
        .unwrap();
        let service: Service = serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": {"ports": [
            {"name": "a", "port": 80, "targetPort": "web"}, {"name": "b", "port": 81, "targetPort": 9000}]}}))
        .unwrap();
        let check = |word: &str, service: Option<&Service>, local: u16, remote: u16| {
            assert_eq!(mapping(word, service, &pod).unwrap(), Mapping { local, remote }, "{word}");
        };
        check("5000", None, 5000, 5000);
        check("8888:web", None, 8888, 8080);
        check(":5000", None, 0, 5000);
        check("80", Some(&service), 80, 8080);
        check("8000:b", Some(&service), 8000, 9000);
        assert!(mapping("82", Some(&service), &pod).is_err());
        assert!(mapping("nothing", None, &pod).is_err());
    }
}
