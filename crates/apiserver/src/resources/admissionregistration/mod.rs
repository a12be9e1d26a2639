//! The group `admissionregistration.k8s.io`.

mod matching;
pub mod mutating_policy;
pub mod policy_binding;
pub mod validating_policy;
mod variables;
pub mod webhooks;
