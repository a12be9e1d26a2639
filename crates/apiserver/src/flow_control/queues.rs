//! The queues of one priority level: who runs, who waits, and whose turn is next. Pure but for the channels it answers by.
//!
//! Behaviour: upstream's fair queuing (KEP-1040). A flow is dealt a hand of the level's queues and waits in the emptiest of
//! them, so one that floods fills its own hand and leaves the others' queues alone. Queues take turns by virtual time: each
//! remembers at what progress `R` its next request would start if all of them shared the seats bit by bit, and the one
//! whose next request would finish first goes first. Time is handed in.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;

use super::demand::Demand;

/// How long a request is thought to take when it is dispatched; corrected when it ends. Upstream's guess.
const EXPECTED: Duration = Duration::from_millis(3);
/// The most cards that a hand may have, as the API's validation says.
const MAX_HAND: usize = 8;

/// How a level's requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queuing {
    /// Not at all: who finds no seat is refused.
    Reject,
    Queues {
        count: usize,
        hand: usize,
        length: usize,
    },
}

/// What became of an arrival.
pub enum Arrival {
    Granted(Ticket),
    /// The moment of the grant comes through the channel.
    Waiting(Ticket, oneshot::Receiver<Duration>),
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    QueueFull,
    ConcurrencyLimit,
    TimeOut,
}

impl Refusal {
    /// The `reason` of upstream's metric.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::QueueFull => "queue-full",
            Refusal::ConcurrencyLimit => "concurrency-limit",
            Refusal::TimeOut => "time-out",
        }
    }
}

/// A request that waits or runs.
#[derive(Debug)]
pub struct Ticket {
    id: u64,
    queue: Option<usize>,
    seats: usize,
    /// When it began to run.
    pub began: Duration,
}

impl Ticket {
    pub fn seats(&self) -> usize {
        self.seats
    }
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// The progress at which the next request of the queue would start.
    next_start: f64,
    executing: usize,
    seats: usize,
    /// Seats times seconds of all that waits.
    work: f64,
}

struct Waiting {
    id: u64,
    seats: usize,
    arrived_at: f64,
    grant: oneshot::Sender<Duration>,
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.executing == 0
    }

    /// A queue does not save up the turns that it had no use for.
    fn bound(&mut self) {
        if let Some(oldest) = self.waiting.front() {
            self.next_start = self.next_start.max(oldest.arrived_at);
        }
    }
}

pub struct QueueSet {
    queuing: Queuing,
    /// How many seats may be taken at the same time.
    limit: usize,
    queues: Vec<Queue>,
    /// Where the last search for the next queue ended.
    robin: usize,
    arrivals: u64,
    /// Virtual time, in seconds of one queue's fair share of seats.
    progress: f64,
    synced: Duration,
    active: usize,
    executing: usize,
    waiting: usize,
    seats_taken: usize,
    seats_wanted: usize,
    pub demand: Demand,
}

impl QueueSet {
    pub fn new(queuing: Queuing, limit: usize, now: Duration) -> Self {
        let mut set = QueueSet {
            queuing,
            limit,
            queues: Vec::new(),
            robin: 0,
            arrivals: 0,
            progress: 0.0,
            synced: now,
            active: 0,
            executing: 0,
            waiting: 0,
            seats_taken: 0,
            seats_wanted: 0,
            demand: Demand::new(now),
        };
        set.configure(queuing, now);
        set
    }

    /// Queues that a smaller number leaves over are drained and not dealt any more.
    pub fn configure(&mut self, queuing: Queuing, now: Duration) {
        self.sync(now);
        self.queuing = queuing;
        if let Queuing::Queues { count, .. } = queuing {
            let needed = self.queues.iter().rposition(|queue| !queue.is_idle()).map_or(0, |last| last + 1);
            self.queues.resize_with(count.max(needed), Queue::default);
        }
        self.dispatch(now);
    }

    pub fn set_limit(&mut self, limit: usize, now: Duration) {
        self.sync(now);
        self.limit = limit;
        self.dispatch(now);
    }

    /// Requests that run and that wait.
    #[cfg(test)]
    pub fn load(&self) -> (usize, usize) {
        (self.executing, self.waiting)
    }

    /// A request that no limit holds back.
    pub fn admit(&mut self, seats: usize, now: Duration) -> Ticket {
        self.sync(now);
        self.arrivals += 1;
        self.start(None, seats, now);
        Ticket { id: self.arrivals, queue: None, seats, began: now }
    }

