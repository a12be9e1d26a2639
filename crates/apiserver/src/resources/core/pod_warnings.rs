//! Warnings about Pods and templates: what is accepted but does not do what its author may think.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, NodeSelectorTerm, PodAffinityTerm, PodSpec, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use xebec_api::Quantity;
use xebec_api::field::Path;

use super::pod_resources::Amounts;
use crate::resources::validation::containers::for_each;
use crate::resources::validation::security::{
    APPARMOR_CONTAINER, SECCOMP_CONTAINER, SECCOMP_POD, apparmor_of_annotation,
};
use crate::resources::validation::{address, dns, text};

const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";
const USE_SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const DEPRECATED_LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];
const DEPRECATED_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

/// `path` is that of the template, or the root for a Pod.
pub fn pod_warnings(path: &Path, spec: &PodSpec, meta: Option<&ObjectMeta>) -> Vec<String> {
    let mut warnings = Vec::new();
    let annotations = meta.and_then(|meta| meta.annotations.as_ref());
    let spec_path = path.child("spec");
    placement(&mut warnings, &spec_path, spec);
    for (key, about) in DEPRECATED_ANNOTATIONS {
        if annotations.is_some_and(|all| all.contains_key(key)) {
            warnings.push(format!("{}: {about}", path.child("metadata.annotations").key(key)));
        }
    }
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        old_volume(&mut warnings, &spec_path.child("volumes").index(index), volume);
    }
    spec.volumes.iter().flatten().for_each(|volume| overlaps(&mut warnings, volume));
    repeated(&mut warnings, &spec_path, spec);
    fractions(&mut warnings, &spec_path.child("overhead"), spec.overhead.as_ref());
    profiles(&mut warnings, path, spec, annotations);
    for_each(spec, &spec_path, |container, path| {
        if let Some(resources) = &container.resources {
            fractions(&mut warnings, &path.child("resources.limits"), resources.limits.as_ref());
            fractions(&mut warnings, &path.child("resources.requests"), resources.requests.as_ref());
        }
        hidden_variables(&mut warnings, path, container);
    });
    ports(&mut warnings, &spec_path, spec);
    if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        let about = "must be >= 0; negative values are invalid and will be treated as 1";
        warnings.push(format!("{}: {about}", spec_path.child("terminationGracePeriodSeconds")));
    }
    pod_affinity(&mut warnings, &spec_path, spec);
    for (index, server) in spec.dns_config.iter().flat_map(|one| one.nameservers.iter().flatten()).enumerate() {
        warnings.extend(address::ip_warning(&spec_path.child("dnsConfig.nameservers").index(index), server));
    }
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        warnings.extend(address::ip_warning(&spec_path.child("hostAliases").index(index).child("ip"), &alias.ip));
    }
    warnings
}

pub fn template_warnings(template: Option<&PodTemplateSpec>) -> Vec<String> {
    template_warnings_at(&Path::new("spec.template"), template)
}

pub fn template_warnings_at(path: &Path, template: Option<&PodTemplateSpec>) -> Vec<String> {
    let Some(template) = template else { return Vec::new() };
    let Some(spec) = &template.spec else { return Vec::new() };
    pod_warnings(path, spec, template.metadata.as_ref())
}

/// Workloads' names become parts of host names, which are labels.
pub fn name_warning(meta: &ObjectMeta, about: &str) -> Option<String> {
    let messages = dns::label(text(&meta.name));
    if messages.is_empty() {
        return None;
    }
    let listed = messages.join(" ");
    Some(format!(
        "metadata.name: this is used in {about}, which can result in surprising behavior; a DNS label is recommended: [{listed}]"
    ))
}

pub fn deprecated_label(key: &str) -> Option<&'static str> {
    DEPRECATED_LABELS.iter().find(|(label, _)| *label == key).map(|(_, about)| *about)
}

