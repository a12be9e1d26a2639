//! Requests, limits and what follows from them: the quality-of-service class, CPU shares and quotas, memory limits and the
//! out-of-memory score. Pure; the numbers are upstream's, since workloads are tuned to them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use xebec_api::Quantity;
use xebec_cri::v1::LinuxContainerResources;

/// The scheduler's period, in µs.
const QUOTA_PERIOD: i64 = 100_000;
const LEAST_QUOTA: i64 = 1_000;
const LEAST_SHARES: i64 = 2;
const GUARANTEED_SCORE: i64 = -997;
const BEST_EFFORT_SCORE: i64 = 1000;
/// Priorities from here on are `system-node-critical`.
const NODE_CRITICAL: i32 = 2_000_001_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Class {
    pub fn of(pod: &Pod) -> Class {
        let Some(spec) = &pod.spec else { return Class::BestEffort };
        let mut all: Vec<Option<&ResourceRequirements>> = containers(pod).map(|it| it.resources.as_ref()).collect();
        if let Some(level) = &spec.resources
            && (level.requests.is_some() || level.limits.is_some())
        {
            all = vec![Some(level)];
        }
        let amount =
            |map: Option<&BTreeMap<String, ApiQuantity>>, name: &str| Quantity::of(map.and_then(|map| map.get(name)));
        let mut guaranteed = true;
        let mut asked = false;
        for resources in all {
            for name in ["cpu", "memory"] {
                let request = amount(resources.and_then(|it| it.requests.as_ref()), name);
                let limit = amount(resources.and_then(|it| it.limits.as_ref()), name);
                asked |= !request.is_zero() || !limit.is_zero();
                guaranteed &= !limit.is_zero() && (request == limit || request.is_zero());
            }
        }
        match (asked, guaranteed) {
            (false, _) => Class::BestEffort,
            (true, true) => Class::Guaranteed,
            (true, false) => Class::Burstable,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Class::Guaranteed => "Guaranteed",
            Class::Burstable => "Burstable",
            Class::BestEffort => "BestEffort",
        }
    }
}

/// Init containers and containers, in the order of the specification.
pub fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    init.iter().chain(spec.map(|spec| spec.containers.as_slice()).unwrap_or_default())
}

/// An init container that runs beside the containers.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn amount(container: &Container, limits: bool, name: &str) -> Quantity {
    let resources = container.resources.as_ref();
    let map = resources.and_then(|it| if limits { it.limits.as_ref() } else { it.requests.as_ref() });
    Quantity::of(map.and_then(|map| map.get(name)))
}

/// What the whole Pod asks for: the containers with the sidecars, or the hungriest moment of initialisation if that is more.
pub fn pod_total(pod: &Pod, limits: bool, name: &str) -> Quantity {
    let Some(spec) = &pod.spec else { return Quantity::ZERO };
    let level = spec.resources.as_ref().and_then(|it| if limits { it.limits.as_ref() } else { it.requests.as_ref() });
    let total = match level.and_then(|map| map.get(name)) {
        Some(quantity) => Quantity::of(Some(quantity)),
        None => sum_of_containers(pod, limits, name),
    };
    let overhead = Quantity::of(spec.overhead.as_ref().and_then(|map| map.get(name)));
    if limits && total.is_zero() { total } else { total.plus(overhead) }
}

fn sum_of_containers(pod: &Pod, limits: bool, name: &str) -> Quantity {
    let Some(spec) = &pod.spec else { return Quantity::ZERO };
    let running = spec.containers.iter().fold(Quantity::ZERO, |sum, it| sum.plus(amount(it, limits, name)));
    let (mut sidecars, mut peak) = (Quantity::ZERO, Quantity::ZERO);
    for init in spec.init_containers.iter().flatten() {
        let own = amount(init, limits, name);
        if is_sidecar(init) {
            sidecars = sidecars.plus(own);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars.plus(own));
        }
    }
    running.plus(sidecars).max(peak)
}

pub fn shares(milli_cpu: i64) -> i64 {
    (milli_cpu * 1024 / 1000).clamp(LEAST_SHARES, 262_144)
}

/// 0 means "no limit was declared".
pub fn quota(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 { 0 } else { (milli_cpu * QUOTA_PERIOD / 1000).max(LEAST_QUOTA) }
}

/// What a Pod's own cgroup is given; `None` leaves the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    pub shares: i64,
    pub quota: Option<i64>,
    pub memory: Option<i64>,
}

impl CgroupLimits {
    pub const PERIOD: i64 = QUOTA_PERIOD;