    /// A request of the flow with this hash wants so many seats.
    pub fn arrive(&mut self, hash: u64, seats: usize, now: Duration) -> Arrival {
        self.sync(now);
        self.arrivals += 1;
        let id = self.arrivals;
        let Queuing::Queues { count, hand, length } = self.queuing else {
            if !self.has_room(seats) {
                return Arrival::Refused(Refusal::ConcurrencyLimit);
            }
            self.start(None, seats, now);
            return Arrival::Granted(Ticket { id, queue: None, seats, began: now });
        };
        let chosen = self.choose(hash, count, hand);
        if self.seats_taken >= self.limit && self.queues[chosen].waiting.len() >= length {
            return Arrival::Refused(Refusal::QueueFull);
        }
        let queue = &mut self.queues[chosen];
        if queue.is_idle() {
            queue.next_start = self.progress;
            self.active += 1;
        }
        let mut ticket = Ticket { id, queue: Some(chosen), seats, began: now };
        if self.waiting == 0 && self.has_room(seats) {
            let queue = &mut self.queues[chosen];
            queue.next_start = queue.next_start.max(self.progress) + work(seats);
            self.start(Some(chosen), seats, now);
            return Arrival::Granted(ticket);
        }
        let (grant, granted) = oneshot::channel();
        let queue = &mut self.queues[chosen];
        queue.waiting.push_back(Waiting { id, seats, arrived_at: self.progress, grant });
        queue.work += work(seats);
        queue.bound();
        self.waiting += 1;
        self.seats_wanted += seats;
        self.note_demand(now);
        self.dispatch(now);
        // The dispatch may have reached this very request; its channel says so.
        ticket.began = now;
        Arrival::Waiting(ticket, granted)
    }

    /// The end of a request that ran.
    pub fn finish(&mut self, ticket: &Ticket, now: Duration) {
        self.sync(now);
        self.executing -= 1;
        self.seats_taken -= ticket.seats;
        if let Some(index) = ticket.queue {
            let queue = &mut self.queues[index];
            queue.executing -= 1;
            queue.seats -= ticket.seats;
            let took = now.saturating_sub(ticket.began).as_secs_f64();
            queue.next_start -= ticket.seats as f64 * (EXPECTED.as_secs_f64() - took);
            queue.bound();
            if queue.is_idle() {
                self.active -= 1;
            }
        }
        self.note_demand(now);
        self.dispatch(now);
    }

    /// Takes a request out of its queue. `false`: it does not wait any more, its grant is under way.
    pub fn withdraw(&mut self, ticket: &Ticket, now: Duration) -> bool {
        self.sync(now);
        let Some(queue) = ticket.queue.map(|index| &mut self.queues[index]) else { return false };
        let Some(place) = queue.waiting.iter().position(|one| one.id == ticket.id) else { return false };
        queue.waiting.remove(place);
        queue.work -= work(ticket.seats);
        queue.bound();
        if queue.is_idle() {
            self.active -= 1;
        }
        self.waiting -= 1;
        self.seats_wanted -= ticket.seats;
        self.note_demand(now);
        true
    }

