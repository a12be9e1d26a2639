//! Probes: when they run, what a row of results means, and what the rest of the agent learns of it.
//!
//! Each running container with probes has one task: the startup probe first, then liveness and readiness side by side. The task
//! belongs to one instance of the container and ends with it. A verdict that changes wakes the Pod's worker. Source: "Configure
//! Liveness, Readiness and Startup Probes" in the Kubernetes documentation.

pub mod action;
mod grpc;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Probe};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use xebec_base::SharedClock;

use action::Outcome;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }

    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Kind::Startup => container.startup_probe.as_ref(),
            Kind::Liveness => container.liveness_probe.as_ref(),
            Kind::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What the probes have decided, by the runtime's container id.
#[derive(Debug, Default)]
pub struct Verdicts {
    found: Mutex<HashMap<(String, Kind), bool>>,
}

impl Verdicts {
    pub fn verdict(&self, id: &str, kind: Kind) -> Option<bool> {
        self.found.lock().get(&(id.to_owned(), kind)).copied()
    }

    /// Returns whether that is news.
    pub fn set(&self, id: &str, kind: Kind, verdict: bool) -> bool {
        self.found.lock().insert((id.to_owned(), kind), verdict) != Some(verdict)
    }

    fn forget(&self, id: &str) {
        self.found.lock().retain(|(known, _), _| known != id);
    }
}

/// Counts results in a row against a probe's thresholds.
#[derive(Clone, Debug)]
pub struct Tally {
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    run: u32,
}

impl Tally {
    pub fn of(probe: &Probe) -> Tally {
        let at_least_one = |value: Option<i32>, otherwise: u32| {
            value.and_then(|it| u32::try_from(it).ok()).unwrap_or(otherwise).max(1)
        };
        Tally {
            success_threshold: at_least_one(probe.success_threshold, 1),
            failure_threshold: at_least_one(probe.failure_threshold, 3),
            last: None,
            run: 0,
        }
    }

    /// The verdict, once enough results in a row agree.
    pub fn count(&mut self, success: bool) -> Option<bool> {
        if self.last == Some(success) {
            self.run += 1;
        } else {
            (self.last, self.run) = (Some(success), 1);
        }
        let enough = if success { self.success_threshold } else { self.failure_threshold };
        (self.run >= enough).then_some(success)
    }
}

/// Runs one probe once, and says what came of it in an event. Made by the worker for one container.
pub trait Prober: Send + Sync + 'static {
    fn probe(&self, kind: Kind) -> impl Future<Output = Outcome> + Send;
}

/// What a probing task needs to know of its container.
pub struct Target {
    pub id: String,
    pub container: Container,
    pub started_at: Timestamp,
    /// The container was ready before this agent started: it stays so until a probe says otherwise.
    pub was_ready: bool,
    pub was_started: bool,
}

/// The probing tasks of one Pod.
pub struct Probes {
    verdicts: Arc<Verdicts>,
    clock: SharedClock,
    changed: Arc<dyn Fn() + Send + Sync>,
    /// Set when the Pod is being stopped: a container that dies then is no failure.
    ending: Arc<AtomicBool>,
    tasks: HashMap<String, JoinHandle<()>>,
}

impl Probes {
    pub fn new(clock: SharedClock, changed: Arc<dyn Fn() + Send + Sync>) -> Probes {
        Probes { verdicts: Arc::default(), clock, changed, ending: Arc::default(), tasks: HashMap::new() }
    }

    pub fn verdicts(&self) -> &Arc<Verdicts> {
        &self.verdicts
    }

    pub fn is_followed(&self, id: &str) -> bool {
        self.tasks.contains_key(id)
    }

    /// Begins to probe a running container.
    pub fn follow<P: Prober>(&mut self, target: Target, prober: P) {
        let kinds = [Kind::Startup, Kind::Liveness, Kind::Readiness];
        if !kinds.iter().any(|kind| kind.of(&target.container).is_some()) {
            return;
        }
        if target.was_ready {
            self.verdicts.set(&target.id, Kind::Readiness, true);
        }
        if target.was_started {
            self.verdicts.set(&target.id, Kind::Startup, true);
        }
        let id = target.id.clone();
        let task = Task {
            target,
            prober,
            verdicts: self.verdicts.clone(),
            clock: self.clock.clone(),
            changed: self.changed.clone(),
            ending: self.ending.clone(),
        };
        self.tasks.insert(id, tokio::spawn(task.run()));
    }

    /// Ends the tasks of containers that do not run any more.
    pub fn retain(&mut self, running: impl Fn(&str) -> bool) {
        let verdicts = &self.verdicts;
        self.tasks.retain(|id, task| {
            let keep = running(id);
            if !keep {
                task.abort();
                verdicts.forget(id);
            }
            keep
        });
    }

