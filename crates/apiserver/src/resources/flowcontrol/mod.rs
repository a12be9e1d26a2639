//! The group `flowcontrol.apiserver.k8s.io`.

pub mod flow_schema;
pub mod level;
pub mod standard;
