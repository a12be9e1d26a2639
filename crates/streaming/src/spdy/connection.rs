//! A SPDY connection: one task that reads frames and hands them to their streams, one that writes what they queue.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream, ReadHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::frame::{self, Frame, FrameEncoder, FrameError, FrameReader, Headers, ResetStatus, SynStream};
use super::stream::Stream;
use crate::outbound;

/// How far a stream's reader may lag behind before the connection stops reading: twice the piece most writers send.
pub const STREAM_BUFFER: usize = 64 << 10;

/// How many streams a connection has open at once. A forwarded browser uses two for each of its connections; a peer
/// that asks for more than this is refused, stream by stream.
pub const MAX_STREAMS: usize = 2048;

/// How long a stream we open waits for its reply, as client-go does.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a closed connection still reads, so that closing the socket over unread bytes does not destroy what the
/// peer has yet to receive.
const CLOSE_DRAIN: Duration = Duration::from_secs(2);

/// How many streams the peer may open ahead of the task that accepts them.
const INCOMING_QUEUE: usize = 32;

/// How many bytes are gathered into one write to the transport.
const WRITE_BATCH: usize = 64 << 10;

/// One half of a SPDY connection. Dropping it cuts the connection off; [`Connection::close`] ends it in order.
pub struct Connection {
    shared: Arc<Shared>,
    /// Held while a stream's number is taken and its frame queued: numbers must rise in the order of the wire.
    next_id: tokio::sync::Mutex<u32>,
}

/// The streams that the peer opens.
pub struct IncomingStreams {
    queue: mpsc::Receiver<Incoming>,
    shared: Arc<Shared>,
}

/// A stream that the peer has opened and that waits for our reply. It is accepted or refused.
pub struct Incoming {
    id: u32,
    headers: Headers,
    inbound: DuplexStream,
    shared: Arc<Shared>,
}

/// A stream that we have opened and that waits for the peer's reply.
pub struct Opening {
    stream: Stream,
    reply: oneshot::Receiver<()>,
}

/// What the writing task turns into frames.
pub enum Command {
    SynStream { id: u32, headers: Headers },
    SynReply { id: u32 },
    Data { id: u32, payload: Bytes, fin: bool },
    Reset { id: u32, status: ResetStatus },
    Ping { id: u32 },
    GoAway { last_good_stream: u32, written: oneshot::Sender<()> },
}

/// What the tasks and the streams of a connection share.
pub struct Shared {
    pub(super) queue: mpsc::Sender<Command>,
    streams: Mutex<HashMap<u32, Entry>>,
    closed: CancellationToken,
    failure: OnceLock<FrameError>,
    /// The last stream of the peer that was taken up, for GOAWAY to name.
    last_good_stream: AtomicU32,
}

/// One open stream, as the connection sees it.
struct Entry {
    /// Where its data goes; `None` while the reading task holds it, and once nobody reads it any more.
    inbound: Option<DuplexStream>,
    reply: Option<oneshot::Sender<()>>,
    reset: Arc<AtomicBool>,
    local_open: bool,
    remote_open: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

impl Connection {
    /// The server's half over `io`, and the streams that the client opens.
    pub fn server<T>(io: T) -> (Connection, IncomingStreams)
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        Connection::start(io, Role::Server)
    }

