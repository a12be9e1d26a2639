//! The status of a Pod: addresses that belong together, states that do not go back.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, HostIP, Pod, PodIP, PodSpec, PodStatus};
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::resources::validation::{address, dns, immutable, numbers, report, shown, text};

const NOT_BACK: &str = "may not be transitioned to non-terminated state";

/// Old writers know one address only; the list and the single field are kept in step.
pub fn keep_addresses_together(status: &mut PodStatus) {
    let single = text(&status.pod_ip).to_owned();
    let first = status.pod_ips.as_ref().and_then(|list| list.first()).map(|one| one.ip.clone());
    match (single.is_empty(), first) {
        (true, Some(first)) => status.pod_ip = Some(first),
        (false, first) if first.as_ref() != Some(&single) => status.pod_ips = Some(vec![PodIP { ip: single }]),
        _ => {}
    }
}

/// What a writer of a status left out that it does not own.
pub fn carry_over(new: &mut PodStatus, old: &PodStatus) {
    if text(&new.qos_class).is_empty() {
        new.qos_class = old.qos_class.clone();
    }
    new.resource_claim_statuses = new.resource_claim_statuses.take().or_else(|| old.resource_claim_statuses.clone());
    let claim = new.extended_resource_claim_status.take();
    new.extended_resource_claim_status = claim.or_else(|| old.extended_resource_claim_status.clone());
    if new.observed_generation.unwrap_or(0) == 0 {
        new.observed_generation = old.observed_generation;
    }
    for condition in new.conditions.iter_mut().flatten() {
        if condition.observed_generation.unwrap_or(0) == 0 {
            let before = old.conditions.iter().flatten().find(|one| one.type_ == condition.type_);
            condition.observed_generation = before.and_then(|one| one.observed_generation);
        }
    }
}

pub fn validate(new: &Pod, old: &Pod) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = Path::new("status");
    let (status, before) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let old_spec = old.spec.clone().unwrap_or_default();
    conditions(&mut errors, &path.child("conditions"), &status);
    nominated_node(&mut errors, &status, &before, &old_spec);
    if let Some(generation) = status.observed_generation.filter(|generation| *generation < 0) {
        let about = "must be a non-negative integer";
        errors.push(FieldError::invalid(&path.child("observedGeneration"), generation, about));
    }
    immutable(&mut errors, &path.child("qosClass"), &status.qos_class, &before.qos_class);
    transitions(&mut errors, &status, &before, &old_spec);
    pod_addresses(&mut errors, &path.child("podIPs"), &status, &before);
    host_addresses(&mut errors, &path.child("hostIPs"), &status, &before);
    for (name, statuses) in [
        ("containerStatuses", &status.container_statuses),
        ("initContainerStatuses", &status.init_container_statuses),
        ("ephemeralContainerStatuses", &status.ephemeral_container_statuses),
    ] {
        users(&mut errors, &path.child(name), statuses.as_deref().unwrap_or_default());
    }
    claims(&mut errors, &path.child("resourceClaimStatuses"), &status, new.spec.as_ref());
    errors
}

fn conditions(errors: &mut FieldErrors, path: &Path, status: &PodStatus) {
    for (index, condition) in status.conditions.iter().flatten().enumerate() {
        let path = path.index(index);
        if let Some(generation) = condition.observed_generation.filter(|generation| *generation < 0) {
            let about = "must be a non-negative integer";
            errors.push(FieldError::invalid(&path.child("observedGeneration"), generation, about));
        }
        report(errors, &path.child("Type"), &condition.type_, dns::label_key(&condition.type_));
    }
}

fn nominated_node(errors: &mut FieldErrors, new: &PodStatus, old: &PodStatus, old_spec: &PodSpec) {
    let name = text(&new.nominated_node_name);
    if name.is_empty() || name == text(&old.nominated_node_name) {
        return;
    }
    let path = Path::new("status.nominatedNodeName");
    report(errors, &path, name, dns::subdomain(name));
    if !text(&old_spec.node_name).is_empty() {
        errors.push(FieldError::forbidden(&path, "may not be set on pods that are already bound to a node"));
    }
}

fn transitions(errors: &mut FieldErrors, new: &PodStatus, old: &PodStatus, spec: &PodSpec) {
    let path = Path::new("status");
    let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let everything_restarts = all()
        .flat_map(|container| container.restart_policy_rules.iter().flatten())
        .any(|rule| rule.action == "RestartAllContainers");
    let mut check =
        |name: &str, new: &Option<Vec<ContainerStatus>>, old: &Option<Vec<ContainerStatus>>, specs: &[Container]| {
            for (index, before) in old.iter().flatten().enumerate() {
                let Some(ended) = before.state.as_ref().and_then(|state| state.terminated.as_ref()) else { continue };
                let Some(now) = new.iter().flatten().find(|one| one.name == before.name) else { continue };
                let still = now.state.as_ref().is_some_and(|state| state.terminated.is_some());
                let container = specs.iter().find(|one| one.name == before.name);
                let allowed = container.is_some_and(|one| restarts(one, spec, ended.exit_code));
                if !still && !allowed {
                    errors.push(FieldError::forbidden(&path.child(name).index(index).child("state"), NOT_BACK));
                }
            }
        };
    if !everything_restarts {
        check("containerStatuses", &new.container_statuses, &old.container_statuses, &spec.containers);
        let init = spec.init_containers.as_deref().unwrap_or_default();
        check("initContainerStatuses", &new.init_container_statuses, &old.init_container_statuses, init);
    }
    let (now, before) = (&new.ephemeral_container_statuses, &old.ephemeral_container_statuses);
    check("ephemeralContainerStatuses", now, before, &[]);
}

