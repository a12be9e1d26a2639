//! Port forwarding: the server half, which joins a client's streams with connections that a connector opens.
//!
//! Three forms exist. Over SPDY, and over SPDY in a [`crate::tunnel`], each forwarded connection is a pair of streams
//! with the same `requestid`, one for data and one for an error, and there is no end to how many follow each other.
//! Over a plain WebSocket the ports stand in the request's query; port `n` of them has channel `2n` for data and
//! `2n+1` for errors, each of which first says the port, and each serves one connection.
//!
//! Only a connection that cannot be opened is reported on the error stream. One that breaks later just ends, because
//! kubectl takes any error for the loss of the Pod and stops forwarding.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::Request;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, copy_bidirectional_with_sizes};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::remote_command::{STREAM_TYPE, V4, V4_BASE64};
use crate::spdy::{Connection, Incoming, Stream};
use crate::tunnel::{self, Tunnel};
use crate::upgrade::{
    Refusal, Reply, choose_websocket_protocol, grant_spdy, grant_websocket, is_websocket, websocket_protocols,
};
use crate::websocket::{self, Channels, Encoding, Layout};

/// The protocol's name over SPDY.
pub const PROTOCOL: &str = "portforward.k8s.io";

/// The protocol's name over SPDY in a WebSocket.
pub const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";

const PORT: &str = "port";
const REQUEST_ID: &str = "requestid";
const DATA_STREAM: &str = "data";
const ERROR_STREAM: &str = "error";

/// How long the second stream of a pair may take, as upstream gives it.
const PAIR_CREATION: Duration = Duration::from_secs(30);

/// The most ports of one plain WebSocket: two channels each, numbered in one byte, of which 255 is a signal elsewhere.
const MAX_WEBSOCKET_PORTS: usize = 127;

/// How many bytes are moved at once.
const BUFFER: usize = 32 << 10;

/// A granted upgrade: the answer to send, and what forwards once it is sent.
pub struct Accepted {
    pub reply: Reply,
    pub forwarder: Forwarder,
}

/// A client's request to forward ports, which runs when it is given a connector.
pub struct Forwarder {
    upgrade: OnUpgrade,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Spdy,
    Tunnel,
    WebSocket { encoding: Encoding, ports: Vec<u16> },
}

/// What a client asked for that cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PortError {
    #[error("query parameter {PORT:?} is required")]
    Missing,
    #[error("query parameter {PORT:?} cannot be empty")]
    Empty,
    #[error("unable to parse {0:?} as a port")]
    NotAPort(String),
    #[error("port {0:?} must be > 0")]
    Zero(String),
    #[error("at most {MAX_WEBSOCKET_PORTS} ports can be forwarded over one WebSocket")]
    TooMany,
}

/// Why forwarding ended before the client ended it.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("upgrade the connection")]
    Upgrade(#[from] hyper::Error),
    #[error("the client's SPDY is broken: {0}")]
    Protocol(String),
}

/// Whether the request names its ports in the query, which it has to where it wants neither SPDY nor a tunnel.
pub fn needs_ports<B>(request: &Request<B>) -> bool {
    is_websocket(request.headers()) && !wants_tunnel(request)
}

/// The ports of a request's query: `port` once or several times, each with one or several ports.
pub fn ports<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Vec<u16>, PortError> {
    let mut ports = Vec::new();
    for value in values {
        if value.is_empty() {
            return Err(PortError::Empty);
        }
        for port in value.split(',') {
            match port.parse() {
                Ok(0) => return Err(PortError::Zero(value.to_owned())),
                Ok(port) => ports.push(port),
                Err(_) => return Err(PortError::NotAPort(value.to_owned())),
            }
        }
    }
    match ports.len() {
        0 => Err(PortError::Missing),
        1..=MAX_WEBSOCKET_PORTS => Ok(ports),
        _ => Err(PortError::TooMany),
    }
}

