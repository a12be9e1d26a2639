//! The controllers, one file each and one table: every one is `observe -> plan -> apply` over the runtime's harness.
//!
//! A controller knows the API and nothing else; it runs in the server's process or in one of its own, against any
//! Kubernetes API server.

pub mod deployment;
pub mod replicas;
