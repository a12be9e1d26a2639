//! The container-runtime interface: the one place that knows how a node agent speaks to containerd or CRI-O.
//!
//! The vocabulary is the protocol's own ([`v1`], generated from `proto/cri.proto`, which holds only what the agent uses).
//! Two traits are the seam that the agent is written against: [`Runtime`] (sandboxes, containers, exec, statistics,
//! events) and [`Images`] (pull, list, remove). Behind them stand
//!
//! - [`Remote`]: gRPC over a unix socket, to any CRI v1 runtime. `Remote::new(path)` never blocks: the connection is made at
//!   the first call and made anew after the runtime went away.
//! - [`fake::Fake`]: a runtime in memory with scripted outcomes and recorded calls, for tests.
//!
//! [`Runtime::watch`] is the source of "something happened to this container". It hides three ways of knowing: containerd's
//! own event service (every version has it; containerd 1.6 has no CRI events), CRI's `GetContainerEvents`, and, with
//! neither, a [`Event::Resync`] every second. After each gap comes a `Resync`, so the reader lists again and loses nothing. An
//! exit is told only once the runtime's CRI side knows it too: `container_status` then answers with the exit code.
//!
//! [`containerd::Containerd`] starts and supervises a containerd of our own (1.6 and later, 2.x) with a generated configuration
//! under a data directory. It is restarted when it dies; the containers outlive it and outlive the agent.
//!
//! Errors are one type: [`Error::Call`] displays as upstream shows a runtime's error in a Pod's status
//! (`rpc error: code = NotFound desc = …`); [`Error::is_not_found`] tells the one code that callers act on.

pub mod containerd;
mod error;
mod events;
pub mod fake;
mod remote;
mod runtime;

/// The messages of CRI v1.
#[allow(clippy::all)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

#[allow(clippy::all)]
mod containerd_events {
    tonic::include_proto!("containerd.services.events.v1");
}

pub use error::{Code, Error, Result};
pub use remote::Remote;
pub use runtime::{Event, Images, Runtime};
