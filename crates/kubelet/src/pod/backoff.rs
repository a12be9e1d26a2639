//! How long a failing container (or image) waits before the next try: 10 s, doubled each time up to 300 s, forgotten after
//! twice the limit without a failure. Pure: the time is an argument.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

pub const INITIAL: Duration = Duration::from_secs(10);
pub const LIMIT: Duration = Duration::from_secs(300);

/// Delays by what fails.
#[derive(Clone, Debug, Default)]
pub struct Backoffs {
    entries: HashMap<String, Entry>,
    failures: HashMap<String, u32>,
}

#[derive(Clone, Debug)]
struct Entry {
    delay: Duration,
    updated: Timestamp,
}

impl Backoffs {
    /// The delay that stands and its end, if a failure at `failed` is still to be waited out.
    pub fn waiting(&self, key: &str, failed: Timestamp, now: Timestamp) -> Option<(Duration, Timestamp)> {
        let entry = self.entries.get(key).filter(|entry| !expired(entry, failed))?;
        let until = failed + entry.delay;
        (now < until).then_some((entry.delay, until))
    }

    /// A try begins: should it fail, the wait is this long.
    pub fn advance(&mut self, key: &str, failed: Timestamp, now: Timestamp) {
        match self.entries.get_mut(key).filter(|entry| !expired(entry, failed)) {
            Some(entry) => {
                entry.delay = (entry.delay * 2).min(LIMIT);
                entry.updated = now;
            }
            None => {
                self.entries.insert(key.to_owned(), Entry { delay: INITIAL, updated: now });
            }
        }
    }

    /// Counts a failure of something with delays of its own; returns how many there were before it.
    pub fn count(&mut self, key: &str) -> u32 {
        let failures = self.failures.entry(key.to_owned()).or_default();
        *failures += 1;
        *failures - 1
    }

    pub fn forget(&mut self, key: &str) {
        self.entries.remove(key);
        self.failures.remove(key);
    }
}

fn expired(entry: &Entry, failed: Timestamp) -> bool {
    failed.duration_since(entry.updated) > (LIMIT * 2).try_into().unwrap_or_default()
}

/// A delay as Go prints it in messages: `10s`, `2m40s`.
pub fn go_seconds(delay: Duration) -> String {
    let seconds = delay.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn delays_double_and_are_forgotten() {
        let mut backoffs = Backoffs::default();
        assert_eq!(backoffs.waiting("c", at(0), at(0)), None, "the first failure is retried at once");
        backoffs.advance("c", at(0), at(0));
        assert_eq!(backoffs.waiting("c", at(1), at(1)), Some((INITIAL, at(11))));
        assert_eq!(backoffs.waiting("c", at(1), at(11)), None);
        backoffs.advance("c", at(1), at(11));
        assert_eq!(backoffs.waiting("c", at(12), at(12)), Some((INITIAL * 2, at(32))));
        for _ in 0..6 {
            backoffs.advance("c", at(12), at(32));
        }
        assert_eq!(backoffs.waiting("c", at(33), at(33)), Some((LIMIT, at(333))));
        assert_eq!(backoffs.waiting("c", at(700), at(700)), None, "it ran long enough");
        backoffs.advance("c", at(700), at(700));
        assert_eq!(backoffs.waiting("c", at(701), at(701)), Some((INITIAL, at(711))));
    }

    #[test]
    fn go_durations() {
        assert_eq!([10, 60, 160, 300].map(|s| go_seconds(Duration::from_secs(s))), ["10s", "1m0s", "2m40s", "5m0s"]);
    }
}
