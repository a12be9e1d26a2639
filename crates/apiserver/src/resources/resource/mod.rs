//! The group `resource.k8s.io`: devices, and claims on them.

mod allocation;
mod capacity;
mod claim;
pub mod device_class;
pub mod device_taint_rule;
mod devices;
mod names;
pub mod resource_claim;
pub mod resource_claim_template;
pub mod resource_slice;
mod taints;
