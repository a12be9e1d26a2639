//! One priority level: its seats, its bounds, and the way in and out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use k8s_openapi::api::flowcontrol::v1::PriorityLevelConfiguration;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use xebec_base::SharedClock;

use super::demand::Seen;
use super::queues::{Arrival, QueueSet, Queuing, Refusal, Ticket};
use super::retry::RetryAfter;
use super::{LevelSeries, SchemaSeries, WIDEST_PART};

/// What a PriorityLevelConfiguration says, in seats.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub uid: String,
    pub exempt: bool,
    pub queuing: Queuing,
    pub nominal: usize,
    /// What the level keeps whatever others want.
    pub least: usize,
    /// What it may have with all that it may borrow.
    pub most: usize,
    /// What one request may take.
    pub widest: usize,
    pub initial: usize,
}

pub struct Level {
    name: String,
    exempt: bool,
    config: ArcSwap<Config>,
    set: Mutex<QueueSet>,
    /// The same number as the set's, to be read without its lock.
    limit: AtomicUsize,
    retry: Mutex<RetryAfter>,
    series: LevelSeries,
}

/// What a request asks for.
pub struct Entry {
    pub hash: u64,
    pub seats: usize,
}

/// The seats of a running request.
pub struct Seat {
    level: Arc<Level>,
    ticket: Ticket,
    series: Arc<SchemaSeries>,
}

pub fn shares(object: &PriorityLevelConfiguration) -> f64 {
    let spec = &object.spec;
    let limited = spec.limited.as_ref().map(|limited| limited.nominal_concurrency_shares.unwrap_or(30));
    let exempt = spec.exempt.as_ref().and_then(|exempt| exempt.nominal_concurrency_shares);
    f64::from(limited.or(exempt).unwrap_or(0))
}

impl Config {
    /// `None` for an object that contradicts itself.
    pub fn of(object: &PriorityLevelConfiguration, seats: usize, sum_of_shares: f64) -> Option<Self> {
        let spec = &object.spec;
        let part = if sum_of_shares > 0.0 { shares(object) / sum_of_shares } else { 0.0 };
        let nominal = (seats as f64 * part).ceil() as usize;
        let percent = |of: i32| (nominal as f64 * f64::from(of) / 100.0).round() as usize;
        let uid = object.metadata.uid.clone().unwrap_or_default();
        if spec.type_ == "Exempt" {
            let lendable = spec.exempt.as_ref().and_then(|exempt| exempt.lendable_percent).unwrap_or(0);
            let least = nominal - percent(lendable).min(nominal);
            let bounds = (nominal, least, seats + nominal);
            return Some(Config::new(uid, true, Queuing::Reject, bounds));
        }
        let limited = spec.limited.as_ref()?;
        let response = &limited.limit_response;
        let queuing = match (&*response.type_, &response.queuing) {
            ("Queue", Some(queuing)) => Queuing::Queues {
                count: positive(queuing.queues, 64),
                hand: positive(queuing.hand_size, 8),
                length: positive(queuing.queue_length_limit, 50),
            },
            ("Reject", None) => Queuing::Reject,
            _ => return None,
        };
        let least = nominal - percent(limited.lendable_percent.unwrap_or(0)).min(nominal);
        let borrowed = limited.borrowing_limit_percent.map_or(seats, percent);
        Some(Config::new(uid, false, queuing, (nominal, least, nominal + borrowed)))
    }

    fn new(uid: String, exempt: bool, queuing: Queuing, (nominal, least, most): (usize, usize, usize)) -> Self {
        let widest = match queuing {
            Queuing::Queues { hand, .. } => {
                ((nominal as f64 * WIDEST_PART).ceil() as usize).min(nominal / hand.max(1)).max(1)
            }
            Queuing::Reject => usize::MAX,
        };
        // Half of what the level lends is out when it begins.
        let initial = nominal - (nominal - least) / 2;
        Config { uid, exempt, queuing, nominal, least, most, widest, initial }
    }
}

fn positive(field: Option<i32>, default: usize) -> usize {
    field.and_then(|number| usize::try_from(number).ok()).filter(|number| *number > 0).unwrap_or(default)
}

impl Level {
    pub fn new(name: &str, config: &Config, series: LevelSeries, now: Duration) -> Self {
        Level {
            name: name.to_owned(),
            exempt: config.exempt,
            set: Mutex::new(QueueSet::new(config.queuing, config.initial, now)),
            limit: AtomicUsize::new(config.initial),
            config: ArcSwap::from_pointee(config.clone()),
            retry: Mutex::default(),
            series,
        }
    }

