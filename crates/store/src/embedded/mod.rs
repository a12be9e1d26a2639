//! The engine for one machine: the state in memory, made durable by SQLite.
//!
//! Reads and watches never touch the disk. Writes queue up for one writer thread (`writer`), which works out what all
//! waiting transactions change, commits that as one SQLite transaction (`file`), and only then makes it visible and
//! answers: so the cost of the disk is shared by whoever writes at the same time. A transaction that changes nothing is
//! answered at once, and so is a deferred one while the writer is at rest.
//!
//! The file holds the live keys only. History lives in memory, so a watch from before the start is told
//! [`crate::Error::Compacted`]. Revisions are reserved on disk in blocks ahead of their use: after a crash the store goes
//! on behind the reserved block, past any revision which a lost deferred write may have shown to someone.

mod file;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::history::HistoryLimits;
use crate::key::Revision;
use crate::state::{Draft, State};
use crate::store::{Error, Got, Range, RangeResult, Result, Store};
use crate::txn::{Durability, Txn, TxnResult};
use crate::watch::{self, WatchRequest, WatchStream};

pub use file::OpenError;

/// How long a deferred write may wait for company on its way to the disk. An idle cluster renews its leases every ten
/// seconds, so it writes to the disk that often; what a crash loses is one renewal.
const DEFERRED_FLUSH: Duration = Duration::from_secs(10);
/// More writes than this waiting for the disk means that it has stalled: each stands for a request that is held open.
const WAITING_LIMIT: usize = 16_384;

/// Where the store lives and how it behaves.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// A folder of its own; made if it does not exist.
    pub folder: PathBuf,
    pub history: HistoryLimits,
    /// The longest time a deferred write stays off the disk.
    pub deferred_flush: Duration,
    /// Writes that would grow the file beyond this are refused; `None` leaves it to the disk.
    pub max_bytes: Option<u64>,
}

impl EmbeddedOptions {
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        EmbeddedOptions {
            folder: folder.into(),
            history: HistoryLimits::default(),
            deferred_flush: DEFERRED_FLUSH,
            max_bytes: None,
        }
    }
}

/// A store in a folder. One process at a time can have it open.
pub struct Embedded {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<Result<()>>>>,
}

/// What the callers and the writer thread share. Locks are taken in the order of the fields.
struct Shared {
    intake: Mutex<Intake>,
    state: Arc<Mutex<State>>,
    /// Told of the first waiting write, of the first deferred one and of the end.
    work: Condvar,
    /// The file, for messages.
    place: String,
}

/// What has been accepted but is not on disk.
#[derive(Default)]
struct Intake {
    waiting: VecDeque<Waiting>,
    /// Whether the writer is at work on some writes; until it is done, nobody else may change the state.
    committing: bool,
    /// The keys which deferred writes have changed in memory only.
    dirty: BTreeSet<Bytes>,
    /// Revisions up to here may be handed out: a restart will begin after it.
    reserved: Revision,
    /// Why no more writes are taken.
    refusal: Option<Error>,
    closing: bool,
}

struct Waiting {
    txn: Txn,
    answer: oneshot::Sender<Result<TxnResult>>,
}

/// What becomes of a transaction when it arrives.
enum Arrival {
    Done(TxnResult, Vec<Waker>),
    Queued(oneshot::Receiver<Result<TxnResult>>),
}

impl Embedded {
    /// Opens or creates the store: takes the folder's lock and reads every key into memory.
    pub fn open(options: EmbeddedOptions) -> Result<Self, OpenError> {
        let (file, loaded) = file::File::open(&options.folder, options.max_bytes)?;
        let shared = Arc::new(Shared {
            intake: Mutex::new(Intake { reserved: loaded.revision, ..Intake::default() }),
            state: Arc::new(Mutex::new(State::new(loaded.keys, loaded.revision, options.history))),
            work: Condvar::new(),
            place: file.path().display().to_string(),
        });
        let thread = std::thread::Builder::new().name("store-writer".into()).spawn({
            let shared = shared.clone();
            move || writer::run(&shared, file, options.deferred_flush)
        });
        let writer = thread.map_err(|source| OpenError::Thread { source })?;
        Ok(Embedded { shared, writer: Mutex::new(Some(writer)) })
    }

    fn begin_close(&self) -> Option<JoinHandle<Result<()>>> {
        self.shared.intake.lock().closing = true;
        self.shared.work.notify_one();
        self.writer.lock().take()
    }
}

impl Shared {
    fn arrive(&self, txn: Txn) -> Result<Arrival> {
        let mut intake = self.intake.lock();
        let mut state = self.state.lock();
        let mut draft = Draft::on(&state);
        let result = draft.add(&state, &txn);
        if draft.is_empty() {
            return Ok(Arrival::Done(result, Vec::new()));
        }
        intake.check()?;
        let at_rest = !intake.committing && intake.waiting.is_empty();
        if txn.durability == Durability::Deferred && at_rest && draft.revision() <= intake.reserved {
            if intake.dirty.is_empty() {
                self.work.notify_one();
            }
            intake.dirty.extend(draft.touched().keys().cloned());
            return Ok(Arrival::Done(result, state.publish(draft)));
        }
        drop(state);
        let (answer, answered) = oneshot::channel();
        if at_rest {
            self.work.notify_one();
        }
        intake.waiting.push_back(Waiting { txn, answer });
        Ok(Arrival::Queued(answered))
    }
}

impl Intake {
    fn check(&self) -> Result<()> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        if self.closing {
            return Err(Error::Closed);
        }
        if self.waiting.len() >= WAITING_LIMIT {
            return Err(Error::Overloaded { waiting: self.waiting.len() });
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &[u8], revision: Option<Revision>) -> Result<Got> {
        self.shared.state.lock().get(key, revision)
    }

    async fn range(&self, range: Range) -> Result<RangeResult> {
        let snapshot = self.shared.state.lock().snapshot(range.revision)?;
        Ok(snapshot.range(&range))
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResult> {
        txn.check()?;
        match self.shared.arrive(txn)? {
            Arrival::Done(result, woken) => {
                woken.into_iter().for_each(Waker::wake);
                Ok(result)
            }
            Arrival::Queued(answered) => answered.await.unwrap_or(Err(Error::Closed)),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream> {
        watch::open(&self.shared.state, request)
    }

    async fn request_progress(&self) -> Result<()> {
        let woken = self.shared.state.lock().request_progress();
        woken.into_iter().for_each(Waker::wake);
        Ok(())
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.shared.state.lock().compact(revision)
    }

    async fn current_revision(&self) -> Result<Revision> {
        Ok(self.shared.state.lock().revision())
    }

    async fn close(&self) -> Result<()> {
        let Some(writer) = self.begin_close() else { return Ok(()) };
        tokio::task::spawn_blocking(|| ended(writer)).await.unwrap_or(Err(Error::Closed))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Some(writer) = self.begin_close()
            && let Err(error) = ended(writer)
        {
            tracing::error!(error = &error as &dyn std::error::Error, "deferred writes were lost");
        }
    }
}

fn ended(writer: JoinHandle<Result<()>>) -> Result<()> {
    writer.join().unwrap_or(Err(Error::Closed))
}