    /// The client's half over `io`. Streams that the server opens are refused.
    pub fn client<T>(io: T) -> Connection
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        Connection::start(io, Role::Client).0
    }

    fn start<T>(io: T, role: Role) -> (Connection, IncomingStreams)
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (queue, commands) = mpsc::channel(outbound::QUEUE);
        let (streams, incoming) = mpsc::channel(INCOMING_QUEUE);
        let shared = Arc::new(Shared {
            queue,
            streams: Mutex::default(),
            closed: CancellationToken::new(),
            failure: OnceLock::new(),
            last_good_stream: AtomicU32::new(0),
        });
        let (read, write) = tokio::io::split(io);
        tokio::spawn(write_frames(write, commands, shared.closed.clone()));
        let reading = Reading {
            frames: FrameReader::new(BufReader::with_capacity(16 << 10, read)),
            role,
            next_id: if role == Role::Server { 1 } else { 2 },
            incoming: streams,
            shared: shared.clone(),
        };
        tokio::spawn(reading.run());
        let next_id = tokio::sync::Mutex::new(if role == Role::Server { 2 } else { 1 });
        (Connection { shared: shared.clone(), next_id }, IncomingStreams { queue: incoming, shared })
    }

    /// Asks the peer for a new stream. Several may be asked for before the first reply is awaited.
    pub async fn open(&self, headers: Headers) -> io::Result<Opening> {
        let mut next_id = self.next_id.lock().await;
        let id = *next_id;
        *next_id = id.checked_add(2).filter(|next| *next < 1 << 31).ok_or(io::ErrorKind::ConnectionAborted)?;
        let (sender, reply) = oneshot::channel();
        let inbound = self.shared.register(id, Some(sender), true);
        let stream = Stream::new(id, inbound, &self.shared);
        self.shared.queue.send(Command::SynStream { id, headers }).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(Opening { stream, reply })
    }

    /// Cancelled once the connection has ended, for whatever reason.
    pub fn closed(&self) -> CancellationToken {
        self.shared.closed.clone()
    }

    /// Ends the connection in order: what was queued is sent, streams still open are reset, GOAWAY follows.
    pub async fn close(self) {
        for id in self.shared.locally_open() {
            let _ = self.shared.queue.send(Command::Reset { id, status: ResetStatus::Cancel }).await;
        }
        let (written, is_written) = oneshot::channel();
        let last_good_stream = self.shared.last_good_stream.load(Ordering::Relaxed);
        if self.shared.queue.send(Command::GoAway { last_good_stream, written }).await.is_ok() {
            let _ = is_written.await;
            let _ = timeout(CLOSE_DRAIN, self.shared.closed.cancelled()).await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}

impl IncomingStreams {
    /// The next stream the peer opens; `None` where the connection has ended as it should.
    ///
    /// # Errors
    /// The frame that broke the protocol and with it the connection.
    pub async fn next(&mut self) -> Result<Option<Incoming>, &FrameError> {
        match self.queue.recv().await {
            Some(stream) => Ok(Some(stream)),
            None => self.shared.failure.get().map_or(Ok(None), Err),
        }
    }
}

impl Incoming {
    /// The stream's number; the client's are odd and rise.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What the peer says of the stream.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Replies, and hands out the stream.
    pub async fn accept(self) -> io::Result<Stream> {
        let stream = Stream::new(self.id, self.inbound, &self.shared);
        let reply = Command::SynReply { id: self.id };
        self.shared.queue.send(reply).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(stream)
    }

    /// Turns the stream down.
    pub async fn refuse(self) {
        self.shared.forget(self.id);
        let _ = self.shared.queue.send(Command::Reset { id: self.id, status: ResetStatus::RefusedStream }).await;
    }
}

impl Opening {
    /// The stream, once the peer has replied.
    ///
    /// # Errors
    /// Where the peer refuses the stream, ends the connection, or stays silent for [`REPLY_TIMEOUT`].
    pub async fn established(self) -> io::Result<Stream> {
        match timeout(REPLY_TIMEOUT, self.reply).await {
            Ok(Ok(())) => Ok(self.stream),
            Ok(Err(_)) => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the peer refused the stream")),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no reply to a new stream")),
        }
    }
}

