//! The group `certificates.k8s.io`.

pub mod signer;
pub mod signing_request;
