//! The group `certificates.k8s.io`.

mod issued;
pub mod pod_request;
pub mod signer;
pub mod signing_request;
pub mod trust_bundle;
