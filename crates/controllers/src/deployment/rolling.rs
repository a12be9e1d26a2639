//! The arithmetic of sizes: rolling update, proportional scaling, and what `maxSurge` and `maxUnavailable` come to. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The sizes a Deployment asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
    pub replicas: i32,
    pub max_surge: i32,
    pub max_unavailable: i32,
}

/// A ReplicaSet and the size it should get.
pub type Resize = (Arc<ReplicaSet>, i32);

pub fn sizes(deployment: &Deployment) -> Sizes {
    let replicas = deployment.spec.replicas.unwrap_or(1);
    let strategy = deployment.spec.strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
        return Sizes { replicas, max_surge: 0, max_unavailable: 0 };
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let max_surge = resolve(rolling.and_then(|rolling| rolling.max_surge.as_ref()), replicas, true);
    let mut max_unavailable = resolve(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), replicas, false);
    if max_surge == 0 && max_unavailable == 0 {
        // Both can round to nothing, and then nothing would ever move.
        max_unavailable = 1;
    }
    Sizes { replicas, max_surge, max_unavailable: max_unavailable.min(replicas) }
}

/// A number, or a percentage of `total`, rounded up for the surge and down for what may be missing.
fn resolve(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent: f64 = text.trim_end_matches('%').parse().unwrap_or(0.0);
            let exact = percent * f64::from(total) / 100.0;
            if up { exact.ceil() as i32 } else { exact.floor() as i32 }
        }
    }
}

