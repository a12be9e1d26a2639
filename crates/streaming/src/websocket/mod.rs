//! WebSocket as Kubernetes uses it: several byte streams, told apart by the first byte of each message.
//!
//! [`Channels`] multiplexes the channels of one socket. The subprotocols differ in whether messages are binary or
//! base64 text ([`Encoding`]), and in whether a client can end a single channel: only `v5.channel.k8s.io` has a signal
//! for that, which is why kubectl needs version 5 for `cp` and for piped input (KEP-4006).
//!
//! The opening handshake is in [`crate::upgrade`]; a WebSocket that carries SPDY is in [`crate::tunnel`].

mod channels;

pub use channels::{ChannelReader, ChannelWriter, Channels, Encoding, IDLE_PONG, Layout};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};

/// The largest message that is taken. Clients send what they read at once, some a whole file; upstream's servers stop
/// at the same size (the default of `golang.org/x/net/websocket`).
pub const MAX_MESSAGE: usize = 32 << 20;

/// A WebSocket over a connection that has been upgraded already.
pub async fn over<T: AsyncRead + AsyncWrite + Unpin>(io: T, role: Role) -> WebSocketStream<T> {
    let config = WebSocketConfig::default()
        // The default of 128 KiB is held by every connection, and most are terminals.
        .read_buffer_size(16 << 10)
        .write_buffer_size(16 << 10)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(io, role, Some(config)).await
}

/// The close frame of an orderly end. Clients take a close without this code for a failure.
pub(crate) fn normal_close() -> CloseFrame {
    CloseFrame { code: CloseCode::Normal, reason: "".into() }
}
