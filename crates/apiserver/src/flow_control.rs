//! How many requests run at the same time. Those beyond the limit are told to come back.
//!
//! Watches and other long-running requests are not counted. Priorities and fairness between clients are not here.

use std::sync::atomic::{AtomicUsize, Ordering};

use xebec_api::status::StatusError;

use crate::request_info::RequestInfo;

/// Upstream's defaults of `--max-requests-inflight` and `--max-mutating-requests-inflight` add up to as many; requests here
/// are an order of magnitude cheaper, so the limits guard memory and not time.
const MAX_READING: usize = 4000;
const MAX_WRITING: usize = 2000;

#[derive(Default)]
pub struct FlowControl {
    reading: AtomicUsize,
    writing: AtomicUsize,
}

/// A running request.
pub struct Slot<'a>(&'a AtomicUsize);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FlowControl {
    /// A place for a request; `None` for one that is not counted.
    pub fn enter(&self, info: &RequestInfo<'_>) -> Result<Option<Slot<'_>>, StatusError> {
        let long = info.verb == "watch"
            || matches!(info.subresource, "log" | "exec" | "attach" | "portforward" | "proxy")
            || !info.is_resource;
        if long {
            return Ok(None);
        }
        let writes = !matches!(info.verb, "get" | "list");
        let (counter, limit) = if writes { (&self.writing, MAX_WRITING) } else { (&self.reading, MAX_READING) };
        if counter.fetch_add(1, Ordering::Relaxed) < limit {
            return Ok(Some(Slot(counter)));
        }
        counter.fetch_sub(1, Ordering::Relaxed);
        Err(StatusError::too_many_requests("Too many requests, please try again later.", 1))
    }

    /// How many requests run that only read, and how many that write.
    pub fn running(&self) -> (usize, usize) {
        (self.reading.load(Ordering::Relaxed), self.writing.load(Ordering::Relaxed))
    }
}
