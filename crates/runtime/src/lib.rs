//! What turns a client into a component: informers that keep a view of the cluster, a keyed queue, the controller harness
//! and the event recorder.
//!
//! Everything is level-triggered. An informer tells that something changed, the queue holds keys and never events, and a
//! controller looks at the caches when its key's turn comes: `observe` (caches only) -> `plan` (pure) -> `apply` (writes).
//! Losing every event costs a delay, never a wrong state.

pub mod controller;
pub mod events;
pub mod expectations;
pub mod informer;
pub mod queue;
pub mod queue_metrics;

pub use controller::{Context, Controller, Plan, ReconcileError, Wiring, run};
pub use events::{EventRecorder, reference};
pub use expectations::Expectations;
pub use informer::{Change, Informer, Informers, ObjectInformer};
pub use queue::WorkQueue;
