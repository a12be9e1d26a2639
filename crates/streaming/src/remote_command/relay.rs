//! Joins a client's session with the runtime's: what a node does with exec and attach.

use tokio::io::{AsyncWriteExt, BufReader, copy_buf};
use tokio::sync::mpsc;

use super::client::{ClientSession, Resizer};
use super::{Session, TerminalSize};
use crate::{BoxReader, BoxWriter};

/// How many bytes are moved at once, as many as one piece on the wire holds.
const BUFFER: usize = 32 << 10;

/// Carries everything between the client and the command until the command has ended and all its output is delivered,
/// or until the client is gone. Then both connections end.
pub async fn relay(mut session: Session, mut runtime: ClientSession) {
    let gone = session.disconnected();
    let stdin = copy(session.stdin.take(), runtime.stdin.take());
    let sizes = forward_sizes(session.resize.take(), runtime.resize.take());
    let stdout = copy(runtime.stdout.take(), session.stdout.take());
    let stderr = copy(runtime.stderr.take(), session.stderr.take());
    let work = async {
        let ((), (), outcome) = tokio::join!(stdout, stderr, runtime.outcome());
        outcome
    };
    // A command need not read its input to the end: its end is that of its output and its status.
    let input = async {
        tokio::join!(stdin, sizes);
        std::future::pending::<()>().await;
    };
    let outcome = tokio::select! {
        outcome = work => Some(outcome),
        () = input => None,
        () = gone.cancelled() => None,
    };
    match outcome {
        Some(outcome) => {
            tokio::join!(session.finish(&outcome), runtime.close());
        }
        None => runtime.close().await,
    }
}

async fn copy(from: Option<BoxReader>, to: Option<BoxWriter>) {
    let Some(from) = from else { return };
    let mut from = BufReader::with_capacity(BUFFER, from);
    if let Some(mut to) = to
        && let Ok(_) = copy_buf(&mut from, &mut to).await
    {
        let _ = to.shutdown().await;
        return;
    }
    // Where nobody takes the bytes any more they are drained, for they would hold up the other streams.
    let _ = copy_buf(&mut from, &mut tokio::io::sink()).await;
}

async fn forward_sizes(from: Option<mpsc::Receiver<TerminalSize>>, to: Option<Resizer>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    while let Some(size) = from.recv().await {
        if to.resize(size).await.is_err() {
            return;
        }
    }
    // Kept open: the end of the client's resizing is not the end of its command.
    std::future::pending::<()>().await;
}
