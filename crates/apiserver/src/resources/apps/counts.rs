//! The numbers in a workload's status: never negative, and a part never more than the whole.

use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::resources::validation::numbers::not_negative;

const TOO_MANY: &str = "cannot be greater than status.replicas";

pub const MORE_THAN_READY: &str = "cannot be greater than readyReplicas";

pub struct Counts<'a> {
    pub replicas: i32,
    /// Parts of `replicas` by their field's name.
    pub others: &'a [(&'a str, Option<i32>)],
    pub ready: Option<i32>,
    pub available: Option<i32>,
    pub observed_generation: Option<i64>,
    pub terminating: Option<i32>,
    pub collisions: Option<i32>,
}

/// `old_collisions` is the count of hash collisions before, which may only grow.
pub fn validate(counts: &Counts<'_>, old_collisions: Option<i32>) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = Path::new("status");
    not_negative(&mut errors, &path.child("replicas"), counts.replicas);
    for (name, value) in counts.others {
        not_negative(&mut errors, &path.child(name), value.unwrap_or(0));
    }
    not_negative(&mut errors, &path.child("observedGeneration"), counts.observed_generation.unwrap_or(0));
    not_negative(&mut errors, &path.child("terminatingReplicas"), counts.terminating.unwrap_or(0));
    not_negative(&mut errors, &path.child("collisionCount"), counts.collisions.unwrap_or(0));
    for (name, value) in counts.others {
        let value = value.unwrap_or(0);
        if value > counts.replicas {
            errors.push(FieldError::invalid(&path.child(name), value, TOO_MANY));
        }
    }
    let (available, ready) = (counts.available.unwrap_or(0), counts.ready.unwrap_or(0));
    if available > ready {
        errors.push(FieldError::invalid(&path.child("availableReplicas"), available, MORE_THAN_READY));
    }
    collisions(&mut errors, counts.collisions, old_collisions);
    errors
}

pub fn collisions(errors: &mut FieldErrors, new: Option<i32>, old: Option<i32>) {
    let decremented = match (new, old) {
        (None, old) => old.is_some(),
        (Some(new), Some(old)) => new < old,
        _ => false,
    };
    if decremented {
        let path = Path::new("status.collisionCount");
        errors.push(FieldError::invalid(&path, new.unwrap_or(0), "cannot be decremented"));
    }
}
