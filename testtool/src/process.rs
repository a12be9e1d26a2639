//! Signals, exit codes, waiting, memory, environment and identity. Signals are blocked and fetched with `sigwait`,
//! because process 1 of a container gets none that it has neither blocked nor handled. No handlers are installed.
use std::time::Duration;

use crate::{Options, Outcome, net};

const SIGNALS: [(&str, i32); 9] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("USR1", 10),
    ("USR2", 12),
    ("PIPE", 13),
    ("TERM", 15),
    ("CHLD", 17),
    ("WINCH", 28),
];
const TERM: i32 = 15;
const CHLD: i32 = 17;
/// As large as the C libraries of 64-bit Linux make `sigset_t`.
type SignalSet = [u64; 16];

pub fn signals(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["ignore"], &[])?;
    let ignored: Vec<&str> =
        options.get("ignore").unwrap_or("").split(',').map(|name| name.trim_start_matches("SIG")).collect();
    block_signals();
    println!("waiting for signals as process {}", std::process::id());
    loop {
        let number = next_signal();
        let name = SIGNALS.iter().find(|(_, known)| *known == number).map_or("?", |(name, _)| name);
        println!("received SIG{name} ({number})");
        if !ignored.contains(&name) && number != CHLD {
            return Ok(128 + number as u8);
        }
    }
}

pub fn exit(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["after", "say"], &[])?;
    let code = options.first("CODE")?;
    let code = code.parse().map_err(|_| format!("{code} is no exit code"))?;
    if let Some(text) = options.get("say") {
        println!("{text}");
    }
    end_at_sigterm();
    std::thread::sleep(duration(options.number("after")?.unwrap_or(0.0))?);
    Ok(code)
}

pub fn sleep(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &[], &[])?;
    end_at_sigterm();
    match options.first("SECONDS")? {
        "forever" => loop {
            std::thread::park();
        },
        text => std::thread::sleep(duration(text.parse().map_err(|_| format!("{text} is not a number"))?)?),
    }
    Ok(0)
}

pub fn log(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &["every", "count"], &[])?;
    let text = options.first("TEXT")?;
    let pause = duration(options.number("every")?.unwrap_or(1.0))?;
    let count = options.number("count")?.map_or(u64::MAX, |count| count as u64);
    end_at_sigterm();
    for number in 1..=count {
        println!("{number} {text}");
        if number < count {
            std::thread::sleep(pause);
        }
    }
    Ok(0)
}

pub fn allocate(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments, &[], &[])?;
    let size: usize = options.first("MIB")?.parse().map_err(|_| "MIB is not a number")?;
    end_at_sigterm();
    // A byte other than zero in every page, so that the kernel has to give each one.
    let memory = vec![1u8; size << 20];
    println!("holding {} bytes", std::hint::black_box(&memory).len());
    loop {
        std::thread::park();
    }
}

pub fn env(arguments: &[String]) -> Outcome {
    for name in arguments {
        println!("{}", std::env::var(name).map_err(|_| format!("{name} is not set"))?);
    }
    if arguments.is_empty() {
        std::env::vars().for_each(|(name, value)| println!("{name}={value}"));
    }
    Ok(0)
}

pub fn id(_: &[String]) -> Outcome {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let fields = ["Uid:", "Gid:", "Groups:", "CapPrm:", "CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:"];
    status
        .lines()
        .filter(|line| fields.iter().any(|field| line.starts_with(field)))
        .for_each(|line| println!("{line}"));
    println!("Hostname:\t{}", net::hostname());
    println!("Directory:\t{}", std::env::current_dir().map_err(|error| error.to_string())?.display());
    Ok(0)
}

/// Ends the whole process with 143 at SIGTERM, as a process with the default action would outside a container.
/// To be called before any thread is started, for threads inherit what is blocked.
pub fn end_at_sigterm() {
    block_signals();
    std::thread::spawn(|| {
        loop {
            match next_signal() {
                number @ (TERM | 2) => std::process::exit(128 + number),
                _ => continue,
            }
        }
    });
}

fn duration(seconds: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{seconds} is out of range"))
}

// SAFETY: the signatures are those of POSIX, with `SignalSet` in the size of `sigset_t`.
#[allow(unsafe_code)]
unsafe extern "C" {
    fn sigemptyset(set: *mut SignalSet) -> i32;
    fn sigaddset(set: *mut SignalSet, signal: i32) -> i32;
    fn sigprocmask(how: i32, set: *const SignalSet, old: *mut SignalSet) -> i32;
    fn sigwait(set: *const SignalSet, signal: *mut i32) -> i32;
}

#[allow(unsafe_code)]
fn set() -> SignalSet {
    let mut set = [0; 16];
    // SAFETY: `set` is as large as the library's type and lives through the calls.
    unsafe {
        sigemptyset(&raw mut set);
        for (_, number) in SIGNALS {
            sigaddset(&raw mut set, number);
        }
    }
    set
}

#[allow(unsafe_code)]
fn block_signals() {
    // SAFETY: the set is initialised, SIG_BLOCK is 0, and the old mask is not asked for.
    unsafe { sigprocmask(0, &set(), std::ptr::null_mut()) };
}

#[allow(unsafe_code)]
fn next_signal() -> i32 {
    let mut number = 0;
    // SAFETY: the set is initialised and `number` lives through the call.
    unsafe { sigwait(&set(), &raw mut number) };
    number
}
