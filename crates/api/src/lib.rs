//! The vocabulary of the Kubernetes API: what an object is, which kinds there are, and the pure predicates on them.
//!
//! The shapes of objects come from `k8s-openapi`; what those types do not know (merge keys, list types, protobuf numbers,
//! which fields Go leaves out when empty) stands in the generated table of [`schema`]. Everything here is pure: no I/O, no
//! async, no clock. An [`object::Object`] is the one in-memory form that the store's bytes, the API server's cache, watch
//! histories, informers and listers share.

pub mod discovery;
pub mod field;
pub mod fields;
pub mod node;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod pod;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod status;

pub use object::{Object, ObjectKey};
pub use quantity::Quantity;
pub use resource::{Kind, ResourceType};
pub use selector::{FieldSelector, LabelSelector};
pub use status::StatusError;
