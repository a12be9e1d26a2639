//! SPDY/3.1 as Kubernetes speaks it: many byte streams in one upgraded connection.
//!
//! [`Connection`] works over any byte transport and is either half of the protocol; [`Stream`] is one of its streams.
//! The behaviour follows moby/spdystream, which client-go, the kubelet and the container runtimes use: flow control
//! is not practised, a stream may carry data once it was replied to, a reset reads as the end of the stream, and
//! GOAWAY ends the connection after everything that came before it.
//!
//! Without flow control the only way to hold a peer back is to stop reading, so a stream whose reader lags behind by
//! [`STREAM_BUFFER`] holds up every other stream of its connection, exactly as it does upstream. Readers drain their
//! streams or drop them.
//!
//! Not here: HTTP in SPDY, server push, priorities, credentials, persisted settings.

mod connection;
mod dictionary;
mod frame;
mod stream;

pub use connection::{Connection, Incoming, IncomingStreams, MAX_STREAMS, Opening, REPLY_TIMEOUT, STREAM_BUFFER};
pub use frame::{FrameError, Headers, MAX_CONTROL_PAYLOAD, MAX_HEADER_BLOCK};
pub use stream::{Stream, StreamReader, StreamWriter};
