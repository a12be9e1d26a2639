//! The server half of a remote command: negotiates the protocol and collects the client's streams.

use std::io;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::Request;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;

use super::{
    ERROR, Options, Outcome, RESIZE, STDERR, STDIN, STDOUT, STREAM_TYPE, TerminalSize, Transport, V1, V1_BASE64, V2,
    V3, V4, V4_BASE64, V5, resizes,
};
use crate::spdy::{Connection, Incoming, IncomingStreams, Stream};
use crate::upgrade::{Io, Refusal, Reply, choose_websocket_protocol, grant_spdy, grant_websocket, is_websocket};
use crate::websocket::{self, Channels, Encoding, Layout};
use crate::{BoxReader, BoxWriter};

/// How long a client has to open its streams over SPDY, as upstream gives it.
const STREAM_CREATION: Duration = Duration::from_secs(30);

/// What is served over WebSocket. Version 5 exists only here: it adds what SPDY has always had.
const WEBSOCKET_PROTOCOLS: [&str; 6] = ["", V5, V4, V4_BASE64, V1, V1_BASE64];

/// What is served over SPDY, upstream's list.
const SPDY_VERSIONS: [&str; 4] = [V4, V3, V2, V1];

/// A granted upgrade: the answer to send, and the session that follows it.
pub struct Accepted {
    pub reply: Reply,
    /// Resolves once the client has its streams. It is polled while the reply is being sent, not before.
    pub session: BoxFuture<'static, Result<Session, AcceptError>>,
}

