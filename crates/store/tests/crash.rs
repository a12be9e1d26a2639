//! `kill -9` under many writers, again and again: nothing acknowledged is lost and no revision repeats.
//!
//! The test runs its own binary as the process to be killed. That process tells over its standard output what was
//! acknowledged and which revisions it has seen; what the pipe holds survives it.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use xebec_store::{Durability, Embedded, EmbeddedOptions, KeyRange, Op, Range, Revision, Store, Txn, WatchRequest};

const ROUNDS: usize = 20;
const WRITERS: usize = 16;
/// How many acknowledgements a process lives for.
const LIFE: usize = 150;
const FOLDER: &str = "XEBEC_STORE_CRASH_FOLDER";
const ROUND: &str = "XEBEC_STORE_CRASH_ROUND";

#[tokio::test]
async fn nothing_acknowledged_is_lost_and_no_revision_repeats() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut known = Known::default();
    for round in 0..ROUNDS {
        let newest_before = known.newest;
        known.watch_one_life(folder.path(), round);
        assert!(known.newest > newest_before, "round {round} wrote nothing");
        let store = Embedded::open(EmbeddedOptions::new(folder.path())).unwrap();
        known.check(&store).await;
        store.close().await.unwrap();
    }
    assert!(known.revisions.len() > ROUNDS * LIFE / 2, "only {} writes were tried", known.revisions.len());
}

/// What the killed processes have told so far.
#[derive(Default)]
struct Known {
    /// For each key the last acknowledged write: its revision, and whether it was a put.
    acknowledged: BTreeMap<String, (Revision, bool)>,
    /// Who got which revision.
    revisions: HashMap<Revision, String>,
    newest: Revision,
}

impl Known {
    /// Starts a writing process, kills it in the midst of its work and takes in what it said.
    fn watch_one_life(&mut self, folder: &Path, round: usize) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_process_to_be_killed", "--nocapture"])
            .env(FOLDER, folder)
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let first_new = self.newest;
        let mut left = LIFE;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            // A line cut off by the kill has no end marker; the test framework's own lines have none either.
            let [kind, key, revision, "."] = words[..] else { continue };
            let revision: Revision = revision.parse().unwrap();
            assert!(
                revision > first_new,
                "revision {revision} was handed out before {first_new} by an earlier process"
            );
            self.newest = self.newest.max(revision);
            match kind {
                "seen" => continue,
                "put" => drop(self.acknowledged.insert(key.into(), (revision, true))),
                "deleted" => drop(self.acknowledged.insert(key.into(), (revision, false))),
                "deferred" => {}
                other => panic!("{other}"),
            }
            let owner = format!("{key} in round {round}");
            if let Some(other) = self.revisions.insert(revision, owner) {
                panic!("revision {revision} was given to {key} and to {other}");
            }
            left = left.saturating_sub(1);
            if left == 0 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
    }

    async fn check(&self, store: &Embedded) {
        let current = store.current_revision().await.unwrap();
        assert!(current >= self.newest, "at {current}, but {} was handed out", self.newest);
        for (key, (revision, exists)) in &self.acknowledged {
            let kv = store.get(key.as_bytes(), None).await.unwrap().kv;
            match kv {
                // A later write may have become durable without its acknowledgement having been read.
                Some(kv) if *exists => {
                    assert!(kv.mod_revision >= *revision, "{key} went back from {revision} to {}", kv.mod_revision);
                    assert!(kv.value.starts_with(key.as_bytes()));
                }
                None if *exists => assert!(key.contains("again"), "{key} of {revision} is lost"),
                Some(kv) => assert!(kv.mod_revision > *revision, "{key} was deleted at {revision} and is back"),
                None => {}
            }
        }
        let everything = store.range(Range::of(KeyRange::all())).await.unwrap();
        assert!(everything.kvs.iter().all(|kv| kv.mod_revision <= current && kv.create_revision <= kv.mod_revision));
    }
}

/// Not a test of its own: without its folder it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_to_be_killed() {
    let (Ok(folder), Ok(round)) = (std::env::var(FOLDER), std::env::var(ROUND)) else { return };
    let store = Arc::new(Embedded::open(EmbeddedOptions::new(folder)).unwrap());
    let mut watch = store.watch(WatchRequest::of(KeyRange::all())).await.unwrap();
    for writer in 0..WRITERS {
        tokio::spawn(write_forever(store.clone(), round.clone(), writer));
    }
    while let Some(batch) = watch.next().await {
        let batch = batch.unwrap();
        say("seen", "-", batch.revision);
    }
}

/// Each writer has keys which are written once, one that is written over and over, one that is put and deleted by turns,
/// and one whose writes are deferred.
async fn write_forever(store: Arc<Embedded>, round: String, writer: usize) {
    for number in 0.. {
        let once = format!("once/{round}/{writer}/{number}");
        let over = format!("over/{writer}");
        let again = format!("again/{writer}");
        let lease = format!("lease/{writer}");
        let put = |key: &String| Txn::new().then(Op::put(key.clone(), format!("{key} {round} {number}")));
        say("put", &once, store.txn(put(&once)).await.unwrap().revision);
        say("put", &over, store.txn(put(&over)).await.unwrap().revision);
        say("deferred", &lease, store.txn(put(&lease).durability(Durability::Deferred)).await.unwrap().revision);
        say("put", &again, store.txn(put(&again)).await.unwrap().revision);
        let delete = Txn::new().then(Op::delete(again.clone()));
        say("deleted", &again, store.txn(delete).await.unwrap().revision);
    }
}

/// One write for one line, so that lines of several threads do not mix.
fn say(kind: &str, key: &str, revision: Revision) {
    let line = format!("{kind} {key} {revision} .\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}