/// Grants the upgrade that `request` asks for, or says why not. `ports` are those of the query, where it
/// [needs them](needs_ports).
///
/// # Errors
/// The refusal to answer with.
pub fn accept<B>(request: &mut Request<B>, ports: Vec<u16>) -> Result<Accepted, Refusal> {
    let (reply, form) = if wants_tunnel(request) {
        let protocol = choose_websocket_protocol(request.headers(), &[TUNNEL_PROTOCOL])?;
        (grant_websocket(request, protocol)?, Form::Tunnel)
    } else if is_websocket(request.headers()) {
        let protocol = choose_websocket_protocol(request.headers(), &["", V4, V4_BASE64])?;
        let encoding = if protocol == V4_BASE64 { Encoding::Base64 } else { Encoding::Binary };
        (grant_websocket(request, protocol)?, Form::WebSocket { encoding, ports })
    } else {
        (grant_spdy(request.headers(), &[PROTOCOL])?.1, Form::Spdy)
    };
    Ok(Accepted { reply, forwarder: Forwarder { upgrade: hyper::upgrade::on(request), form } })
}

fn wants_tunnel<B>(request: &Request<B>) -> bool {
    let tunnelled = |protocol: &&str| protocol.starts_with(tunnel::PREFIX) && protocol.ends_with(".k8s.io");
    is_websocket(request.headers()) && websocket_protocols(request.headers()).iter().any(tunnelled)
}

impl Forwarder {
    /// Forwards until the client goes. `connect` opens a connection to a port; `target` names in errors what the port
    /// belongs to. It is polled while the reply is being sent, not before.
    pub async fn run<F, Fut, C>(self, target: String, connect: F) -> Result<(), ForwardError>
    where
        F: Fn(u16) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<C>> + Send + 'static,
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(self.upgrade.await?);
        let connect = move |port| {
            let connection = connect(port);
            async move { Ok(Box::new(connection.await?) as Box<dyn Duplex>) }.boxed()
        };
        let dialer = Dialer { target: Arc::from(target), connect: Arc::new(connect) };
        match self.form {
            Form::Spdy => Pairs::new(dialer).run(io).await,
            Form::Tunnel => {
                let socket = websocket::over(io, Role::Server).await;
                Pairs::new(dialer).run(Tunnel::new(socket)).await
            }
            Form::WebSocket { encoding, ports } => {
                let socket = websocket::over(io, Role::Server).await;
                over_channels(socket, encoding, &ports, &dialer).await;
                Ok(())
            }
        }
    }
}

/// A connection that was opened for a client.
trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// Opens connections, and words what goes wrong.
#[derive(Clone)]
struct Dialer {
    target: Arc<str>,
    connect: Arc<dyn Fn(u16) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>> + Send + Sync>,
}

impl Dialer {
    /// A new connection to `port`. The error is for the client.
    async fn open(&self, port: u16) -> Result<Box<dyn Duplex>, String> {
        let opened = (self.connect)(port).await;
        opened.map_err(|error| format!("error forwarding port {port} to {}: {error}", self.target))
    }
}

/// The pairs of streams of a SPDY client.
struct Pairs {
    dialer: Dialer,
    /// Pairs that lack a stream, and since when.
    waiting: HashMap<String, Half>,
    /// Connections that are being forwarded. They end with the client.
    running: JoinSet<()>,
}

struct Half {
    since: Instant,
    port: u16,
    data: Option<Stream>,
    error: Option<Stream>,
}

impl Pairs {
    fn new(dialer: Dialer) -> Pairs {
        Pairs { dialer, waiting: HashMap::new(), running: JoinSet::new() }
    }

