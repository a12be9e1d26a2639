//! The life of a Pod on its node.
//!
//! [`observed`] reads from the runtime what there is; [`plan`] decides, purely, what is to be created, stopped and started;
//! [`worker`] is the one task of a Pod that carries a plan out through [`start`], [`sandbox`] and [`stop`]; [`status`] turns what was
//! observed into what the API shows, with [`phase`] and [`conditions`]; [`writer`] writes it. All state derives from the runtime and
//! the API, so an agent that was killed takes its Pods up where they are.

pub mod backoff;
pub mod conditions;
pub mod container;
pub mod ephemeral;
pub mod files;
pub mod identity;
pub mod observed;
pub mod phase;
pub mod plan;
pub mod restart;
pub mod sandbox;
pub mod start;
pub mod status;
pub mod stop;
pub mod worker;
pub mod writer;
