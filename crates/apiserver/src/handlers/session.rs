//! A running watch: initial objects, changes, bookmarks and its end, before they are written in any form.
//!
//! It serves HTTP watches and in-process ones alike. It has no queue: between two calls of [`Session::next`] the history
//! keeps what happens.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use xebec_api::object::Object;
use xebec_api::status::StatusError;

use super::page;
use crate::cache::{Lagged, Seen, Selection, Watcher};
use crate::options::{self, Options};
use crate::registry::{Registry, Served};

/// Watches without a time limit of their own end after this long, stretched by up to as much again at random, so that they
/// do not all come back at once; upstream's `--min-request-timeout`.
const DEFAULT_LIFE: Duration = Duration::from_secs(1800);
/// About how often an idle watch is told how far it is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

pub struct Session {
    registry: Arc<Registry>,
    pub served: Arc<Served>,
    /// Objects that exist already, to be shown as added.
    initial: std::vec::IntoIter<Arc<Object>>,
    /// The revision of the bookmark that closes the initial objects.
    initial_end: Option<u64>,
    watcher: Watcher,
    bookmarks: Option<Timer>,
    deadline: Timer,
    ended: bool,
}

/// What happened next.
pub enum Step {
    /// Existing objects to be shown as added.
    Initial(Vec<Arc<Object>>),
    /// Changes have been appended to the list given.
    Changes,
    Bookmark {
        revision: u64,
        /// Everything that existed when the watch began has been shown.
        initial_end: bool,
    },
    /// The watch's time is over.
    End,
    Failed(StatusError),
}

/// How many initial objects go out at once.
const INITIAL_AT_ONCE: usize = 256;

impl Session {
    pub async fn open(
        registry: &Arc<Registry>,
        served: &Arc<Served>,
        options: &Options,
        selection: Selection,
    ) -> Result<Session, StatusError> {
        let wanted = options::revision(&options.resource_version)
            .map_err(|error| StatusError::new(500, "", error.to_string()))?;
        match wanted {
            None => registry.catch_up().await?,
            Some(0) => {}
            Some(wanted) => page::reach(registry, wanted).await?,
        }
        let synthetic = match options.send_initial_events {
            Some(wanted) => wanted,
            None => wanted.unwrap_or(0) == 0,
        };
        let from_now = synthetic || wanted.unwrap_or(0) == 0;
        let (snapshot, revision) = registry.cache.current(&served.cache);
        let start = if from_now { revision } else { wanted.unwrap_or(revision) };
        let mut initial = Vec::new();
        if synthetic {
            let found = snapshot.scan(&selection.namespace, None);
            let selected = found.filter(|item| selection.matches(item, &*served.strategy));
            initial.extend(selected.map(|item| item.object.clone()));
        }
        let watcher = served.cache.watch(start, selection).map_err(|lagged| expired(lagged, start))?;
        let life = options.timeout_seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let life = life.unwrap_or_else(|| DEFAULT_LIFE.mul_f64(1.0 + rand::rng().random::<f64>()));
        let closing = options.send_initial_events == Some(true) && options.allow_watch_bookmarks;
        Ok(Session {
            bookmarks: options.allow_watch_bookmarks.then(|| timer(registry, BOOKMARK_EVERY)),
            deadline: timer(registry, life),
            registry: registry.clone(),
            served: served.clone(),
            initial: initial.into_iter(),
            initial_end: closing.then_some(revision),
            watcher,
            ended: false,
        })
    }

    pub fn now(&self) -> jiff::Timestamp {
        self.registry.clock.now()
    }

    /// The next thing to tell; changes are appended to `seen`. After `End` or `Failed` there is nothing more.
    pub async fn next(&mut self, seen: &mut Vec<Seen>) -> Option<Step> {
        if self.ended {
            return None;
        }
        if self.initial.len() > 0 {
            return Some(Step::Initial(self.initial.by_ref().take(INITIAL_AT_ONCE).collect()));
        }
        if let Some(revision) = self.initial_end.take() {
            return Some(Step::Bookmark { revision, initial_end: true });
        }
        let bookmarks = async {
            match &mut self.bookmarks {
                Some(timer) => timer.await,
                None => std::future::pending().await,
            }
        };
        let step = tokio::select! {
            biased;
            () = &mut self.deadline => self.end(),
            () = self.registry.shutdown.triggered() => self.end(),
            result = self.watcher.seen(seen) => match result {
                Ok(()) => Step::Changes,
                Err(lagged) => self.fail(lagged),
            },
            () = bookmarks => self.bookmark(seen),
        };
        Some(step)
    }

    fn fail(&mut self, lagged: Lagged) -> Step {
        self.ended = true;
        Step::Failed(expired(lagged, lagged.oldest))
    }

    fn end(&mut self) -> Step {
        self.ended = true;
        Step::End
    }

    fn bookmark(&mut self, seen: &mut Vec<Seen>) -> Step {
        self.bookmarks = Some(timer(&self.registry, BOOKMARK_EVERY));
        // In this order: every change up to the revision read first is in the log by then.
        let revision = self.registry.cache.applied();
        loop {
            match self.watcher.poll_seen(seen) {
                Ok(true) => {}
                Ok(false) if seen.is_empty() => return Step::Bookmark { revision, initial_end: false },
                Ok(false) => return Step::Changes,
                Err(lagged) => return self.fail(lagged),
            }
        }
    }
}

fn timer(registry: &Arc<Registry>, duration: Duration) -> Timer {
    let clock = registry.clock.clone();
    Box::pin(async move { clock.sleep(duration).await })
}

fn expired(lagged: Lagged, requested: u64) -> StatusError {
    StatusError::expired(format!("too old resource version: {requested} ({})", lagged.oldest))
}
