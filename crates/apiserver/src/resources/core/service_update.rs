//! Addresses of a Service and what may become of them; fields that go when the type changes; warnings.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::service::{externally_accessible, is_headless, kind, needs_health_check};
use crate::resources::validation::{IMMUTABLE, address, one_of, shown, text};

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
const ONCE: &str = "may not change once set";

/// Cluster IPs, their families and the policy, as far as they can be judged without the allocator.
pub fn cluster_ips(errors: &mut FieldErrors, spec: &ServiceSpec, old: Option<&ServiceSpec>) {
    if kind(spec) == "ExternalName" {
        return;
    }
    let (path, families_path) = (Path::new("spec.clusterIPs"), Path::new("spec.ipFamilies"));
    let list = spec.cluster_ips.as_deref().unwrap_or_default();
    let families = spec.ip_families.as_deref().unwrap_or_default();
    match (text(&spec.cluster_ip), list.first()) {
        ("", Some(_)) => {
            let about = "must be empty when `clusterIP` is not specified";
            errors.push(FieldError::invalid(&path, shown(&list), about));
        }
        ("", None) => {}
        (_, None) => errors.push(FieldError::required(&path, "")),
        (single, Some(first)) if single != first => {
            errors.push(FieldError::invalid(&path, shown(&list), "first value must match `clusterIP`"));
        }
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for (index, family) in families.iter().enumerate() {
        one_of(errors, &families_path.index(index), family, &FAMILIES);
        if !seen.insert(family) {
            errors.push(FieldError::duplicate(&families_path.index(index), family.as_str()));
        }
    }
    if let Some(policy) = &spec.ip_family_policy {
        one_of(errors, &Path::new("spec.ipFamilyPolicy"), policy, &POLICIES);
    }
    let before = errors.len();
    let known = old.and_then(|old| old.cluster_ips.clone()).unwrap_or_default();
    for (index, ip) in list.iter().enumerate() {
        if index == 0 && ip == "None" {
            if list.len() > 1 {
                let about = "'None' must be the first and only value";
                errors.push(FieldError::invalid(&path, shown(&list), about));
            }
        } else if !known.contains(ip) {
            address::ip(errors, &path.index(index), ip);
        }
    }
    let sound = errors.len() == before;
    if list.len() > 2 {
        errors.push(FieldError::invalid(&path, shown(&list), "may only hold up to 2 values"));
    }
    if sound {
        families_match(errors, &path, spec);
    }
}

fn families_match(errors: &mut FieldErrors, path: &Path, spec: &ServiceSpec) {
    let list = spec.cluster_ips.as_deref().unwrap_or_default();
    let families = spec.ip_families.as_deref().unwrap_or_default();
    if list.len() > 1 && !address::is_dual_stack(list.iter().map(String::as_str)) {
        let about = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(path, shown(&list), about));
    }
    if is_headless(spec) {
        return;
    }
    for (index, (ip, family)) in list.iter().zip(families).enumerate() {
        let wrong = match family.as_str() {
            "IPv4" => address::is_ipv6(ip),
            "IPv6" => !address::is_ipv6(ip),
            _ => false,
        };
        if wrong {
            let about = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.push(FieldError::invalid(&path.index(index), ip.as_str(), about));
        }
    }
}

/// What may not change from one version to the next.
pub fn changes(new: &Service, old: &Service) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let (Some(spec), Some(old)) = (&new.spec, &old.spec) else { return errors };
    if kind(spec) != "ExternalName" && kind(old) != "ExternalName" {
        if !(is_headless(spec) && is_headless(old)) {
            let lists = [&spec.cluster_ips, &old.cluster_ips];
            moved(&mut errors, "clusterIPs", lists, spec);
        }
        if !is_headless(spec) && !is_headless(old) {
            let lists = [&spec.ip_families, &old.ip_families];
            moved(&mut errors, "ipFamilies", lists, spec);
        }
    }
    let balanced = kind(spec) == "LoadBalancer" && kind(old) == "LoadBalancer";
    if balanced && spec.load_balancer_class != old.load_balancer_class {
        let value = shown(&spec.load_balancer_class);
        errors.push(FieldError::invalid(&Path::new("spec.loadBalancerClass"), value, ONCE));
    }
    let checked = needs_health_check(spec) && needs_health_check(old);
    if checked && spec.health_check_node_port != old.health_check_node_port {
        errors.push(FieldError::forbidden(&Path::new("spec.healthCheckNodePort"), IMMUTABLE));
    }
    errors
}

