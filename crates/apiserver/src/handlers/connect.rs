//! Requests that go on to a node, a Pod or a Service: logs, exec, attach, port-forward and proxy.
//!
//! The server checks what is asked for, finds the address, and then copies: a response as it comes, and after an upgrade the
//! bytes in both directions. It does not look into the streams.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, HOST, HeaderName, LOCATION, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use xebec_api::status::StatusError;

use super::{Answer, Context, links, log_socket};
use crate::admission::{AdmissionRequest, Operation};
use crate::body::{self, Body};

/// How long a node has to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The kubelet's port where a Node does not say.
const KUBELET_PORT: u16 = 10250;
/// What may not stand in a path as it is.
const PATH: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'?').add(b'`').add(b'{').add(b'}');
/// Addresses of a node in the order in which they are tried; names need a resolver that knows them.
const ADDRESS_TYPES: [&str; 5] = ["InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS"];

/// Under which path the client knows what is proxied.
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Where a request goes on to.
pub struct Target {
    host: String,
    port: u16,
    security: Security,
    path_and_query: String,
}

/// How a backend is spoken to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Security {
    Plain,
    /// TLS with any certificate: Pods and Services have authorities of their own.
    Unverified,
    /// TLS with a certificate of the cluster's authority, shown ours.
    Node,
}

/// `pods/log`.
pub async fn log(context: &mut Context<'_>) -> Answer {
    let pod = pod(context).await?;
    let query: Vec<(String, String)> = query(context);
    let asked = query.iter().find(|(key, _)| key == "container").map_or("", |(_, value)| value.as_str());
    let container = container(&pod, asked)?;
    let Some(node) = node_name(&pod) else {
        // As upstream, a Pod that no node has yet has an empty log.
        return Ok(body::text(StatusCode::OK, Bytes::new()));
    };
    let known = ["follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"];
    let parameters = encoded(query.iter().filter(|(key, _)| known.contains(&key.as_str())));
    let path = format!("/containerLogs/{}/{}/{container}", context.info.namespace, context.info.name);
    let target = node_target(context, node, path, parameters)?;
    if log_socket::is_wanted(&context.parts.headers) {
        return log_socket::open(context, target).await;
    }
    forward(context, target).await
}

/// `pods/exec`, `pods/attach`, `pods/portforward`.
pub async fn stream(context: &mut Context<'_>) -> Answer {
    let pod = pod(context).await?;
    admit(context).await?;
    let query: Vec<(String, String)> = query(context);
    let Some(node) = node_name(&pod) else {
        return Err(StatusError::bad_request(format!("pod {} does not have a host assigned", context.info.name)));
    };
    let (namespace, name) = (context.info.namespace, context.info.name);
    let (path, parameters) = if context.info.subresource == "portforward" {
        let ports: Vec<_> =
            query.iter().filter(|(key, _)| key == "ports").map(|(_, value)| pair("port", value)).collect();
        (format!("/portForward/{namespace}/{name}"), encoded(&ports))
    } else {
        let asked = query.iter().find(|(key, _)| key == "container").map_or("", |(_, value)| value.as_str());
        let container = container(&pod, asked)?;
        let own: Vec<_> = query.iter().filter_map(|(key, value)| node_parameter(key, value)).collect();
        (format!("/{}/{namespace}/{name}/{container}", context.info.subresource), encoded(&own))
    };
    let target = node_target(context, node, path, parameters)?;
    forward(context, target).await
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// The kubelet has names of its own for the streams.
fn node_parameter(key: &str, value: &str) -> Option<(String, String)> {
    let own = match key {
        "command" => return Some(pair("command", value)),
        "stdin" => "input",
        "stdout" => "output",
        "stderr" => "error",
        "tty" => "tty",
        _ => return None,
    };
    matches!(value, "true" | "1").then(|| pair(own, "1"))
}

fn encoded<'p>(pairs: impl IntoIterator<Item = &'p (String, String)>) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// `nodes/proxy`, `pods/proxy`, `services/proxy`.
pub async fn proxy(context: &mut Context<'_>) -> Answer {
    admit(context).await?;
    if let Some(response) = redirected(context) {
        return Ok(response);
    }
    let info = context.info;
    let query = context.parts.uri.query().unwrap_or("").to_owned();
    let path = format!("/{}", info.rest);
    let target = match info.resource {
        "nodes" => node_target(context, info.name.split(':').next().unwrap_or(info.name), path, query)?,
        resource => {
            let (scheme, name, port) = proxy_name(info.name);
            let (host, port) = match resource {
                "pods" => pod_address(context, name, port)?,
                _ => service_address(context, name, port)?,
            };
            let security = if scheme == "https" { Security::Unverified } else { Security::Plain };
            Target { host, port, security, path_and_query: joined(&path, &query) }
        }
    };
    let prefix = info.path[..info.path.len() - info.rest.len()].trim_end_matches('/').to_owned();
    let uri = HeaderValue::from_str(&joined(&format!("{prefix}/{}", info.rest), "")).map_err(StatusError::internal)?;
    context.parts.headers.insert(FORWARDED_URI, uri);
    // A page can be mended only if it can be read.
    context.parts.headers.remove(ACCEPT_ENCODING);
    let response = forward(context, target).await?;
    links::through(response, &prefix).await
}