    /// From now on only readiness is asked for, so that traffic ends when the container stops serving.
    pub fn pod_is_ending(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

struct Task<P> {
    target: Target,
    prober: P,
    verdicts: Arc<Verdicts>,
    clock: SharedClock,
    changed: Arc<dyn Fn() + Send + Sync>,
    ending: Arc<AtomicBool>,
}

impl<P: Prober> Task<P> {
    async fn run(self) {
        if !self.target.was_started && self.target.container.startup_probe.is_some() {
            self.repeat(Kind::Startup).await;
            if self.verdicts.verdict(&self.target.id, Kind::Startup) != Some(true) {
                return;
            }
        }
        tokio::join!(self.repeat(Kind::Liveness), self.repeat(Kind::Readiness));
    }

    /// Until the probe has decided for good: a startup probe at its first verdict, a liveness probe when it has failed.
    async fn repeat(&self, kind: Kind) {
        let Some(probe) = kind.of(&self.target.container) else { return };
        let seconds = |value: Option<i32>, otherwise: u64| {
            Duration::from_secs(value.and_then(|it| u64::try_from(it).ok()).unwrap_or(otherwise))
        };
        let first = self.target.started_at + seconds(probe.initial_delay_seconds, 0);
        if let Ok(delay) = Duration::try_from(first.duration_since(self.clock.now())) {
            self.clock.sleep(delay).await;
        }
        let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
        let mut tally = Tally::of(probe);
        loop {
            let began = self.clock.elapsed();
            if kind != Kind::Readiness && self.ending.load(Ordering::Relaxed) {
                return;
            }
            let verdict = match self.prober.probe(kind).await {
                Outcome::Success => tally.count(true),
                Outcome::Failure => tally.count(false),
                Outcome::Unknown => None,
            };
            if let Some(verdict) = verdict {
                if self.verdicts.set(&self.target.id, kind, verdict) {
                    (self.changed)();
                }
                if kind == Kind::Startup || (kind == Kind::Liveness && !verdict) {
                    return;
                }
            }
            self.clock.sleep(period.saturating_sub(self.clock.elapsed().saturating_sub(began))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::sync::mpsc;
    use xebec_base::SimulatedClock;

    use super::*;

    fn check_tally(probe: serde_json::Value, results: &[(bool, Option<bool>)]) {
        let mut tally = Tally::of(&serde_json::from_value(probe.clone()).unwrap());
        for (index, (result, verdict)) in results.iter().enumerate() {
            assert_eq!(tally.count(*result), *verdict, "{probe} result {index}");
        }
    }

    #[test]
    fn results_in_a_row_decide() {
        let (yes, no) = (Some(true), Some(false));
        check_tally(json!({}), &[(true, yes), (false, None), (false, None), (false, no), (false, no), (true, yes)]);
        check_tally(
            json!({"successThreshold": 2, "failureThreshold": 1}),
            &[(true, None), (false, no), (true, None), (true, yes)],
        );
    }

    /// Answers from a list, and tells each question.
    struct Scripted {
        answers: Mutex<Vec<(Kind, Outcome)>>,
        asked: mpsc::UnboundedSender<Kind>,
    }

    impl Prober for Scripted {
        async fn probe(&self, kind: Kind) -> Outcome {
            let mut answers = self.answers.lock();
            let place = answers.iter().position(|(of, _)| *of == kind);
            let outcome = place.map_or(Outcome::Unknown, |place| answers.remove(place).1);
            let _ = self.asked.send(kind);
            outcome
        }
    }

    #[tokio::test]
    async fn readiness_waits_for_startup() {
        let clock = SimulatedClock::starting_at(Timestamp::UNIX_EPOCH);
        let (asked, mut questions) = mpsc::unbounded_channel();
        let container = json!({
            "name": "c", "startupProbe": {"periodSeconds": 1, "failureThreshold": 5}, "readinessProbe": {"periodSeconds": 1},
        });
        let target = Target {
            id: "id".into(),
            container: serde_json::from_value(container).unwrap(),
            started_at: Timestamp::UNIX_EPOCH,
            was_ready: false,
            was_started: false,
        };
        let answers = vec![
            (Kind::Startup, Outcome::Failure),
            (Kind::Startup, Outcome::Success),
            (Kind::Readiness, Outcome::Success),
        ];
        let mut probes = Probes::new(clock.clone(), Arc::new(|| {}));
        probes.follow(target, Scripted { answers: Mutex::new(answers), asked });
        assert_eq!(questions.recv().await, Some(Kind::Startup));
        tokio::task::yield_now().await;
        assert_eq!(probes.verdicts().verdict("id", Kind::Startup), None);
        clock.advance(Duration::from_secs(1));
        assert_eq!(questions.recv().await, Some(Kind::Startup));
        assert_eq!(questions.recv().await, Some(Kind::Readiness));
        tokio::task::yield_now().await;
        assert_eq!(probes.verdicts().verdict("id", Kind::Readiness), Some(true));
        probes.retain(|_| false);
        assert_eq!(probes.verdicts().verdict("id", Kind::Readiness), None);
    }
}
