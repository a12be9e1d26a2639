//! What every engine has to do, as one suite that all of them run.
//!
//! An engine joins with one line: `conformance::run(async || …).await`, handing over a way to make an empty store. The suite
//! relies on nothing but the trait. It does not assume at which revision a new store begins, nor that nobody else uses
//! its keys outside of `/conformance/`; and it does not test durability, which is each engine's own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::{
    Compare, Error, EventKind, KeyRange, KeyValue, Op, OpResult, Range, Relation, Revision, Select, Store, Target, Txn,
    TxnResult, WatchBatch, WatchRequest, WatchStream,
};

/// How long an event may take to arrive before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(20);

type Case = fn(Arc<dyn Store>) -> BoxFuture<'static, ()>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => { [$((stringify!($name), |store| Box::pin($name(store)))),*] };
}

const CASES: [(&str, Case); 18] = cases![
    every_change_has_the_next_revision,
    a_transaction_that_changes_nothing_has_no_revision,
    comparisons_decide_between_success_and_failure,
    operations_see_what_earlier_ones_did,
    a_key_changes_only_once_in_a_transaction,
    all_changes_of_a_transaction_share_a_revision,
    a_deleted_key_begins_anew,
    ranges_are_ordered_bounded_and_counted,
    pages_are_read_at_one_revision,
    a_key_is_read_as_it_was,
    the_future_cannot_be_read,
    a_watch_replays_the_past_and_follows,
    a_watch_from_the_future_waits_for_it,
    a_watch_sees_only_its_range,
    a_watch_tells_what_was_before,
    progress_says_how_far_a_watch_has_come,
    compaction_ends_the_past,
    concurrent_writers_are_put_into_one_order,
];

/// Runs every case on a new store. Panics at the first failure, after printing the case's name.
pub async fn run(make: impl AsyncFn() -> Arc<dyn Store>) {
    for (name, case) in CASES {
        println!("conformance: {name}");
        let store = make().await;
        case(store.clone()).await;
        store.close().await.expect("the store closes");
    }
}

fn key(name: &str) -> Bytes {
    format!("/conformance/{name}").into()
}

fn everything() -> KeyRange {
    KeyRange::prefix(key(""))
}

async fn txn(store: &Arc<dyn Store>, txn: Txn) -> TxnResult {
    store.txn(txn).await.expect("the transaction is taken")
}

async fn put(store: &Arc<dyn Store>, name: &str, value: &'static str) -> Revision {
    txn(store, Txn::new().then(Op::put(key(name), value))).await.revision
}

async fn delete(store: &Arc<dyn Store>, name: &str) -> TxnResult {
    txn(store, Txn::new().then(Op::delete(key(name)))).await
}

async fn get(store: &Arc<dyn Store>, name: &str) -> Option<KeyValue> {
    store.get(&key(name), None).await.expect("the key can be read").kv
}

async fn watch(store: &Arc<dyn Store>, request: WatchRequest) -> WatchStream {
    store.watch(request).await.expect("the watch begins")
}

async fn next(watch: &mut WatchStream) -> WatchBatch {
    let item = tokio::time::timeout(PATIENCE, watch.next()).await.expect("an event arrives in time");
    item.expect("the watch goes on").expect("the watch does not fail")
}

/// A batch in short: its revision, and `name=value` for each put, `-name` for each deletion.
fn short(batch: &WatchBatch) -> (Revision, Vec<String>) {
    let event = |event: &crate::Event| {
        let name = String::from_utf8_lossy(&event.kv.key[key("").len()..]).into_owned();
        match event.kind {
            EventKind::Put => format!("{name}={}", String::from_utf8_lossy(&event.kv.value)),
            EventKind::Delete => format!("-{name}"),
        }
    };
    (batch.revision, batch.events.iter().map(event).collect())
}