    /// Virtual time goes on as fast as one queue of all that are active gets seats.
    fn sync(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.synced).as_secs_f64();
        self.synced = now;
        if self.active > 0 {
            let seats = (self.seats_taken + self.seats_wanted).min(self.limit);
            self.progress += passed * seats as f64 / self.active as f64;
        }
    }

    fn choose(&self, hash: u64, count: usize, hand: usize) -> usize {
        let mut cards = [0; MAX_HAND];
        let cards = deal(hash, count, hand, &mut cards);
        let offset = (self.arrivals % cards.len() as u64) as usize;
        let turned = (0..cards.len()).map(|index| cards[(offset + index) % cards.len()]);
        let emptiest = turned.min_by(|a, b| self.queues[*a].work.total_cmp(&self.queues[*b].work));
        emptiest.unwrap_or(0)
    }

    /// A request that wants more seats than there are runs alone.
    fn has_room(&self, seats: usize) -> bool {
        if seats > self.limit { self.executing == 0 } else { self.seats_taken + seats <= self.limit }
    }

    fn start(&mut self, queue: Option<usize>, seats: usize, now: Duration) {
        self.executing += 1;
        self.seats_taken += seats;
        if let Some(index) = queue {
            self.queues[index].executing += 1;
            self.queues[index].seats += seats;
        }
        self.note_demand(now);
    }

    fn dispatch(&mut self, now: Duration) {
        while self.waiting > 0 && self.seats_taken < self.limit && self.dispatch_one(now) {}
    }

    /// Grants the next request its seats; `false` if it has to wait for more of them.
    fn dispatch_one(&mut self, now: Duration) -> bool {
        let count = self.queues.len();
        let mut best: Option<(f64, usize)> = None;
        for step in 1..=count {
            let index = (self.robin + step) % count;
            let queue = &self.queues[index];
            let Some(oldest) = queue.waiting.front() else { continue };
            let finish = queue.next_start + work(oldest.seats);
            if best.is_none_or(|(least, _)| finish < least) {
                best = Some((finish, index));
            }
        }
        let Some((_, index)) = best else { return false };
        let queue = &mut self.queues[index];
        let Some(seats) = queue.waiting.front().map(|one| one.seats) else { return false };
        if !self.has_room(seats) {
            return false;
        }
        self.robin = index;
        let queue = &mut self.queues[index];
        let Some(next) = queue.waiting.pop_front() else { return false };
        queue.work -= work(seats);
        self.waiting -= 1;
        self.seats_wanted -= seats;
        queue.next_start += work(seats);
        self.start(Some(index), seats, now);
        if next.grant.send(now).is_err() {
            // Nobody waits for it any more: its future was dropped between the withdrawal that it tried and now.
            let ticket = Ticket { id: next.id, queue: Some(index), seats, began: now };
            self.finish_unseen(&ticket);
        }
        self.queues[index].bound();
        true
    }

    fn finish_unseen(&mut self, ticket: &Ticket) {
        self.executing -= 1;
        self.seats_taken -= ticket.seats;
        if let Some(index) = ticket.queue {
            let queue = &mut self.queues[index];
            queue.executing -= 1;
            queue.seats -= ticket.seats;
            queue.next_start -= work(ticket.seats);
            if queue.is_idle() {
                self.active -= 1;
            }
        }
    }

    fn note_demand(&mut self, now: Duration) {
        self.demand.set(self.seats_taken + self.seats_wanted, now);
    }
}

fn work(seats: usize) -> f64 {
    seats as f64 * EXPECTED.as_secs_f64()
}