    pub fn shares(shares: i64) -> CgroupLimits {
        CgroupLimits { shares, ..CgroupLimits::default() }
    }

    /// A limit on the whole Pod stands only where every container has one: the others may use what the node has.
    pub fn of_pod(pod: &Pod) -> CgroupLimits {
        let class = Class::of(pod);
        if class == Class::BestEffort {
            return CgroupLimits::shares(LEAST_SHARES);
        }
        let level = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref()).and_then(|it| it.limits.as_ref());
        let declared = |name: &str| {
            Quantity::of(level.and_then(|map| map.get(name))).value() > 0
                || containers(pod).all(|it| !amount(it, true, name).is_zero())
        };
        let quota = quota(pod_total(pod, true, "cpu").milli_value());
        let memory = pod_total(pod, true, "memory").value();
        CgroupLimits {
            shares: shares(pod_total(pod, false, "cpu").milli_value()),
            quota: (declared("cpu") && quota > 0).then_some(quota),
            memory: (declared("memory") && memory > 0).then_some(memory),
        }
    }
}

/// What the runtime is told for one container. `memory_capacity` is the node's, in bytes.
pub fn container_resources(pod: &Pod, container: &Container, memory_capacity: i64) -> LinuxContainerResources {
    let requests = container.resources.as_ref().and_then(|it| it.requests.as_ref());
    let limit = amount(container, true, "cpu").milli_value();
    let request = requests.and_then(|map| map.get("cpu")).map(|it| Quantity::of(Some(it)).milli_value());
    LinuxContainerResources {
        cpu_shares: shares(request.unwrap_or(limit)),
        cpu_quota: quota(limit),
        cpu_period: QUOTA_PERIOD,
        memory_limit_in_bytes: amount(container, true, "memory").value(),
        oom_score_adj: oom_score(pod, container, memory_capacity),
        ..LinuxContainerResources::default()
    }
}

fn oom_score(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    let critical = pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|priority| priority >= NODE_CRITICAL);
    match Class::of(pod) {
        _ if critical => return GUARANTEED_SCORE,
        Class::Guaranteed => return GUARANTEED_SCORE,
        Class::BestEffort => return BEST_EFFORT_SCORE,
        Class::Burstable => {}
    }
    let capacity = memory_capacity.max(1);
    let score = |container: &Container| {
        let request = match amount(container, false, "memory").value() {
            0 => amount(container, true, "memory").value(),
            request => request,
        };
        1000 - 1000 * request / capacity
    };
    let mut own = score(container);
    let regular = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    if is_sidecar(container) {
        // A sidecar must not be killed before the container that asked for least.
        own = own.min(regular.iter().map(score).max().unwrap_or(own));
    }
    own.clamp(1000 + GUARANTEED_SCORE, BEST_EFFORT_SCORE - 1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CAPACITY: i64 = 1000 << 20;

    fn pod(resources: &[serde_json::Value]) -> Pod {
        let containers: Vec<_> = resources.iter().map(|it| json!({"name": "c", "resources": it})).collect();
        serde_json::from_value(json!({"metadata": {}, "spec": {"containers": containers}})).unwrap()
    }

    fn check(resources: &[serde_json::Value], class: Class, score: i64, limits: CgroupLimits) {
        let pod = pod(resources);
        let own = container_resources(&pod, &pod.spec.as_ref().unwrap().containers[0], CAPACITY);
        assert_eq!(Class::of(&pod), class, "{resources:?}");
        assert_eq!(own.oom_score_adj, score, "{resources:?}");
        assert_eq!(CgroupLimits::of_pod(&pod), limits, "{resources:?}");
    }

    #[test]
    fn classes_and_what_follows() {
        let whole =
            json!({"limits": {"cpu": "500m", "memory": "100Mi"}, "requests": {"cpu": "500m", "memory": "100Mi"}});
        let half = json!({"requests": {"memory": "200Mi"}});
        check(&[json!({})], Class::BestEffort, 1000, CgroupLimits::shares(2));
        let limits = CgroupLimits { shares: 512, quota: Some(50_000), memory: Some(100 << 20) };
        check(std::slice::from_ref(&whole), Class::Guaranteed, -997, limits);
        check(&[half.clone(), whole], Class::Burstable, 800, CgroupLimits::shares(512));
        check(&[half], Class::Burstable, 800, CgroupLimits::shares(2));
    }

    #[test]
    fn initialisation_may_need_more_than_running() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "init", "resources": {"requests": {"cpu": "1"}}},
            ],
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "200m"}}}],
        }}))
        .unwrap();
        assert_eq!(pod_total(&pod, false, "cpu").milli_value(), 1100);
    }
}