fn placement(warnings: &mut Vec<String>, path: &Path, spec: &PodSpec) {
    for key in spec.node_selector.iter().flatten().map(|(key, _)| key) {
        if let Some(about) = deprecated_label(key) {
            warnings.push(format!("{}: {about}", path.child("nodeSelector").key(key)));
        }
    }
    if let Some(affinity) = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()) {
        let path = path.child("affinity.nodeAffinity");
        let required = affinity.required_during_scheduling_ignored_during_execution.iter();
        for (index, term) in required.flat_map(|selector| &selector.node_selector_terms).enumerate() {
            let path = path.child("requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms").index(index);
            node_term(warnings, &path, term, false);
        }
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        for (index, term) in preferred.enumerate() {
            let path = path.child("preferredDuringSchedulingIgnoredDuringExecution").index(index).child("preference");
            node_term(warnings, &path, &term.preference, true);
        }
    }
    for (index, constraint) in spec.topology_spread_constraints.iter().flatten().enumerate() {
        let path = path.child("topologySpreadConstraints").index(index);
        if let Some(about) = deprecated_label(&constraint.topology_key) {
            warnings.push(format!("{}: {} is {about}", path.child("topologyKey"), constraint.topology_key));
        }
        if constraint.label_selector.is_none() {
            warnings.push(format!("{}: {NULL_SELECTOR}", path.child("labelSelector")));
        }
    }
}

fn node_term(warnings: &mut Vec<String>, path: &Path, term: &NodeSelectorTerm, check_values: bool) {
    for (index, expression) in term.match_expressions.iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(index);
        if let Some(about) = deprecated_label(&expression.key) {
            warnings.push(format!("{}: {} is {about}", path.child("key"), expression.key));
        }
        for (index, value) in expression.values.iter().flatten().enumerate().filter(|_| check_values) {
            for message in dns::label_value(value) {
                warnings.push(format!("{}: {value} is invalid, {message}", path.child("values").index(index)));
            }
        }
    }
}

fn pod_affinity(warnings: &mut Vec<String>, path: &Path, spec: &PodSpec) {
    let Some(affinity) = &spec.affinity else { return };
    let mut check = |path: Path, term: &PodAffinityTerm| {
        if term.label_selector.is_none() {
            warnings.push(format!("{}: {NULL_SELECTOR}", path.child("labelSelector")));
        }
    };
    let (required, preferred) =
        ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution");
    if let Some(one) = &affinity.pod_affinity {
        let path = path.child("affinity.podAffinity");
        for (index, term) in one.required_during_scheduling_ignored_during_execution.iter().flatten().enumerate() {
            check(path.child(required).index(index), term);
        }
        for (index, term) in one.preferred_during_scheduling_ignored_during_execution.iter().flatten().enumerate() {
            check(path.child(preferred).index(index).child("podAffinityTerm"), &term.pod_affinity_term);
        }
    }
    if let Some(one) = &affinity.pod_anti_affinity {
        let path = path.child("affinity.podAntiAffinity");
        for (index, term) in one.required_during_scheduling_ignored_during_execution.iter().flatten().enumerate() {
            check(path.child(required).index(index), term);
        }
        for (index, term) in one.preferred_during_scheduling_ignored_during_execution.iter().flatten().enumerate() {
            check(path.child(preferred).index(index).child("podAffinityTerm"), &term.pod_affinity_term);
        }
    }
}

fn old_volume(warnings: &mut Vec<String>, path: &Path, volume: &Volume) {
    let old = [
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some(), "v1.11, non-functional in v1.16+"),
        ("gitRepo", volume.git_repo.is_some(), "v1.11, and disabled by default in v1.33+"),
        ("scaleIO", volume.scale_io.is_some(), "v1.16, non-functional in v1.22+"),
        ("flocker", volume.flocker.is_some(), "v1.22, non-functional in v1.25+"),
        ("storageOS", volume.storageos.is_some(), "v1.22, non-functional in v1.25+"),
        ("quobyte", volume.quobyte.is_some(), "v1.22, non-functional in v1.25+"),
        ("glusterfs", volume.glusterfs.is_some(), "v1.25, non-functional in v1.26+"),
        ("cephfs", volume.cephfs.is_some(), "v1.28, non-functional in v1.31+"),
        ("rbd", volume.rbd.is_some(), "v1.28, non-functional in v1.31+"),
    ];
    for (name, _, since) in old.iter().filter(|(_, present, _)| *present) {
        warnings.push(format!("{}: deprecated in {since}", path.child(name)));
    }
}

/// A file and who puts it there; the source is told only in projected volumes.
type File = (String, String);

