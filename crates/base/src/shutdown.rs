//! Orderly shutdown: one signal that every task can await, and a way to wait for the tasks that have something to finish.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Cloned into every long-lived task. `trigger` asks all to end; `drain` waits until those spawned through it have ended.
#[derive(Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn trigger(&self) {
        self.token.cancel();
    }

    pub fn is_triggered(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Returns when shutdown has been asked for.
    pub async fn triggered(&self) {
        self.token.cancelled().await
    }

    /// A part that can be ended by itself, and ends with the whole.
    pub fn child(&self) -> Shutdown {
        Shutdown { token: self.token.child_token(), tasks: self.tasks.clone() }
    }

    /// Runs `task` until it ends or shutdown is asked for; then it is dropped at its next await point.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
        let token = self.token.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = task => {}
            }
        })
    }

    /// Runs `task` to its own end: it watches `triggered` itself and has something to finish.
    pub fn spawn_draining(&self, task: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
        self.tasks.spawn(task)
    }

    /// Waits until every task spawned through this signal has ended.
    pub async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await
    }
}
