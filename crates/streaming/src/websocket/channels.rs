//! The channels of one WebSocket: a task that sorts arriving messages by their channel byte, a task that writes.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::normal_close;
use crate::outbound::{self, Outbound, Wire};

/// The message that ends one channel in `v5.channel.k8s.io`: this byte, then the channel.
const CLOSE_SIGNAL: u8 = 255;

/// How far a channel's reader may lag behind before the socket is no longer read.
const CHANNEL_BUFFER: usize = 64 << 10;

/// How often a pong is sent while the socket is not read because a channel's reader lags behind. kubectl gives a
/// connection up after 61 seconds without a pong, and a program that reads its input slowly is no dead connection.
pub const IDLE_PONG: Duration = Duration::from_secs(10);

/// How long a closed socket waits for the peer's own close.
const CLOSE_DRAIN: Duration = Duration::from_secs(2);

/// How the bytes of a channel stand in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Binary messages: the channel's number, then the bytes.
    Binary,
    /// Text messages: the channel's digit, then the bytes in base64.
    Base64,
}

/// What one side of a subprotocol looks like.
#[derive(Debug, Clone)]
pub struct Layout {
    pub encoding: Encoding,
    /// The channels that this side reads; messages on others are thrown away.
    pub reads: Vec<u8>,
    /// Whether the peer may end a channel by the close signal.
    pub takes_close_signal: bool,
    /// Whether this side ends a channel by the close signal.
    pub sends_close_signal: bool,
}

/// One WebSocket, taken apart into channels. Dropping it cuts the connection off; [`Channels::close`] ends it in order.
pub struct Channels {
    queue: mpsc::Sender<Outgoing>,
    readers: HashMap<u8, ChannelReader>,
    layout: Layout,
    closed: CancellationToken,
}

/// What the peer sends on one channel; ends where the peer ends the channel or the connection.
pub struct ChannelReader(DuplexStream);

/// What this side sends on one channel.
pub type ChannelWriter = Outbound<ChannelWire>;

/// The messages of one channel.
pub struct ChannelWire {
    channel: u8,
    encoding: Encoding,
    sends_close_signal: bool,
}

/// What waits for the writing task.
pub enum Outgoing {
    Message(Message),
    Close(oneshot::Sender<()>),
}

impl Channels {
    /// Takes `socket` apart by `layout`.
    pub fn new<T>(socket: WebSocketStream<T>, layout: Layout) -> Channels
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (queue, outgoing) = mpsc::channel(outbound::QUEUE);
        let closed = CancellationToken::new();
        let pipe = |channel: &u8| {
            let (sink, source) = tokio::io::duplex(CHANNEL_BUFFER);
            ((*channel, sink), (*channel, ChannelReader(source)))
        };
        let (sinks, readers) = layout.reads.iter().map(pipe).unzip();
        let (sink, stream) = socket.split();
        let sorting = Sorting { sinks, layout: layout.clone(), queue: queue.clone() };
        tokio::spawn(write_messages(sink, outgoing, closed.clone()));
        tokio::spawn(sorting.run(stream, closed.clone()));
        Channels { queue, readers, layout, closed }
    }

    /// The reading end of a channel, once.
    pub fn take_reader(&mut self, channel: u8) -> Option<ChannelReader> {
        self.readers.remove(&channel)
    }

    /// The writing end of a channel.
    pub fn writer(&self, channel: u8) -> ChannelWriter {
        let Layout { encoding, sends_close_signal, .. } = self.layout;
        Outbound::new(ChannelWire { channel, encoding, sends_close_signal }, self.queue.clone(), Arc::default())
    }

    /// Sends an empty message on a channel, which tells a client that the connection stands.
    pub async fn announce(&self, channel: u8) {
        let message = message(self.layout.encoding, channel, b"");
        let _ = self.queue.send(Outgoing::Message(message)).await;
    }

    /// Cancelled once the connection has ended, for whatever reason.
    pub fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }

    /// Ends the connection in order: what was queued is sent, the close handshake follows.
    pub async fn close(self) {
        let (written, is_written) = oneshot::channel();
        if self.queue.send(Outgoing::Close(written)).await.is_ok() {
            let _ = is_written.await;
            let _ = timeout(CLOSE_DRAIN, self.closed.cancelled()).await;
        }
    }
}

impl Drop for Channels {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl Wire for ChannelWire {
    type Item = Outgoing;

    fn data(&self, piece: Bytes) -> Outgoing {
        Outgoing::Message(message(self.encoding, self.channel, &piece))
    }