/// A flow's hand: `hand` different cards of a deck, by its hash alone. As upstream's dealer.
fn deal(mut hash: u64, deck: usize, hand: usize, cards: &mut [usize; MAX_HAND]) -> &[usize] {
    let hand = hand.clamp(1, MAX_HAND).min(deck.max(1));
    let mut remainders = [0; MAX_HAND];
    for (index, remainder) in remainders.iter_mut().enumerate().take(hand) {
        let left = (deck.max(1) - index) as u64;
        *remainder = (hash % left) as usize;
        hash /= left;
    }
    for index in 0..hand {
        let mut card = remainders[index];
        for earlier in remainders[..index].iter().rev() {
            if card >= *earlier {
                card += 1;
            }
        }
        cards[index] = card;
    }
    &cards[..hand]
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVEL: Queuing = Queuing::Queues { count: 16, hand: 4, length: 50 };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_hand_has_different_cards_of_the_deck() {
        for hash in (0..5000_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let mut cards = [0; MAX_HAND];
            let mut dealt = deal(hash, 16, 4, &mut cards).to_vec();
            assert!(dealt.iter().all(|card| *card < 16), "{dealt:?}");
            dealt.sort();
            dealt.dedup();
            assert_eq!(dealt.len(), 4);
        }
        let mut cards = [0; MAX_HAND];
        assert_eq!(deal(7, 1, 8, &mut cards), [0]);
        // 1000 = 8 + 16 * (2 + 15 * 4): the first remainder is 8, the second 2, the third 4.
        assert_eq!(deal(1000, 16, 3, &mut cards), [8, 2, 5]);
    }

    /// A thousand requests of one flow arrive first, then one of another: it is the next to run.
    #[test]
    fn a_flood_does_not_hold_up_another_flow() {
        let mut set = QueueSet::new(LEVEL, 2, at(0));
        let mut running = VecDeque::new();
        let (mut waiting, mut refused) = (Vec::new(), 0);
        for _ in 0..1000 {
            match set.arrive(0, 1, at(0)) {
                Arrival::Granted(ticket) => running.push_back(ticket),
                Arrival::Waiting(ticket, granted) => waiting.push((ticket, granted)),
                Arrival::Refused(why) => {
                    assert_eq!(why, Refusal::QueueFull);
                    refused += 1;
                }
            }
        }
        assert_eq!((running.len(), waiting.len(), refused), (2, 200, 798), "a hand of four queues of fifty");
        let Arrival::Waiting(_, mut quiet) = set.arrive(u64::MAX / 3, 1, at(1)) else { panic!("it has to wait") };
        let mut ends = 0;
        for now in (2..).map(at) {
            if quiet.try_recv().is_ok() {
                break;
            }
            let ticket = running.pop_front().expect("somebody runs");
            set.finish(&ticket, now);
            ends += 1;
            let granted = waiting.iter_mut().position(|(_, granted)| granted.try_recv().is_ok());
            running.extend(granted.map(|index| waiting.swap_remove(index).0));
        }
        assert!(ends <= 3, "{ends} requests of the flood ended before the other's turn came");
    }

    /// Of two flows that always have something waiting, each gets half of the turns, whatever their numbers.
    #[test]
    fn flows_share_the_seats() {
        let mut set = QueueSet::new(LEVEL, 1, at(0));
        let mut running = Vec::new();
        let mut waiting: Vec<(&str, Ticket, oneshot::Receiver<Duration>)> = Vec::new();
        for (flow, hash, number) in [("many", 0, 150), ("few", u64::MAX / 3, 40)] {
            for _ in 0..number {
                match set.arrive(hash, 1, at(0)) {
                    Arrival::Granted(ticket) => running.push(ticket),
                    Arrival::Waiting(ticket, granted) => waiting.push((flow, ticket, granted)),
                    Arrival::Refused(why) => panic!("{why:?}"),
                }
            }
        }
        let mut turns = [("many", 0), ("few", 0)];
        for now in 1..=40 {
            set.finish(&running.pop().expect("one runs"), at(now * 5));
            let next = waiting.iter_mut().position(|(_, _, granted)| granted.try_recv().is_ok()).expect("the next");
            let (flow, ticket, _) = waiting.swap_remove(next);
            turns.iter_mut().filter(|(name, _)| *name == flow).for_each(|(_, count)| *count += 1);
            running.push(Ticket { began: at(now * 5), ..ticket });
        }
        // The one with four queues has more turns than the one whose requests fit into as many; neither starves.
        assert!(turns.iter().all(|(_, count)| *count >= 15), "{turns:?}");
    }

    #[test]
    fn seats_are_counted_and_given_back() {
        let mut set = QueueSet::new(Queuing::Reject, 5, at(0));
        let Arrival::Granted(wide) = set.arrive(0, 4, at(0)) else { panic!() };
        assert!(matches!(set.arrive(0, 2, at(0)), Arrival::Refused(Refusal::ConcurrencyLimit)));
        let Arrival::Granted(small) = set.arrive(0, 1, at(0)) else { panic!() };
        set.finish(&wide, at(1));
        set.finish(&small, at(1));
        assert!(matches!(set.arrive(0, 9, at(1)), Arrival::Granted(_)), "wider than the level, alone");
        assert!(matches!(set.arrive(0, 1, at(1)), Arrival::Refused(_)));

        let mut set = QueueSet::new(LEVEL, 1, at(0));
        let Arrival::Granted(first) = set.arrive(0, 1, at(0)) else { panic!() };
        let Arrival::Waiting(second, granted) = set.arrive(1, 1, at(0)) else { panic!() };
        let Arrival::Waiting(third, mut third_granted) = set.arrive(2, 1, at(0)) else { panic!() };
        assert!(set.withdraw(&second, at(1)));
        assert!(!set.withdraw(&second, at(1)), "once");
        drop(granted);
        set.finish(&first, at(2));
        assert_eq!(third_granted.try_recv(), Ok(at(2)));
        set.finish(&third, at(3));
        assert_eq!((set.load(), set.seats_taken, set.active), ((0, 0), 0, 0));

        // Nobody waits for the grant any more: the seat goes on to the next.
        let Arrival::Granted(first) = set.arrive(0, 1, at(4)) else { panic!() };
        let Arrival::Waiting(_, gone) = set.arrive(1, 1, at(4)) else { panic!() };
        let Arrival::Waiting(last, mut granted) = set.arrive(2, 1, at(5)) else { panic!() };
        drop(gone);
        set.finish(&first, at(6));
        assert_eq!(granted.try_recv(), Ok(at(6)));
        set.finish(&last, at(7));
        assert_eq!((set.load(), set.seats_taken, set.seats_wanted, set.active), ((0, 0), 0, 0, 0));
        set.configure(Queuing::Queues { count: 4, hand: 2, length: 1 }, at(8));
        assert_eq!(set.queues.len(), 4);
    }
}
