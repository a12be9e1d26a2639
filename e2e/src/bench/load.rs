//! Callers that work off numbered requests, each on a connection of its own, and the time that each call took.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http::Method;
use xebec_e2e::{Api, TOKEN};

/// What is to be called for a number.
pub struct Call {
    pub method: Method,
    pub path: String,
    pub kind: &'static str,
    pub body: Vec<u8>,
}

pub struct Times {
    pub elapsed: Duration,
    /// Sorted.
    latencies: Vec<Duration>,
}

impl Times {
    /// The latency that `share` of the calls did not exceed, in milliseconds.
    pub fn percentile(&self, share: f64) -> f64 {
        let at = ((self.latencies.len() as f64 * share) as usize).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Makes the calls `0..count` from `callers` connections. The connections are open before the time begins.
///
/// # Errors
/// A connection broke, or an answer was no success.
pub async fn run<F>(address: SocketAddr, callers: usize, count: usize, call: F) -> Result<Times>
where
    F: Fn(usize) -> Call + Send + Sync + 'static,
{
    let (call, next) = (Arc::new(call), Arc::new(AtomicUsize::new(0)));
    let mut connections = Vec::new();
    for _ in 0..callers {
        connections.push(Api::connect(address, TOKEN).await?);
    }
    let began = Instant::now();
    let work = connections.into_iter().map(|api| tokio::spawn(work(api, call.clone(), next.clone(), count)));
    let mut latencies = Vec::new();
    for worker in work.collect::<Vec<_>>() {
        latencies.extend(worker.await??);
    }
    let elapsed = began.elapsed();
    latencies.sort();
    Ok(Times { elapsed, latencies })
}

async fn work<F: Fn(usize) -> Call>(
    mut api: Api,
    call: Arc<F>,
    next: Arc<AtomicUsize>,
    count: usize,
) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return Ok(latencies);
        }
        let Call { method, path, kind, body } = call(number);
        let began = Instant::now();
        let answer = api.call(method, &path, kind, body).await?;
        latencies.push(began.elapsed());
        answer.success().with_context(|| path)?;
    }
}
