//! The node's HTTPS server: logs, exec, attach, port forwarding, and what the node knows of its Pods.
//!
//! The API server is its usual client and hands users' upgraded connections through as they are, so every streaming
//! protocol that kubectl speaks ends here ([`xebec_streaming`]). Paths, query parameters, codes and texts are those of
//! upstream's kubelet, whose clients read them.
//!
//! It relies on three seams: [`NodeRuntime`], what the agent knows of its Pods; [`xebec_cri::Runtime`], where
//! containers and their streams are; [`Authority`], who may ask for what. Every request is authenticated and authorised,
//! `/healthz` too, as upstream does. It decides nothing about Pods and writes nothing.

mod answer;
mod auth;
mod exec;
mod log_file;
mod logs;
mod namespace;
mod pods;
mod port_forward;

pub use auth::{ApiAuthority, Attributes, AuthError, Authority, Credentials};

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use k8s_openapi::api::core::v1::Pod;
use percent_encoding::percent_decode_str;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use xebec_base::{SharedClock, Shutdown};

use answer::{Answer, error, plain};
use exec::Target;
use port_forward::PodPath;

/// How long a client may take for its TLS handshake, and for the head of a request.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a silent connection lives before the kernel asks whether the client is still there. Streams may be idle for
/// hours; a client whose machine has died must not hold one for ever.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// What the server asks the agent.
pub trait NodeRuntime: Send + Sync + 'static {
    /// The Pods bound to this node, with their newest status.
    fn pods(&self) -> Vec<Arc<Pod>>;

    /// The Pod of this name, with its newest status.
    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>>;

    /// Whether the agent makes progress; if not, why.
    fn health(&self) -> Result<(), String>;

    /// The agent's metrics in the text format of Prometheus.
    fn metrics(&self) -> String;
}

/// What the server is made of.
pub struct NodeServer {
    pub node: Arc<dyn NodeRuntime>,
    pub containers: Arc<dyn xebec_cri::Runtime>,
    pub authority: Arc<dyn Authority>,
    pub clock: SharedClock,
    /// Ends the server, its connections and its streams.
    pub shutdown: Shutdown,
}

impl NodeServer {
    /// Serves until shutdown. `tls` asks clients for a certificate without demanding one; whether it is believed is
    /// the authority's business.
    pub async fn serve(self, listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
        let server = Arc::new(self);
        let acceptor = TlsAcceptor::from(tls);
        loop {
            let accepted = tokio::select! {
                () = server.shutdown.triggered() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, _)) => {
                    let (connection, acceptor) = (server.clone(), acceptor.clone());
                    server.shutdown.spawn(async move { connection.connection(socket, acceptor).await });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: there is nothing to do but to let some be closed.
                    tracing::warn!(%error, "accept a connection to the node server");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, socket: TcpStream, acceptor: TlsAcceptor) {
        keep_alive(&socket);
        let stream = match timeout(PATIENCE, acceptor.accept(socket)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake with the node server"),
            Err(_) => return,
        };
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let chain: Arc<[CertificateDer<'static>]> = chain.to_vec().into();
        self.http(stream, chain).await;
    }

    /// Serves one connection, whoever secured it.
    async fn http<T>(self: Arc<Self>, stream: T, chain: Arc<[CertificateDer<'static>]>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(move |request| {
            let (server, chain) = (self.clone(), chain.clone());
            async move { Ok::<_, Infallible>(server.answer(request, &chain).await) }
        });
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        if let Err(error) = http.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
            tracing::debug!(error, "connection to the node server broken");
        }
    }

    async fn answer(&self, request: Request<Incoming>, chain: &[CertificateDer<'_>]) -> Response<Answer> {
        match auth::permit(&*self.authority, &request, chain).await {
            Ok(()) => self.route(request).await,
            Err(refusal) => refusal,
        }
    }

    /// The table of paths. Names may stand percent-encoded in a path.
    async fn route(&self, request: Request<Incoming>) -> Response<Answer> {
        let path = request.uri().path().to_owned();
        let names: Vec<_> = path.split('/').skip(1).map(|name| percent_decode_str(name).decode_utf8_lossy()).collect();
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        let get = request.method() == Method::GET;
        let (may_stream, may_run) = (get || request.method() == Method::POST, request.method() == Method::POST);
        let query = request.uri().query().unwrap_or_default();
        match names[..] {
            ["pods" | "runningpods" | "containerLogs", ..] if !get => answer::get_only(),
            ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => self.healthz(),
            ["metrics"] if get => plain(StatusCode::OK, self.node.metrics()),
            ["pods"] | ["pods", ""] => pods::bound(self),
            ["runningpods"] | ["runningpods", ""] => pods::running(self).await,
            ["containerLogs", namespace, pod, container] => {
                logs::serve(self, Target { namespace, pod, uid: None, container }, query).await
            }
            ["portForward", namespace, name] if may_stream => {
                port_forward::serve(self, request, PodPath { namespace, name, uid: None }).await
            }
            ["portForward", namespace, name, uid] if may_stream => {
                port_forward::serve(self, request, PodPath { namespace, name, uid: Some(uid) }).await
            }
            [service @ ("exec" | "attach" | "run"), namespace, pod, ref uid @ .., container] if uid.len() < 2 => {
                let target = Target { namespace, pod, uid: uid.first().copied(), container };
                match service {
                    "exec" if may_stream => exec::exec(self, request, target).await,
                    "attach" if may_stream => exec::attach(self, request, target).await,
                    "run" if may_run => exec::run(self, &request, target).await,
                    _ => error(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"),
                }
            }
            ["portForward", _, _] | ["portForward", _, _, _] => {
                error(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed")
            }
            _ => error(StatusCode::NOT_FOUND, "404: Page Not Found"),
        }
    }

    fn healthz(&self) -> Response<Answer> {
        match self.node.health() {
            Ok(()) => plain(StatusCode::OK, "ok"),
            Err(reason) => {
                tracing::debug!(reason, "health check failed");
                let text = "[+]ping ok\n[+]log ok\n[-]syncloop failed: reason withheld\nhealthz check failed\n";
                plain(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
        }
    }
}

/// Both are kindnesses of the kernel without which a connection still works.
fn keep_alive(socket: &TcpStream) {
    use rustix::net::sockopt;
    let _ = socket.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, KEEP_ALIVE);
    let _ = sockopt::set_tcp_keepintvl(socket, KEEP_ALIVE);
}

#[cfg(test)]
mod tests;
