//! The group `apiextensions.k8s.io`.

mod conversion;
pub mod custom_resource_definition;
mod schema;
mod structural;
mod version;
