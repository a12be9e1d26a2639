//! What a deletion means for an object, decided without side effects: gone at once, marked and waiting, or nothing to do.
//!
//! Behaviour: upstream's `rest.BeforeDelete` and the finalizers of its garbage collection.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Time};
use xebec_api::field::{FieldError, FieldErrors, Path};
use xebec_api::resource::ResourceType;

use super::erased::{AnyObject, AnyStrategy};
use super::metadata::{FOREGROUND, ORPHAN, whole_seconds};
use super::strategy::Deletion;
use crate::resources::validation::unsupported;

/// Kinds whose dependents stay when a deletion does not say what becomes of them: upstream keeps this from the time before
/// the garbage collector.
const ORPHAN_BY_DEFAULT: &[(&str, &str)] = &[("", "replicationcontrollers"), ("batch", "jobs")];
/// Kinds that own nothing.
const NO_DEPENDENTS: &[(&str, &str)] = &[("", "events"), ("events.k8s.io", "events")];

/// What to do.
pub enum Plan {
    /// Remove it from the store.
    Remove,
    /// Write this state: it waits for finalizers or its grace period.
    Mark(Box<dyn AnyObject>),
    /// It waits already.
    Pending,
}

/// What is wrong with the options themselves.
pub fn validate(options: &DeleteOptions) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if let Some(policy) = options.propagation_policy.as_deref() {
        let path = Path::new("propagationPolicy");
        if !matches!(policy, "Foreground" | "Background" | "Orphan") {
            errors.push(unsupported(&path, policy, &["Foreground", "Background", "Orphan", "nil"]));
        }
        if options.orphan_dependents.is_some() {
            let text = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid(&path, policy, text));
        }
    }
    if options.dry_run.iter().flatten().any(|one| one != "All") {
        let value = options.dry_run.as_ref().and_then(|all| all.first().cloned()).unwrap_or_default();
        errors.push(FieldError::not_supported(&Path::new("dryRun"), value, &["All"]));
    }
    errors
}

pub fn plan(
    object: &dyn AnyObject,
    strategy: &dyn AnyStrategy,
    resource: &ResourceType,
    options: &DeleteOptions,
    now: Timestamp,
) -> Plan {
    let meta = object.meta();
    // A negative grace period counts as one second, as upstream reads it.
    let grace = options.grace_period_seconds.map(|seconds| if seconds < 0 { 1 } else { seconds });
    let mut marked = object.clone_boxed();
    let graceful = match begin(marked.meta_mut(), || strategy.deletion(object, grace), grace, now) {
        Graceful::Pending => return Plan::Pending,
        Graceful::Yes => true,
        Graceful::No => false,
    };
    let before = meta.finalizers.clone().unwrap_or_default();
    let finalizers = finalizers(&before, resource, options);
    let by_finalizers = !finalizers.is_empty();
    if !graceful && !by_finalizers && !strategy.holds_deletion(object) {
        return Plan::Remove;
    }
    let first = meta.deletion_timestamp.is_none();
    if !graceful {
        hold(marked.meta_mut(), now);
        if !by_finalizers {
            // What holds itself (a Namespace) has no grace period.
            marked.meta_mut().deletion_grace_period_seconds = meta.deletion_grace_period_seconds;
        }
    }
    marked.meta_mut().finalizers = (!finalizers.is_empty()).then_some(finalizers);
    if first {
        strategy.begin_deletion(&mut *marked);
    }
    let unchanged = !first && *marked.meta() == *meta;
    if unchanged { Plan::Pending } else { Plan::Mark(marked) }
}

enum Graceful {
    /// `deletionTimestamp` has been set or brought forward.
    Yes,
    No,
    /// The object waits, and this request does not shorten the wait.
    Pending,
}

fn begin(meta: &mut ObjectMeta, kind: impl FnOnce() -> Deletion, grace: Option<i64>, now: Timestamp) -> Graceful {
    let Some(Time(deadline)) = meta.deletion_timestamp else {
        let seconds = match kind() {
            Deletion::Immediate | Deletion::Graceful(0) => return Graceful::No,
            Deletion::Graceful(seconds) => seconds,
        };
        meta.deletion_timestamp = Some(after(now, seconds));
        meta.deletion_grace_period_seconds = Some(seconds);
        meta.generation = meta.generation.map(|generation| generation + 1);
        return Graceful::Yes;
    };
    let current = match meta.deletion_grace_period_seconds {
        None | Some(0) => return Graceful::No,
        Some(current) => current,
    };
    let Some(wanted) = grace.filter(|wanted| *wanted < current) else { return Graceful::Pending };
    if wanted == 0 {
        return Graceful::No;
    }
    let shortened = after(deadline, wanted - current);
    let passed = shortened.0 < now;
    meta.deletion_timestamp = Some(if passed { whole_seconds(now) } else { shortened });
    // The whole wait is over, yet it stays a graceful deletion: whoever waits is to act on it.
    meta.deletion_grace_period_seconds = Some(if passed { 1 } else { wanted });
    Graceful::Yes
}

fn after(time: Timestamp, seconds: i64) -> Time {
    let moved = if seconds >= 0 {
        time.checked_add(Duration::from_secs(seconds.unsigned_abs()))
    } else {
        time.checked_sub(Duration::from_secs(seconds.unsigned_abs()))
    };
    whole_seconds(moved.unwrap_or(Timestamp::MAX))
}

/// Marks an object that only its finalizers hold.
fn hold(meta: &mut ObjectMeta, now: Timestamp) {
    if meta.deletion_timestamp.is_none() {
        meta.generation = meta.generation.map(|generation| generation + 1);
    }
    if meta.deletion_timestamp.as_ref().is_none_or(|deadline| deadline.0 > now) {
        meta.deletion_timestamp = Some(whole_seconds(now));
    }
    meta.deletion_grace_period_seconds = Some(0);
}

/// The finalizers after the request's propagation policy.
fn finalizers(before: &[String], resource: &ResourceType, options: &DeleteOptions) -> Vec<String> {
    let name = (&*resource.group, &*resource.plural);
    if NO_DEPENDENTS.contains(&name) {
        return before.to_vec();
    }
    let has = |wanted: &str| before.iter().any(|finalizer| finalizer == wanted);
    let policy = options.propagation_policy.as_deref();
    let orphan = match (options.orphan_dependents, policy) {
        (Some(orphan), _) => orphan,
        (None, Some(policy)) => policy == "Orphan",
        (None, None) => has(ORPHAN) || (!has(FOREGROUND) && ORPHAN_BY_DEFAULT.contains(&name)),
    };
    let foreground = match (options.orphan_dependents, policy) {
        (Some(_), _) => false,
        (None, Some(policy)) => policy == "Foreground",
        (None, None) => has(FOREGROUND),
    };
    let mut after: Vec<String> =
        before.iter().filter(|finalizer| *finalizer != ORPHAN && *finalizer != FOREGROUND).cloned().collect();
    if orphan {
        after.push(ORPHAN.to_owned());
    }
    if foreground {
        after.push(FOREGROUND.to_owned());
    }
    after
}
