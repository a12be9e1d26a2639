//! Services. Cluster IPs and node ports are allocated between the defaults and the validation.

use std::borrow::Cow;
use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ClientIPConfig, LoadBalancerIngress, Service, ServicePort, ServiceSpec, ServiceStatus, SessionAffinityConfig,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::pod_defaults::default_text;
use super::service_update;
use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, NameRule, Strategy, column, wide};
use crate::resources::columns;
use crate::resources::validation::containers::PROTOCOLS;
use crate::resources::validation::{address, dns, labels, numbers, one_of, report, required, required_one_of, text};

/// Three hours, and the most: one day.
const AFFINITY_SECONDS: i32 = 10800;
const MAX_AFFINITY_SECONDS: i32 = 86400;
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameZone", "PreferSameNode"];
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const BALANCER_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";

pub fn kind(spec: &ServiceSpec) -> &str {
    text(&spec.type_)
}

pub fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ips.as_ref().is_some_and(|list| list.len() == 1 && list[0] == "None")
}

pub fn externally_accessible(spec: &ServiceSpec) -> bool {
    let outside = spec.external_ips.as_ref().is_some_and(|list| !list.is_empty());
    matches!(kind(spec), "LoadBalancer" | "NodePort") || (kind(spec) == "ClusterIP" && outside)
}

pub fn needs_health_check(spec: &ServiceSpec) -> bool {
    kind(spec) == "LoadBalancer" && text(&spec.external_traffic_policy) == "Local"
}

#[derive(Default)]
pub struct ServiceStrategy;

impl Strategy for ServiceStrategy {
    type Object = Service;

    fn name_rule(&self) -> NameRule {
        // The rule was relaxed from RFC 1035 (KEP-5311).
        NameRule::DnsLabel
    }

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn default(&self, service: &mut Service) {
        let spec = service.spec.get_or_insert_default();
        default_spec(spec);
        let status = service.status.get_or_insert_default();
        let balancer = status.load_balancer.get_or_insert_default();
        if kind(spec) == "LoadBalancer" {
            for ingress in balancer.ingress.iter_mut().flatten().filter(|one| !text(&one.ip).is_empty()) {
                ingress.ip_mode.get_or_insert_with(|| "VIP".to_owned());
            }
        }
    }

    fn prepare_create(&self, service: &mut Service) {
        service.status = Some(ServiceStatus { load_balancer: Some(Default::default()), conditions: None });
    }

    fn prepare_update(&self, new: &mut Service, old: &Service) {
        service_update::keep_families(new, old);
        service_update::drop_fields_of_the_old_type(new, old);
    }

    fn validate(&self, service: &Service) -> FieldErrors {
        validate(service, None)
    }

    fn validate_update(&self, new: &Service, old: &Service) -> FieldErrors {
        let mut errors = service_update::changes(new, old);
        errors.extend(validate(new, Some(old)));
        errors
    }

    fn validate_status_update(&self, new: &Service, old: &Service) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let ingress = |service: &Service| -> Vec<LoadBalancerIngress> {
            let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            balancer.and_then(|balancer| balancer.ingress.clone()).unwrap_or_default()
        };
        let of_balancer = new.spec.as_ref().is_some_and(|spec| kind(spec) == "LoadBalancer");
        let path = Path::new("status.loadBalancer.ingress");
        let (now, before) = (ingress(new), ingress(old));
        if !of_balancer && !now.is_empty() {
            errors.push(FieldError::forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'"));
            return errors;
        }
        for (index, one) in now.iter().enumerate() {
            balancer_ingress(&mut errors, &path.index(index), one, &before);
        }
        errors
    }

    fn warnings(&self, service: &Service, _old: Option<&Service>) -> Vec<String> {
        service_update::warnings(service)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn field<'a>(&self, service: &'a Service, field: &str) -> Cow<'a, str> {
        let Some(spec) = &service.spec else { return Cow::Borrowed("") };
        Cow::Borrowed(if field == "spec.type" { kind(spec) } else { text(&spec.cluster_ip) })
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Type", "string", "How it is exposed."),
            column("Cluster-IP", "string", "Its address within the cluster."),
            column("External-IP", "string", "Addresses from outside that lead to it."),
            column("Port(s)", "string", "Its ports, with their node ports."),
            AGE_COLUMN,
            wide("Selector", "string", "Which Pods it leads to."),
        ];
        COLUMNS
    }

    fn cells(&self, service: &Service, now: Timestamp) -> Vec<Value> {
        let spec = service.spec.clone().unwrap_or_default();
        let address = spec.cluster_ips.as_ref().and_then(|list| list.first()).map_or("<none>", String::as_str);
        let ports: Vec<String> = spec.ports.iter().flatten().map(port_text).collect();
        vec![
            columns::name(&service.metadata),
            Value::from(kind(&spec)),
            Value::from(address),
            Value::from(external_address(service, &spec)),
            columns::or(Some(&ports.join(",")), "<none>"),
            columns::age(&service.metadata, now),
            columns::labels(spec.selector.as_ref()),
        ]
    }
}

