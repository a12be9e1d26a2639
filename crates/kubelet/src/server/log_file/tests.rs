//! Logs in files of the test's own making.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use xebec_base::SystemClock;

use super::*;

const LOG: &str = "2026-01-02T03:04:05.1Z stdout F one\n\
    2026-01-02T03:04:06.000000001+00:00 stderr F two\n\
    2026-01-02T03:04:07Z stdout P thr\n\
    2026-01-02T03:04:08Z stdout F ee\n\
    nonsense\n\
    2026-01-02T03:04:09+02:00 stdout F:X four\n";

/// A directory that goes away with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("xebec-log-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn log(&self) -> PathBuf {
        self.0.join("0.log")
    }

    fn append(&self, text: &str) {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(self.log()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn read(path: PathBuf, tail: Option<u64>, selection: Selection) -> String {
    let (sender, mut receiver) = mpsc::channel(4);
    let file = LogFile::open(path, tail).await.unwrap();
    tokio::spawn(async move { file.copy(selection, None, &sender).await.unwrap() });
    let mut text = Vec::new();
    while let Some(piece) = receiver.recv().await {
        text.extend_from_slice(&piece.unwrap());
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn the_wanted_part_is_read() {
    let directory = Directory::new("part");
    directory.append(LOG);
    let check = async |tail: Option<u64>, selection: Selection, expect: &str| {
        let selection = Selection { lines: tail, ..selection };
        let text = read(directory.log(), tail, selection.clone()).await;
        assert_eq!(text, expect, "{tail:?} {selection:?}");
    };
    let all = Selection::default;
    check(None, all(), "one\ntwo\nthree\nfour\n").await;
    check(Some(0), all(), "").await;
    check(Some(1), all(), "four\n").await;
    // The tail counts lines of the file, parts and all, as upstream does.
    check(Some(3), all(), "ee\nfour\n").await;
    check(Some(99), all(), "one\ntwo\nthree\nfour\n").await;
    check(None, Selection { bytes: Some(6), ..all() }, "one\ntw").await;
    check(None, Selection { stream: Stream::Stderr, ..all() }, "two\n").await;
    check(None, Selection { stream: Stream::Stdout, bytes: Some(5), ..all() }, "one\nt").await;
    let since = Some("2026-01-02T03:04:07Z".parse().unwrap());
    check(None, Selection { since, ..all() }, "three\n").await;
    let stamped = "2026-01-02T03:04:05.100000000Z one\n\
        2026-01-02T03:04:06.000000001Z two\n\
        2026-01-02T03:04:07.000000000Z three\n\
        2026-01-02T03:04:09.000000000+02:00 four\n";
    check(None, Selection { timestamps: true, ..all() }, stamped).await;
}

#[tokio::test]
async fn long_logs_and_unfinished_lines_are_read() {
    let directory = Directory::new("long");
    let line = |n: usize| format!("2026-01-02T03:04:05Z stdout F {n:01000}\n");
    directory.append(&(0..500).map(line).collect::<String>());
    directory.append("2026-01-02T03:04:05Z stdout F unfinished");
    let text = read(directory.log(), None, Selection::default()).await;
    assert_eq!(text.lines().count(), 501);
    assert!(text.ends_with("unfinished"));
    let text = read(directory.log(), Some(100), Selection::default()).await;
    assert_eq!(text.lines().next(), Some(format!("{:01000}", 400).as_str()));
    let overlong = "x".repeat(3 << 20);
    directory.append(&format!("{overlong}\n2026-01-02T03:04:05Z stdout F last\n"));
    assert!(read(directory.log(), None, Selection::default()).await.ends_with("xlast\n"));
}

#[tokio::test]
async fn a_log_that_is_missing_is_told_in_upstreams_words() {
    let failed = LogFile::open("/nonexistent/0.log".into(), None).await.err().unwrap();
    let text = r#"failed to try resolving symlinks in path "/nonexistent/0.log": lstat /nonexistent/0.log: no such file or directory"#;
    assert_eq!(failed.to_string(), text);
}

#[tokio::test]
async fn a_log_is_followed_over_rotation_until_the_container_ends() {
    let directory = Directory::new("follow");
    directory.append("2026-01-02T03:04:05Z stdout F zero\n2026-01-02T03:04:05Z stdout F one\n");
    let running = Arc::new(AtomicBool::new(true));
    let state = running.clone();
    let follow = Follow {
        is_running: Box::new(move || {
            let running = state.load(Ordering::Relaxed);
            Box::pin(async move { running })
        }),
        clock: SystemClock::shared(),
    };
    let (sender, mut receiver) = mpsc::channel(4);
    let file = LogFile::open(directory.log(), Some(1)).await.unwrap();
    let reading = tokio::spawn(async move { file.copy(Selection::default(), Some(follow), &sender).await });
    let mut next = async || String::from_utf8(receiver.recv().await.unwrap().unwrap().to_vec()).unwrap();
    assert_eq!(next().await, "one\n");
    directory.append("2026-01-02T03:04:06Z stdout F t");
    directory.append("wo\n");
    assert_eq!(next().await, "two\n");
    directory.append("2026-01-02T03:04:07Z stdout F three\n");
    std::fs::rename(directory.log(), directory.0.join("0.log.20260102-030407")).unwrap();
    directory.append("2026-01-02T03:04:08Z stdout F four\n");
    let mut rotated = next().await;
    while !rotated.ends_with("four\n") {
        rotated.push_str(&next().await);
    }
    assert_eq!(rotated, "three\nfour\n");
    running.store(false, Ordering::Relaxed);
    directory.append("2026-01-02T03:04:09Z stdout F five\n");
    assert_eq!(next().await, "five\n");
    reading.await.unwrap().unwrap();
    assert!(receiver.recv().await.is_none());
}

#[tokio::test]
async fn nobody_reads_for_a_client_that_has_gone() {
    let directory = Directory::new("gone");
    directory.append(LOG);
    let follow = Follow { is_running: Box::new(|| Box::pin(async { true })), clock: SystemClock::shared() };
    let (sender, receiver) = mpsc::channel(4);
    let file = LogFile::open(directory.log(), None).await.unwrap();
    let reading = tokio::spawn(async move { file.copy(Selection::default(), Some(follow), &sender).await });
    drop(receiver);
    reading.await.unwrap().unwrap();
}
