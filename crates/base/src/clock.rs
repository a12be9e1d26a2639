//! The time seam: wall-clock time, monotonic time and sleeping behind one trait.
//!
//! Relies on tokio for real sleeping. It does not know time zones: everything is a UTC instant.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A clock that a component is handed; never `Timestamp::now()` in a component.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The wall-clock time, as it goes into objects.
    fn now(&self) -> Timestamp;
    /// Time since the clock was made; it never goes backwards, whatever the wall clock does.
    fn elapsed(&self) -> Duration;
    /// Returns once `duration` has passed on this clock.
    async fn sleep(&self, duration: Duration);
}

pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
pub struct SystemClock {
    origin: std::time::Instant,
}

impl SystemClock {
    pub fn shared() -> SharedClock {
        Arc::new(SystemClock { origin: std::time::Instant::now() })
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await
    }
}

/// A clock that stands still until a test advances it.
pub struct SimulatedClock {
    state: Mutex<(Timestamp, Duration)>,
    advanced: Notify,
}

impl SimulatedClock {
    pub fn starting_at(now: Timestamp) -> Arc<Self> {
        Arc::new(SimulatedClock { state: Mutex::new((now, Duration::ZERO)), advanced: Notify::new() })
    }

    /// Moves the clock on and wakes every sleeper whose time has come.
    pub fn advance(&self, by: Duration) {
        {
            let mut state = self.state.lock();
            state.0 += by;
            state.1 += by;
        }
        self.advanced.notify_waiters();
    }
}

#[async_trait]
impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        self.state.lock().0
    }

    fn elapsed(&self) -> Duration {
        self.state.lock().1
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.elapsed() + duration;
        loop {
            let advanced = self.advanced.notified();
            tokio::pin!(advanced);
            advanced.as_mut().enable();
            if self.elapsed() >= until {
                return;
            }
            advanced.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_when_its_time_has_come() {
        let clock = SimulatedClock::starting_at(Timestamp::UNIX_EPOCH);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_secs(10)).await }
        });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        sleeper.await.unwrap();
        assert_eq!(clock.now().as_second(), 10);
    }
}
