//! A network namespace of a test's own, removed when the test ends.
//!
//! Used by the tests of several crates (by `#[path]`). Relies on `ip` and `nsenter` and on being root.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Namespace {
    pub name: String,
}

impl Namespace {
    /// A namespace with its loopback up; `None`, with a word on stderr, where the test does not run as root.
    pub fn create(purpose: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n") {
            eprintln!("skipped: this test makes network namespaces and wants to be root");
            return None;
        }
        let name = format!("xt{}-{}-{purpose}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        checked(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Self { name };
        namespace.run("ip link set lo up");
        Some(namespace)
    }

    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Runs a program inside and returns what it printed; panics where it fails.
    #[track_caller]
    pub fn run(&self, command: &str) -> String {
        let output = checked(&mut self.command(command));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `work` on a thread of its own inside; a socket opened there stays inside.
    #[allow(dead_code)]
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let file = std::fs::File::open(self.path()).expect("the namespace exists");
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("root may enter");
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().expect("the work does not panic"))
    }

    fn command(&self, command: &str) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--net={}", self.path())).args(command.split_whitespace());
        nsenter
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

#[track_caller]
fn checked(command: &mut Command) -> Output {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