    fn end(&self) -> Option<Outgoing> {
        let signal = Bytes::copy_from_slice(&[CLOSE_SIGNAL, self.channel]);
        self.sends_close_signal.then_some(Outgoing::Message(Message::Binary(signal)))
    }
}

impl AsyncRead for ChannelReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

fn message(encoding: Encoding, channel: u8, bytes: &[u8]) -> Message {
    match encoding {
        Encoding::Binary => {
            let mut framed = BytesMut::with_capacity(bytes.len() + 1);
            framed.put_u8(channel);
            framed.put_slice(bytes);
            Message::Binary(framed.freeze())
        }
        Encoding::Base64 => {
            let mut text = String::with_capacity(1 + bytes.len().div_ceil(3) * 4);
            text.push(char::from(b'0' + channel));
            BASE64.encode_string(bytes, &mut text);
            Message::text(text)
        }
    }
}

/// What the reading task owns.
struct Sorting {
    sinks: HashMap<u8, DuplexStream>,
    layout: Layout,
    queue: mpsc::Sender<Outgoing>,
}

impl Sorting {
    async fn run<T>(mut self, mut messages: SplitStream<WebSocketStream<T>>, closed: CancellationToken)
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let read = async {
            while let Some(message) = messages.next().await {
                match message {
                    Ok(Message::Binary(bytes)) => self.sort(bytes).await?,
                    Ok(Message::Text(text)) => self.sort(text.into()).await?,
                    // The socket itself answers pings and the peer's close.
                    Ok(_) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        let result = tokio::select! {
            biased;
            () = closed.cancelled() => Ok(()),
            result = read => result,
        };
        if let Err(error) = result {
            tracing::debug!(%error, "WebSocket broken");
        }
        closed.cancel();
    }

    /// Brings a message to its channel. A malformed close signal ends the connection, as it does upstream; base64 that
    /// does not decode is passed over, as it is upstream.
    async fn sort(&mut self, mut message: Bytes) -> Result<(), Error> {
        let base64 = self.layout.encoding == Encoding::Base64;
        let channel = match message.split_first() {
            None => return Ok(()),
            Some((&CLOSE_SIGNAL, [channel])) if self.layout.takes_close_signal => {
                self.sinks.remove(channel);
                return Ok(());
            }
            Some((&CLOSE_SIGNAL, _)) if self.layout.takes_close_signal => {
                return Err(Error::Io(io::Error::new(io::ErrorKind::InvalidData, "malformed close signal")));
            }
            Some((digit, _)) if base64 => digit.wrapping_sub(b'0'),
            Some((channel, _)) => *channel,
        };
        let Some(sink) = self.sinks.get_mut(&channel) else { return Ok(()) };
        message = message.slice(1..);
        if base64 {
            match BASE64.decode(&message) {
                Ok(decoded) => message = decoded.into(),
                Err(error) => {
                    tracing::debug!(channel, %error, "WebSocket message is not base64");
                    return Ok(());
                }
            }
        }
        if deliver(sink, &message, &self.queue).await.is_err() {
            // Nobody reads this channel any more.
            self.sinks.remove(&channel);
        }
        Ok(())
    }
}

/// Writes a message to its channel, and keeps the peer's patience alive while the channel's reader lags behind.
async fn deliver(sink: &mut DuplexStream, bytes: &[u8], queue: &mpsc::Sender<Outgoing>) -> io::Result<()> {
    let write = sink.write_all(bytes);
    tokio::pin!(write);
    loop {
        match timeout(IDLE_PONG, &mut write).await {
            Ok(result) => return result,
            Err(_) => {
                let _ = queue.try_send(Outgoing::Message(Message::Pong(Bytes::new())));
            }
        }
    }
}

async fn write_messages<T>(
    mut sink: SplitSink<WebSocketStream<T>, Message>,
    mut outgoing: mpsc::Receiver<Outgoing>,
    closed: CancellationToken,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let write = async {
        while let Some(mut next) = outgoing.recv().await {
            loop {
                match next {
                    Outgoing::Message(message) => sink.feed(message).await?,
                    Outgoing::Close(written) => {
                        sink.send(Message::Close(Some(normal_close()))).await?;
                        let _ = written.send(());
                        return Ok(());
                    }
                }
                match outgoing.try_recv() {
                    Ok(another) => next = another,
                    Err(_) => break,
                }
            }
            sink.flush().await?;
        }
        Result::<(), Error>::Ok(())
    };
    let result = tokio::select! {
        biased;
        () = closed.cancelled() => Ok(()),
        result = write => result,
    };
    // The reading task goes on: what the peer sent before it closed its socket still waits to be read.
    if let Err(error) = result {
        tracing::debug!(%error, "WebSocket cannot be written");
    }
}
