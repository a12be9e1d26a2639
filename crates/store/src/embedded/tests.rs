//! What the embedded engine promises beyond the common suite: the folder, the disk, restarts.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::{KeyRange, Op};

/// Longer than any test: nothing is flushed unless the test makes it happen.
const NEVER: Duration = Duration::from_secs(3600);

fn options(folder: &Path) -> EmbeddedOptions {
    EmbeddedOptions { deferred_flush: NEVER, ..EmbeddedOptions::new(folder) }
}

fn open(folder: &Path) -> Embedded {
    Embedded::open(options(folder)).unwrap()
}

fn put(key: &'static str, value: &'static str) -> Txn {
    Txn::new().then(Op::put(key, value))
}

fn deferred(key: &'static str, value: &'static str) -> Txn {
    put(key, value).durability(Durability::Deferred)
}

async fn value(store: &Embedded, key: &str) -> Option<Bytes> {
    store.get(key.as_bytes(), None).await.unwrap().kv.map(|kv| kv.value)
}

/// What a `kill -9` at this moment would leave: the files as they are, in a folder of their own.
fn killed(folder: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for name in ["store.db", "store.db-wal"] {
        if folder.join(name).exists() {
            fs::copy(folder.join(name), copy.path().join(name)).unwrap();
        }
    }
    copy
}

#[tokio::test]
async fn conforms() {
    let folders = Mutex::new(Vec::new());
    crate::conformance::run(async || {
        let folder = TempDir::new().unwrap();
        let store = open(folder.path());
        folders.lock().push(folder);
        Arc::new(store) as Arc<dyn Store>
    })
    .await;
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    store.txn(put("a", "1")).await.unwrap();
    store.txn(put("a", "2")).await.unwrap();
    store.txn(put("b", "1")).await.unwrap();
    store.txn(Txn::new().then(Op::delete("b"))).await.unwrap();
    store.txn(deferred("c", "1")).await.unwrap();
    let before = store.range(Range::of(KeyRange::all())).await.unwrap();
    store.close().await.unwrap();
    assert!(matches!(store.txn(put("a", "3")).await, Err(Error::Closed)));
    drop(store);

    let store = open(folder.path());
    assert_eq!(store.range(Range::of(KeyRange::all())).await.unwrap(), before, "the revision too");
    let past = store.watch(WatchRequest::of(KeyRange::all()).from(before.revision)).await;
    assert!(matches!(past, Err(Error::Compacted { .. })), "the history did not survive");
    let mut watch = store.watch(WatchRequest::of(KeyRange::all()).from(before.revision + 1)).await.unwrap();
    let written = store.txn(put("a", "3")).await.unwrap();
    assert_eq!(written.revision, before.revision + 1);
    assert_eq!(watch.next().await.unwrap().unwrap().events[0].kv.version, 3);
}

#[tokio::test]
async fn a_kill_loses_deferred_writes_but_never_repeats_their_revisions() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    store.txn(put("a", "1")).await.unwrap();
    let mut watch = store.watch(WatchRequest::of(KeyRange::all())).await.unwrap();
    let shown = store.txn(deferred("lease", "1")).await.unwrap().revision;
    assert_eq!(watch.next().await.unwrap().unwrap().revision, shown, "visible at once");
    let killed_before = killed(folder.path());
    store.txn(put("b", "1")).await.unwrap();
    let killed_after = killed(folder.path());

    let restarted = open(killed_before.path());
    assert_eq!(value(&restarted, "lease").await, None);
    assert!(restarted.current_revision().await.unwrap() >= shown);
    assert!(restarted.txn(put("c", "1")).await.unwrap().revision > shown);

    let restarted = open(killed_after.path());
    assert_eq!(value(&restarted, "lease").await.unwrap(), "1", "it went to disk with the next immediate write");
}

#[tokio::test]
async fn deferred_writes_reach_the_disk_by_themselves() {
    let folder = TempDir::new().unwrap();
    let flush = Duration::from_millis(1);
    let store = Embedded::open(EmbeddedOptions { deferred_flush: flush, ..options(folder.path()) }).unwrap();
    store.txn(put("a", "1")).await.unwrap();
    store.txn(deferred("lease", "1")).await.unwrap();
    let reader = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
    let flushed = async {
        while reader.query_row("SELECT 1 FROM kv WHERE key = CAST('lease' AS BLOB)", [], |_| Ok(())).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), flushed).await.unwrap();
}

#[tokio::test]
async fn deferred_writes_alone_never_outrun_the_reserved_revisions() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    let mut shown = 0;
    for _ in 0..25_000 {
        shown = store.txn(deferred("lease", "1")).await.unwrap().revision;
    }
    let killed = killed(folder.path());
    let restarted = open(killed.path());
    assert!(restarted.current_revision().await.unwrap() >= shown);
}