async fn expect(watch: &mut WatchStream, revision: Revision, events: &[&str]) {
    let batch = next(watch).await;
    assert_eq!(short(&batch), (revision, events.iter().map(|event| event.to_string()).collect()));
    for event in &batch.events {
        assert_eq!(event.kv.mod_revision, revision);
    }
}

fn names(kvs: &[KeyValue]) -> Vec<String> {
    kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key[key("").len()..]).into_owned()).collect()
}

async fn every_change_has_the_next_revision(store: Arc<dyn Store>) {
    let start = store.current_revision().await.unwrap();
    assert!(start >= 1, "zero means no revision");
    assert_eq!(get(&store, "a").await, None);
    for step in 1..=3 {
        assert_eq!(put(&store, "a", "x").await, start + step);
        let kv = get(&store, "a").await.unwrap();
        assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (start + 1, start + step, step));
    }
    assert_eq!(put(&store, "b", "y").await, start + 4);
    assert_eq!(store.current_revision().await.unwrap(), start + 4);
    let got = store.get(&key("b"), None).await.unwrap();
    assert_eq!((got.revision, got.kv.unwrap().value), (start + 4, Bytes::from("y")));
}

async fn a_transaction_that_changes_nothing_has_no_revision(store: Arc<dyn Store>) {
    let last = put(&store, "a", "x").await;
    let nothing = [
        Txn::new(),
        Txn::new().then(Op::get(key("a"))),
        Txn::new().then(Op::delete(key("missing"))),
        Txn::new().then(Op::DeleteRange(KeyRange::prefix(key("missing/")))),
        Txn::create(key("a"), "y"),
    ];
    for txn in nothing {
        assert_eq!(store.txn(txn).await.unwrap().revision, last);
    }
    assert_eq!(store.current_revision().await.unwrap(), last);
    assert_eq!(put(&store, "a", "x").await, last + 1, "the same value again is a change");
}

async fn comparisons_decide_between_success_and_failure(store: Arc<dyn Store>) {
    let created = put(&store, "a", "m").await;
    let modified = put(&store, "a", "n").await;
    use Relation::*;
    use Target::*;
    let cases = [
        ("a", Equal, ModRevision(modified), true),
        ("a", Equal, ModRevision(created), false),
        ("a", NotEqual, ModRevision(created), true),
        ("a", Greater, ModRevision(created), true),
        ("a", Greater, ModRevision(modified), false),
        ("a", Less, ModRevision(modified + 1), true),
        ("a", Equal, CreateRevision(created), true),
        ("a", Equal, CreateRevision(modified), false),
        ("a", Equal, Version(2), true),
        ("a", Less, Version(2), false),
        ("a", Equal, Value("n".into()), true),
        ("a", Equal, Value("m".into()), false),
        ("a", NotEqual, Value("m".into()), true),
        ("a", Greater, Value("m".into()), true),
        ("missing", Equal, ModRevision(0), true),
        ("missing", Equal, CreateRevision(0), true),
        ("missing", Equal, Version(0), true),
        ("missing", Greater, Version(0), false),
        ("missing", NotEqual, Value("m".into()), false),
    ];
    for (name, relation, target, holds) in cases {
        let compare = Compare::new(key(name), relation, target);
        let result = txn(&store, Txn::new().when(compare.clone()).then(Op::get(key("a"))));
        let result = result.await;
        assert_eq!(result.succeeded, holds, "{compare:?}");
        assert_eq!(result.responses.len(), usize::from(holds), "{compare:?}");
    }
    let both = Txn::new().when(Compare::version(key("a"), 2)).when(Compare::version(key("a"), 3));
    assert!(!txn(&store, both).await.succeeded, "all have to hold");

    let refused = txn(&store, Txn::update(key("a"), created, "lost")).await;
    let OpResult::Get { kv: Some(current) } = &refused.responses[0] else { panic!("{refused:?}") };
    assert_eq!((refused.succeeded, &current.value[..]), (false, &b"n"[..]));
    assert!(txn(&store, Txn::update(key("a"), modified, "won")).await.succeeded);
    assert!(!txn(&store, Txn::delete(key("a"), modified)).await.succeeded);
    assert!(txn(&store, Txn::delete(key("a"), modified + 1)).await.succeeded);
    assert!(txn(&store, Txn::create(key("a"), "new")).await.succeeded);
}