    async fn run<T>(mut self, io: T) -> Result<(), ForwardError>
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (connection, mut incoming) = Connection::server(io);
        loop {
            let overdue = self.waiting.values().map(|half| half.since + PAIR_CREATION).min();
            tokio::select! {
                next = incoming.next() => match next {
                    Ok(Some(stream)) => self.take(stream).await,
                    Ok(None) => break,
                    Err(error) => return Err(ForwardError::Protocol(error.to_string())),
                },
                // Ended connections are reaped as they end, so that a long session does not collect them.
                Some(_) = self.running.join_next() => {}
                () = sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => self.expire().await,
            }
        }
        connection.close().await;
        Ok(())
    }

    async fn take(&mut self, incoming: Incoming) {
        let headers = incoming.headers();
        let port = headers.get(PORT).and_then(|port| port.parse().ok()).filter(|port: &u16| *port > 0);
        let is_error = match headers.get(STREAM_TYPE) {
            Some(ERROR_STREAM) => true,
            Some(DATA_STREAM) => false,
            _ => return incoming.refuse().await,
        };
        let Some(port) = port else { return incoming.refuse().await };
        // Clients of long ago sent no request ids, but opened the data stream right after the error stream.
        let pseudo_id = if is_error { incoming.id() } else { incoming.id().wrapping_sub(2) };
        let id = headers.get(REQUEST_ID).map_or_else(|| pseudo_id.to_string(), str::to_owned);
        let half = self.waiting.get(&id);
        let duplicate = half.is_some_and(|half| if is_error { half.error.is_some() } else { half.data.is_some() });
        if duplicate {
            return incoming.refuse().await;
        }
        let Ok(stream) = incoming.accept().await else { return };
        let since = Instant::now();
        let mut half = self.waiting.remove(&id).unwrap_or(Half { since, port, data: None, error: None });
        if is_error {
            half.error = Some(stream);
        } else {
            half.data = Some(stream);
            half.port = port;
        }
        match half {
            Half { port, data: Some(data), error: Some(error), .. } => {
                let dialer = self.dialer.clone();
                self.running.spawn(async move { forward_pair(&dialer, port, data, error).await });
            }
            incomplete => {
                self.waiting.insert(id, incomplete);
            }
        }
    }

    /// Gives up the pairs whose second stream has not come.
    async fn expire(&mut self) {
        let overdue = |_: &String, half: &mut Half| half.since.elapsed() >= PAIR_CREATION;
        for (id, half) in self.waiting.extract_if(overdue) {
            if let Some(mut error) = half.error {
                let message = format!("(request={id}) timed out waiting for streams");
                let _ = error.write_all(message.as_bytes()).await;
                let _ = error.shutdown().await;
            }
        }
    }
}

async fn forward_pair(dialer: &Dialer, port: u16, mut data: Stream, mut error: Stream) {
    match dialer.open(port).await {
        Ok(mut connection) => {
            if let Err(error) = copy_bidirectional_with_sizes(&mut data, &mut connection, BUFFER, BUFFER).await {
                tracing::debug!(port, %error, "forwarded connection broken");
                data.reset().await;
            }
        }
        Err(failure) => {
            tracing::debug!(port, failure, "cannot forward");
            let _ = error.write_all(failure.as_bytes()).await;
            data.reset().await;
        }
    }
    let _ = error.shutdown().await;
}

/// Serves the ports of a plain WebSocket, one connection each.
async fn over_channels<T>(
    socket: tokio_tungstenite::WebSocketStream<T>,
    encoding: Encoding,
    ports: &[u16],
    dialer: &Dialer,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let reads = (0..ports.len()).map(|index| 2 * index as u8).collect();
    let layout = Layout { encoding, reads, takes_close_signal: false, sends_close_signal: false };
    let mut channels = Channels::new(socket, layout);
    let closed = channels.closed();
    let mut running = JoinSet::new();
    for (index, port) in ports.iter().copied().enumerate() {
        let channel = 2 * index as u8;
        let Some(mut reader) = channels.take_reader(channel) else { continue };
        let (mut data, mut error) = (channels.writer(channel), channels.writer(channel + 1));
        let dialer = dialer.clone();
        running.spawn(async move {
            let announced = data.write_all(&port.to_le_bytes()).await;
            if announced.is_err() || error.write_all(&port.to_le_bytes()).await.is_err() {
                return;
            }
            match dialer.open(port).await {
                Ok(connection) => {
                    let (mut from, mut to) = tokio::io::split(connection);
                    // The client cannot end a channel, so the connection has ended when its own side has.
                    tokio::select! {
                        _ = copy(&mut from, &mut data) => {}
                        () = async {
                            let _ = copy(&mut reader, &mut to).await;
                            let _ = to.shutdown().await;
                            std::future::pending::<()>().await;
                        } => {}
                    }
                }
                Err(failure) => {
                    let _ = error.write_all(failure.as_bytes()).await;
                }
            }
        });
    }
    tokio::select! {
        () = async { while running.join_next().await.is_some() {} } => channels.close().await,
        () = closed.cancelled() => {}
    }
}