impl Shared {
    fn streams(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a new stream and returns the end its reader gets.
    fn register(&self, id: u32, reply: Option<oneshot::Sender<()>>, local_open: bool) -> DuplexStream {
        let (sink, source) = tokio::io::duplex(STREAM_BUFFER);
        let reset = Arc::default();
        let entry = Entry { inbound: Some(sink), reply, reset, local_open, remote_open: true };
        let mut streams = self.streams();
        // The reading task empties the map when the connection ends; a stream entered afterwards ends at once.
        if !self.closed.is_cancelled() {
            streams.insert(id, entry);
        }
        source
    }

    pub(super) fn reset_flag(&self, id: u32) -> Arc<AtomicBool> {
        self.streams().get(&id).map_or_else(|| Arc::new(AtomicBool::new(true)), |entry| entry.reset.clone())
    }

    /// Our direction of the stream has ended.
    pub(super) fn local_ended(&self, id: u32) {
        self.end(id, |entry| entry.local_open = false);
    }

    fn remote_ended(&self, id: u32) {
        self.end(id, |entry| {
            entry.remote_open = false;
            entry.inbound = None;
        });
    }

    fn end(&self, id: u32, change: impl FnOnce(&mut Entry)) {
        let mut streams = self.streams();
        if let Some(entry) = streams.get_mut(&id) {
            change(entry);
            if !entry.local_open && !entry.remote_open {
                streams.remove(&id);
            }
        }
    }

    /// Removes a stream at once; its writer fails from here on and its reader ends.
    pub(super) fn forget(&self, id: u32) {
        if let Some(entry) = self.streams().remove(&id) {
            entry.reset.store(true, Ordering::Relaxed);
        }
    }

    fn locally_open(&self) -> Vec<u32> {
        self.streams().iter().filter(|(_, entry)| entry.local_open).map(|(id, _)| *id).collect()
    }
}

/// The reading task.
struct Reading<T> {
    frames: FrameReader<BufReader<ReadHalf<T>>>,
    role: Role,
    /// The lowest number the peer's next stream may have.
    next_id: u32,
    incoming: mpsc::Sender<Incoming>,
    shared: Arc<Shared>,
}

impl<T: AsyncRead + AsyncWrite> Reading<T> {
    async fn run(mut self) {
        let closed = self.shared.closed.clone();
        let result = tokio::select! {
            biased;
            () = closed.cancelled() => Ok(()),
            result = self.read() => result,
        };
        if let Err(error) = result {
            tracing::debug!(error = %error, "SPDY connection broken");
            let _ = self.shared.failure.set(error);
        }
        closed.cancel();
        // Dropping the entries ends every reader and every wait for a reply.
        for (_, entry) in self.shared.streams().drain() {
            entry.reset.store(true, Ordering::Relaxed);
        }
    }

    async fn read(&mut self) -> Result<(), FrameError> {
        while let Some(frame) = self.frames.next().await? {
            match frame {
                Frame::SynStream(stream) => self.opened(stream).await,
                Frame::SynReply { id, fin } => {
                    let reply = self.shared.streams().get_mut(&id).and_then(|entry| entry.reply.take());
                    if let Some(reply) = reply {
                        let _ = reply.send(());
                    }
                    if fin {
                        self.shared.remote_ended(id);
                    }
                }
                Frame::Headers { id, fin } => {
                    if fin {
                        self.shared.remote_ended(id);
                    }
                }
                Frame::RstStream { id, status } => {
                    tracing::trace!(stream = id, status, "SPDY stream reset by the peer");
                    self.shared.forget(id);
                }
                Frame::Data { id, fin, length } => self.data(id, fin, length).await?,
                // A ping of ours would come back with our own parity; we send none, and answer the peer's.
                Frame::Ping { id } => {
                    if (id % 2 == 1) == (self.role == Role::Server) {
                        self.send(Command::Ping { id }).await;
                    }
                }
                Frame::GoAway => return Ok(()),
                Frame::Ignored => {}
            }
        }
        Ok(())
    }

    async fn opened(&mut self, SynStream { id, fin, unidirectional, headers }: SynStream) {
        let theirs = (id % 2 == 1) == (self.role == Role::Server);
        if !theirs || id < self.next_id {
            return self.send(Command::Reset { id, status: ResetStatus::ProtocolError }).await;
        }
        self.next_id = id + 2;
        if self.shared.streams().len() >= MAX_STREAMS {
            return self.send(Command::Reset { id, status: ResetStatus::RefusedStream }).await;
        }
        self.shared.last_good_stream.store(id, Ordering::Relaxed);
        let inbound = self.shared.register(id, None, !unidirectional);
        if fin {
            self.shared.remote_ended(id);
        }
        let stream = Incoming { id, headers, inbound, shared: self.shared.clone() };
        if let Err(mpsc::error::SendError(stream)) = self.incoming.send(stream).await {
            stream.refuse().await;
        }
    }

