//! The trait that every engine implements, what is asked of it and how it fails.
//!
//! It holds no behaviour; what an engine has to do is pinned down by [`crate::conformance`].

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::key::{KeyRange, KeyValue, Revision};
use crate::txn::{Txn, TxnResult};
use crate::watch::{WatchRequest, WatchStream};

/// A revisioned key-value store with etcd's semantics.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// One key, now or (`Some`) as it was at a revision.
    async fn get(&self, key: &[u8], revision: Option<Revision>) -> Result<Got>;

    /// A range of keys in ascending order, now or as it was at a revision.
    async fn range(&self, range: Range) -> Result<RangeResult>;

    /// Compares and then applies one of two lists of operations, all at one revision. When it returns, what it changed
    /// is visible to every read, and durable as asked for.
    async fn txn(&self, txn: Txn) -> Result<TxnResult>;

    /// Follows the changes to a range, from a past revision or from now on. [`Error::Compacted`] may come from this call
    /// or from the stream; either way the caller has to read the range anew and watch from there.
    async fn watch(&self, request: WatchRequest) -> Result<WatchStream>;

    /// Has every watch that asked for progress report it as soon as it has caught up.
    async fn request_progress(&self) -> Result<()>;

    /// Forgets the history before `revision`: reads and watches below it fail with [`Error::Compacted`] from then on.
    async fn compact(&self, revision: Revision) -> Result<()>;

    /// The revision of the last change that is visible.
    async fn current_revision(&self) -> Result<Revision>;

    /// Whether the value of a key would be stored in another form if it were written again. Only what stands between the
    /// server and an engine and changes values has reason to say so.
    async fn is_outdated(&self, _key: &[u8]) -> Result<bool> {
        Ok(false)
    }

    /// Makes deferred writes durable, ends all watches and refuses further writes.
    async fn close(&self) -> Result<()>;
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The answer to a get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// The revision at which the answer holds: the one asked for, or the current one.
    pub revision: Revision,
    pub kv: Option<KeyValue>,
}

/// Which keys to read, and what of them.
#[derive(Clone, Debug)]
pub struct Range {
    pub keys: KeyRange,
    /// At most so many keys are returned; `None` returns all.
    pub limit: Option<usize>,
    /// `None` reads the current state.
    pub revision: Option<Revision>,
    pub select: Select,
}

/// What a range read returns of each key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Select {
    #[default]
    KeysAndValues,
    /// Values stay empty.
    Keys,
    /// No keys at all, only their number.
    Count,
}

impl Range {
    pub fn of(keys: KeyRange) -> Self {
        Range { keys, limit: None, revision: None, select: Select::default() }
    }

    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self::of(KeyRange::prefix(prefix))
    }

    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    pub fn at(mut self, revision: Revision) -> Self {
        self.revision = Some(revision);
        self
    }

    pub fn select(mut self, select: Select) -> Self {
        self.select = select;
        self
    }
}

/// The answer to a range read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeResult {
    /// The revision at which the answer holds: the one asked for, or the current one.
    pub revision: Revision,
    pub kvs: Vec<KeyValue>,
    /// Whether the range holds keys beyond those returned.
    pub more: bool,
    /// How many keys the whole range holds, whatever the limit.
    pub count: usize,
}

/// Why an operation failed. Cheap to clone: one failed commit answers every write in it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("the history before revision {compact_revision} has been compacted")]
    Compacted {
        /// The oldest revision from which a watch can start.
        compact_revision: Revision,
    },
    #[error("revision {requested} is in the future, the current one is {current}")]
    Future { requested: Revision, current: Revision },
    #[error("one transaction may change a key only once: {key}")]
    DuplicateKey { key: String },
    #[error("cannot write to {place}")]
    Write { place: String, source: Arc<dyn std::error::Error + Send + Sync> },
    #[error("{place} refuses writes since one failed in a way that may have lost data; restart the server")]
    Refused { place: String, source: Arc<dyn std::error::Error + Send + Sync> },
    #[error("the value of {key} cannot be used")]
    Value { key: String, source: Arc<dyn std::error::Error + Send + Sync> },
    #[error("{waiting} writes are waiting for the disk already")]
    Overloaded { waiting: usize },
    #[error("the store is closed")]
    Closed,
}