/// The first address (or family) stays; a second one may come, and go if the policy says so.
fn moved(errors: &mut FieldErrors, name: &str, lists: [&Option<Vec<String>>; 2], spec: &ServiceSpec) {
    let [now, before] = lists.map(|list| list.as_deref().unwrap_or_default());
    let path = Path::new("spec").child(name);
    let addresses = name == "clusterIPs";
    let singular = if addresses { "clusterIP" } else { "ipFamily" };
    let mut wrong = |index: usize, about: &str| {
        errors.push(FieldError::invalid(&path.index(index), shown(&now), about));
    };
    if now.len() == before.len() {
        for (index, _) in now.iter().zip(before).enumerate().filter(|(_, (now, before))| now != before) {
            // Upstream numbers the addresses, but not the families.
            wrong(if addresses { index } else { 0 }, ONCE);
        }
        return;
    }
    match (now.first(), before.first()) {
        (None, Some(_)) => wrong(0, &format!("primary {singular} can not be unset")),
        (Some(now), Some(before)) if now != before => wrong(0, ONCE),
        _ => {}
    }
    let released = before.len() > now.len() && now.len() == 1;
    if released && text(&spec.ip_family_policy) != "SingleStack" {
        let about = format!("must be set to 'SingleStack' when releasing the secondary {singular}");
        let value = shown(&spec.ip_family_policy);
        errors.push(FieldError::invalid(&Path::new("spec.ipFamilyPolicy"), value, about));
    }
}

/// A client that does not speak of address families leaves them as they are.
pub fn keep_families(new: &mut Service, old: &Service) {
    let (Some(spec), Some(old)) = (&mut new.spec, &old.spec) else { return };
    let silent = spec.ip_families.as_ref().is_none_or(Vec::is_empty);
    if silent && kind(spec) != "ExternalName" && kind(old) != "ExternalName" {
        spec.ip_families = old.ip_families.clone();
    }
}

/// A changed type takes the fields with it that only the old one had, if the client merely sent them back.
pub fn drop_fields_of_the_old_type(new: &mut Service, old: &Service) {
    let (Some(spec), Some(old)) = (&mut new.spec, &old.spec) else { return };
    let balanced = kind(spec) == "LoadBalancer";
    if kind(old) != "ExternalName" && kind(spec) == "ExternalName" {
        if spec.cluster_ip == old.cluster_ip && spec.cluster_ips == old.cluster_ips {
            spec.cluster_ip = None;
            spec.cluster_ips = None;
        }
        if spec.ip_families == old.ip_families {
            spec.ip_families = None;
        }
        if spec.ip_family_policy == old.ip_family_policy {
            spec.ip_family_policy = None;
        }
    }
    let has_node_ports = |spec: &ServiceSpec| matches!(kind(spec), "NodePort" | "LoadBalancer");
    if has_node_ports(old) && !has_node_ports(spec) {
        let ports = |spec: &ServiceSpec| -> BTreeSet<i32> {
            spec.ports.iter().flatten().filter_map(|port| port.node_port).filter(|port| *port != 0).collect()
        };
        if ports(old).is_superset(&ports(spec)) {
            spec.ports.iter_mut().flatten().for_each(|port| port.node_port = None);
        }
    }
    if needs_health_check(old) && !needs_health_check(spec) && spec.health_check_node_port == old.health_check_node_port
    {
        spec.health_check_node_port = None;
    }
    if kind(old) == "LoadBalancer" && !balanced {
        if spec.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            spec.allocate_load_balancer_node_ports = None;
        }
        if spec.load_balancer_class == old.load_balancer_class {
            spec.load_balancer_class = None;
        }
    }
    let opened = externally_accessible(old) && !externally_accessible(spec);
    if opened && spec.external_traffic_policy == old.external_traffic_policy {
        spec.external_traffic_policy = None;
    }
    if !balanced && let Some(status) = &mut new.status {
        status.load_balancer = Some(Default::default());
    }
}

pub fn warnings(service: &Service) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(spec) = &service.spec else { return warnings };
    let hints = "service.kubernetes.io/topology-aware-hints";
    if service.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(hints)) {
        let instead = "service.kubernetes.io/topology-mode";
        warnings.push(format!("annotation {hints} is deprecated, please use {instead} instead"));
    }
    let path = Path::new("spec");
    let outside = spec.external_ips.as_deref().unwrap_or_default();
    for (index, ip) in spec.cluster_ips.iter().flatten().enumerate() {
        warnings.extend(address::ip_warning(&path.child("clusterIPs").index(index), ip));
    }
    let headless = kind(spec) == "ClusterIP" && text(&spec.cluster_ip) == "None";
    if headless {
        let ignored = [
            ("loadBalancerIP", !text(&spec.load_balancer_ip).is_empty()),
            ("externalIPs", !outside.is_empty()),
            ("SessionAffinity", text(&spec.session_affinity) != "None"),
        ];
        for (name, _) in ignored.iter().filter(|(_, set)| *set) {
            warnings.push(format!("spec.{name} is ignored for headless services"));
        }
    }
    for (index, ip) in outside.iter().enumerate() {
        warnings.extend(address::ip_warning(&path.child("externalIPs").index(index), ip));
    }
    let external_name = kind(spec) == "ExternalName";
    if !outside.is_empty() && !headless && !external_name {
        warnings.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned());
    }
    if let Some(ip) = &spec.load_balancer_ip {
        warnings.extend(address::ip_warning(&path.child("loadBalancerIP"), ip));
    }
    if external_name && !outside.is_empty() {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !external_name && !text(&spec.external_name).is_empty() {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if text(&spec.traffic_distribution) == "PreferClose" {
        let about = "\"PreferClose\" is deprecated; use \"PreferSameZone\"";
        warnings.push(format!("spec.trafficDistribution: {about}"));
    }
    warnings
}
