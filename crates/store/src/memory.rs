//! The engine that keeps everything in memory and nothing beyond the process.

use std::sync::Arc;
use std::task::Waker;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::history::HistoryLimits;
use crate::key::Revision;
use crate::state::{Draft, FIRST_REVISION, Keys, State};
use crate::store::{Error, Got, Range, RangeResult, Result, Store};
use crate::txn::{Txn, TxnResult};
use crate::watch::{self, WatchRequest, WatchStream};

/// A store that is gone with the process. [`crate::Durability`] means nothing to it.
pub struct Memory {
    state: Arc<Mutex<State>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(HistoryLimits::default())
    }
}

impl Memory {
    pub fn new(limits: HistoryLimits) -> Self {
        Memory { state: Arc::new(Mutex::new(State::new(Keys::new(), FIRST_REVISION, limits))) }
    }
}

#[async_trait]
impl Store for Memory {
    async fn get(&self, key: &[u8], revision: Option<Revision>) -> Result<Got> {
        self.state.lock().get(key, revision)
    }

    async fn range(&self, range: Range) -> Result<RangeResult> {
        let snapshot = self.state.lock().snapshot(range.revision)?;
        Ok(snapshot.range(&range))
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResult> {
        txn.check()?;
        let mut state = self.state.lock();
        let mut draft = Draft::on(&state);
        let result = draft.add(&state, &txn);
        if draft.is_empty() {
            return Ok(result);
        }
        if state.is_closed() {
            return Err(Error::Closed);
        }
        let woken = state.publish(draft);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        Ok(result)
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream> {
        watch::open(&self.state, request)
    }

    async fn request_progress(&self) -> Result<()> {
        let woken = self.state.lock().request_progress();
        woken.into_iter().for_each(Waker::wake);
        Ok(())
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.state.lock().compact(revision)
    }

    async fn current_revision(&self) -> Result<Revision> {
        Ok(self.state.lock().revision())
    }

    async fn close(&self) -> Result<()> {
        let woken = self.state.lock().close();
        woken.into_iter().for_each(Waker::wake);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Compare, KeyRange, Op};

    #[tokio::test]
    async fn conforms() {
        crate::conformance::run(async || Arc::new(Memory::default()) as Arc<dyn Store>).await;
    }

    async fn put(store: &Memory, key: &'static str, value: &'static str) -> Revision {
        store.txn(Txn::new().then(Op::put(key, value))).await.unwrap().revision
    }

    #[tokio::test]
    async fn a_watch_that_falls_behind_the_history_is_told_so() {
        let store = Memory::new(HistoryLimits { changes: 4, bytes: usize::MAX });
        let mut slow = store.watch(WatchRequest::of(KeyRange::prefix("a"))).await.unwrap();
        let mut idle = store.watch(WatchRequest::of(KeyRange::prefix("b"))).await.unwrap();
        for _ in 0..5 {
            put(&store, "a", "x").await;
        }
        assert!(matches!(slow.next().await, Some(Err(Error::Compacted { .. }))));
        assert!(slow.next().await.is_none());
        // A watch which nothing concerned has missed nothing.
        let revision = put(&store, "b", "x").await;
        assert_eq!(idle.next().await.unwrap().unwrap().revision, revision);
    }

    #[tokio::test]
    async fn the_history_is_bounded_by_changes_and_by_bytes() {
        async fn check(limits: HistoryLimits, readable: u64) {
            let store = Memory::new(limits);
            let mut last = 0;
            for _ in 0..10 {
                last = put(&store, "a", "0123456789").await;
            }
            assert!(store.get(b"a", Some(last - readable)).await.is_ok(), "{limits:?}");
            let older = store.get(b"a", Some(last - readable - 1)).await;
            assert!(matches!(older, Err(Error::Compacted { .. })), "{limits:?}: {older:?}");
        }
        check(HistoryLimits { changes: 4, bytes: usize::MAX }, 4).await;
        // A change of these counts 256 + 1 + 10 + 10 bytes.
        check(HistoryLimits { changes: 100, bytes: 3 * 277 }, 3).await;
        // The newest is kept, whatever its size.
        check(HistoryLimits { changes: 100, bytes: 1 }, 1).await;
    }

    #[tokio::test]
    async fn a_value_is_never_copied() {
        let store = Memory::default();
        let value = bytes::Bytes::from(vec![7; 100]);
        let mut watch = store.watch(WatchRequest::of(KeyRange::all())).await.unwrap();
        store.txn(Txn::create("a", value.clone())).await.unwrap();
        let got = store.get(b"a", None).await.unwrap().kv.unwrap();
        let listed = store.range(Range::prefix("a")).await.unwrap().kvs.remove(0);
        let seen = watch.next().await.unwrap().unwrap().events.remove(0).kv;
        let read = store.txn(Txn::new().when(Compare::version("a", 9)).otherwise(Op::get("a"))).await.unwrap();
        let crate::OpResult::Get { kv: Some(read) } = &read.responses[0] else { panic!("{read:?}") };
        for kv in [&got, &listed, &seen, read] {
            assert_eq!(kv.value.as_ptr(), value.as_ptr());
        }
    }

    #[tokio::test]
    async fn a_closed_store_ends_watches_and_refuses_writes() {
        let store = Memory::default();
        let mut watch = store.watch(WatchRequest::of(KeyRange::all())).await.unwrap();
        let revision = put(&store, "a", "x").await;
        store.close().await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap().revision, revision);
        assert!(watch.next().await.is_none());
        assert!(matches!(store.txn(Txn::create("b", "x")).await, Err(Error::Closed)));
        assert!(store.get(b"a", None).await.unwrap().kv.is_some());
    }
}