fn port_text(port: &ServicePort) -> String {
    match port.node_port.unwrap_or(0) {
        0 => format!("{}/{}", port.port, text(&port.protocol)),
        node => format!("{}:{node}/{}", port.port, text(&port.protocol)),
    }
}

fn external_address(service: &Service, spec: &ServiceSpec) -> String {
    let mut list: Vec<String> = Vec::new();
    match kind(spec) {
        "ExternalName" => return text(&spec.external_name).to_owned(),
        "LoadBalancer" => {
            let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let ingress = balancer.iter().flat_map(|balancer| balancer.ingress.iter().flatten());
            let one = |one: &LoadBalancerIngress| {
                if text(&one.ip).is_empty() { text(&one.hostname).to_owned() } else { text(&one.ip).to_owned() }
            };
            let sorted: BTreeSet<String> = ingress.map(one).filter(|one| !one.is_empty()).collect();
            list.extend(sorted);
        }
        "ClusterIP" | "NodePort" => {}
        _ => return "<unknown>".to_owned(),
    }
    list.extend(spec.external_ips.iter().flatten().cloned());
    match list.is_empty() {
        true if kind(spec) == "LoadBalancer" => "<pending>".to_owned(),
        true => "<none>".to_owned(),
        false => list.join(","),
    }
}

fn default_spec(spec: &mut ServiceSpec) {
    default_text(&mut spec.session_affinity, "None");
    match text(&spec.session_affinity) {
        "None" => spec.session_affinity_config = None,
        "ClientIP" => {
            let given = spec.session_affinity_config.as_ref().and_then(|one| one.client_ip.as_ref()?.timeout_seconds);
            let client_ip = Some(ClientIPConfig { timeout_seconds: given.or(Some(AFFINITY_SECONDS)) });
            spec.session_affinity_config = Some(SessionAffinityConfig { client_ip });
        }
        _ => {}
    }
    default_text(&mut spec.type_, "ClusterIP");
    for port in spec.ports.iter_mut().flatten() {
        default_text(&mut port.protocol, "TCP");
        let unset = match &port.target_port {
            None | Some(IntOrString::Int(0)) => true,
            Some(IntOrString::String(name)) => name.is_empty(),
            Some(IntOrString::Int(_)) => false,
        };
        if unset {
            port.target_port = Some(IntOrString::Int(port.port));
        }
    }
    if externally_accessible(spec) {
        default_text(&mut spec.external_traffic_policy, "Cluster");
    }
    if matches!(kind(spec), "NodePort" | "LoadBalancer" | "ClusterIP") {
        spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
    }
    if kind(spec) == "ExternalName" {
        spec.internal_traffic_policy = None;
    }
    if kind(spec) == "LoadBalancer" {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
}

fn validate(service: &Service, old: Option<&Service>) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = Path::new("spec");
    let (spec, old_spec) = (service.spec.clone().unwrap_or_default(), old.and_then(|old| old.spec.as_ref()));
    let annotation = |key: &str| service.metadata.annotations.as_ref().and_then(|all| all.get(key));
    if let (Some(hints), Some(mode)) = (annotation(TOPOLOGY_HINTS), annotation(TOPOLOGY_MODE))
        && hints != mode
    {
        let path = Path::new("metadata.annotations").key(TOPOLOGY_MODE);
        let about = format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified");
        errors.push(FieldError::invalid(&path, mode.as_str(), about));
    }
    ports_and_type(&mut errors, &path, &spec);
    labels::labels(&mut errors, &path.child("selector"), spec.selector.as_ref());
    session_affinity(&mut errors, &path, &spec);
    service_update::cluster_ips(&mut errors, &spec, old_spec);
    let known = old_spec.and_then(|old| old.external_ips.clone()).unwrap_or_default();
    for (index, ip) in spec.external_ips.iter().flatten().enumerate() {
        let path = path.child("externalIPs").index(index);
        let before = errors.len();
        if !known.contains(ip) {
            address::ip(&mut errors, &path, ip);
        }
        if errors.len() == before {
            address::endpoint_ip(&mut errors, &path, ip);
        }
    }
    required_one_of(&mut errors, &path.child("type"), kind(&spec), &TYPES);
    port_conflicts(&mut errors, &path.child("ports"), &spec);
    source_ranges(&mut errors, &spec, annotation(SOURCE_RANGES).map(String::as_str));
    balancer_fields(&mut errors, &path, &spec);
    traffic_policies(&mut errors, &path, &spec);
    errors
}

