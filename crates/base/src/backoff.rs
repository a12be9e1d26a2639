//! Retry delays that grow, with jitter, up to a limit. Pure but for the random source.

use std::time::Duration;

/// Exponential growth from `initial` by `factor` up to `limit`; each delay is stretched by up to `jitter` of itself.
#[derive(Clone, Debug)]
pub struct Backoff {
    pub initial: Duration,
    pub factor: f64,
    pub limit: Duration,
    /// 0.0 for none, 1.0 for up to twice the delay.
    pub jitter: f64,
    failures: u32,
}

impl Backoff {
    pub const fn new(initial: Duration, limit: Duration) -> Self {
        Backoff { initial, factor: 2.0, limit, jitter: 0.0, failures: 0 }
    }

    pub const fn with_jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    /// The delay before the next try; each call counts as one more failure.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.delay_after(self.failures);
        self.failures = self.failures.saturating_add(1);
        if self.jitter == 0.0 { delay } else { delay.mul_f64(1.0 + rand::random::<f64>() * self.jitter) }
    }

    /// The delay after that many failures, without jitter.
    pub fn delay_after(&self, failures: u32) -> Duration {
        let grown = self.initial.as_secs_f64() * self.factor.powi(failures.min(64) as i32);
        Duration::from_secs_f64(grown.min(self.limit.as_secs_f64()))
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit() {
        let mut backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        let seconds: Vec<u64> = (0..7).map(|_| backoff.next_delay().as_secs()).collect();
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300]);
        backoff.reset();
        assert_eq!(backoff.next_delay().as_secs(), 10);
    }
}