/// A page without a path of its own has a slash at its end, or its relative links would lead beside it.
fn redirected(context: &Context<'_>) -> Option<Response<Body>> {
    let info = context.info;
    let reads = matches!(context.parts.method, Method::GET | Method::HEAD);
    if !reads || !info.rest.is_empty() || info.path.ends_with('/') || context.parts.headers.contains_key(UPGRADE) {
        return None;
    }
    let location = joined(&format!("{}/", info.path), context.parts.uri.query().unwrap_or(""));
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, HeaderValue::from_str(&location).ok()?);
    Some(response)
}

/// Asks admission whether the connection may be made.
async fn admit(context: &mut Context<'_>) -> Result<(), StatusError> {
    let info = context.info;
    let registry = context.server.registry.clone();
    let served = registry.index.find(info.group, info.version, info.resource).ok_or_else(StatusError::no_such_path)?;
    let mut request = AdmissionRequest {
        operation: Operation::Connect,
        resource: served.resource(),
        subresource: info.subresource,
        namespace: info.namespace,
        name: info.name,
        user: context.user,
        dry_run: false,
        object: None,
        old: None,
        warnings: &mut context.warnings,
    };
    registry.plugins().admit(&mut request, &registry).await?;
    registry.plugins().validate(&mut request, &registry).await
}

fn query(context: &Context<'_>) -> Vec<(String, String)> {
    form_urlencoded::parse(context.parts.uri.query().unwrap_or("").as_bytes()).into_owned().collect()
}

async fn pod(context: &Context<'_>) -> Result<Arc<Pod>, StatusError> {
    let registry = &context.server.registry;
    let served = registry.index.find("", "v1", "pods").ok_or_else(StatusError::no_such_path)?;
    let item = registry.fresh(served, context.info.namespace, context.info.name).await?;
    item.object.typed().map_err(StatusError::internal)
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// The container that is meant: the one asked for, or the only one.
fn container<'p>(pod: &'p Pod, asked: &'p str) -> Result<&'p str, StatusError> {
    let name = pod.metadata.name.as_deref().unwrap_or("");
    let spec = pod.spec.as_ref().ok_or_else(|| StatusError::internal("the Pod has no specification"))?;
    let init = spec.init_containers.iter().flatten().map(|one| one.name.as_str());
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|one| one.name.as_str());
    let regular: Vec<&str> = spec.containers.iter().map(|one| one.name.as_str()).collect();
    if asked.is_empty() {
        return match regular[..] {
            [only] => Ok(only),
            [] => Err(StatusError::bad_request(format!("a container name must be specified for pod {name}"))),
            _ => {
                let init: Vec<&str> = init.collect();
                let others = if init.is_empty() {
                    String::new()
                } else {
                    format!(" or one of the init containers: [{}]", init.join(" "))
                };
                Err(StatusError::bad_request(format!(
                    "a container name must be specified for pod {name}, choose one of: [{}]{others}",
                    regular.join(" ")
                )))
            }
        };
    }
    if regular.contains(&asked) || init.chain(ephemeral).any(|one| one == asked) {
        return Ok(asked);
    }
    Err(StatusError::bad_request(format!("container {asked} is not valid for pod {name}")))
}

