//! Nodes: their Pod networks, their health, and what their taints do to the Pods on them.

pub mod ipam;
pub mod lifecycle;
pub mod taint_eviction;
