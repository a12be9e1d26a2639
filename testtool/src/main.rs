//! A test tool for Pods: an HTTP echo server, DNS look-ups, TCP and UDP, signals, exit codes, files. One static program,
//! so that its image holds nothing else. It relies on the standard library alone, and it deliberately never calls
//! libc's resolver, which a static program cannot use: names go through `dns`, by the rules of `/etc/resolv.conf`.
#![allow(clippy::disallowed_methods, reason = "ending the process from anywhere is what is tested")]
use std::process::ExitCode;

mod dns;
mod files;
mod http;
mod net;
mod process;

/// What a command returns: an exit code, or the line that says why it failed (exit code 1).
type Outcome = Result<u8, String>;

struct Command {
    name: &'static str,
    usage: &'static str,
    run: fn(&[String]) -> Outcome,
}

/// All commands; the help is derived from it.
const COMMANDS: &[Command] = &[
    Command {
        name: "serve",
        usage: "[--http PORT] [--tcp PORT] [--udp PORT]  HTTP (8080 by default), TCP and UDP echo",
        run: http::serve,
    },
    Command {
        name: "get",
        usage: "URL [--timeout SECONDS]  prints the body; fails on a status of 400 and above",
        run: http::get,
    },
    Command {
        name: "dns",
        usage: "[A|AAAA|SRV|PTR|CNAME|TXT] NAME [--server IP[:PORT]]  prints one answer a line",
        run: dns::look_up,
    },
    Command {
        name: "tcp",
        usage: "HOST:PORT [--send TEXT] [--timeout SECONDS]  connects; with --send prints the answer",
        run: net::tcp,
    },
    Command {
        name: "udp",
        usage: "HOST:PORT --send TEXT [--timeout SECONDS]  sends one datagram and prints the answer",
        run: net::udp,
    },
    Command {
        name: "signals",
        usage: "[--ignore NAME,…]  prints each signal; ends with 128+N unless it is ignored",
        run: process::signals,
    },
    Command { name: "exit", usage: "CODE [--after SECONDS] [--say TEXT]", run: process::exit },
    Command { name: "sleep", usage: "SECONDS|forever  ends early, with 143, at SIGTERM", run: process::sleep },
    Command { name: "log", usage: "TEXT [--every SECONDS] [--count N]  prints numbered lines", run: process::log },
    Command { name: "allocate", usage: "MIB  touches that much memory and keeps it", run: process::allocate },
    Command { name: "env", usage: "[NAME…]", run: process::env },
    Command { name: "id", usage: "  user, groups, capabilities, hostname, working directory", run: process::id },
    Command { name: "cat", usage: "FILE…", run: files::cat },
    Command { name: "write", usage: "FILE TEXT [--append]", run: files::write },
    Command { name: "ls", usage: "FOLDER…  mode, owner, size and name of each entry", run: files::list },
    Command { name: "all", usage: "COMMAND ARGS -- COMMAND ARGS …  runs commands in turn until one fails", run: all },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Outcome {
    let Some((name, rest)) = arguments.split_first() else { return Err(help()) };
    match COMMANDS.iter().find(|command| command.name == name) {
        Some(command) => (command.run)(rest).map_err(|error| format!("{name}: {error}")),
        None => Err(help()),
    }
}

fn help() -> String {
    let mut text = String::from("usage: testtool COMMAND [ARGUMENTS]\n");
    for command in COMMANDS {
        text += &format!("  {} {}\n", command.name, command.usage);
    }
    text
}

fn all(arguments: &[String]) -> Outcome {
    for command in arguments.split(|argument| argument == "--") {
        match run(command)? {
            0 => {}
            code => return Ok(code),
        }
    }
    Ok(0)
}

/// Splits `--name value` pairs from the other arguments. `flags` are those that take no value.
struct Options {
    positional: Vec<String>,
    named: Vec<(String, String)>,
}

impl Options {
    fn parse(arguments: &[String], allowed: &[&str], flags: &[&str]) -> Result<Self, String> {
        let mut options = Self { positional: Vec::new(), named: Vec::new() };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.strip_prefix("--") {
                Some(name) if flags.contains(&name) => options.named.push((name.into(), String::new())),
                Some(name) if allowed.contains(&name) => {
                    let value = arguments.next().ok_or_else(|| format!("--{name} needs a value"))?;
                    options.named.push((name.into(), value.clone()));
                }
                Some(name) => return Err(format!("unknown option --{name}")),
                None => options.positional.push(argument.clone()),
            }
        }
        Ok(options)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.named.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> Result<Option<f64>, String> {
        self.get(name).map(|text| text.parse().map_err(|_| format!("--{name}: {text} is not a number"))).transpose()
    }

    /// The `--timeout` of a client, five seconds unless given: longer than a cluster's name look-up may take.
    fn timeout(&self) -> Result<std::time::Duration, String> {
        let seconds = self.number("timeout")?.unwrap_or(5.0);
        std::time::Duration::try_from_secs_f64(seconds).map_err(|_| format!("--timeout: {seconds} is out of range"))
    }

    fn first(&self, what: &str) -> Result<&str, String> {
        self.positional.first().map(String::as_str).ok_or_else(|| format!("{what} is missing"))
    }
}