fn ports_and_type(errors: &mut FieldErrors, path: &Path, spec: &ServiceSpec) {
    let headless = is_headless(spec);
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && !headless && kind(spec) != "ExternalName" {
        errors.push(FieldError::required(&path.child("ports"), ""));
    }
    match kind(spec) {
        kind @ ("LoadBalancer" | "NodePort") if headless => {
            let about = format!("may not be set to 'None' for {kind} services");
            errors.push(FieldError::invalid(&path.child("clusterIPs").index(0), "None", about));
        }
        "ExternalName" => {
            let set = [
                ("clusterIPs", spec.cluster_ips.as_ref().is_some_and(|list| !list.is_empty())),
                ("ipFamilies", spec.ip_families.as_ref().is_some_and(|list| !list.is_empty())),
                ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
            ];
            for (name, _) in set.iter().filter(|(_, set)| *set) {
                errors.push(FieldError::forbidden(&path.child(name), "may not be set for ExternalName services"));
            }
            let name = text(&spec.external_name);
            let name = name.strip_suffix('.').unwrap_or(name);
            if required(errors, &path.child("externalName"), name) {
                report(errors, &path.child("externalName"), name, dns::subdomain(name));
            }
        }
        _ => {}
    }
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let (path, name) = (path.child("ports").index(index), text(&port.name));
        if !name.is_empty() {
            report(errors, &path.child("name"), name, dns::label(name));
            if !names.insert(name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
        } else if ports.len() > 1 {
            errors.push(FieldError::required(&path.child("name"), ""));
        }
        service_port(errors, &path, port);
    }
}

fn service_port(errors: &mut FieldErrors, path: &Path, port: &ServicePort) {
    numbers::port(errors, &path.child("port"), port.port);
    required_one_of(errors, &path.child("protocol"), text(&port.protocol), &PROTOCOLS);
    let target = port.target_port.clone().unwrap_or(IntOrString::Int(0));
    numbers::port_or_name(errors, &path.child("targetPort"), &target);
    if let Some(protocol) = &port.app_protocol {
        report(errors, &path.child("appProtocol"), protocol, dns::label_key(protocol));
    }
}

fn session_affinity(errors: &mut FieldErrors, path: &Path, spec: &ServiceSpec) {
    let (at, config) = (path.child("sessionAffinityConfig"), spec.session_affinity_config.as_ref());
    required_one_of(errors, &path.child("sessionAffinity"), text(&spec.session_affinity), &["ClientIP", "None"]);
    match text(&spec.session_affinity) {
        "ClientIP" => {
            let seconds = config.and_then(|one| one.client_ip.as_ref()?.timeout_seconds).unwrap_or(AFFINITY_SECONDS);
            if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds) {
                let about = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
                errors.push(FieldError::invalid(&at.child("clientIP.timeoutSeconds"), seconds, about));
            }
        }
        "None" if config.is_some() => {
            errors.push(FieldError::forbidden(&at, "must not be set when session affinity is None"));
        }
        _ => {}
    }
}

fn port_conflicts(errors: &mut FieldErrors, path: &Path, spec: &ServiceSpec) {
    let (mut node_ports, mut ports) = (BTreeSet::new(), BTreeSet::new());
    let list = spec.ports.as_deref().unwrap_or_default();
    let numbered =
        || list.iter().enumerate().map(|(index, port)| (path.index(index), port, port.node_port.unwrap_or(0)));
    for (path, _, _) in numbered().filter(|(_, _, node)| *node != 0 && kind(spec) == "ClusterIP") {
        errors.push(FieldError::forbidden(&path.child("nodePort"), "may not be used when `type` is 'ClusterIP'"));
    }
    for (path, port, node) in numbered().filter(|(_, _, node)| *node != 0) {
        if !node_ports.insert((text(&port.protocol), node)) {
            errors.push(FieldError::duplicate(&path.child("nodePort"), node));
        }
    }
    for (path, port, _) in numbered() {
        if !ports.insert((text(&port.protocol), port.port)) {
            // Upstream shows its internal form of the two fields that make the key.
            let shown = json!({
                "Name": "", "Protocol": port.protocol, "AppProtocol": null, "Port": port.port, "TargetPort": 0, "NodePort": 0
            });
            errors.push(FieldError::duplicate(&path, shown));
        }
    }
}

