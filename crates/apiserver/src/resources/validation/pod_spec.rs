//! The specification of a Pod, alone or in a template.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PodDNSConfig, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use xebec_api::Quantity;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::containers::{self, Surroundings, for_each};
use super::quantities::{self, container_resource, pod_resource};
use super::{
    address, affinity, dns, labels, numbers, report, required_one_of, scheduling, security, shown_in_go, text, volumes,
    windows,
};
use crate::resources::core::pod_resources::{Amounts, aggregate_limits, aggregate_requests};

/// Limits of glibc's resolver, as the kubelet passes them on.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCH_PATHS: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;
const MAX_HOSTNAME: usize = 64;
const DEADLINE: (i64, i64) = (1, i32::MAX as i64);

/// `pod` is the metadata of the Pod itself; a template has none.
pub fn pod_spec(errors: &mut FieldErrors, path: &Path, spec: &PodSpec, pod: Option<&ObjectMeta>) {
    if spec.termination_grace_period_seconds.is_none() {
        errors.push(FieldError::required(&path.child("terminationGracePeriodSeconds"), ""));
    }
    let volumes = volumes::volumes(errors, &path.child("volumes"), spec.volumes.as_deref().unwrap_or_default(), pod);
    let claim_names: BTreeSet<&str> = spec
        .resource_claims
        .iter()
        .flatten()
        .map(|claim| claim.name.as_str())
        .filter(|name| !name.is_empty())
        .collect();
    resource_claims(errors, &path.child("resourceClaims"), spec, pod);
    let around = Surroundings { spec, volumes, claim_names };
    containers::regular(errors, &path.child("containers"), &around);
    containers::init(errors, &path.child("initContainers"), &around);
    containers::ephemeral(errors, &path.child("ephemeralContainers"), &around);
    pod_resources(errors, &path.child("resources"), spec, &around.claim_names);
    containers::host_network_ports(errors, &path.child("containers"), spec, pod.is_some());
    let policies = ["Always", "OnFailure", "Never"];
    required_one_of(errors, &path.child("restartPolicy"), text(&spec.restart_policy), &policies);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    required_one_of(errors, &path.child("dnsPolicy"), text(&spec.dns_policy), &policies);
    labels::labels(errors, &path.child("nodeSelector"), spec.node_selector.as_ref());
    security::pod(errors, &path.child("securityContext"), spec);
    security::process_namespace(errors, path, spec);
    affinity::affinity(errors, &path.child("affinity"), spec.affinity.as_ref());
    dns_config(errors, &path.child("dnsConfig"), spec.dns_config.as_ref(), text(&spec.dns_policy));
    scheduling::readiness_gates(errors, &path.child("readinessGates"), spec.readiness_gates.as_deref());
    scheduling::scheduling_gates(errors, &path.child("schedulingGates"), spec.scheduling_gates.as_deref());
    let constraints = spec.topology_spread_constraints.as_deref();
    scheduling::topology_spread(errors, &path.child("topologySpreadConstraints"), constraints);
    windows::host_process(errors, path, spec);
    security::host_users(errors, path, spec);
    names(errors, path, spec);
    scheduling::tolerations(errors, &path.child("tolerations"), spec.tolerations.as_deref());
    host_aliases(errors, &path.child("hostAliases"), spec);
    if let Some(policy) = &spec.preemption_policy {
        required_one_of(errors, &path.child("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
    }
    if let Some(overhead) = &spec.overhead {
        let path = path.child("overhead.limits");
        quantities::amounts(errors, &path, Some(overhead), container_resource);
    }
    windows::operating_system(errors, path, spec);
    file_key_volumes(errors, path, spec);
}

fn names(errors: &mut FieldErrors, path: &Path, spec: &PodSpec) {
    if let Some(name) = &spec.hostname_override {
        let path = path.child("hostnameOverride");
        if spec.set_hostname_as_fqdn == Some(true) {
            errors.push(FieldError::forbidden(&path, "may not be specified when setHostnameAsFQDN is true"));
        }
        if spec.host_network == Some(true) {
            errors.push(FieldError::forbidden(&path, "may not be specified when hostNetwork is true"));
        }
        if name.len() > MAX_HOSTNAME {
            errors.push(FieldError::too_long(&path, MAX_HOSTNAME));
        }
        report(errors, &path, name, dns::subdomain(name));
    }
    let mut named = |field: &str, value: &str, check: fn(&str) -> dns::Messages| {
        if !value.is_empty() {
            report(errors, &path.child(field), value, check(value));
        }
    };
    let account = text(&spec.service_account_name);
    named("serviceAccountName", account, dns::subdomain);
    named("nodeName", text(&spec.node_name), dns::subdomain);
    named("hostname", text(&spec.hostname), dns::label);
    named("subdomain", text(&spec.subdomain), dns::label);
    named("priorityClassName", text(&spec.priority_class_name), dns::subdomain);
    if let Some(class) = &spec.runtime_class_name {
        report(errors, &path.child("runtimeClassName"), class, dns::subdomain(class));
    }
    let alias = text(&spec.service_account);
    if alias != account {
        let about = format!("must be the same as serviceAccountName: {account:?}");
        errors.push(FieldError::invalid(&path.child("deprecatedServiceAccount"), alias, about));
    }
    if let Some(seconds) = spec.active_deadline_seconds {
        numbers::in_range(errors, &path.child("activeDeadlineSeconds"), seconds, DEADLINE);
    }
}

fn resource_claims(errors: &mut FieldErrors, path: &Path, spec: &PodSpec, pod: Option<&ObjectMeta>) {
    let mirror = pod
        .and_then(|pod| pod.annotations.as_ref())
        .is_some_and(|annotations| annotations.contains_key("kubernetes.io/config.mirror"));
    let mut seen = BTreeSet::new();
    for (index, claim) in spec.resource_claims.iter().flatten().enumerate() {
        if mirror {
            errors.push(FieldError::forbidden(&Path::root(), "static pods do not support resource claims"));
            continue;
        }
        let path = path.index(index);
        if super::required(errors, &path.child("name"), &claim.name) {
            if seen.insert(claim.name.as_str()) {
                report(errors, &path.child("name"), &claim.name, dns::label(&claim.name));
            } else {
                errors.push(FieldError::duplicate(&path.child("name"), claim.name.as_str()));
            }
        }
        let about = match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (Some(_), Some(_)) => "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            (None, None) => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            _ => "",
        };
        if !about.is_empty() {
            errors.push(FieldError::invalid(&path, shown_in_go("PodResourceClaim", claim), about));
        }
        for (field, name) in [
            ("resourceClaimName", &claim.resource_claim_name),
            ("resourceClaimTemplateName", &claim.resource_claim_template_name),
        ] {
            if let Some(name) = name {
                report(errors, &path.child(field), name, dns::subdomain(name));
            }
        }
    }
}

/// Requests and limits of the Pod as a whole, and how they relate to those of its containers.
fn pod_resources(errors: &mut FieldErrors, path: &Path, spec: &PodSpec, claim_names: &BTreeSet<&str>) {
    let Some(resources) = &spec.resources else { return };
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return errors.push(FieldError::forbidden(path, "may not be set for a windows pod"));
    }
    if resources.claims.is_some() {
        let about = "claims may not be set for Resources at pod-level";
        errors.push(FieldError::forbidden(&path.child("claims"), about));
    }
    quantities::requirements(errors, path, resources, pod_resource);
    quantities::claims(errors, &path.child("claims"), resources, claim_names);
    let of = |list: &Option<Amounts>, name: &str| list.as_ref()?.get(name).map(|value| Quantity::of(Some(value)));
    for (name, sum) in aggregate_requests(spec) {
        if let Some(whole) = of(&resources.requests, &name).filter(|whole| sum > *whole) {
            let about = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.push(FieldError::invalid(&path.child("requests").key(&name), whole.to_string(), about));
        }
    }
    for (name, sum) in aggregate_limits(spec).into_iter().filter(|(name, _)| quantities::is_huge_page(name)) {
        if let Some(whole) = of(&resources.limits, &name).filter(|whole| sum > *whole) {
            let about = format!("must be greater than or equal to aggregate container limits of {sum}");
            errors.push(FieldError::invalid(&path.child("limits").key(&name), whole.to_string(), about));
        }
    }
    for (index, container) in spec.containers.iter().enumerate() {
        let limits = container.resources.iter().flat_map(|resources| resources.limits.iter().flatten());
        for (name, limit) in limits {
            let limit = Quantity::of(Some(limit));
            if let Some(whole) = of(&resources.limits, name).filter(|whole| limit > *whole) {
                let path = path.child("containers").index(index).key(name).child("limits");
                let about = format!("must be less than or equal to pod limits of {whole}");
                errors.push(FieldError::invalid(&path, limit.to_string(), about));
            }
        }
    }
}

