//! The writable end of one stream among many that share a connection.
//!
//! Every stream of a connection writes by putting its pieces into the connection's one bounded queue, which a task
//! drains onto the wire; a full queue holds the writers back. A writer that is dropped before it was shut down ends
//! its stream all the same, so that the peer never waits for a task that is gone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio_util::sync::PollSender;

/// The most bytes one queued piece holds. With the length of the queue it bounds what a connection buffers.
pub const MAX_PIECE: usize = 32 << 10;

/// How many pieces wait for the wire before writers are held back: with [`MAX_PIECE`], half a MiB a connection.
pub const QUEUE: usize = 16;

/// How one protocol says, for one stream, "these bytes" and "no more".
pub trait Wire: Unpin + Send + 'static {
    /// What the connection's queue holds.
    type Item: Send + 'static;

    /// The item that carries `piece`.
    fn data(&self, piece: Bytes) -> Self::Item;

    /// The item that ends this direction of the stream, where the protocol has one.
    fn end(&self) -> Option<Self::Item>;

    /// Called once the end has been queued.
    fn ended(&self) {}
}

/// The writable end of one stream.
pub struct Outbound<W: Wire> {
    wire: W,
    queue: PollSender<W::Item>,
    reset: Arc<AtomicBool>,
    ended: bool,
}

impl<W: Wire> Outbound<W> {
    /// A writer into `queue`. Where `reset` is set, the peer has abandoned the stream and writing fails.
    pub fn new(wire: W, queue: tokio::sync::mpsc::Sender<W::Item>, reset: Arc<AtomicBool>) -> Self {
        Outbound { wire, queue: PollSender::new(queue), reset, ended: false }
    }

    /// Gives the stream up without ending it on the wire, and shows its wire to the caller, who abandons it in the
    /// protocol's own way. `None` where the peer has abandoned it already.
    pub fn abandon<T>(&mut self, wire: impl FnOnce(&W) -> T) -> Option<T> {
        self.ended = true;
        (!self.reset.swap(true, Ordering::Relaxed)).then(|| wire(&self.wire))
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended || self.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.queue.poll_reserve(cx).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl<W: Wire> AsyncWrite for Outbound<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_room(cx))?;
        let piece = &bytes[..bytes.len().min(MAX_PIECE)];
        let item = self.wire.data(Bytes::copy_from_slice(piece));
        self.queue.send_item(item).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Poll::Ready(Ok(piece.len()))
    }

    /// The connection's task flushes whenever its queue is empty, so there is nothing to wait for here.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let Some(end) = self.wire.end() else {
            self.ended = true;
            return Poll::Ready(Ok(()));
        };
        // A stream or a connection that the peer has ended needs no end from us.
        if ready!(self.poll_room(cx)).is_ok() {
            let _ = self.queue.send_item(end);
        }
        self.ended = true;
        self.wire.ended();
        Poll::Ready(Ok(()))
    }
}

impl<W: Wire> Drop for Outbound<W> {
    fn drop(&mut self) {
        if self.ended || self.reset.load(Ordering::Relaxed) {
            return;
        }
        let (Some(end), Some(queue)) = (self.wire.end(), self.queue.get_ref().cloned()) else { return };
        self.wire.ended();
        match queue.try_send(end) {
            Err(tokio::sync::mpsc::error::TrySendError::Full(end)) => {
                // Outside a runtime there is no connection task left either.
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(async move { queue.send(end).await });
                }
            }
            Ok(()) | Err(tokio::sync::mpsc::error::TrySendError::Closed(_)) => {}
        }
    }
}