    pub fn configure(&self, config: &Config, now: Duration) {
        self.series.configure(config.nominal, config.least, config.most);
        self.config.store(Arc::new(config.clone()));
        self.set.lock().configure(config.queuing, now);
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn uid(&self) -> String {
        self.config.load().uid.clone()
    }

    pub fn is_exempt(&self) -> bool {
        self.exempt
    }

    pub fn nominal(&self) -> usize {
        self.config.load().nominal
    }

    pub fn least(&self) -> usize {
        self.config.load().least
    }

    pub fn most(&self) -> usize {
        self.config.load().most
    }

    pub fn widest(&self) -> usize {
        self.config.load().widest
    }

    /// Requests that run and that wait.
    #[cfg(test)]
    pub fn load(&self) -> (usize, usize) {
        self.set.lock().load()
    }

    pub fn series(&self) -> &LevelSeries {
        &self.series
    }

    /// What the level must have, given the most that it has wanted of late.
    pub fn lower_bound(&self, wanted: usize) -> usize {
        let config = self.config.load();
        if self.exempt { config.least.max(wanted) } else { config.least.max(wanted.min(config.nominal)) }
    }

    pub fn take_demand(&self, now: Duration) -> Seen {
        self.set.lock().demand.take(now)
    }

    pub fn set_limit(&self, seats: usize, now: Duration) {
        self.series.limit.set(seats as i64);
        // An exempt level limits nobody; its number only says what it leaves to others.
        if self.limit.swap(seats, Ordering::Relaxed) != seats && !self.exempt {
            self.set.lock().set_limit(seats, now);
        }
    }

    /// Counts a refusal; after so many seconds the client is to come back.
    pub fn retry_after(&self, now: i64) -> i64 {
        self.retry.lock().refuse(now)
    }

    /// Takes seats, and waits for them if it has to.
    pub async fn enter(
        self: &Arc<Self>,
        entry: Entry,
        series: &Arc<SchemaSeries>,
        clock: &SharedClock,
        longest: Duration,
    ) -> Result<Seat, Refusal> {
        let now = clock.elapsed();
        let arrival = {
            let mut set = self.set.lock();
            if self.exempt {
                Arrival::Granted(set.admit(entry.seats, now))
            } else {
                set.arrive(entry.hash, entry.seats, now)
            }
        };
        let (ticket, granted) = match arrival {
            Arrival::Granted(ticket) => {
                series.waited(Duration::ZERO, true);
                return Ok(self.seat(ticket, series));
            }
            Arrival::Refused(why) => return Err(why),
            Arrival::Waiting(ticket, granted) => (ticket, granted),
        };
        series.waiting.inc();
        let mut waiting = WaitingRequest { level: self, ticket: Some(ticket), granted, series, clock, since: now };
        tokio::select! {
            biased;
            began = &mut waiting.granted => Ok(waiting.take(began.unwrap_or(now))),
            () = clock.sleep(longest) => waiting.give_up(),
        }
    }

    fn seat(self: &Arc<Self>, ticket: Ticket, series: &Arc<SchemaSeries>) -> Seat {
        series.executing.inc();
        series.seats_taken.inc_by(ticket.seats() as i64);
        series.dispatched.inc();
        Seat { level: self.clone(), ticket, series: series.clone() }
    }
}

impl Seat {
    pub fn leave(self, now: Duration) {
        self.series.executing.dec();
        self.series.seats_taken.dec_by(self.ticket.seats() as i64);
        self.series.executed.observe(now.saturating_sub(self.ticket.began).as_secs_f64());
        self.level.set.lock().finish(&self.ticket, now);
    }
}

/// A request in a queue; if nobody waits for it any more, it leaves.
struct WaitingRequest<'a> {
    level: &'a Arc<Level>,
    /// `None` once it runs or is gone.
    ticket: Option<Ticket>,
    granted: oneshot::Receiver<Duration>,
    series: &'a Arc<SchemaSeries>,
    clock: &'a SharedClock,
    since: Duration,
}

impl WaitingRequest<'_> {
    fn take(&mut self, began: Duration) -> Seat {
        let mut ticket = self.ticket.take().expect("a request is granted once");
        ticket.began = began;
        self.series.waited(began.saturating_sub(self.since), true);
        self.level.seat(ticket, self.series)
    }

    /// Its time is over, unless the grant came at this very moment.
    fn give_up(&mut self) -> Result<Seat, Refusal> {
        let now = self.clock.elapsed();
        let mut set = self.level.set.lock();
        if let Ok(began) = self.granted.try_recv() {
            drop(set);
            return Ok(self.take(began));
        }
        if let Some(ticket) = self.ticket.take() {
            set.withdraw(&ticket, now);
        }
        drop(set);
        self.series.waited(now.saturating_sub(self.since), false);
        Err(Refusal::TimeOut)
    }
}

impl Drop for WaitingRequest<'_> {
    fn drop(&mut self) {
        self.series.waiting.dec();
        let Some(ticket) = self.ticket.take() else { return };
        let now = self.clock.elapsed();
        let mut set = self.level.set.lock();
        if !set.withdraw(&ticket, now) && self.granted.try_recv().is_ok() {
            set.finish(&ticket, now);
        }
    }
}
