//! `exec`: a command in a container, with its streams and its exit code.
//!
//! The streams go over a WebSocket with version 5 of the protocol, the first in which the end of standard input can be said
//! (KEP-4006), so a server or node from before 1.30 is refused with its own answer.

use std::io::{self, IsTerminal, Read, Write};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use form_urlencoded::Serializer;
use http::{Method, Request, header};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use xebec_streaming::remote_command::client::{ClientSession, Resizer, over_websocket};
use xebec_streaming::remote_command::{self, Outcome, TerminalSize};
use xebec_streaming::{BoxReader, BoxWriter, upgrade};

use crate::failure::Exit;
use crate::pods;
use crate::session::Session;

/// How much is read at once, as much as one piece on the wire holds.
const BUFFER: usize = 32 << 10;
/// Pieces of standard input that wait for the connection.
const INPUT_QUEUE: usize = 4;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A Pod, or type/name of what owns Pods: rc/a, deployment/b
    target: String,
    /// The container, where the Pod has several
    #[arg(long, short)]
    container: Option<String>,
    /// Give the command our standard input
    #[arg(long, short = 'i')]
    stdin: bool,
    /// Give the command a terminal; needs --stdin and a terminal here
    #[arg(long, short)]
    tty: bool,
    /// Print nothing but what the command prints
    #[arg(long, short)]
    quiet: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub async fn run(session: &Session, options: Options) -> anyhow::Result<i32> {
    let pod = pods::of_word(session, &options.target).await?;
    let phase = xebec_api::pod::phase(&pod);
    if xebec_api::pod::is_terminal(&pod) {
        bail!("cannot exec into a container in a completed pod; current phase is {phase}");
    }
    let container = pods::container(&pod, options.container.as_deref(), options.quiet)?;
    let terminal = io::stdin().is_terminal();
    if options.tty && options.stdin && !terminal && !options.quiet {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    let tty = options.tty && options.stdin && terminal;
    let streams = remote_command::Options { stdin: options.stdin, stdout: true, stderr: !tty, tty };
    let (namespace, name) = (&session.namespace, pod.metadata.name.as_deref().unwrap_or(""));
    let query = query(&container, &options.command, streams);
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/exec?{query}");
    let connected = connect(session, &path, streams).await?;
    // From here on the terminal is raw; dropping this sets it right again, however we leave.
    let raw = if tty { Some(RawTerminal::enter()?) } else { None };
    let outcome = converse(connected, tty).await;
    drop(raw);
    match outcome? {
        Outcome::Success => Ok(0),
        Outcome::Exit(code) => Err(Exit { code, message: format!("command terminated with exit code {code}") }.into()),
        Outcome::Failed { message, .. } => bail!(message),
    }
}

fn query(container: &str, command: &[String], streams: remote_command::Options) -> String {
    let mut query = Serializer::new(String::new());
    query.extend_pairs(command.iter().map(|word| ("command", word)));
    query.append_pair("container", container);
    let flags =
        [("stdin", streams.stdin), ("stdout", streams.stdout), ("stderr", streams.stderr), ("tty", streams.tty)];
    for (name, _) in flags.iter().filter(|(_, asked)| *asked) {
        query.append_pair(name, "true");
    }
    query.finish()
}

async fn connect(session: &Session, path: &str, streams: remote_command::Options) -> anyhow::Result<ClientSession> {
    let mut request = Request::builder().method(Method::GET).uri(path).body(Bytes::new())?;
    request.headers_mut().extend(upgrade::websocket_request_headers(&[remote_command::V5]));
    let (head, io) = session.client.upgrade(request).await?;
    let protocol = head.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
    if protocol.is_none_or(|protocol| protocol != remote_command::V5) {
        bail!("the server does not speak {}", remote_command::V5);
    }
    Ok(over_websocket(io, streams).await)
}

/// Carries everything between us and the command until it has ended and all its output is here.
async fn converse(mut command: ClientSession, tty: bool) -> anyhow::Result<Outcome> {
    let input = send_input(command.stdin.take());
    let sizes = send_sizes(command.resize.take());
    let stdout = copy(command.stdout.take(), io::stdout());
    let stderr = copy(command.stderr.take(), io::stderr());
    let work = async { tokio::join!(stdout, stderr, command.outcome()) };
    // A command need not read its input to the end, so neither of these ends the conversation.
    let beside = async {
        tokio::join!(input, sizes);
        std::future::pending::<()>().await;
    };
    let (stdout, stderr, outcome) = tokio::select! {
        done = work => done,
        () = beside => bail!("the input ended the conversation"),
        code = killed(), if tty => return Err(Exit { code, message: String::new() }.into()),
    };
    stdout.and(stderr).context("cannot write what the command printed")?;
    command.close().await;
    Ok(outcome)
}

async fn copy(from: Option<BoxReader>, mut to: impl Write) -> io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            read => to.write_all(&buffer[..read]).and_then(|()| to.flush())?,
        }
    }
}

async fn send_input(to: Option<BoxWriter>) {
    let Some(mut to) = to else { return };
    let mut pieces = standard_input();
    while let Some(piece) = pieces.recv().await {
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Standard input as it comes. It has a thread of its own, because a read that waits for a key cannot be given up: the process
/// ends over it.
fn standard_input() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(INPUT_QUEUE);
    std::thread::spawn(move || {
        let mut buffer = vec![0; BUFFER];
        while let Ok(read @ 1..) = io::stdin().lock().read(&mut buffer) {
            if sender.blocking_send(Bytes::copy_from_slice(&buffer[..read])).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Sends the size of our terminal now and whenever it changes.
async fn send_sizes(to: Option<Resizer>) {
    let Some(mut to) = to else { return };
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Ok(size) = tcgetwinsize(io::stdout())
            && to.resize(TerminalSize { width: size.ws_col, height: size.ws_row }).await.is_err()
        {
            return;
        }
        changes.recv().await;
    }
}

/// Waits for a signal that would end us with the terminal still raw; the exit code is the shell's for it.
async fn killed() -> i32 {
    async fn wait(signal: io::Result<Signal>) {
        match signal {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    }
    let (interrupt, terminate, hangup) = (SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup());
    let kind = tokio::select! {
        () = wait(signal(interrupt)) => interrupt,
        () = wait(signal(terminate)) => terminate,
        () = wait(signal(hangup)) => hangup,
    };
    128 + kind.as_raw_value()
}

/// The terminal handing on each key as it is pressed.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> anyhow::Result<Self> {
        let before = tcgetattr(io::stdin()).context("cannot read the state of the terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).context("cannot set the terminal to raw mode")?;
        Ok(RawTerminal { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing is left to do about a terminal that is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_and_its_streams_stand_in_the_query() {
        let command = ["sh", "-c", "a b"].map(str::to_owned);
        let streams = remote_command::Options { stdin: true, stdout: true, stderr: false, tty: true };
        assert_eq!(
            query("c", &command, streams),
            "command=sh&command=-c&command=a+b&container=c&stdin=true&stdout=true&tty=true"
        );
    }
}