async fn operations_see_what_earlier_ones_did(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    let ops = Txn::new()
        .then(Op::put(key("b"), "2"))
        .then(Op::get(key("b")))
        .then(Op::delete(key("a")))
        .then(Op::get(key("a")))
        .then(Op::DeleteRange(KeyRange::prefix(key("a"))));
    let result = txn(&store, ops).await;
    let [put, got, deleted, gone, none] = &result.responses[..] else { panic!("{result:?}") };
    assert_eq!(*put, OpResult::Put { prev: None });
    let OpResult::Get { kv: Some(kv) } = got else { panic!("{got:?}") };
    assert_eq!((&kv.value[..], kv.mod_revision), (&b"2"[..], result.revision));
    let OpResult::Delete { prev } = deleted else { panic!("{deleted:?}") };
    assert_eq!((prev.len(), &prev[0].value[..]), (1, &b"1"[..]));
    assert_eq!(*gone, OpResult::Get { kv: None });
    assert_eq!(*none, OpResult::Delete { prev: vec![] });
}

async fn a_key_changes_only_once_in_a_transaction(store: Arc<dyn Store>) {
    let before = put(&store, "a", "1").await;
    let twice = [
        Txn::new().then(Op::put(key("a"), "2")).then(Op::put(key("a"), "3")),
        Txn::new().then(Op::put(key("a"), "2")).then(Op::delete(key("a"))),
        Txn::new().then(Op::DeleteRange(everything())).then(Op::put(key("a"), "2")),
        Txn::new().otherwise(Op::put(key("a"), "2")).otherwise(Op::put(key("a"), "3")),
    ];
    for txn in twice {
        let refused = store.txn(txn).await;
        assert!(matches!(refused, Err(Error::DuplicateKey { .. })), "{refused:?}");
    }
    assert_eq!(store.current_revision().await.unwrap(), before);
    assert_eq!(get(&store, "a").await.unwrap().value, "1");
}

async fn all_changes_of_a_transaction_share_a_revision(store: Arc<dyn Store>) {
    put(&store, "old", "1").await;
    let mut watch = watch(&store, WatchRequest::of(everything())).await;
    let ops = Txn::new().then(Op::put(key("a"), "1")).then(Op::put(key("b"), "2")).then(Op::delete(key("old")));
    let revision = txn(&store, ops).await.revision;
    let batch = next(&mut watch).await;
    let (at, mut events) = short(&batch);
    events.sort();
    assert_eq!((at, events), (revision, vec!["-old".to_string(), "a=1".into(), "b=2".into()]));
    for name in ["a", "b"] {
        let kv = get(&store, name).await.unwrap();
        assert_eq!((kv.create_revision, kv.mod_revision), (revision, revision));
    }
    assert_eq!(store.current_revision().await.unwrap(), revision);
}

async fn a_deleted_key_begins_anew(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    let second = put(&store, "a", "2").await;
    let mut watch = watch(&store, WatchRequest::of(everything())).await;
    let deleted = delete(&store, "a").await;
    assert_eq!(deleted.revision, second + 1);
    assert_eq!(get(&store, "a").await, None);
    let batch = next(&mut watch).await;
    let event = &batch.events[0];
    assert_eq!(event.kind, EventKind::Delete);
    let tombstone =
        KeyValue { key: key("a"), value: Bytes::new(), create_revision: 0, mod_revision: deleted.revision, version: 0 };
    assert_eq!((&event.kv, &event.prev), (&tombstone, &None));
    let again = put(&store, "a", "3").await;
    let kv = get(&store, "a").await.unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (again, again, 1));
}