pub fn wanted(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

fn total(sets: &[Arc<ReplicaSet>]) -> i32 {
    sets.iter().map(|set| wanted(set)).sum()
}

/// The size that the new ReplicaSet may have while `old` ones still stand.
pub fn new_size(sizes: Sizes, recreate: bool, current: i32, all: i32) -> i32 {
    if recreate || current >= sizes.replicas {
        return sizes.replicas;
    }
    let room = sizes.replicas + sizes.max_surge - all;
    current + room.clamp(0, sizes.replicas - current)
}

/// One step of a rolling update: the new set grows as far as the surge allows; else old ones shrink as far as availability
/// allows, those with unavailable Pods first.
pub fn roll(sizes: Sizes, new: &Arc<ReplicaSet>, old: &[Arc<ReplicaSet>]) -> Vec<Resize> {
    let all = total(old) + wanted(new);
    let grown = new_size(sizes, false, wanted(new), all);
    if grown != wanted(new) {
        return vec![(new.clone(), grown)];
    }
    shrink(sizes, new, old, all)
}

fn shrink(sizes: Sizes, new: &ReplicaSet, old: &[Arc<ReplicaSet>], all: i32) -> Vec<Resize> {
    let min_available = sizes.replicas - sizes.max_unavailable;
    let new_unavailable = wanted(new) - available(new);
    let mut excess = all - min_available - new_unavailable;
    let mut shrunk: Vec<Resize> = old.iter().map(|set| (set.clone(), wanted(set))).collect();
    shrunk.sort_by_key(|(set, _)| set.metadata.creation_timestamp.as_ref().map(|time| time.0));
    for (set, size) in &mut shrunk {
        let unhealthy = (*size - available(set)).clamp(0, excess.max(0));
        *size -= unhealthy;
        excess -= unhealthy;
    }
    let old_available: i32 = old.iter().map(|set| available(set)).sum();
    let mut healthy_excess = old_available + available(new) - min_available;
    for (_, size) in &mut shrunk {
        let step = (*size).clamp(0, healthy_excess.max(0));
        *size -= step;
        healthy_excess -= step;
    }
    shrunk.retain(|(set, size)| *size != wanted(set));
    shrunk
}

/// The Deployment was resized in the middle of a roll-out (or while paused): its sets grow and shrink in proportion.
pub fn scale(
    sizes: Sizes,
    rolling: bool,
    observed_replicas: i32,
    new: Option<&Arc<ReplicaSet>>,
    old: &[Arc<ReplicaSet>],
) -> Vec<Resize> {
    let everything: Vec<&Arc<ReplicaSet>> = new.into_iter().chain(old).collect();
    let active: Vec<&Arc<ReplicaSet>> = everything.iter().filter(|set| wanted(set) > 0).copied().collect();
    let single = match active.len() {
        0 => new.or_else(|| old.iter().max_by_key(|set| set.metadata.creation_timestamp.as_ref().map(|time| time.0))),
        1 => Some(active[0]),
        _ => None,
    };
    if let Some(set) = single {
        return if wanted(set) == sizes.replicas { Vec::new() } else { vec![(set.clone(), sizes.replicas)] };
    }
    if active.is_empty() {
        return Vec::new();
    }
    if new.is_some_and(|new| wanted(new) == sizes.replicas && available(new) == sizes.replicas) {
        return old.iter().filter(|set| wanted(set) > 0).map(|set| (set.clone(), 0)).collect();
    }
    if rolling { proportional(sizes, observed_replicas, active) } else { Vec::new() }
}

fn proportional(sizes: Sizes, observed_replicas: i32, mut active: Vec<&Arc<ReplicaSet>>) -> Vec<Resize> {
    let allowed = if sizes.replicas > 0 { sizes.replicas + sizes.max_surge } else { 0 };
    let to_add = allowed - active.iter().map(|set| wanted(set)).sum::<i32>();
    let age = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    active.sort_by(|a, b| {
        let by_age = if to_add > 0 { age(b).cmp(&age(a)) } else { age(a).cmp(&age(b)) };
        wanted(b).cmp(&wanted(a)).then(by_age)
    });
    let mut added = 0;
    let mut resized: Vec<Resize> = Vec::new();
    for set in active {
        let share = if to_add == 0 { 0 } else { share(sizes, observed_replicas, set, to_add, added) };
        added += share;
        resized.push((set.clone(), wanted(set) + share));
    }
    if let Some((_, size)) = resized.first_mut() {
        *size = (*size + to_add - added).max(0);
    }
    resized
}

fn share(sizes: Sizes, observed_replicas: i32, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if wanted(set) == 0 || to_add == added {
        return 0;
    }
    let left = to_add - added;
    let fraction = if sizes.replicas == 0 {
        -wanted(set)
    } else {
        let annotations = set.metadata.annotations.as_ref();
        let before = annotations.and_then(|all| all.get(super::plan::MAX_REPLICAS)).and_then(|text| text.parse().ok());
        let before: i32 = before.filter(|before| *before != 0).unwrap_or(observed_replicas);
        if before == 0 {
            return 0;
        }
        let scaled = f64::from(wanted(set) * (sizes.replicas + sizes.max_surge)) / f64::from(before);
        scaled.round() as i32 - wanted(set)
    };
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}

#[cfg(test)]
mod tests {
    use super::super::set_named;
    use super::*;

    fn check(sizes: (i32, i32, i32), new: (i32, i32), old: (i32, i32), expected: &[(&str, i32)]) {
        let sizes = Sizes { replicas: sizes.0, max_surge: sizes.1, max_unavailable: sizes.2 };
        let steps = roll(sizes, &set_named("new", new.0, new.1), &[set_named("old", old.0, old.1)]);
        let told: Vec<(String, i32)> =
            steps.iter().map(|(set, to)| (set.metadata.name.clone().unwrap(), *to)).collect();
        let expected: Vec<(String, i32)> = expected.iter().map(|(name, to)| (name.to_string(), *to)).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn a_rolling_update_goes_step_by_step() {
        check((4, 1, 1), (0, 0), (4, 4), &[("new", 1)]);
        check((4, 1, 1), (1, 0), (4, 4), &[("old", 3)]);
        check((4, 1, 1), (1, 1), (3, 3), &[("new", 2)]);
        check((4, 1, 1), (2, 1), (3, 3), &[("old", 2)]);
        check((4, 1, 1), (4, 4), (1, 1), &[("old", 0)]);
        // Old Pods that never became available go first, and cost nothing.
        check((4, 1, 1), (1, 0), (4, 2), &[("old", 3)]);
    }

    #[test]
    fn sizes_of_percentages() {
        let deployment: Deployment = serde_json::from_value(serde_json::json!({"spec": {"replicas": 10, "selector": {},
            "template": {}, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}}}))
        .unwrap();
        assert_eq!(sizes(&deployment), Sizes { replicas: 10, max_surge: 3, max_unavailable: 2 });
    }
}
