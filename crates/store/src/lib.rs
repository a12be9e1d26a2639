//! The revisioned key-value store on which the API server stands, with etcd's semantics.
//!
//! Every change gets a revision, a number that only grows. A transaction compares, then applies all of its operations at
//! one revision or none of them. Reads see the newest state or, within a bounded window, the state at an older revision;
//! a watch replays the changes since a revision and then follows. Keys and values are byte strings: the store does not
//! know what an object is, which is why it can be swapped without the API server noticing.
//!
//! Two engines stand here behind one trait, and one [`conformance`] suite holds them to the same behaviour:
//!
//! - [`Memory`]: nothing outlives the process. For tests, and for clusters that may be forgotten.
//! - [`Embedded`]: the same state in memory, made durable by SQLite behind one group-committing writer. Nothing is
//!   acknowledged or shown to a watch before it is on disk, except where the caller asked for [`Durability::Deferred`].
//!
//! Values are [`bytes::Bytes`] and are never copied on their way from a write to reads and watches: whoever slices a
//! value shares the one allocation.
//!
//! What the store does *not* do: it has no leases (what expires is deleted by whoever knows when), no access control
//! and no network.

mod embedded;
mod history;
mod key;
mod memory;
mod state;
mod store;
mod txn;
mod watch;

pub mod conformance;

pub use embedded::{Embedded, EmbeddedOptions, OpenError};
pub use history::HistoryLimits;
pub use key::{KeyRange, KeyValue, Revision};
pub use memory::Memory;
pub use store::{Error, Got, Range, RangeResult, Result, Select, Store};
pub use txn::{Compare, Durability, Op, OpResult, Relation, Target, Txn, TxnResult};
pub use watch::{Event, EventKind, WatchBatch, WatchRequest, WatchStream};
