//! Who did what: records of requests, as detailed as a policy says, for whoever keeps them.
//!
//! Records have the shape of upstream's `audit.k8s.io/v1` events. A request that the policy does not name costs the look at
//! the policy and nothing more. Records are written before the answer goes out: what was answered is on record.

mod event;
mod file;
mod policy;

use std::sync::Arc;

use xebec_base::SharedClock;

pub use event::{Request, Trail};
pub use file::{LogFile, Rotation};
pub use policy::{Level, Policy, PolicyError, Stage};

/// Where records go, one by one.
pub trait Sink: Send + Sync + 'static {
    /// `event` is one JSON object without a line feed.
    fn record(&self, event: &[u8]);
}

/// A policy and who is told of what it names.
pub struct Audit {
    policy: Policy,
    sinks: Vec<Arc<dyn Sink>>,
    clock: SharedClock,
}

impl Audit {
    pub fn new(policy: Policy, sinks: Vec<Arc<dyn Sink>>, clock: SharedClock) -> Arc<Self> {
        Arc::new(Audit { policy, sinks, clock })
    }

    /// Begins the record of a request; `None` if the policy does not want it.
    pub fn begin(self: &Arc<Self>, request: &Request<'_>) -> Option<Trail> {
        let mut trail = self.begin_silently(request)?;
        trail.reach(Stage::RequestReceived);
        Some(trail)
    }

    /// The same without a record of the beginning: for a request whose sender is not known.
    pub fn begin_silently(self: &Arc<Self>, request: &Request<'_>) -> Option<Trail> {
        let rule = self.policy.rule(&request.user, request.info);
        (rule.level != Level::None).then(|| Trail::new(self.clone(), rule, request))
    }

    fn record(&self, event: &[u8]) {
        for sink in &self.sinks {
            sink.record(event);
        }
    }
}

#[cfg(test)]
mod tests;
