//! Remote commands: exec and attach, as one [`Session`] whatever protocol the client chose.
//!
//! [`accept`] is the server half. It answers the HTTP request at once; the session follows when the connection has been
//! upgraded and the client has opened its streams. [`client`] is the other half, for a runtime's streaming server and
//! for our own command line; [`relay`] joins the two. Versions of the protocol differ in little: 2 mends the first
//! one's early end of the error stream, 3 adds resizing, 4 adds the exit code as a `Status`, 5 (WebSocket only) adds
//! the end of standard input.

pub mod client;
mod relay;
mod server;
mod status;

pub use relay::relay;
pub use server::{AcceptError, Accepted, Session, accept};
pub use status::Outcome;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::spdy::Connection;
use crate::websocket::Channels;

/// The WebSocket subprotocol of kubectl from 1.31 on.
pub const V5: &str = "v5.channel.k8s.io";
pub(crate) const V4: &str = "v4.channel.k8s.io";
const V3: &str = "v3.channel.k8s.io";
const V2: &str = "v2.channel.k8s.io";
pub(crate) const V1: &str = "channel.k8s.io";
pub(crate) const V4_BASE64: &str = "v4.base64.channel.k8s.io";
const V1_BASE64: &str = "base64.channel.k8s.io";

/// The channels of a WebSocket, by the numbers of the protocol.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// The header that says what a SPDY stream is for.
pub(crate) const STREAM_TYPE: &str = "streamtype";

/// The most bytes that one size of a terminal may take on the resize stream.
const MAX_RESIZE: usize = 4 << 10;

/// How many changes of a terminal's size wait to be applied.
const RESIZE_QUEUE: usize = 4;

/// The streams a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// A request that asks for no stream at all.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("you must specify at least 1 of stdin, stdout, stderr")]
pub struct NoStreams;

impl Options {
    /// Checks the streams asked for. A terminal has no standard error of its own, so with `tty` it is dropped, as
    /// upstream drops it.
    pub fn validated(mut self) -> Result<Options, NoStreams> {
        self.stderr &= !self.tty;
        if self.stdin || self.stdout || self.stderr { Ok(self) } else { Err(NoStreams) }
    }
}

/// The size of a terminal in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    #[serde(rename = "Width", alias = "width")]
    pub width: u16,
    #[serde(rename = "Height", alias = "height")]
    pub height: u16,
}

/// What carries the streams of a session, kept alive for as long as it lasts.
enum Transport {
    Spdy(Connection),
    WebSocket(Channels),
}

impl Transport {
    fn closed(&self) -> CancellationToken {
        match self {
            Transport::Spdy(connection) => connection.closed(),
            Transport::WebSocket(channels) => channels.closed(),
        }
    }

    async fn close(self) {
        match self {
            Transport::Spdy(connection) => connection.close().await,
            Transport::WebSocket(channels) => channels.close().await,
        }
    }
}

/// Reads the JSON objects of a resize stream, one behind the other, for as long as they make sense.
fn resizes(mut stream: impl AsyncRead + Send + Unpin + 'static) -> mpsc::Receiver<TerminalSize> {
    let (sender, receiver) = mpsc::channel(RESIZE_QUEUE);
    tokio::spawn(async move {
        let mut pending = Vec::new();
        loop {
            let mut sizes = serde_json::Deserializer::from_slice(&pending).into_iter::<TerminalSize>();
            let mut read = Vec::new();
            let incomplete = loop {
                match sizes.next() {
                    Some(Ok(size)) => read.push(size),
                    Some(Err(error)) => break error.is_eof(),
                    None => break true,
                }
            };
            let taken = sizes.byte_offset();
            pending.drain(..taken);
            for size in read {
                if sender.send(size).await.is_err() {
                    return;
                }
            }
            if !incomplete || pending.len() > MAX_RESIZE {
                return;
            }
            match stream.read_buf(&mut pending).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_as_upstream_checks_them() {
        let all = Options { stdin: true, stdout: true, stderr: true, tty: false };
        assert_eq!(all.validated(), Ok(all));
        let terminal = Options { tty: true, ..all };
        assert_eq!(terminal.validated(), Ok(Options { stderr: false, ..terminal }));
        assert_eq!(Options { tty: true, stderr: true, ..Options::default() }.validated(), Err(NoStreams));
    }

    #[tokio::test]
    async fn sizes_are_read_however_they_are_cut() {
        async fn check(bytes: &'static [u8], expect: &[(u16, u16)]) {
            for cut in 0..bytes.len() {
                let (head, tail) = bytes.split_at(cut);
                let mut sizes = resizes(AsyncReadExt::chain(head, tail));
                for (width, height) in expect.iter().copied() {
                    assert_eq!(sizes.recv().await, Some(TerminalSize { width, height }), "cut at {cut}");
                }
                assert_eq!(sizes.recv().await, None, "cut at {cut}");
            }
        }
        check(b"{\"Width\":80,\"Height\":24}\n{\"Width\":100,\"Height\":50}\n", &[(80, 24), (100, 50)]).await;
        check(b"{\"width\":1,\"height\":2} nonsense {\"Width\":1}", &[(1, 2)]).await;
        check(b"{\"Width\":70000,\"Height\":1}", &[]).await;
    }
}
