//! The core group.

pub mod config_map;
pub mod endpoints;
pub mod event;
pub mod limit_range;
pub mod namespace;
pub mod node;
pub mod persistent_volume;
pub mod persistent_volume_claim;
pub mod pod;
pub mod pod_cells;
pub mod pod_defaults;
mod pod_resize;
pub mod pod_resources;
pub mod pod_status;
pub mod pod_template;
pub mod pod_update;
pub mod pod_warnings;
pub mod replication_controller;
pub mod resource_quota;
pub mod secret;
pub mod service;
pub mod service_account;
pub mod service_update;
