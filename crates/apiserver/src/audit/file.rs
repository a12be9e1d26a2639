//! Records in a file, one a line, and the older files beside it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use xebec_base::SharedClock;

use super::Sink;

/// The time in an older file's name, as upstream's library writes it.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// When a file is put aside, and how long those that were are kept.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// In bytes; a file never grows beyond.
    pub size: u64,
    /// Older files go; `None` keeps them for ever.
    pub age: Option<Duration>,
    /// So many older files stay; zero keeps all.
    pub backups: usize,
    pub compress: bool,
}

impl Default for Rotation {
    fn default() -> Self {
        Rotation { size: 100 << 20, age: None, backups: 0, compress: false }
    }
}

pub struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    clock: SharedClock,
    /// `None` for the standard output.
    open: Mutex<Option<Open>>,
}

struct Open {
    file: File,
    size: u64,
}

impl LogFile {
    /// Opens the file, or the standard output for `-`.
    pub fn open(path: &Path, rotation: Rotation, clock: SharedClock) -> io::Result<Self> {
        let open = if path.as_os_str() == "-" { None } else { Some(Open::append(path)?) };
        Ok(LogFile { path: path.to_owned(), rotation, clock, open: Mutex::new(open) })
    }

    fn write(&self, event: &[u8]) -> io::Result<()> {
        let mut line = Vec::with_capacity(event.len() + 1);
        line.extend_from_slice(event);
        line.push(b'\n');
        let mut open = self.open.lock();
        let Some(open) = &mut *open else { return io::stdout().lock().write_all(&line) };
        if open.size > 0 && open.size + line.len() as u64 > self.rotation.size {
            *open = self.rotate()?;
        }
        open.size += line.len() as u64;
        open.file.write_all(&line)
    }

    /// Puts the file aside under the time and begins a new one.
    fn rotate(&self) -> io::Result<Open> {
        let (stem, extension) = self.names();
        let stamp = self.clock.now().to_zoned(TimeZone::UTC).strftime(STAMP).to_string();
        let aside = self.folder().join(format!("{stem}-{stamp}{extension}"));
        std::fs::rename(&self.path, &aside)?;
        if self.rotation.compress {
            compress(&aside)?;
        }
        self.forget_old()?;
        Open::append(&self.path)
    }

    fn forget_old(&self) -> io::Result<()> {
        let mut old = self.older()?;
        old.sort();
        let now = self.clock.now();
        let surplus =
            old.len().saturating_sub(if self.rotation.backups == 0 { old.len() } else { self.rotation.backups });
        for (index, (written, path)) in old.iter().enumerate() {
            let aged = self.rotation.age.is_some_and(|age| written.duration_until(now).unsigned_abs() > age);
            if index < surplus || aged {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// The files put aside, with the times in their names.
    fn older(&self) -> io::Result<Vec<(Timestamp, PathBuf)>> {
        let (stem, extension) = self.names();
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.folder())? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
            let stamp = name.strip_prefix(&*format!("{stem}-")).map(|rest| rest.trim_end_matches(".gz"));
            let stamp = stamp.and_then(|rest| rest.strip_suffix(&*extension));
            let written = stamp.and_then(|stamp| jiff::civil::DateTime::strptime(STAMP, stamp).ok());
            let written = written.and_then(|time| time.to_zoned(TimeZone::UTC).ok());
            found.extend(written.map(|time| (time.timestamp(), path)));
        }
        Ok(found)
    }

    fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// The file's name without its extension, and the extension with its dot.
    fn names(&self) -> (String, String) {
        let part = |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).unwrap_or("").to_owned();
        let extension = part(self.path.extension());
        let dot = if extension.is_empty() { "" } else { "." };
        (part(self.path.file_stem()), format!("{dot}{extension}"))
    }
}

impl Open {
    fn append(path: &Path) -> io::Result<Self> {
        // Records may hold what objects hold, so nobody else reads them.
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let size = file.metadata()?.len();
        Ok(Open { file, size })
    }
}

fn compress(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    let target = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(name)?;
    let mut encoder = GzEncoder::new(target, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?;
    std::fs::remove_file(path)
}

impl Sink for LogFile {
    fn record(&self, event: &[u8]) {
        if let Err(error) = self.write(event) {
            tracing::error!(path = %self.path.display(), %error, "cannot write the audit log");
        }
    }
}

#[cfg(test)]
mod tests {
    use xebec_base::SimulatedClock;

    use super::*;

    #[test]
    fn files_are_put_aside_by_size_and_forgotten_by_number_and_age() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("audit.log");
        let clock = SimulatedClock::starting_at("2026-01-02T03:04:05.678Z".parse().unwrap());
        let day = Duration::from_secs(24 * 3600);
        let rotation = Rotation { size: 20, age: Some(5 * day), backups: 2, compress: false };
        let log = LogFile::open(&path, rotation, clock.clone()).unwrap();
        let names = || {
            let mut names: Vec<String> = std::fs::read_dir(folder.path())
                .unwrap()
                .map(|one| one.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        log.record(b"0123456789");
        log.record(b"abcdefgh");
        assert_eq!(names(), ["audit.log"]);
        log.record(b"next");
        assert_eq!(names(), ["audit-2026-01-02T03-04-05.678.log", "audit.log"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "next\n");
        for _ in 0..3 {
            clock.advance(day);
            log.record(b"0123456789 0123456789");
        }
        assert_eq!(names(), ["audit-2026-01-04T03-04-05.678.log", "audit-2026-01-05T03-04-05.678.log", "audit.log"]);
        clock.advance(6 * day);
        log.record(b"0123456789 0123456789");
        assert_eq!(names(), ["audit-2026-01-11T03-04-05.678.log", "audit.log"], "two were too old");

        let rotation = Rotation { compress: true, ..rotation };
        let log = LogFile::open(&path, rotation, clock.clone()).unwrap();
        clock.advance(day);
        log.record(b"0123456789 0123456789");
        assert!(names().contains(&"audit-2026-01-12T03-04-05.678.log.gz".to_owned()), "{:?}", names());
    }
}
