//! The client half of a remote command: against a runtime's streaming server, and for our own command line.
//!
//! A runtime answers CRI's `Exec` and `Attach` with a URL whose token is good for one connection; [`connect`] makes it,
//! over SPDY and version 4, which containerd and CRI-O speak alike. [`over_websocket`] and [`over_spdy`] take a
//! connection that somebody else has upgraded.

use std::io;

use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{ERROR, Options, Outcome, RESIZE, STDERR, STDIN, STDOUT, STREAM_TYPE, TerminalSize, Transport, V4};
use crate::spdy::{Connection, Headers, Opening, Stream};
use crate::upgrade::spdy_request_headers;
use crate::websocket::{self, Channels, Encoding, Layout};
use crate::{BoxReader, BoxWriter};

/// The most bytes of an error stream that are kept: a `Status` with a long message, and far from what would hurt.
const MAX_STATUS: u64 = 256 << 10;

/// The most bytes of a refusal's text that are read.
const MAX_REFUSAL: usize = 16 << 10;

/// Why a remote command did not start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the streaming URL {0:?} is not plain http with a host")]
    Url(String),
    #[error("connect to {address}")]
    Dial { address: String, source: io::Error },
    #[error("request an upgrade to SPDY")]
    Request(#[from] hyper::Error),
    #[error("the streaming server answered {status}: {message}")]
    Refused { status: StatusCode, message: String },
    #[error("open the command's streams")]
    Streams(#[source] io::Error),
}

/// The streams of a running command, those that were asked for.
///
/// The outputs must be read (or dropped) while [`ClientSession::outcome`] is awaited: one that nobody drains holds up
/// the others. Dropping the session cuts it off.
pub struct ClientSession {
    /// Shutting it down, or dropping it, ends the command's standard input.
    pub stdin: Option<BoxWriter>,
    pub stdout: Option<BoxReader>,
    pub stderr: Option<BoxReader>,
    pub resize: Option<Resizer>,
    error: BoxReader,
    transport: Transport,
}

/// Tells the command the size of our terminal.
pub struct Resizer(BoxWriter);

/// Connects to a runtime's streaming URL, `http://HOST:PORT/exec/TOKEN` or the like.
pub async fn connect(url: &str, options: Options) -> Result<ClientSession, ConnectError> {
    let bad_url = || ConnectError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| bad_url())?;
    let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(bad_url()) };
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let dial_failed = |source| ConnectError::Dial { address: address.clone(), source };
    let socket = TcpStream::connect(&address).await.map_err(dial_failed)?;
    // Keystrokes must not wait for one another.
    socket.set_nodelay(true).map_err(dial_failed)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::new(Empty::<bytes::Bytes>::new());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| path.clone().into());
    request.headers_mut().extend(spdy_request_headers(&[V4]));
    let host = http::HeaderValue::from_str(authority.as_str()).map_err(|_| bad_url())?;
    request.headers_mut().insert(header::HOST, host);
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_REFUSAL).collect().await;
        let message = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned()).unwrap_or_default();
        return Err(ConnectError::Refused { status, message });
    }
    let upgraded = hyper::upgrade::on(response).await?;
    over_spdy(TokioIo::new(upgraded), options).await.map_err(ConnectError::Streams)
}

/// The client's half over a connection that has been upgraded to SPDY with version 4.
pub async fn over_spdy<T>(io: T, options: Options) -> io::Result<ClientSession>
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    async fn ask(connection: &Connection, asked: bool, kind: &str) -> io::Result<Option<Opening>> {
        if asked { connection.open(Headers::new([(STREAM_TYPE, kind)])).await.map(Some) } else { Ok(None) }
    }
    async fn get(opening: Option<Opening>) -> io::Result<Option<Stream>> {
        match opening {
            Some(opening) => opening.established().await.map(Some),
            None => Ok(None),
        }
    }
    let connection = Connection::client(io);
    // All are asked for before the first reply is awaited, which saves a round trip for each.
    let error = ask(&connection, true, "error").await?;
    let stdin = ask(&connection, options.stdin, "stdin").await?;
    let stdout = ask(&connection, options.stdout, "stdout").await?;
    let stderr = ask(&connection, options.stderr && !options.tty, "stderr").await?;
    let resize = ask(&connection, options.tty, "resize").await?;
    let reader = |stream: Stream| Box::pin(stream) as BoxReader;
    let error = get(error).await?.ok_or(io::ErrorKind::BrokenPipe)?;
    Ok(ClientSession {
        stdin: get(stdin).await?.map(|stream| Box::pin(stream.into_split().1) as BoxWriter),
        stdout: get(stdout).await?.map(reader),
        stderr: get(stderr).await?.map(reader),
        resize: get(resize).await?.map(|stream| Resizer(Box::pin(stream.into_split().1))),
        error: reader(error),
        transport: Transport::Spdy(connection),
    })
}

/// The client's half over a connection that has been upgraded to a WebSocket with [`super::V5`].
pub async fn over_websocket<T>(io: T, options: Options) -> ClientSession
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let layout = Layout {
        encoding: Encoding::Binary,
        reads: vec![STDOUT, STDERR, ERROR],
        takes_close_signal: false,
        sends_close_signal: true,
    };
    let mut channels = Channels::new(websocket::over(io, Role::Client).await, layout);
    let mut reader = |channel, asked: bool| {
        let reader = channels.take_reader(channel).filter(|_| asked);
        reader.map(|reader| Box::pin(reader) as BoxReader)
    };
    let (stdout, stderr) = (reader(STDOUT, options.stdout), reader(STDERR, options.stderr && !options.tty));
    let error = reader(ERROR, true).unwrap_or_else(|| Box::pin(tokio::io::empty()));
    ClientSession {
        stdin: options.stdin.then(|| Box::pin(channels.writer(STDIN)) as BoxWriter),
        stdout,
        stderr,
        resize: options.tty.then(|| Resizer(Box::pin(channels.writer(RESIZE)))),
        error,
        transport: Transport::WebSocket(channels),
    }
}

impl ClientSession {
    /// How the command ended, once it has.
    pub async fn outcome(&mut self) -> Outcome {
        let mut status = Vec::new();
        match (&mut self.error).take(MAX_STATUS).read_to_end(&mut status).await {
            Ok(_) => Outcome::from_json(&status),
            Err(error) => Outcome::internal(format!("error reading from error stream: {error}")),
        }
    }

    /// Ends the connection in order, whether or not the command has ended.
    pub async fn close(self) {
        let ClientSession { stdin, resize, transport, .. } = self;
        drop((stdin, resize));
        transport.close().await;
    }
}

impl Resizer {
    /// Sends the size; a command that has ended does not mind.
    pub async fn resize(&mut self, size: TerminalSize) -> io::Result<()> {
        let mut json = serde_json::to_vec(&size)?;
        json.push(b'\n');
        self.0.write_all(&json).await
    }
}
