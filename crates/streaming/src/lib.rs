//! The streaming wire protocols of Kubernetes: remote commands (exec and attach) and port forwarding.
//!
//! A client of the API reaches a container's streams over an HTTP connection that it asks to be upgraded. Three
//! generations of protocols are in use and a node has to speak them all:
//!
//! | client | upgrade | streams |
//! |---|---|---|
//! | kubectl before 1.31, client-go's SPDY executor | `SPDY/3.1` | SPDY streams, typed by a `streamtype` header |
//! | kubectl from 1.31, browsers, other languages | `websocket` | one channel byte before every message |
//! | kubectl's port-forward from 1.31 | `websocket` | a whole SPDY connection inside binary messages |
//!
//! (KEP-4006 moved kubectl from SPDY to WebSocket.) Whatever the client asked for, the server half comes out as one
//! [`remote_command::Session`] or one [`port_forward::Forwarder`]; the client half comes out as one
//! [`remote_command::client::ClientSession`]. A container runtime's streaming server (CRI's `Exec` and `Attach`
//! return its URL) speaks SPDY, so a node is a server towards the API and a client towards its runtime.
//!
//! The modules, from the wire upwards:
//! - [`spdy`]: SPDY/3.1 framing and both halves of a connection;
//! - [`websocket`]: the opening handshake, and channels multiplexed over one WebSocket;
//! - [`tunnel`]: a WebSocket as a plain byte stream, to carry SPDY;
//! - [`upgrade`]: which protocol a request asks for, and the answer that grants or refuses it;
//! - [`remote_command`], [`port_forward`]: the two services on top.
//!
//! This crate does not know what a Pod or a container is, opens no connection but to a runtime's streaming URL, and
//! authenticates nobody: who may stream is decided before a request gets here.

pub mod spdy;
pub mod tunnel;
pub mod upgrade;
pub mod websocket;

pub mod port_forward;
pub mod remote_command;

mod outbound;

use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// The readable end of a stream, whatever protocol carries it.
pub type BoxReader = Pin<Box<dyn AsyncRead + Send>>;

/// The writable end of a stream, whatever protocol carries it. Shutting it down ends this one stream in this one
/// direction, as far as the protocol can say so.
pub type BoxWriter = Pin<Box<dyn AsyncWrite + Send>>;