async fn ranges_are_ordered_bounded_and_counted(store: Arc<dyn Store>) {
    for name in ["b", "a/2", "c", "a/1", "a"] {
        put(&store, name, "v").await;
    }
    async fn check(store: &Arc<dyn Store>, range: Range, expected: &[&str], count: usize) {
        let result = store.range(range.clone()).await.unwrap();
        assert_eq!(names(&result.kvs), expected, "{range:?}");
        assert_eq!((result.count, result.more), (count, count > expected.len()), "{range:?}");
    }
    let from_to = |start: &str, end: &str| Range::of(KeyRange { start: key(start), end: key(end) });
    check(&store, Range::of(everything()), &["a", "a/1", "a/2", "b", "c"], 5).await;
    check(&store, Range::prefix(key("a/")), &["a/1", "a/2"], 2).await;
    check(&store, Range::of(KeyRange::key(key("a"))), &["a"], 1).await;
    check(&store, from_to("a/2", "c"), &["a/2", "b"], 2).await;
    check(&store, from_to("c", "a"), &[], 0).await;
    check(&store, from_to("x", "z"), &[], 0).await;
    check(&store, Range::of(everything()).limit(2), &["a", "a/1"], 5).await;
    check(&store, Range::of(everything()).limit(5), &["a", "a/1", "a/2", "b", "c"], 5).await;
    check(&store, Range::of(everything()).select(Select::Count), &[], 5).await;
    let keys = store.range(Range::prefix(key("a/")).select(Select::Keys)).await.unwrap();
    assert_eq!(names(&keys.kvs), ["a/1", "a/2"]);
    assert!(keys.kvs.iter().all(|kv| kv.value.is_empty() && kv.version == 1));
    assert_eq!(keys.revision, store.current_revision().await.unwrap());
}

async fn pages_are_read_at_one_revision(store: Arc<dyn Store>) {
    for name in ["a", "b", "c", "d"] {
        put(&store, name, "old").await;
    }
    let first = store.range(Range::of(everything()).limit(2)).await.unwrap();
    assert_eq!((names(&first.kvs), first.more, first.count), (vec!["a".to_string(), "b".into()], true, 4));
    delete(&store, "c").await;
    put(&store, "cc", "new").await;
    put(&store, "d", "new").await;
    put(&store, "d", "newer").await;
    let rest = KeyRange { start: key("b\0"), end: everything().end };
    let second = store.range(Range::of(rest).limit(2).at(first.revision)).await.unwrap();
    assert_eq!((names(&second.kvs), second.more, second.count), (vec!["c".to_string(), "d".into()], false, 2));
    assert_eq!(second.revision, first.revision);
    assert!(second.kvs.iter().all(|kv| kv.value == "old" && kv.mod_revision <= first.revision));
    let now = store.range(Range::of(everything())).await.unwrap();
    assert_eq!(names(&now.kvs), ["a", "b", "cc", "d"]);
}

async fn a_key_is_read_as_it_was(store: Arc<dyn Store>) {
    let other = put(&store, "other", "x").await;
    let first = put(&store, "a", "1").await;
    let second = put(&store, "a", "2").await;
    let deleted = delete(&store, "a").await.revision;
    let third = put(&store, "a", "3").await;
    let expected =
        [(other, None), (first, Some(("1", 1))), (second, Some(("2", 2))), (deleted, None), (third, Some(("3", 1)))];
    for (revision, expected) in expected {
        let got = store.get(&key("a"), Some(revision)).await.unwrap();
        let kv = got.kv.as_ref().map(|kv| (std::str::from_utf8(&kv.value).unwrap(), kv.version));
        assert_eq!((got.revision, kv), (revision, expected));
        let listed = store.range(Range::of(everything()).at(revision)).await.unwrap();
        assert_eq!(listed.count, 1 + usize::from(expected.is_some()));
    }
}

