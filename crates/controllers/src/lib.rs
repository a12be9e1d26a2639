//! The controllers, one file each and one table: every one is `observe -> plan -> apply` over the runtime's harness.
//!
//! A controller knows the API and nothing else; it runs in the server's process or in one of its own, against any
//! Kubernetes API server. The garbage collectors are not of that shape: one keeps a graph of everything, the other looks over
//! all Pods now and then.

pub mod daemon;
pub mod deployment;
pub mod discovered;
pub mod disruption;
pub mod endpoints;
pub mod garbage;
mod history;
pub mod job;
pub mod namespaces;
pub mod node;
pub mod pod_gc;
mod pod_writer;
pub mod replicas;
pub mod resource_quota;
pub mod root_ca;
pub mod service_accounts;
pub mod service_cidrs;
mod table;
pub mod volume_protection;

pub use table::{CONTROLLERS, Config, Row, run};