#[tokio::test]
async fn concurrent_writers_share_commits_and_each_gets_its_own_answer() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    let creates = (0..500).map(|number| store.txn(Txn::create(format!("key/{}", number % 250), format!("{number}"))));
    let results = futures::future::join_all(creates).await;
    let won: Vec<_> = results.into_iter().map(|result| result.unwrap()).filter(|result| result.succeeded).collect();
    assert_eq!(won.len(), 250);
    let mut revisions: Vec<_> = won.iter().map(|result| result.revision).collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 250);
    let killed = killed(folder.path());
    let restarted = open(killed.path());
    assert_eq!(restarted.range(Range::prefix("key/")).await.unwrap().count, 250);
}

#[tokio::test]
async fn a_full_disk_refuses_writes_while_reads_go_on() {
    let folder = TempDir::new().unwrap();
    let store = Embedded::open(EmbeddedOptions { max_bytes: Some(256 << 10), ..options(folder.path()) }).unwrap();
    let mut watch = store.watch(WatchRequest::of(KeyRange::all())).await.unwrap();
    let mut acknowledged = Vec::new();
    let refused = loop {
        let key = format!("key/{}", acknowledged.len());
        match store.txn(Txn::create(key, vec![b'x'; 10_000])).await {
            Ok(result) => acknowledged.push(result.revision),
            Err(error) => break error,
        }
    };
    assert!(matches!(&refused, Error::Write { place, .. } if place.ends_with("store.db")), "{refused}");
    assert_eq!(store.range(Range::prefix("key/")).await.unwrap().count, acknowledged.len());
    for revision in &acknowledged {
        assert_eq!(watch.next().await.unwrap().unwrap().revision, *revision);
    }
    // Room again: writes go on, at the next revision, and the refused one was never seen.
    let freed = store.txn(Txn::new().then(Op::DeleteRange(KeyRange::prefix("key/")))).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, freed.revision);
    store.txn(Txn::create("key/again", vec![b'x'; 10_000])).await.unwrap();
}

#[tokio::test]
async fn a_broken_disk_refuses_writes_for_good() {
    let folder = TempDir::new().unwrap();
    let store = open(folder.path());
    store.txn(put("a", "1")).await.unwrap();
    let vandal = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
    vandal.execute_batch("DROP TABLE kv").unwrap();
    assert!(matches!(store.txn(put("a", "2")).await, Err(Error::Write { .. })));
    for txn in [put("a", "3"), deferred("a", "3")] {
        assert!(matches!(store.txn(txn).await, Err(Error::Refused { .. })));
    }
    assert_eq!(value(&store, "a").await.unwrap(), "1");
    assert!(matches!(store.close().await, Err(Error::Refused { .. })));
}

#[test]
fn a_store_that_cannot_be_opened_says_which_and_why() {
    fn check(prepare: impl FnOnce(&Path), expected: &str) {
        let folder = TempDir::new().unwrap();
        prepare(folder.path());
        let error = Embedded::open(options(folder.path())).err().expect("it must not open").to_string();
        let place = folder.path().display().to_string();
        assert!(error.contains(&place) && error.contains(expected), "{error}");
    }
    let sqlite = |folder: &Path, sql: &str| {
        rusqlite::Connection::open(folder.join("store.db")).unwrap().execute_batch(sql).unwrap();
    };
    check(|folder| fs::write(folder.join("store.db"), "not a database ".repeat(1000)).unwrap(), "damaged");
    check(|folder| sqlite(folder, "CREATE TABLE other (a)"), "damaged or is not a store");
    check(|folder| fs::create_dir(folder.join("store.db")).unwrap(), "cannot open");
    check(
        |folder| {
            drop(open(folder));
            sqlite(folder, "PRAGMA user_version = 99");
        },
        "format 99",
    );
    check(
        |folder| {
            drop(open(folder));
            let file = folder.join("store.db");
            let mut bytes = fs::read(&file).unwrap();
            bytes[4096..].fill(0xee);
            fs::write(file, bytes).unwrap();
        },
        "damaged",
    );
    let file = TempDir::new().unwrap();
    let path = file.path().join("file");
    fs::write(&path, "").unwrap();
    let error = Embedded::open(options(&path)).err().unwrap().to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
}

#[test]
fn one_folder_has_one_server() {
    let folder = TempDir::new().unwrap();
    let first = open(folder.path());
    let second = Embedded::open(options(folder.path())).err().unwrap().to_string();
    let expected = format!("another xebec server uses {} (process {})", folder.path().display(), std::process::id());
    assert_eq!(second, expected);
    drop(first);
    open(folder.path());
}

#[test]
fn the_files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let parent = TempDir::new().unwrap();
    let folder = parent.path().join("data/store");
    let _store = open(&folder);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{path:?}");
    }
}