async fn the_future_cannot_be_read(store: Arc<dyn Store>) {
    let last = put(&store, "a", "1").await;
    let got = store.get(&key("a"), Some(last + 1)).await;
    assert!(matches!(got, Err(Error::Future { .. })), "{got:?}");
    let listed = store.range(Range::of(everything()).at(last + 1)).await;
    assert!(matches!(listed, Err(Error::Future { .. })), "{listed:?}");
    let compacted = store.compact(last + 1).await;
    assert!(matches!(compacted, Err(Error::Future { .. })), "{compacted:?}");
}

async fn a_watch_replays_the_past_and_follows(store: Arc<dyn Store>) {
    let first = put(&store, "a", "1").await;
    put(&store, "b", "1").await;
    delete(&store, "a").await;
    let mut past = watch(&store, WatchRequest::of(everything()).from(first)).await;
    let mut middle = watch(&store, WatchRequest::of(everything()).from(first + 1)).await;
    let mut now = watch(&store, WatchRequest::of(everything())).await;
    put(&store, "c", "1").await;
    expect(&mut past, first, &["a=1"]).await;
    for watch in [&mut past, &mut middle] {
        expect(watch, first + 1, &["b=1"]).await;
        expect(watch, first + 2, &["-a"]).await;
    }
    for watch in [&mut past, &mut middle, &mut now] {
        expect(watch, first + 3, &["c=1"]).await;
    }
    put(&store, "c", "2").await;
    for watch in [&mut past, &mut middle, &mut now] {
        expect(watch, first + 4, &["c=2"]).await;
    }
}

async fn a_watch_from_the_future_waits_for_it(store: Arc<dyn Store>) {
    let last = put(&store, "a", "1").await;
    let mut watch = watch(&store, WatchRequest::of(everything()).from(last + 3)).await;
    for value in ["2", "3", "4"] {
        put(&store, "a", value).await;
    }
    expect(&mut watch, last + 3, &["a=4"]).await;
}

async fn a_watch_sees_only_its_range(store: Arc<dyn Store>) {
    let start = put(&store, "pods/0", "x").await;
    let mut pods = watch(&store, WatchRequest::of(KeyRange::prefix(key("pods/")))).await;
    let mut one = watch(&store, WatchRequest::of(KeyRange::key(key("pods/1")))).await;
    put(&store, "nodes/1", "x").await;
    let both = Txn::new().then(Op::put(key("nodes/2"), "x")).then(Op::put(key("pods/1"), "x"));
    txn(&store, both).await;
    put(&store, "pods/11", "x").await;
    put(&store, "pods/1", "y").await;
    expect(&mut pods, start + 2, &["pods/1=x"]).await;
    expect(&mut pods, start + 3, &["pods/11=x"]).await;
    expect(&mut pods, start + 4, &["pods/1=y"]).await;
    expect(&mut one, start + 2, &["pods/1=x"]).await;
    expect(&mut one, start + 4, &["pods/1=y"]).await;
}

async fn a_watch_tells_what_was_before(store: Arc<dyn Store>) {
    let first = put(&store, "a", "1").await;
    put(&store, "a", "2").await;
    delete(&store, "a").await;
    put(&store, "a", "3").await;
    let mut with = watch(&store, WatchRequest::of(everything()).from(first).with_prev_kv()).await;
    let mut without = watch(&store, WatchRequest::of(everything()).from(first)).await;
    for expected in [None, Some(("1", first)), Some(("2", first + 1)), None] {
        let prev = next(&mut with).await.events.remove(0).prev;
        let prev = prev.as_ref().map(|kv| (std::str::from_utf8(&kv.value).unwrap(), kv.mod_revision));
        assert_eq!(prev, expected);
        assert_eq!(next(&mut without).await.events[0].prev, None);
    }
}

