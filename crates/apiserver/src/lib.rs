//! The API server, in request order: server, chain, handlers, patch, admission, registry, cache, store.
//!
//! A request comes in over [`server`] or from the same process ([`ApiServer`]), passes the [`chain`] (what it is about, who
//! sends it, whether there is room, whether it may), reaches one of the [`handlers`], and through the [`registry`], which
//! holds all rules that kinds share and asks the kind's strategy for its own, the store. Reads come from the [`cache`]:
//! immutable snapshots of everything, whose objects are the store's bytes and are shared with the watch history and with
//! whoever lists and watches in the same process.
//!
//! The server never calls itself: admission and authorisation read the cache. A kind is one row in
//! [`resources`] and one strategy beside it; routes, discovery, OpenAPI and Tables follow from the row.

pub mod admission;
pub mod allocator;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod body;
pub mod bootstrap;
pub mod cache;
pub mod chain;
mod compression;
pub mod encryption;
pub mod flow_control;
mod following;
pub mod handlers;
mod health;
pub mod in_process;
pub mod metrics;
pub mod negotiation;
pub mod options;
pub mod profile;
pub mod registry;
pub mod request_info;
pub mod resources;
pub mod server;
pub mod server_state;
#[cfg(test)]
mod testing;

pub use authn::User;
pub use body::Body;
pub use in_process::{ApiServer, ObjectEvent, ObjectEventKind, ObjectList, Query};
pub use options::Options;
pub use registry::Registry;
pub use server::Listener;
pub use server_state::{ServerParts, ServerState};
