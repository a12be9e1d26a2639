//! The listener: TCP, TLS, HTTP/1.1 and HTTP/2, and an end that waits for what is under way.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use xebec_base::Shutdown;

use crate::authn::PeerCertificate;
use crate::body::{self, Body};
use crate::chain::{self, Origin};
use crate::server_state::ServerState;

/// So many clients at once; each costs a few tens of kilobytes. Five thousand nodes hold one or two connections each.
const MAX_CONNECTIONS: usize = 20_000;
/// Upstream's limit of requests at the same time on one HTTP/2 connection is 250; informers of a whole node share one.
const MAX_STREAMS: u32 = 1000;
/// A client has so long for its handshake and for the head of its request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// What is still under way at the end has so long to finish; the whole process has two seconds.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(1500);
/// HTTP/2 windows: a LIST of thousands of objects goes out without waiting for the client at every 64 KiB.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const SEND_BUFFER: usize = 1 << 20;
/// So much is encrypted before it is handed to the kernel: more than a piece of a list, which then costs one call.
const TLS_BUFFER: usize = 256 << 10;

/// Accepts connections until shutdown, then finishes.
pub struct Listener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
    state: Arc<ServerState>,
    connections: TaskTracker,
    places: Arc<Semaphore>,
}

impl Listener {
    /// Binds the port. Without `tls` it speaks plain HTTP, for tests on loopback.
    pub async fn bind(
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        state: Arc<ServerState>,
    ) -> io::Result<Listener> {
        Ok(Listener {
            tcp: TcpListener::bind(address).await?,
            tls: tls.map(TlsAcceptor::from),
            state,
            connections: TaskTracker::new(),
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        })
    }

    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    pub async fn run(self, shutdown: Shutdown) {
        loop {
            let place = self.places.clone().acquire_owned().await;
            let accepted = tokio::select! {
                accepted = self.tcp.accept() => accepted,
                () = shutdown.triggered() => break,
            };
            let (tcp, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, mostly: accepting again at once would only burn the processor.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let connection =
                Connection { tls: self.tls.clone(), state: self.state.clone(), peer, shutdown: shutdown.clone() };
            self.connections.spawn(async move {
                connection.serve(tcp).await;
                drop(place);
            });
        }
        self.state.ending.store(true, Ordering::Release);
        drop(self.tcp);
        self.connections.close();
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, self.connections.wait()).await;
    }
}

struct Connection {
    tls: Option<TlsAcceptor>,
    state: Arc<ServerState>,
    peer: SocketAddr,
    shutdown: Shutdown,
}

impl Connection {
    async fn serve(self, tcp: TcpStream) {
        let _ = tcp.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.http(tcp, None).await };
        let mut stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(tcp)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(peer = %self.peer, %error, "a TLS handshake failed"),
            Err(_) => return tracing::debug!(peer = %self.peer, "a TLS handshake took too long"),
        };
        stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
        let chain = stream
            .get_ref()
            .1
            .peer_certificates()
            .map(|chain| PeerCertificate::new(chain.iter().cloned().map(CertificateDer::into_owned).collect()));
        self.http(stream, chain).await
    }

    async fn http(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        certificate: Option<PeerCertificate>,
    ) {
        let certificate = certificate.map(Arc::new);
        let address: Arc<str> = self.peer.ip().to_string().into();
        let state = self.state.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (state, certificate, address) = (state.clone(), certificate.clone(), address.clone());
            async move { Ok::<_, std::convert::Infallible>(answer(&state, request, certificate.as_deref(), &address).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = self.shutdown.triggered() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(peer = %self.peer, %error, "a connection ended");
        }
    }
}

async fn answer(
    state: &Arc<ServerState>,
    request: Request<Incoming>,
    certificate: Option<&PeerCertificate>,
    address: &str,
) -> Response<Body> {
    let gzip = crate::compression::wanted(request.headers(), request.method(), address);
    let origin = Origin::Connection { certificate, address };
    let response = chain::serve(state, request.map(body::incoming), origin).await;
    if gzip { crate::compression::compressed(response) } else { response }
}