async fn progress_says_how_far_a_watch_has_come(store: Arc<dyn Store>) {
    let first = put(&store, "a", "1").await;
    let request = WatchRequest::of(KeyRange::prefix(key("a"))).from(first).with_progress();
    let mut watch = watch(&store, request).await;
    expect(&mut watch, first, &["a=1"]).await;
    let elsewhere = put(&store, "b", "1").await;
    store.request_progress().await.unwrap();
    // An engine may report progress of its own accord too, never beyond what it has delivered.
    loop {
        let batch = next(&mut watch).await;
        assert_eq!(batch.events, [], "nothing happened in this range");
        if batch.revision >= elsewhere {
            break;
        }
    }
    let last = put(&store, "a", "2").await;
    loop {
        let batch = next(&mut watch).await;
        if !batch.events.is_empty() {
            assert_eq!(short(&batch), (last, vec!["a=2".to_string()]));
            break;
        }
        assert!(batch.revision < last, "progress overtook an event");
    }
}

async fn compaction_ends_the_past(store: Arc<dyn Store>) {
    let first = put(&store, "a", "1").await;
    put(&store, "a", "2").await;
    let kept = put(&store, "a", "3").await;
    put(&store, "a", "4").await;
    store.compact(kept).await.unwrap();

    let got = store.get(&key("a"), Some(first)).await;
    assert!(matches!(got, Err(Error::Compacted { .. })), "{got:?}");
    let listed = store.range(Range::of(everything()).at(kept - 1)).await;
    assert!(matches!(listed, Err(Error::Compacted { .. })), "{listed:?}");
    let error = match store.watch(WatchRequest::of(everything()).from(first)).await {
        Err(error) => error,
        Ok(mut watch) => watch.next().await.expect("the watch says why").expect_err("the past is gone"),
    };
    let Error::Compacted { compact_revision } = error else { panic!("{error:?}") };
    assert!(compact_revision > first && compact_revision <= kept);

    assert_eq!(store.get(&key("a"), Some(kept)).await.unwrap().kv.unwrap().value, "3");
    assert_eq!(store.range(Range::of(everything()).at(kept)).await.unwrap().count, 1);
    let mut watch = watch(&store, WatchRequest::of(everything()).from(kept)).await;
    expect(&mut watch, kept, &["a=3"]).await;
    expect(&mut watch, kept + 1, &["a=4"]).await;
    assert_eq!(put(&store, "a", "5").await, kept + 2);
}

async fn concurrent_writers_are_put_into_one_order(store: Arc<dyn Store>) {
    const WRITERS: usize = 8;
    const INCREMENTS: usize = 25;
    let start = put(&store, "counter", "0").await;
    let mut watch = watch(&store, WatchRequest::of(everything()).from(start).with_prev_kv()).await;
    let writers: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(increment(store.clone(), INCREMENTS))).collect();
    let (mut seen, mut value) = (start, 0);
    next(&mut watch).await;
    while value < WRITERS * INCREMENTS {
        let batch = next(&mut watch).await;
        assert!(batch.revision > seen, "{} after {seen}", batch.revision);
        let [event] = &batch.events[..] else { panic!("{batch:?}") };
        assert_eq!(event.prev.as_ref().unwrap().mod_revision, seen, "no change is skipped");
        value += 1;
        assert_eq!(event.kv.value, value.to_string());
        seen = batch.revision;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(get(&store, "counter").await.unwrap().value, (WRITERS * INCREMENTS).to_string());
}

/// Adds to the counter by reading, comparing and writing, as often as it takes.
async fn increment(store: Arc<dyn Store>, times: usize) {
    let mut done = 0;
    while done < times {
        let current = get(&store, "counter").await.unwrap();
        let number: usize = std::str::from_utf8(&current.value).unwrap().parse().unwrap();
        let update = Txn::update(key("counter"), current.mod_revision, (number + 1).to_string());
        if txn(&store, update).await.succeeded {
            assert!(store.current_revision().await.unwrap() > current.mod_revision, "its own write is visible");
            done += 1;
        }
    }
}
