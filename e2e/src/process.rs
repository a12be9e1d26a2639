//! Programs as a test drives them: started with their log in a file, ended by process id, their use of the machine read
//! from `/proc`; and the one way of waiting, for a condition and with a deadline that names it.
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often a condition is looked at. Conditions read files or call a program; none of them can be awaited.
const LOOK: Duration = Duration::from_millis(50);
const TICKS_PER_SECOND: f64 = 100.0;

/// What a finished program left.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// # Errors
    /// The program failed; its output is the message.
    pub fn success(self) -> Result<String> {
        match self.code {
            Some(0) => Ok(self.stdout),
            code => bail!("exit code {code:?}\n{}{}", self.stdout, self.stderr),
        }
    }
}

/// Runs `command` to its end.
///
/// # Errors
/// It cannot be started.
pub fn capture(command: &mut Command) -> Result<Output> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {shown}"))?;
    Ok(Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Looks until `condition` gives a value or `limit` has passed. A failure of the condition means "not yet"; the last one
/// is part of the message.
///
/// # Errors
/// The condition did not come within `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        let failure = match condition() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        if started.elapsed() > limit {
            bail!("{what} did not come within {limit:?}{failure}");
        }
        std::thread::sleep(LOOK);
    }
}

/// The release binary: `XEBEC`, or the one that cargo builds.
pub fn binary() -> PathBuf {
    std::env::var_os("XEBEC").map_or_else(|| target().join("release/xebec"), PathBuf::from)
}

/// The folder of the image archives: `XEBEC_IMAGES`, or where `cargo xtask images` puts them.
pub fn images() -> PathBuf {
    std::env::var_os("XEBEC_IMAGES").map_or_else(|| target().join("images"), PathBuf::from)
}

fn target() -> PathBuf {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| tree.join("target"), PathBuf::from)
}

/// A program that runs until it is ended; dropped, it is killed.
pub struct Process {
    child: Child,
}

/// Processor time in seconds and memory in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub cpu: f64,
    pub resident: u64,
    pub proportional: u64,
}

impl Process {
    /// Starts `command` with stdout and stderr appended to `log`.
    ///
    /// # Errors
    /// The log cannot be opened, or the program not be started.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening {}", log.display()))?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn();
        Ok(Self { child: child.with_context(|| format!("starting {command:?}"))? })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// # Errors
    /// The process has ended already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }

    /// Ends the process at once, as a crash would.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn crash(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks the process to end and returns how long it took.
    ///
    /// # Errors
    /// It has not ended within `limit`.
    pub fn end(&mut self, limit: Duration) -> Result<Duration> {
        let started = Instant::now();
        if !self.has_ended()? {
            self.signal(Signal::SIGTERM)?;
        }
        wait_for("the end of a process after SIGTERM", limit, || Ok(self.child.try_wait()?))?;
        Ok(started.elapsed())
    }

    /// # Errors
    /// The process cannot be asked.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// # Errors
    /// The process has ended.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Usage {
    /// What the process `id` uses, all its threads together.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(id: u32) -> Result<Self> {
        let stat =
            std::fs::read_to_string(format!("/proc/{id}/stat")).with_context(|| format!("process {id} is gone"))?;
        // The second field, the name, may hold spaces; it ends with the last parenthesis.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        let memory = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
        let bytes = |name: &str| {
            let line = memory.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
        };
        Ok(Self {
            cpu: (ticks(11) + ticks(12)) / TICKS_PER_SECOND,
            resident: bytes("Rss:").unwrap_or(0),
            proportional: bytes("Pss:").unwrap_or(0),
        })
    }

    /// The sum over several processes.
    ///
    /// # Errors
    /// One of them has ended.
    pub fn of_all(ids: impl IntoIterator<Item = u32>) -> Result<Self> {
        ids.into_iter().try_fold(Self::default(), |sum, id| {
            let one = Self::of(id)?;
            Ok(Self {
                cpu: sum.cpu + one.cpu,
                resident: sum.resident + one.resident,
                proportional: sum.proportional + one.proportional,
            })
        })
    }
}
