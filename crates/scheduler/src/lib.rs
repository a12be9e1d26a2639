//! The scheduler: gives every waiting Pod the node that suits it best, or says why none does.
//!
//! [`queue`] orders what waits; [`snapshot`] is the view of nodes and what runs on them, kept by increments from the
//! informers; [`plugins`] are pure filters and scores in one ordered table; [`decide`] runs them over the snapshot; [`cycle`]
//! is the loop around it. A decision is assumed in the snapshot at once and bound in the background, so the next Pod never
//! waits for the API. The scheduler is an ordinary API user: it can run against any Kubernetes API server.

pub mod cycle;
pub mod decide;
pub mod plugins;
pub mod preempt;
pub mod queue;
pub mod snapshot;

pub use cycle::run;

/// The `spec.schedulerName` that this scheduler answers to, and its name in Events.
pub const NAME: &str = "default-scheduler";