/// Why an upgraded connection did not become a session. The client cannot be told any more.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("upgrade the connection")]
    Upgrade(#[from] hyper::Error),
    #[error("accept a stream")]
    Stream(#[from] io::Error),
    #[error("the client's SPDY is broken: {0}")]
    Protocol(String),
    #[error("the client went away before it opened its streams")]
    Gone,
    #[error("timed out waiting for client to create streams")]
    Timeout,
}

/// A client's streams. They are there as far as the request asked for them and the client opened them.
///
/// Dropping a session cuts the client off; [`Session::finish`] ends it in order.
pub struct Session {
    pub stdin: Option<BoxReader>,
    pub stdout: Option<BoxWriter>,
    pub stderr: Option<BoxWriter>,
    /// The sizes of the client's terminal, where there is one.
    pub resize: Option<mpsc::Receiver<TerminalSize>>,
    error: Option<BoxWriter>,
    json_status: bool,
    transport: Transport,
}

/// Grants the upgrade that `request` asks for, or says why not.
///
/// # Errors
/// The refusal to answer with.
pub fn accept<B>(request: &mut Request<B>, options: Options) -> Result<Accepted, Refusal> {
    if is_websocket(request.headers()) {
        let protocol = choose_websocket_protocol(request.headers(), &WEBSOCKET_PROTOCOLS)?;
        let reply = grant_websocket(request, protocol)?;
        let upgrade = hyper::upgrade::on(request);
        let session = async move { Ok(over_websocket(TokioIo::new(upgrade.await?), protocol, options).await) };
        return Ok(Accepted { reply, session: session.boxed() });
    }
    let (version, reply) = grant_spdy(request.headers(), &SPDY_VERSIONS)?;
    let upgrade = hyper::upgrade::on(request);
    Ok(Accepted { reply, session: over_spdy(upgrade, version, options).boxed() })
}

impl Session {
    /// Ends the session: tells the client how the command ended, and closes the connection once it is told.
    pub async fn finish(mut self, outcome: &Outcome) {
        // What the client has not been sent yet goes first, and its ends are ends of its own.
        for stream in [self.stdout.take(), self.stderr.take()].into_iter().flatten() {
            shut_down(stream).await;
        }
        if let Some(mut error) = self.error.take() {
            let status = match (self.json_status, outcome) {
                (true, outcome) => outcome.to_json(),
                (false, outcome) => outcome.message().into_bytes(),
            };
            let _ = error.write_all(&status).await;
            shut_down(error).await;
        }
        self.transport.close().await;
    }

    /// Cancelled once the client is gone.
    pub fn disconnected(&self) -> CancellationToken {
        self.transport.closed()
    }
}

async fn shut_down(mut stream: BoxWriter) {
    // A client that has gone needs no end of its streams.
    let _ = stream.shutdown().await;
}

async fn over_websocket(io: Io, protocol: &str, options: Options) -> Session {
    let socket = websocket::over(io, Role::Server).await;
    let layout = Layout {
        encoding: if [V4_BASE64, V1_BASE64].contains(&protocol) { Encoding::Base64 } else { Encoding::Binary },
        reads: if options.stdin { vec![STDIN, RESIZE] } else { vec![RESIZE] },
        takes_close_signal: protocol == V5,
        sends_close_signal: false,
    };
    let mut channels = Channels::new(socket, layout);
    // Clients take the first message, on the lowest channel they read, for the sign that the connection stands.
    let lowest = [(options.stdout, STDOUT), (options.stderr, STDERR), (true, ERROR)];
    let lowest = lowest.iter().find(|(asked, _)| *asked).map_or(ERROR, |(_, channel)| *channel);
    channels.announce(lowest).await;
    let resize = channels.take_reader(RESIZE).filter(|_| options.tty);
    Session {
        stdin: channels.take_reader(STDIN).map(|reader| Box::pin(reader) as BoxReader),
        stdout: options.stdout.then(|| Box::pin(channels.writer(STDOUT)) as BoxWriter),
        stderr: options.stderr.then(|| Box::pin(channels.writer(STDERR)) as BoxWriter),
        resize: resize.map(resizes),
        error: Some(Box::pin(channels.writer(ERROR))),
        json_status: [V5, V4, V4_BASE64].contains(&protocol),
        transport: Transport::WebSocket(channels),
    }
}

async fn over_spdy(upgrade: OnUpgrade, version: &str, options: Options) -> Result<Session, AcceptError> {
    let (connection, mut incoming) = Connection::server(TokioIo::new(upgrade.await?));
    let mut streams = Streams::default();
    let resizable = [V4, V3].contains(&version);
    let mut expected = 1 + [options.stdin, options.stdout, options.stderr].into_iter().filter(|asked| *asked).count();
    expected += usize::from(options.tty && resizable);
    let deadline = Instant::now() + STREAM_CREATION;
    while streams.count() < expected {
        let next = timeout_at(deadline, incoming.next()).await.map_err(|_| AcceptError::Timeout)?;
        let stream = next.map_err(|error| AcceptError::Protocol(error.to_string()))?.ok_or(AcceptError::Gone)?;
        streams.take(stream).await?;
    }
    refuse_the_rest(incoming);
    let mut error = streams.error.map(|stream| stream.into_split().1);
    let mut stdin = streams.stdin;
    if version == V1 {
        // The first version ends its error stream and our side of standard input as soon as it has them, a mistake of
        // Kubernetes 1.0 that its clients are made for.
        if let Some(error) = error.take() {
            error.reset().await;
        }
        if let Some(stdin) = &mut stdin {
            stdin.shutdown().await?;
        }
    }
    Ok(Session {
        stdin: stdin.map(|stream| Box::pin(stream) as BoxReader),
        stdout: streams.stdout.map(|stream| Box::pin(stream.into_split().1) as BoxWriter),
        stderr: streams.stderr.map(|stream| Box::pin(stream.into_split().1) as BoxWriter),
        resize: streams.resize.map(resizes),
        error: error.map(|stream| Box::pin(stream) as BoxWriter),
        json_status: version == V4,
        transport: Transport::Spdy(connection),
    })
}

/// Streams beyond those a session has are turned down, so that a client does not wait for a reply to them.
fn refuse_the_rest(mut incoming: IncomingStreams) {
    tokio::spawn(async move {
        while let Ok(Some(stream)) = incoming.next().await {
            stream.refuse().await;
        }
    });
}

/// The streams of a SPDY client, as they come in.
#[derive(Default)]
struct Streams {
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
    error: Option<Stream>,
}

impl Streams {
    async fn take(&mut self, incoming: Incoming) -> io::Result<()> {
        let kind = incoming.headers().get(STREAM_TYPE).unwrap_or_default().to_owned();
        let place = match kind.as_str() {
            "stdin" => &mut self.stdin,
            "stdout" => &mut self.stdout,
            "stderr" => &mut self.stderr,
            "resize" => &mut self.resize,
            "error" => &mut self.error,
            _ => {
                tracing::debug!(kind, "unexpected stream type");
                incoming.refuse().await;
                return Ok(());
            }
        };
        if place.is_some() {
            incoming.refuse().await;
        } else {
            *place = Some(incoming.accept().await?);
        }
        Ok(())
    }

    fn count(&self) -> usize {
        [&self.stdin, &self.stdout, &self.stderr, &self.resize, &self.error].iter().filter(|s| s.is_some()).count()
    }
}
