//! How many seats a level could have used over a while: the highest number, the average and the spread. Pure.

use std::time::Duration;

/// How much of the past a level's smoothed demand keeps from one adjustment to the next, as upstream's.
const SMOOTHING: f64 = 0.977;

pub struct Demand {
    since: Duration,
    changed: Duration,
    value: usize,
    highest: usize,
    sum: f64,
    squares: f64,
    smoothed: f64,
}

/// What was seen in one period.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    pub highest: usize,
    pub average: f64,
    pub deviation: f64,
    pub smoothed: f64,
}

impl Demand {
    pub fn new(now: Duration) -> Self {
        Demand { since: now, changed: now, value: 0, highest: 0, sum: 0.0, squares: 0.0, smoothed: 0.0 }
    }

    pub fn set(&mut self, value: usize, now: Duration) {
        self.integrate(now);
        self.value = value;
        self.highest = self.highest.max(value);
    }

    /// What was seen since the last call. The level's current demand begins the next period.
    pub fn take(&mut self, now: Duration) -> Seen {
        self.integrate(now);
        let passed = now.saturating_sub(self.since).as_secs_f64();
        let (mut average, mut deviation) = (0.0, 0.0);
        if passed > 0.0 {
            average = self.sum / passed;
            deviation = (self.squares / passed - average * average).max(0.0).sqrt();
            let envelope = average + deviation;
            self.smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
        }
        let seen = Seen { highest: self.highest, average, deviation, smoothed: self.smoothed };
        (self.since, self.highest, self.sum, self.squares) = (now, self.value, 0.0, 0.0);
        seen
    }

    fn integrate(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.changed).as_secs_f64();
        self.changed = now;
        let value = self.value as f64;
        self.sum += value * passed;
        self.squares += value * value * passed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_told_apart() {
        let at = Duration::from_secs;
        let mut demand = Demand::new(at(0));
        demand.set(10, at(0));
        demand.set(0, at(5));
        let seen = demand.take(at(10));
        assert_eq!((seen.highest, seen.average, seen.deviation, seen.smoothed), (10, 5.0, 5.0, 10.0));
        let seen = demand.take(at(20));
        assert_eq!((seen.highest, seen.average), (0, 0.0));
        assert!((seen.smoothed - 9.77).abs() < 1e-9, "{seen:?}");
        demand.set(3, at(20));
        assert_eq!(demand.take(at(20)).highest, 3, "a period without length");
    }
}
