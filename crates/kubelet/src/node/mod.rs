//! The node as the API shows it: registered once, its status told when it changes and every five minutes, its lease renewed every
//! ten seconds. Source: "Nodes" and "Leases" in the Kubernetes documentation.

pub mod facts;
mod lease;
mod registration;
pub mod status;

pub use lease::keep_lease;
pub use registration::{Registration, keep_registered};