/// Whether a container that ended with that code is started again.
fn restarts(container: &Container, spec: &PodSpec, exit_code: i32) -> bool {
    if let Some(policy) = &container.restart_policy {
        let matches = container.restart_policy_rules.iter().flatten().any(|rule| {
            rule.exit_codes.as_ref().is_some_and(|codes| {
                let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
                (codes.operator == "In" && listed) || (codes.operator == "NotIn" && !listed)
            })
        });
        return matches || by_policy(policy, exit_code);
    }
    by_policy(text(&spec.restart_policy), exit_code)
}

fn by_policy(policy: &str, exit_code: i32) -> bool {
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

fn pod_addresses(errors: &mut FieldErrors, path: &Path, new: &PodStatus, old: &PodStatus) {
    let list = new.pod_ips.as_deref().unwrap_or_default();
    let known: BTreeSet<&str> = old.pod_ips.iter().flatten().map(|one| one.ip.as_str()).collect();
    for (index, one) in list.iter().enumerate().filter(|(_, one)| !known.contains(one.ip.as_str())) {
        address::ip(errors, &path.index(index), &one.ip);
    }
    families(errors, path, list.iter().map(|one| one.ip.as_str()).collect(), shown(&list));
    let single = text(&new.pod_ip);
    match list.first() {
        first if first.is_some() == single.is_empty() => {
            let about = "podIP and podIPs must either both be set or both be unset";
            errors.push(FieldError::invalid(path, shown(&list), about));
        }
        Some(PodIP { ip }) if ip != single => {
            errors.push(FieldError::invalid(&path.index(0).child("ip"), ip.as_str(), "must be equal to `podIP`"));
        }
        _ => {}
    }
}

fn host_addresses(errors: &mut FieldErrors, path: &Path, new: &PodStatus, old: &PodStatus) {
    let list = new.host_ips.as_deref().unwrap_or_default();
    let Some(HostIP { ip }) = list.first() else { return };
    if ip != text(&new.host_ip) {
        errors.push(FieldError::invalid(&path.index(0).child("ip"), ip.as_str(), "must be equal to `hostIP`"));
    }
    let known: BTreeSet<&str> = old.host_ips.iter().flatten().map(|one| one.ip.as_str()).collect();
    for (index, one) in list.iter().enumerate().filter(|(_, one)| !known.contains(one.ip.as_str())) {
        address::ip(errors, &path.index(index), &one.ip);
    }
    families(errors, path, list.iter().map(|one| one.ip.as_str()).collect(), shown(&list));
}

fn families(errors: &mut FieldErrors, path: &Path, list: Vec<&str>, value: serde_json::Value) {
    if list.len() > 1 && (list.len() > 2 || !address::is_dual_stack(list.into_iter())) {
        errors.push(FieldError::invalid(path, value, "may specify no more than one IP for each IP family"));
    }
}

fn users(errors: &mut FieldErrors, path: &Path, statuses: &[ContainerStatus]) {
    for (index, status) in statuses.iter().enumerate() {
        let Some(user) = status.user.as_ref().and_then(|user| user.linux.as_ref()) else { continue };
        let path = path.index(index).child("user.linux");
        numbers::in_range(errors, &path.child("uid"), user.uid, (0, i64::from(u32::MAX)));
        numbers::id(errors, &path.child("gid"), Some(user.gid));
        for (index, group) in user.supplemental_groups.iter().flatten().enumerate() {
            numbers::id(errors, &path.child("supplementalGroups").index(index), Some(*group));
        }
    }
}

fn claims(errors: &mut FieldErrors, path: &Path, status: &PodStatus, spec: Option<&PodSpec>) {
    let mut seen = BTreeSet::new();
    for (index, claim) in status.resource_claim_statuses.iter().flatten().enumerate() {
        let path = path.index(index);
        let known = spec.is_some_and(|spec| spec.resource_claims.iter().flatten().any(|one| one.name == claim.name));
        if !known {
            let about = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(FieldError::invalid(&path.child("name"), claim.name.as_str(), about));
        }
        if !seen.insert(claim.name.as_str()) {
            errors.push(FieldError::duplicate(&path.child("name"), claim.name.as_str()));
        }
        if let Some(name) = &claim.resource_claim_name {
            report(errors, &path.child("resourceClaimName"), name, dns::subdomain(name));
        }
    }
}