fn source_ranges(errors: &mut FieldErrors, spec: &ServiceSpec, annotation: Option<&str>) {
    let of_balancer = kind(spec) == "LoadBalancer";
    let list = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    if !list.is_empty() {
        let path = Path::new("spec.LoadBalancerSourceRanges");
        if !of_balancer {
            errors.push(FieldError::forbidden(&path, BALANCER_ONLY));
        }
        for (index, range) in list.iter().enumerate() {
            address::cidr(errors, &path.index(index), range.trim());
        }
    } else if let Some(value) = annotation {
        let path = Path::new("metadata.annotations").key(SOURCE_RANGES);
        if !of_balancer {
            errors.push(FieldError::forbidden(&path, BALANCER_ONLY));
        }
        for range in value.trim().split(',').filter(|_| !value.trim().is_empty()) {
            address::cidr(errors, &path, range.trim());
        }
    }
}

fn balancer_fields(errors: &mut FieldErrors, path: &Path, spec: &ServiceSpec) {
    let of_balancer = kind(spec) == "LoadBalancer";
    match spec.allocate_load_balancer_node_ports {
        Some(_) if !of_balancer => {
            errors.push(FieldError::forbidden(&path.child("allocateLoadBalancerNodePorts"), BALANCER_ONLY));
        }
        None if of_balancer => errors.push(FieldError::required(&Path::new("allocateLoadBalancerNodePorts"), "")),
        _ => {}
    }
    let at = path.child("loadBalancerClass");
    match &spec.load_balancer_class {
        Some(class) if of_balancer => report(errors, &at, class, dns::label_key(class)),
        Some(_) => errors.push(FieldError::forbidden(&at, BALANCER_ONLY)),
        None => {}
    }
}

fn traffic_policies(errors: &mut FieldErrors, path: &Path, spec: &ServiceSpec) {
    let (at, policy) = (path.child("externalTrafficPolicy"), text(&spec.external_traffic_policy));
    if externally_accessible(spec) {
        required_one_of(errors, &at, policy, &["Cluster", "Local"]);
    } else if !policy.is_empty() {
        errors.push(FieldError::invalid(&at, policy, "may only be set for externally-accessible services"));
    }
    let (at, port) = (path.child("healthCheckNodePort"), spec.health_check_node_port.unwrap_or(0));
    match (needs_health_check(spec), port) {
        (false, 0) => {}
        (false, port) => {
            let about = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(FieldError::invalid(&at, port, about));
        }
        // It is allocated after validation.
        (true, 0) => {}
        (true, port) => numbers::port(errors, &at, port),
    }
    let at = path.child("internalTrafficPolicy");
    match &spec.internal_traffic_policy {
        Some(policy) => one_of(errors, &at, policy, &["Cluster", "Local"]),
        None if TYPES.contains(&kind(spec)) && kind(spec) != "ExternalName" => {
            errors.push(FieldError::required(&at, ""));
        }
        None => {}
    }
    if let Some(distribution) = &spec.traffic_distribution {
        one_of(errors, &path.child("trafficDistribution"), distribution, &DISTRIBUTIONS);
    }
}

fn balancer_ingress(errors: &mut FieldErrors, path: &Path, one: &LoadBalancerIngress, before: &[LoadBalancerIngress]) {
    let (ip, hostname) = (text(&one.ip), text(&one.hostname));
    if !ip.is_empty() && !before.iter().any(|other| text(&other.ip) == ip) {
        address::ip(errors, &path.child("ip"), ip);
    }
    let at = path.child("ipMode");
    match &one.ip_mode {
        None if !ip.is_empty() => errors.push(FieldError::required(&at, "must be specified when `ip` is set")),
        Some(_) if ip.is_empty() => {
            errors.push(FieldError::forbidden(&at, "may not be specified when `ip` is not set"));
        }
        Some(mode) => one_of(errors, &at, mode, &["Proxy", "VIP"]),
        None => {}
    }
    if !hostname.is_empty() {
        report(errors, &path.child("hostname"), hostname, dns::subdomain(hostname));
        if hostname.parse::<std::net::IpAddr>().is_ok() {
            let about = "must be a DNS name, not an IP address";
            errors.push(FieldError::invalid(&path.child("hostname"), hostname, about));
        }
    }
}
