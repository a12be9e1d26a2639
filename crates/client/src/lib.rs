//! The client that every component holds: one set of calls over two transports of the same semantics.
//!
//! A component never learns whether its API server lives in the same process ([`transport::Transport`] implemented by the
//! binary over the server's own request chain, sharing the cache's objects) or behind HTTPS ([`https::Https`]). Lists and
//! watches yield [`xebec_api::Object`]s; [`Api`] puts types on top. The crate caches nothing and retries nothing: that is
//! the runtime's.

pub mod api;
pub mod error;
pub mod https;
pub mod options;
pub mod transport;

pub use api::{Api, Client};
pub use error::Error;
pub use options::{DeleteOptions, ListOptions, Patch, Propagation, WatchOptions};
pub use transport::{Body, EventKind, Io, ObjectEvent, ObjectList, Transport, WatchStream};
