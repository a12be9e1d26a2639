//! The group `autoscaling`.

pub mod horizontal_pod_autoscaler;
pub mod metrics;
pub mod version_one;