fn overlaps(warnings: &mut Vec<String>, volume: &Volume) {
    let mut check = |kind: String, files: Vec<File>| {
        let mut seen: Vec<File> = Vec::new();
        for (path, source) in files {
            let file = (path.trim_end_matches('/').to_owned(), source);
            for other in seen.iter().filter(|other| clash(&file.0, &other.0)) {
                let body = format!("{} with {}", show(&file), show(other));
                warnings.push(format!("volume {:?} ({kind}): overlapping paths: {body}", volume.name));
            }
            seen.push(file);
        }
    };
    let plain = |paths: Vec<&String>| paths.into_iter().map(|path| (path.clone(), String::new())).collect();
    if let Some(one) = &volume.config_map {
        let paths = one.items.iter().flatten().map(|item| &item.path).collect();
        check(format!("ConfigMap {:?}", one.name), plain(paths));
    }
    if let Some(one) = &volume.secret {
        let paths = one.items.iter().flatten().map(|item| &item.path).collect();
        check(format!("Secret {:?}", text(&one.secret_name)), plain(paths));
    }
    if let Some(one) = &volume.downward_api {
        check("DownwardAPI".to_owned(), plain(one.items.iter().flatten().map(|item| &item.path).collect()));
    }
    let Some(projected) = &volume.projected else { return };
    let mut files = Vec::new();
    let mut empty = 0;
    for source in projected.sources.iter().flatten() {
        let before = files.len();
        if let Some(one) = &source.config_map {
            let name = format!("ConfigMap {:?}", one.name);
            files.extend(one.items.iter().flatten().map(|item| (item.path.clone(), name.clone())));
        } else if let Some(one) = &source.secret {
            let name = format!("Secret {:?}", one.name);
            files.extend(one.items.iter().flatten().map(|item| (item.path.clone(), name.clone())));
        } else if let Some(one) = &source.downward_api {
            files.extend(one.items.iter().flatten().map(|item| (item.path.clone(), "DownwardAPI".to_owned())));
        } else if let Some(one) = &source.service_account_token {
            files.push((one.path.clone(), "ServiceAccountToken".to_owned()));
        } else if let Some(one) = &source.cluster_trust_bundle {
            let name = one.name.as_deref().unwrap_or(text(&one.signer_name));
            files.push((one.path.clone(), format!("ClusterTrustBundle {name:?}")));
        } else if source.pod_certificate.is_none() && files.len() == before {
            empty += 1;
        }
    }
    check("Projected".to_owned(), files);
    warnings.extend((0..empty).map(|_| format!("volume {:?} (Projected) has no sources provided", volume.name)));
}

fn clash(a: &str, b: &str) -> bool {
    let (long, short) = (format!("{a}/"), format!("{b}/"));
    !a.is_empty() && !b.is_empty() && (long.starts_with(&short) || short.starts_with(&long))
}

fn show((path, source): &File) -> String {
    if source.is_empty() { format!("{path:?}") } else { format!("{path:?} ({source})") }
}

fn repeated(warnings: &mut Vec<String>, path: &Path, spec: &PodSpec) {
    let mut seen = BTreeSet::new();
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        if !seen.insert(alias.ip.as_str()) {
            let path = path.child("hostAliases").index(index).child("ip");
            warnings.push(format!("{path}: duplicate ip {:?}", alias.ip));
        }
    }
    let mut seen = BTreeSet::new();
    let secrets = spec.image_pull_secrets.as_deref().unwrap_or_default();
    for (index, secret) in secrets.iter().enumerate() {
        let path = path.child("imagePullSecrets").index(index).child("name");
        if !seen.insert(secret.name.as_str()) {
            warnings.push(format!("{path}: duplicate name {:?}", secret.name));
        }
    }
    for (index, _) in secrets.iter().enumerate().filter(|(_, secret)| secret.name.is_empty()) {
        let path = path.child("imagePullSecrets").index(index).child("name");
        warnings.push(format!("{path}: invalid empty name \"\""));
    }
}

