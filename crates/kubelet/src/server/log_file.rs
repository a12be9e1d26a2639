//! Reads the log of a container: the files in which a CRI runtime keeps what a container writes.
//!
//! Each line is `TIMESTAMP STREAM TAG TEXT`, the tag `F` for a line that ends and `P` for a part of a longer one ("CRI:
//! Logging"). When a log grows too large the file is renamed and a new one takes its name; who follows the log reads the
//! old one to its end and goes on with the new one. Rotated files are not read.
//!
//! Following waits for the kernel to tell of changes in the log's directory, and asks the runtime whether the container
//! still runs only when nothing has happened for a while or the file was closed.

use std::fmt::Write as _;
use std::future::Future;
use std::io::{self, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use jiff::Timestamp;
use rustix::fs::inotify;
use tokio::fs::File;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncSeekExt, Interest};
use tokio::sync::mpsc;
use xebec_base::SharedClock;

use super::answer::reason;

/// How many bytes are read, and sent, at once.
const PIECE: usize = 32 << 10;

/// The longest line. Runtimes cut lines at 16 KiB; whatever else stands in the file must not fill our memory.
const MAX_LINE: usize = 1 << 20;

/// After this long without a change the container is asked after, and the file looked at, all the same.
const QUIET: Duration = Duration::from_secs(1);

/// The streams of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stream {
    #[default]
    All,
    Stdout,
    Stderr,
}

/// Which part of a log is wanted, and how.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Stop after this many lines of the file.
    pub lines: Option<u64>,
    /// Stop after this many bytes.
    pub bytes: Option<u64>,
    /// Pass over what is older.
    pub since: Option<Timestamp>,
    /// Put its time before each line.
    pub timestamps: bool,
    pub stream: Stream,
}

/// How a log is followed until its container has ended.
pub struct Follow {
    pub is_running: Box<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>,
    pub clock: SharedClock,
}

/// What can go wrong with a log; the texts are upstream's.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("failed to try resolving symlinks in path {path:?}: lstat {}: {}", path.display(), reason(source))]
    Resolve { path: PathBuf, source: io::Error },
    #[error("failed to open log file {path:?}: {}", reason(source))]
    Open { path: PathBuf, source: io::Error },
    #[error("failed to tail {lines} lines of log file {path:?}: {}", reason(source))]
    Tail { lines: u64, path: PathBuf, source: io::Error },
    #[error("failed to read log file {path:?}: {}", reason(source))]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to watch directory {path:?}: {}", reason(source))]
    Watch { path: PathBuf, source: io::Error },
}

/// An open log, placed where reading begins.
pub struct LogFile {
    path: PathBuf,
    file: File,
    /// What has been read and not yet taken as a line.
    buffer: BytesMut,
}

impl LogFile {
    /// Opens the log, at its last `tail` lines if so wanted.
    pub async fn open(path: PathBuf, tail: Option<u64>) -> Result<LogFile, LogError> {
        let resolved = tokio::fs::canonicalize(&path).await;
        let path = resolved.map_err(|source| LogError::Resolve { path: path.clone(), source })?;
        let mut file = open(&path).await?;
        if let Some(lines) = tail {
            let failed = |source| LogError::Tail { lines, path: path.clone(), source };
            let start = tail_start(&mut file, lines).await.map_err(failed)?;
            file.seek(SeekFrom::Start(start)).await.map_err(failed)?;
        }
        Ok(LogFile { path, file, buffer: BytesMut::new() })
    }

