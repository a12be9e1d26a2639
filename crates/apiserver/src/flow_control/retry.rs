//! When a refused client is to come back: one second, doubled as long as many are refused. Behaviour: upstream's tracker of
//! dropped requests. Pure.

use std::collections::VecDeque;

/// No client is sent away for longer, in seconds.
const LONGEST: i64 = 32;

pub struct RetryAfter {
    /// Refusals by second, finished seconds only.
    history: VecDeque<(i64, i64)>,
    current: (i64, i64),
    seconds: i64,
    changed: i64,
}

impl Default for RetryAfter {
    fn default() -> Self {
        RetryAfter { history: VecDeque::new(), current: (0, 0), seconds: 1, changed: 0 }
    }
}

impl RetryAfter {
    /// Counts a refusal and tells how many seconds the client is to wait.
    pub fn refuse(&mut self, now: i64) -> i64 {
        if self.current.0 == now {
            self.current.1 += 1;
            return self.seconds;
        }
        self.history.push_back(self.current);
        self.current = (now, 1);
        let kept = (2 * self.seconds).min(LONGEST);
        while self.history.front().is_some_and(|(second, _)| now - second > kept) {
            self.history.pop_front();
        }
        let recent = self.history.iter().filter(|(second, _)| now - second <= self.seconds);
        let refused: i64 = recent.map(|(_, count)| count).sum();
        if now - self.changed >= self.seconds && refused >= 3 * self.seconds {
            self.seconds = (2 * self.seconds).min(LONGEST);
            self.changed = now;
        } else if refused < self.seconds && self.seconds > 1 {
            self.seconds -= 1;
        }
        self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_refusals_send_clients_away_for_longer() {
        let mut retry = RetryAfter::default();
        let mut told = Vec::new();
        for second in 100..110 {
            told.extend((0..20).map(|_| retry.refuse(second)).last());
        }
        assert_eq!(told[..4], [1, 2, 2, 4], "{told:?}");
        assert!(told.iter().all(|seconds| *seconds <= LONGEST));
        let calm: Vec<i64> = (0..12).map(|step| retry.refuse(200 + 40 * step)).collect();
        assert_eq!(calm.last(), Some(&1), "{calm:?}");
    }
}
