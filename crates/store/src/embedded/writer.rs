//! The one thread that writes to the file: it groups whatever waits into one commit, publishes, answers.
//!
//! Relies on the rule that while `committing` is set nobody else changes the state, so what was drafted before the
//! commit still fits after it. It decides nothing about what a transaction does.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;

use super::file::File;
use super::{Intake, Shared, Waiting};
use crate::key::{KeyValue, Revision};
use crate::state::Draft;
use crate::store::{Error, Result};
use crate::txn::{Durability, TxnResult};

/// So many transactions go into one commit at most, that the first in it does not wait for a whole flood.
const COMMIT_LIMIT: usize = 1_024;
/// Revisions are reserved on disk this far ahead: seldom enough to cost nothing, and a jump of this size after a crash
/// is nothing to a 64-bit number.
const RESERVE_AHEAD: Revision = 10_000;

/// Works until the store is closed. Returns whether everything accepted has reached the disk.
pub(super) fn run(shared: &Shared, mut file: File, deferred_flush: Duration) -> Result<()> {
    let _end = End(shared);
    loop {
        match next(shared, deferred_flush) {
            Work::Commit(waiting) => {
                if commit(shared, &mut file, waiting) {
                    checkpoint(shared, &mut file);
                }
            }
            Work::Close => return close(shared, file),
        }
    }
}

enum Work {
    /// Empty when it is time for the deferred writes.
    Commit(Vec<Waiting>),
    Close,
}

fn next(shared: &Shared, deferred_flush: Duration) -> Work {
    let mut intake = shared.intake.lock();
    loop {
        let taken = intake.waiting.len().min(COMMIT_LIMIT);
        if taken > 0 {
            intake.committing = true;
            return Work::Commit(intake.waiting.drain(..taken).collect());
        }
        if intake.closing {
            return Work::Close;
        }
        if intake.dirty.is_empty() || intake.refusal.is_some() {
            shared.work.wait(&mut intake);
        } else if shared.work.wait_for(&mut intake, deferred_flush).timed_out() && intake.waiting.is_empty() {
            intake.committing = true;
            return Work::Commit(Vec::new());
        }
    }
}

/// A key and what it holds from now on; `None` deletes it.
pub(super) type Row = (Bytes, Option<Arc<KeyValue>>);

/// Returns whether the file was written to.
fn commit(shared: &Shared, file: &mut File, waiting: Vec<Waiting>) -> bool {
    if let Some(refusal) = refusal(shared) {
        waiting.into_iter().for_each(|write| drop(write.answer.send(Err(refusal.clone()))));
        return false;
    }
    let Prepared { draft, results, rows, reserve } = prepare(shared, &waiting);
    let written = match &rows {
        Some(rows) => file.commit(rows, reserve),
        None => Ok(()),
    };
    let mut intake = shared.intake.lock();
    intake.committing = false;
    if let Err(error) = written {
        let error = failed(shared, &mut intake, error);
        drop(intake);
        if waiting.is_empty() {
            tracing::error!(error = &error as &dyn std::error::Error, "deferred writes have not reached the disk");
        }
        waiting.into_iter().for_each(|write| drop(write.answer.send(Err(error.clone()))));
        return false;
    }
    intake.reserved = reserve.unwrap_or(intake.reserved);
    match &rows {
        Some(_) => intake.dirty.clear(),
        None => intake.dirty.extend(draft.touched().keys().cloned()),
    }
    let woken = shared.state.lock().publish(draft);
    drop(intake);
    woken.into_iter().for_each(Waker::wake);
    // Whoever stopped waiting does not want the answer; the write stands all the same.
    waiting.into_iter().zip(results).for_each(|(write, result)| drop(write.answer.send(Ok(result))));
    rows.is_some()
}

struct Prepared {
    draft: Draft,
    results: Vec<TxnResult>,
    /// What has to be on disk before anyone is answered, if anything has.
    rows: Option<Vec<Row>>,
    reserve: Option<Revision>,
}

fn prepare(shared: &Shared, waiting: &[Waiting]) -> Prepared {
    let intake = shared.intake.lock();
    let state = shared.state.lock();
    let mut draft = Draft::on(&state);
    let results = waiting.iter().map(|write| draft.add(&state, &write.txn)).collect();
    let deferred = waiting.iter().all(|write| write.txn.durability == Durability::Deferred);
    let can_wait = draft.is_empty() || deferred && draft.revision() <= intake.reserved;
    if can_wait && !waiting.is_empty() {
        return Prepared { draft, results, rows: None, reserve: None };
    }
    let mut rows: Vec<Row> = draft.touched().iter().map(|(key, kv)| (key.clone(), kv.clone())).collect();
    let dirty = intake.dirty.iter().filter(|key| !draft.touched().contains_key(*key));
    rows.extend(dirty.map(|key| (key.clone(), state.key(key).cloned())));
    rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let reserve = (draft.revision() + RESERVE_AHEAD / 2 > intake.reserved).then(|| draft.revision() + RESERVE_AHEAD);
    Prepared { draft, results, rows: Some(rows), reserve }
}

fn refusal(shared: &Shared) -> Option<Error> {
    let mut intake = shared.intake.lock();
    let refusal = intake.refusal.clone();
    if refusal.is_some() {
        intake.committing = false;
    }
    refusal
}

/// What a failed commit means for its writes and for those to come. A full or busy disk passes and the next write tries
/// anew. After anything else, above all a failed fsync, the kernel may have dropped what it could not write, and a later
/// success would prove nothing about it: only a restart, which reads the file again, tells what is there.
fn failed(shared: &Shared, intake: &mut Intake, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull};
    let place = shared.place.clone();
    let passing = matches!(error.sqlite_error_code(), Some(DiskFull | DatabaseBusy | DatabaseLocked));
    let source = Arc::new(error);
    if !passing {
        intake.refusal = Some(Error::Refused { place: place.clone(), source: source.clone() });
    }
    Error::Write { place, source }
}

fn checkpoint(shared: &Shared, file: &mut File) {
    if let Err(error) = file.checkpoint_if_due() {
        let error = failed(shared, &mut shared.intake.lock(), error);
        tracing::error!(error = &error as &dyn std::error::Error, "the write-ahead log could not be folded in");
    }
}

/// Writes what was deferred and gives back the revisions which were reserved but not used.
fn close(shared: &Shared, mut file: File) -> Result<()> {
    if let Some(refusal) = refusal(shared) {
        return Err(refusal);
    }
    let Prepared { draft, rows, .. } = prepare(shared, &[]);
    let write = |source| Error::Write { place: shared.place.clone(), source: Arc::new(source) };
    file.commit(&rows.unwrap_or_default(), Some(draft.revision())).map_err(write)?;
    file.close().map_err(write)
}

/// However the thread ends, nobody is left waiting for it.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut intake = self.0.intake.lock();
        intake.closing = true;
        intake.waiting.clear();
        drop(intake);
        let woken = self.0.state.lock().close();
        woken.into_iter().for_each(Waker::wake);
    }
}