    /// Sends what is wanted of the log to `out`, until there is no more to come or nobody takes it.
    pub async fn copy(
        mut self,
        selection: Selection,
        follow: Option<Follow>,
        out: &mpsc::Sender<io::Result<Bytes>>,
    ) -> Result<(), LogError> {
        let mut lines_left = selection.lines.unwrap_or(u64::MAX);
        let mut writer = Writer::new(selection);
        let mut watch = None;
        let (mut running, mut rotated) = (true, false);
        while lines_left > 0 && !writer.is_full() {
            if let Some(line) = self.next_line().await? {
                lines_left -= 1;
                writer.line(&line);
                if writer.pending.len() < PIECE || writer.send(out).await {
                    continue;
                }
                return Ok(());
            }
            if !writer.send(out).await {
                return Ok(());
            }
            let Some(follow) = &follow else {
                // What stands behind the last end of a line is a line that is still being written.
                writer.line(&self.buffer);
                break;
            };
            if rotated {
                // Everything that was written before the new file was seen has been read by now.
                // Should it be gone again, the next change brings another.
                if let Ok(file) = open(&self.path).await {
                    self.file = file;
                    self.buffer.clear();
                }
                rotated = false;
                continue;
            }
            if !running {
                break;
            }
            let Some(watch) = &watch else {
                // What was written between the last read and the beginning of the watch is read now.
                watch = Some(Watch::new(&self.path)?);
                running = (follow.is_running)().await;
                continue;
            };
            let changed = tokio::select! {
                changed = watch.changed() => changed,
                () = follow.clock.sleep(QUIET) => Change::Quiet,
                () = out.closed() => return Ok(()),
            };
            if changed != Change::Written {
                running = (follow.is_running)().await;
            }
            rotated = self.is_rotated().await;
        }
        writer.send(out).await;
        Ok(())
    }

    /// The next line with its end, or `None` where the file ends, now, before the line does.
    async fn next_line(&mut self) -> Result<Option<BytesMut>, LogError> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.buffer.split_to(searched + end + 1)));
            }
            if self.buffer.len() > MAX_LINE {
                let longest = self.buffer.len();
                tracing::debug!(path = %self.path.display(), longest, "overlong line in a log");
                return Ok(Some(self.buffer.split()));
            }
            searched = self.buffer.len();
            self.buffer.reserve(PIECE);
            let read = self.file.read_buf(&mut self.buffer).await;
            let read = read.map_err(|source| LogError::Read { path: self.path.clone(), source })?;
            if read == 0 {
                return Ok(None);
            }
        }
    }

    /// Whether another file has taken the log's name.
    async fn is_rotated(&self) -> bool {
        let (mine, named) = tokio::join!(self.file.metadata(), tokio::fs::metadata(&self.path));
        // The name is missing between the renaming of the old file and the making of the new one, and after the
        // container's removal.
        let (Ok(mine), Ok(named)) = (mine, named) else { return false };
        (mine.dev(), mine.ino()) != (named.dev(), named.ino())
    }
}

async fn open(path: &Path) -> Result<File, LogError> {
    File::open(path).await.map_err(|source| LogError::Open { path: path.to_owned(), source })
}

/// Where the last `lines` lines of the file begin. A line without an end is not counted.
async fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    let mut left = file.seek(SeekFrom::End(0)).await?;
    let mut block = vec![0; PIECE];
    let mut ends = 0;
    while left > 0 {
        let length = left.min(PIECE as u64);
        left -= length;
        file.seek(SeekFrom::Start(left)).await?;
        let block = &mut block[..length as usize];
        file.read_exact(block).await?;
        for (at, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            ends += 1;
            if ends > lines {
                return Ok(left + at as u64 + 1);
            }
        }
    }
    Ok(0)
}

/// What a wait for the log has brought.
#[derive(PartialEq, Eq)]
enum Change {
    /// The log was written to.
    Written,
    /// A file was closed, made, renamed or removed.
    Files,
    /// Nothing has happened for a while.
    Quiet,
}

/// Watches the directory of a log.
struct Watch {
    events: AsyncFd<OwnedFd>,
}

