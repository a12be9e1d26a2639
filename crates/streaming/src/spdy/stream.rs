//! One stream of a SPDY connection, whole or as its two ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::connection::{Command, Shared};
use super::frame::ResetStatus;
use crate::outbound::{Outbound, Wire};

/// A stream in both directions. Shutting it down ends our direction and leaves the other one open.
pub struct Stream {
    reader: StreamReader,
    writer: StreamWriter,
}

/// What the peer sends on a stream; ends where the peer ends or resets it, or where the connection ends.
pub struct StreamReader(DuplexStream);

/// What we send on a stream.
pub type StreamWriter = Outbound<StreamWire>;

/// The SPDY frames of one stream.
pub struct StreamWire {
    id: u32,
    shared: Arc<Shared>,
}

impl Stream {
    pub(super) fn new(id: u32, inbound: DuplexStream, shared: &Arc<Shared>) -> Stream {
        let wire = StreamWire { id, shared: shared.clone() };
        let writer = Outbound::new(wire, shared.queue.clone(), shared.reset_flag(id));
        Stream { reader: StreamReader(inbound), writer }
    }

    /// Both ends, to be used by different tasks.
    pub fn into_split(self) -> (StreamReader, StreamWriter) {
        (self.reader, self.writer)
    }

    /// Abandons the stream in both directions, so that the peer stops sending on it.
    pub async fn reset(self) {
        self.writer.reset().await;
    }
}

impl StreamWriter {
    /// Abandons the stream in both directions: what the peer still sends on it is thrown away.
    pub async fn reset(mut self) {
        if let Some((id, shared)) = self.abandon(|wire| (wire.id, wire.shared.clone())) {
            shared.forget(id);
            let _ = shared.queue.send(Command::Reset { id, status: ResetStatus::Cancel }).await;
        }
    }
}

impl Wire for StreamWire {
    type Item = Command;

    fn data(&self, payload: Bytes) -> Command {
        Command::Data { id: self.id, payload, fin: false }
    }

    fn end(&self) -> Option<Command> {
        Some(Command::Data { id: self.id, payload: Bytes::new(), fin: true })
    }

    fn ended(&self) {
        self.shared.local_ended(self.id);
    }
}

impl AsyncRead for StreamReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}
