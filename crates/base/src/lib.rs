//! What every part of Xebec stands on and nothing more: time, retry delays, orderly shutdown, telemetry, error chains.
//!
//! The crate knows no Kubernetes object, no wire format and no storage. It exists so that time and randomness are seams:
//! a component asks its [`clock::Clock`] instead of the machine, and a test hands it a simulated one.

pub mod backoff;
pub mod chain;
pub mod clock;
pub mod shutdown;
pub mod telemetry;

pub use backoff::Backoff;
pub use chain::Chain;
pub use clock::{Clock, SharedClock, SimulatedClock, SystemClock};
pub use shutdown::Shutdown;