impl Watch {
    fn new(path: &Path) -> Result<Watch, LogError> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let failed = |source| LogError::Watch { path: directory.to_owned(), source };
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let events = inotify::init(flags).map_err(|errno| failed(errno.into()))?;
        use inotify::WatchFlags as Flags;
        let flags = Flags::MODIFY | Flags::CLOSE_WRITE | Flags::CREATE | Flags::MOVE | Flags::DELETE;
        inotify::add_watch(&events, directory, flags).map_err(|errno| failed(errno.into()))?;
        // SAFETY: the descriptor is open, the `AsyncFd` becomes its only owner, and an `OwnedFd` that nobody replaces
        // names the same open file until it is dropped.
        #[allow(unsafe_code)]
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) };
        Ok(Watch { events: events.map_err(|error| failed(io::Error::other(error)))? })
    }

    /// Waits for changes and takes all there are.
    async fn changed(&self) -> Change {
        let Ok(mut ready) = self.events.readable().await else { return std::future::pending().await };
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.events.get_ref(), &mut buffer);
        let mut change = Change::Written;
        while let Ok(event) = reader.next() {
            if event.events() != inotify::ReadFlags::MODIFY {
                change = Change::Files;
            }
        }
        ready.clear_ready();
        change
    }
}

/// One line of a log, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    /// As it stands in the file.
    time: &'a str,
    at: Timestamp,
    stream: Stream,
    /// With the end of the line, unless the line goes on in the next one.
    text: &'a [u8],
}

impl Line<'_> {
    fn parse(line: &[u8]) -> Option<Line<'_>> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (time, stream, tags, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let time = std::str::from_utf8(time).ok()?;
        let stream = match stream {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        // More tags may follow the first one some day, behind colons.
        let partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
        let text = if partial { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
        Some(Line { time, at: time.parse().ok()?, stream, text })
    }
}

/// Words the lines that are wanted.
struct Writer {
    selection: Selection,
    pending: BytesMut,
    bytes_left: u64,
    /// Whether the next text begins a line: only there a time is put.
    at_start: bool,
}

impl Writer {
    fn new(selection: Selection) -> Writer {
        let bytes_left = selection.bytes.unwrap_or(u64::MAX);
        Writer { selection, pending: BytesMut::new(), bytes_left, at_start: true }
    }

    fn is_full(&self) -> bool {
        self.bytes_left == 0
    }

    fn line(&mut self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        let Some(line) = Line::parse(line) else {
            return tracing::debug!(line = %String::from_utf8_lossy(line), "malformed line in a log");
        };
        let begins = std::mem::replace(&mut self.at_start, line.text.last().is_none_or(|byte| *byte == b'\n'));
        if self.selection.since.is_some_and(|since| line.at < since) {
            return;
        }
        if self.selection.stream != Stream::All && self.selection.stream != line.stream {
            return;
        }
        if self.selection.timestamps && begins {
            let stamp = fixed_width(line.time);
            self.put(stamp.as_bytes());
            self.put(b" ");
        }
        self.put(line.text);
    }

    fn put(&mut self, bytes: &[u8]) {
        let taken = bytes.len().min(usize::try_from(self.bytes_left).unwrap_or(usize::MAX));
        self.pending.extend_from_slice(&bytes[..taken]);
        self.bytes_left -= taken as u64;
    }

    /// Sends what is pending. False where nobody takes it any more.
    async fn send(&mut self, out: &mpsc::Sender<io::Result<Bytes>>) -> bool {
        while self.pending.has_remaining() {
            let piece = self.pending.split_to(self.pending.len().min(PIECE)).freeze();
            if out.send(Ok(piece)).await.is_err() {
                return false;
            }
        }
        true
    }
}

/// A time with nine digits behind the point and `Z` for UTC, whatever the runtime wrote: so the texts of lines stand
/// below each other.
fn fixed_width(time: &str) -> String {
    let zone = time.rfind(['Z', '+', '-']).filter(|at| *at > "2006-01-02".len()).unwrap_or(time.len());
    let (moment, zone) = time.split_at(zone);
    let (seconds, fraction) = moment.split_once('.').unwrap_or((moment, ""));
    let zone = if matches!(zone, "+00:00" | "-00:00") { "Z" } else { zone };
    let mut fixed = String::with_capacity(36);
    // Writing into a string does not fail.
    let _ = write!(fixed, "{seconds}.{fraction:0<9.9}{zone}");
    fixed
}

#[cfg(test)]
mod tests;
