//! Work inside a network namespace.
//!
//! A thread that changes its network namespace must serve nothing else afterwards, so each piece of work gets a thread
//! of its own, which then ends. A netlink socket belongs for ever to the namespace it was opened in: opening it is all
//! that has to happen on that thread.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

use crate::{Error, Result};

/// Runs `work` in the namespace mounted at `path`, or in the process's own.
pub async fn inside<T: Send + 'static>(
    path: Option<&Path>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let owned: Option<PathBuf> = path.map(Path::to_owned);
    let failed = |source| Error::Namespace { path: path.map_or_else(String::new, |p| p.display().to_string()), source };
    let runtime = tokio::runtime::Handle::current();
    let (sender, receiver) = oneshot::channel();
    let body = move || {
        let _runtime = runtime.enter();
        let result = owned.map_or(Ok(()), |path| enter(&path)).and_then(|()| work());
        // Nobody waits any more where the caller was dropped.
        let _ = sender.send(result);
    };
    std::thread::Builder::new().name("netns".into()).spawn(body).map_err(failed)?;
    let ended = || io::Error::other("the thread ended without an answer");
    receiver.await.map_err(|_| failed(ended()))?.map_err(failed)
}

fn enter(path: &Path) -> io::Result<()> {
    setns(File::open(path)?, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}