fn joined(path: &str, query: &str) -> String {
    let path = utf8_percent_encode(path, PATH);
    if query.is_empty() { path.to_string() } else { format!("{path}?{query}") }
}

fn node_target(context: &Context<'_>, name: &str, path: String, query: String) -> Result<Target, StatusError> {
    let registry = &context.server.registry;
    let Some(node) = registry.get::<Node>("", name) else {
        // As upstream, which names the resource of the request here.
        let served = registry.index.find("", "v1", context.info.resource).ok_or_else(StatusError::no_such_path)?;
        return Err(StatusError::not_found(served.resource(), name));
    };
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let host = ADDRESS_TYPES.iter().find_map(|kind| addresses.iter().find(|address| address.type_ == *kind));
    let host = host.ok_or_else(|| {
        let known: Vec<&str> = addresses.iter().map(|address| address.type_.as_str()).collect();
        StatusError::new(500, "", format!("no preferred addresses found; known addresses: [{}]", known.join(" ")))
    })?;
    let endpoint = status.and_then(|status| status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref());
    let port = endpoint.and_then(|endpoint| u16::try_from(endpoint.port).ok()).filter(|port| *port != 0);
    let port = port.unwrap_or(KUBELET_PORT);
    Ok(Target { host: host.address.clone(), port, security: Security::Node, path_and_query: joined(&path, &query) })
}

/// `[scheme:]name[:port]`.
fn proxy_name(text: &str) -> (&str, &str, &str) {
    match text.split(':').collect::<Vec<_>>()[..] {
        [name] => ("", name, ""),
        [name, port] => ("", name, port),
        [scheme, name, port] => (scheme, name, port),
        _ => ("", text, ""),
    }
}

fn pod_address(context: &Context<'_>, name: &str, port: &str) -> Result<(String, u16), StatusError> {
    let registry = &context.server.registry;
    let served = registry.index.find("", "v1", "pods").ok_or_else(StatusError::no_such_path)?;
    let pod = registry
        .get::<Pod>(context.info.namespace, name)
        .ok_or_else(|| StatusError::not_found(served.resource(), name))?;
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let mut ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
    let number = match port.parse::<u16>() {
        Ok(number) => Some(number),
        Err(_) if port.is_empty() => ports.next().map(|port| port.container_port as u16),
        Err(_) => ports.find(|one| one.name.as_deref() == Some(port)).map(|port| port.container_port as u16),
    };
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).filter(|address| !address.is_empty());
    let address = address.ok_or_else(|| StatusError::bad_request("address not allowed"))?;
    Ok((proxied(address)?, number.unwrap_or(80)))
}

/// Whoever can write a Pod's status or Endpoints must not reach the server's own machine through it, as with upstream.
fn proxied(address: String) -> Result<String, StatusError> {
    let parsed = address.parse::<IpAddr>().map(|address| address.to_canonical());
    let local = match parsed {
        Ok(IpAddr::V4(v4)) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_multicast(),
        Ok(IpAddr::V6(v6)) => {
            v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast()
        }
        Err(_) => true,
    };
    if local { Err(StatusError::bad_request("address not allowed")) } else { Ok(address) }
}

fn service_address(context: &Context<'_>, name: &str, port: &str) -> Result<(String, u16), StatusError> {
    let registry = &context.server.registry;
    let namespace = context.info.namespace;
    let served = registry.index.find("", "v1", "services").ok_or_else(StatusError::no_such_path)?;
    let service =
        registry.get::<Service>(namespace, name).ok_or_else(|| StatusError::not_found(served.resource(), name))?;
    let unavailable = |why: String| StatusError::service_unavailable(why);
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let wanted = ports.iter().find(|one| {
        port.is_empty() && ports.len() == 1 || one.name.as_deref() == Some(port) || one.port.to_string() == port
    });
    let wanted = wanted.ok_or_else(|| unavailable(format!("no service port {port:?} found for service {name:?}")))?;
    let none = || unavailable(format!("no endpoints available for service {name:?}"));
    let endpoints = registry.get::<Endpoints>(namespace, name).ok_or_else(none)?;
    for subset in endpoints.subsets.iter().flatten() {
        let own = wanted.name.as_deref().unwrap_or("");
        let matching = subset.ports.iter().flatten().find(|one| one.name.as_deref().unwrap_or("") == own);
        if let (Some(port), Some(address)) = (matching, subset.addresses.iter().flatten().next()) {
            return Ok((proxied(address.ip.clone())?, port.port as u16));
        }
    }
    Err(none())
}

trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}

async fn connect(context: &Context<'_>, target: &Target) -> Result<Box<dyn Transport>, StatusError> {
    let place = format!("{}:{}", target.host, target.port);
    let failed = |error: &dyn std::fmt::Display| {
        StatusError::new(502, "", format!("error dialing backend: dial tcp {place}: {error}"))
    };
    let connecting = async {
        match target.host.parse().map(|address| SocketAddr::new(address, target.port)) {
            Ok(address) => TcpStream::connect(address).await,
            Err(_) => TcpStream::connect((target.host.as_str(), target.port)).await,
        }
    };
    let tcp = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| failed(&"i/o timeout"))?;
    let tcp = tcp.map_err(|error| failed(&error))?;
    let _ = tcp.set_nodelay(true);
    let mut config = match target.security {
        Security::Plain => return Ok(Box::new(tcp)),
        Security::Unverified => xebec_pki::unverified_client_config().map_err(|error| failed(&error))?,
        Security::Node => {
            let config = context.server.node_tls.as_deref();
            config.ok_or_else(|| failed(&"the server has no credentials for nodes"))?.clone()
        }
    };
    // Upgrades exist in HTTP/1.1 only.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(target.host.clone()).map_err(|error| failed(&error))?;
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|error| failed(&error))?;
    Ok(Box::new(tls))
}

/// Sends the request on and hands back the answer, upgraded if both sides agree.
pub async fn forward(context: &mut Context<'_>, target: Target) -> Answer {
    let transport = connect(context, &target).await?;
    let failed = |error: hyper::Error| StatusError::new(502, "", format!("error reaching backend: {error}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(transport)).await.map_err(failed)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to a backend ended");
        }
    });
    let request = outgoing(context, &target)?;
    let from_client = context.parts.extensions.remove::<OnUpgrade>();
    let mut response = sender.send_request(request).await.map_err(failed)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(streamed(response));
    }
    let Some(from_client) = from_client else {
        return Err(StatusError::bad_request("Upgrade request required"));
    };
    let to_backend = hyper::upgrade::on(&mut response);
    tokio::spawn(copy_both_ways(from_client, to_backend));
    let (parts, _) = response.into_parts();
    Ok(Response::from_parts(parts, body::empty()))
}

fn outgoing(context: &mut Context<'_>, target: &Target) -> Result<Request<Body>, StatusError> {
    let body = context.take_body();
    let mut request = Request::builder()
        .method(context.parts.method.clone())
        .uri(&target.path_and_query)
        .body(body)
        .map_err(StatusError::internal)?;
    let upgrades = context.parts.headers.contains_key(UPGRADE);
    for (name, value) in &context.parts.headers {
        // Credentials are for this server alone.
        if matches!(*name, AUTHORIZATION | HOST) || (*name == CONNECTION && !upgrades) {
            continue;
        }
        request.headers_mut().append(name, value.clone());
    }
    let host = format!("{}:{}", target.host, target.port);
    request.headers_mut().insert(HOST, HeaderValue::from_str(&host).map_err(StatusError::internal)?);
    Ok(request)
}

fn streamed(response: Response<Incoming>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONNECTION);
    parts.headers.remove(http::header::TRANSFER_ENCODING);
    Response::from_parts(parts, Body::Stream(body.map_err(std::io::Error::other).boxed_unsync()))
}

async fn copy_both_ways(client: OnUpgrade, backend: OnUpgrade) {
    match tokio::try_join!(client, backend) {
        Ok((client, backend)) => {
            let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
            // How a stream ends is for its two ends to say.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut backend).await;
        }
        Err(error) => tracing::debug!(%error, "an upgrade failed"),
    }
}