fn dns_config(errors: &mut FieldErrors, path: &Path, config: Option<&PodDNSConfig>, policy: &str) {
    let Some(config) = config else {
        if policy == "None" {
            errors.push(FieldError::required(path, "must provide `dnsConfig` when `dnsPolicy` is None"));
        }
        return;
    };
    let servers = config.nameservers.as_deref().unwrap_or_default();
    let searches = config.searches.as_deref().unwrap_or_default();
    let (servers_path, searches_path) = (path.child("nameservers"), path.child("searches"));
    if policy == "None" && servers.is_empty() {
        let about = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        return errors.push(FieldError::required(&servers_path, about));
    }
    if servers.len() > MAX_NAMESERVERS {
        let about = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.push(FieldError::invalid(&servers_path, servers.to_vec(), about));
    }
    for (index, server) in servers.iter().enumerate() {
        address::ip(errors, &servers_path.index(index), server);
    }
    if searches.len() > MAX_SEARCH_PATHS {
        let about = format!("must not have more than {MAX_SEARCH_PATHS} search paths");
        errors.push(FieldError::invalid(&searches_path, searches.to_vec(), about));
    }
    if searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
        let about =
            format!("must not have more than {MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list");
        errors.push(FieldError::invalid(&searches_path, searches.to_vec(), about));
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        report(errors, &searches_path.index(index), search, dns::subdomain_with_underscore(search));
    }
    for (index, option) in config.options.iter().flatten().enumerate() {
        if text(&option.name).is_empty() {
            errors.push(FieldError::required(&path.child("options").index(index), "must not be empty"));
        }
    }
}

fn host_aliases(errors: &mut FieldErrors, path: &Path, spec: &PodSpec) {
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = path.index(index);
        address::ip(errors, &path.child("ip"), &alias.ip);
        for (index, name) in alias.hostnames.iter().flatten().enumerate() {
            report(errors, &path.child("hostnames").index(index), name, dns::subdomain(name));
        }
    }
}

/// Variables read from a file name an emptyDir of the Pod.
fn file_key_volumes(errors: &mut FieldErrors, path: &Path, spec: &PodSpec) {
    for_each(spec, path, |container, path| {
        for (index, variable) in container.env.iter().flatten().enumerate() {
            let Some(file) = variable.value_from.as_ref().and_then(|source| source.file_key_ref.as_ref()) else {
                continue;
            };
            let at = path.child("env").index(index).child("valueFrom.fileKeyRef.volumeName");
            let name = file.volume_name.as_str();
            match spec.volumes.iter().flatten().find(|volume| volume.name == name) {
                None => errors.push(FieldError::not_found(&at, name)),
                Some(volume) if volume.empty_dir.is_none() => {
                    let about = "referenced volume must be of type emptyDir";
                    errors.push(FieldError::invalid(&at, name, about));
                }
                Some(_) => {}
            }
        }
    });
}