/// Bytes come whole.
fn fractions(warnings: &mut Vec<String>, path: &Path, list: Option<&Amounts>) {
    for name in ["memory", "ephemeral-storage"] {
        let Some(value) = list.and_then(|list| list.get(name)) else { continue };
        let quantity = Quantity::of(Some(value));
        if quantity.milli_value() % 1000 != 0 {
            let about = "is invalid, must be an integer";
            warnings.push(format!("{}: fractional byte value {:?} {about}", path.key(name), quantity.to_string()));
        }
    }
}

fn profiles(warnings: &mut Vec<String>, path: &Path, spec: &PodSpec, annotations: Option<&BTreeMap<String, String>>) {
    let Some(annotations) = annotations else { return };
    let at = |key: &str| path.child("metadata.annotations").key(key);
    let context = spec.security_context.as_ref();
    if context.is_none_or(|context| context.seccomp_profile.is_none()) && annotations.contains_key(SECCOMP_POD) {
        warnings.push(format!("{}: {USE_SECCOMP}", at(SECCOMP_POD)));
    }
    for_each(spec, path, |container, _| {
        let own = container.security_context.as_ref();
        let key = format!("{SECCOMP_CONTAINER}{}", container.name);
        if own.is_none_or(|own| own.seccomp_profile.is_none()) && annotations.contains_key(&key) {
            warnings.push(format!("{}: {USE_SECCOMP}", at(&key)));
        }
        let key = format!("{APPARMOR_CONTAINER}{}", container.name);
        let Some(value) = annotations.get(&key).filter(|_| own.is_none_or(|own| own.app_armor_profile.is_none()))
        else {
            return;
        };
        let of_pod = context.and_then(|context| context.app_armor_profile.as_ref());
        if of_pod.is_none() || apparmor_of_annotation(value).as_ref() != of_pod {
            warnings.push(format!("{}: deprecated since v1.30; use the \"appArmorProfile\" field instead", at(&key)));
        }
    });
}

fn hidden_variables(warnings: &mut Vec<String>, path: &Path, container: &Container) {
    let mut seen = BTreeSet::new();
    for (index, variable) in container.env.iter().flatten().enumerate() {
        if seen.insert(variable.name.as_str()) {
            continue;
        }
        // Appending to an earlier value of the same name is fine.
        let reference = format!("$({})", variable.name);
        let value = text(&variable.value);
        if variable.value_from.is_some() || value == reference || !value.contains(&reference) {
            let path = path.child("env").index(index);
            let about = "which may be dropped when using apply";
            warnings.push(format!("{path}: hides previous definition of {:?}, {about}", variable.name));
        }
    }
}

fn ports(warnings: &mut Vec<String>, path: &Path, spec: &PodSpec) {
    let mut seen: Vec<(Path, ContainerPort)> = Vec::new();
    let mut names: BTreeMap<String, Path> = BTreeMap::new();
    let mut renamed = Vec::new();
    for_each(spec, path, |container, path| {
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let path = path.child("ports").index(index);
            let (address, number) = (text(&port.host_ip), port.host_port.unwrap_or(0));
            if number == 0 && !address.is_empty() {
                let (name, protocol) = (text(&port.name), text(&port.protocol));
                let inside = port.container_port;
                let shown =
                    format!("{{Name:{name} HostPort:0 ContainerPort:{inside} Protocol:{protocol} HostIP:{address}}}");
                warnings.push(format!("{path}: hostIP set without hostPort: {shown}"));
            }
            for (other_path, other) in &seen {
                if other.container_port != port.container_port || other.protocol != port.protocol {
                    continue;
                }
                let (other_address, other_number) = (text(&other.host_ip), other.host_port.unwrap_or(0));
                let about = if address == other_address && number == other_number {
                    "duplicate port definition"
                } else if number == 0 || other_number == 0 {
                    "overlapping port definition"
                } else if number == other_number && address.is_empty() != other_address.is_empty() {
                    "dangerously ambiguous port definition"
                } else {
                    continue;
                };
                warnings.push(format!("{path}: {about} with {other_path}"));
            }
            seen.push((path.clone(), port.clone()));
            let name = text(&port.name);
            if name.is_empty() {
                continue;
            }
            match names.get(name) {
                Some(first) => renamed.push(format!(
                    "{path}: duplicate port name {name:?} with {first}, services and probes that select ports by name will use {first}"
                )),
                None => drop(names.insert(name.to_owned(), path)),
            }
        }
    });
    warnings.extend(renamed);
}