    /// Moves a payload to its stream, in the pieces in which it arrives. What nobody reads is thrown away.
    async fn data(&mut self, id: u32, fin: bool, length: usize) -> Result<(), FrameError> {
        let mut sink = self.shared.streams().get_mut(&id).and_then(|entry| entry.inbound.take());
        let mut left = length;
        while left > 0 {
            let piece = self.frames.payload(left).await?;
            let taken = piece.len();
            if let Some(inbound) = &mut sink
                && inbound.write_all(piece).await.is_err()
            {
                sink = None;
            }
            self.frames.consume(taken);
            left -= taken;
        }
        if fin {
            drop(sink);
            self.shared.remote_ended(id);
        } else if let Some(entry) = self.shared.streams().get_mut(&id) {
            entry.inbound = sink;
        }
        Ok(())
    }

    async fn send(&mut self, command: Command) {
        // Where the writing task is gone, the connection is about to end and this frame with it.
        let _ = self.shared.queue.send(command).await;
    }
}

/// The writing task: ends with the connection, or after GOAWAY.
async fn write_frames<T>(mut io: T, mut commands: mpsc::Receiver<Command>, closed: CancellationToken)
where
    T: AsyncWrite + Unpin,
{
    let write = async {
        let mut encoder = FrameEncoder::new();
        let mut out = BytesMut::with_capacity(WRITE_BATCH);
        while let Some(command) = commands.recv().await {
            let mut last = encode(&mut encoder, &mut out, command);
            while last.is_none()
                && out.len() < WRITE_BATCH
                && let Ok(command) = commands.try_recv()
            {
                last = encode(&mut encoder, &mut out, command);
            }
            io.write_all(&out).await?;
            io.flush().await?;
            out.clear();
            if let Some(written) = last {
                io.shutdown().await?;
                let _ = written.send(());
                return Ok(());
            }
        }
        io::Result::Ok(())
    };
    let result = tokio::select! {
        biased;
        () = closed.cancelled() => Ok(()),
        result = write => result,
    };
    // The reading task goes on: a peer that has closed its socket over our unread bytes fails our writes at once, while
    // what it sent before still waits to be read. That task ends the connection when there is no more.
    if let Err(error) = result {
        tracing::debug!(%error, "SPDY connection cannot be written");
    }
}

/// Appends the frame of one command. The last frame of a connection yields whom to tell once it is written.
fn encode(encoder: &mut FrameEncoder, out: &mut BytesMut, command: Command) -> Option<oneshot::Sender<()>> {
    match command {
        Command::SynStream { id, headers } => encoder.syn_stream(out, id, &headers),
        Command::SynReply { id } => encoder.syn_reply(out, id),
        Command::Data { id, payload, fin } => frame::data(out, id, &payload, fin),
        Command::Reset { id, status } => frame::rst_stream(out, id, status),
        Command::Ping { id } => frame::ping(out, id),
        Command::GoAway { last_good_stream, written } => {
            frame::go_away(out, last_good_stream);
            return Some(written);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::AsyncReadExt;

    use super::*;

    /// A transport whose other side takes nothing any more.
    struct Broken;

    impl AsyncWrite for Broken {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_came_before_a_broken_write_is_still_read() {
        let (mut far, near) = tokio::io::duplex(64);
        let connection = Connection::client(tokio::io::join(near, Broken));
        let opening = connection.open(Headers::default()).await.unwrap();
        // The writing task gives up over the new stream's frame and with it the queue.
        connection.shared.queue.closed().await;
        let mut frames = BytesMut::new();
        FrameEncoder::new().syn_reply(&mut frames, 1);
        frame::data(&mut frames, 1, &[7; 1000], false);
        frame::data(&mut frames, 1, b"", true);
        tokio::spawn(async move { far.write_all(&frames).await.unwrap() });
        let mut bytes = Vec::new();
        opening.established().await.unwrap().read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, [7; 1000]);
        connection.closed().cancelled().await;
    }
}
