//! The binary: wiring only.
//!
//! It makes the real clock, disk, network and kernel seams, joins the components to a control plane ([`control_plane`]), a node
//! ([`node`]) or both in one process, and hands command lines to them ([`commands`]). The in-process transport lives here,
//! because only here the client and the API server meet ([`in_process`]).

pub mod access;
mod cgroup_claim;
pub mod commands;
pub mod control_plane;
pub mod data_dir;
pub mod heap;
pub mod in_process;
pub mod kubeconfig;
pub mod node;
