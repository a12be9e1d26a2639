//! Black-box tests and measurements of the release binary. Each cluster stands in a network namespace of its own with a
//! veth pair to the host, so that it meets neither another cluster on the machine nor the host's links, routes and rules,
//! and so that the host is a client outside of the cluster's network. It relies on root and on iproute2, and it knows the
//! binary by its command line and its wire alone: no crate of ours is a dependency.

mod api;
mod cluster;
mod host;
mod process;
mod remains;
mod server;

pub use api::{Api, Response};
pub use cluster::Cluster;
pub use host::Host;
pub use process::{Output, Process, Usage, binary, capture, images, wait_for};
pub use remains::Remains;
pub use server::{Server, TOKEN, free_port};
