//! Containers: what all of them share, and what regular, init and ephemeral ones may have beyond that.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, ContainerPort, EphemeralContainer, PodSpec};
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::mounts::{self, Volumes};
use super::quantities::{self, container_resource};
use super::volumes::PULL_POLICIES;
use super::{dns, environment, numbers, one_of, probes, report, required, required_one_of, security, shown, text};

pub const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const NO_SIDECAR: &str = "may not be set for init containers without restartPolicy=Always";

/// What the checks of a container need to know of its Pod.
pub struct Surroundings<'a> {
    pub spec: &'a PodSpec,
    pub volumes: Volumes<'a>,
    pub claim_names: BTreeSet<&'a str>,
}

/// Init, regular and ephemeral containers in this order, each with its path under that of the spec.
pub fn for_each(spec: &PodSpec, path: &Path, mut visit: impl FnMut(&Container, &Path)) {
    for (index, one) in spec.init_containers.iter().flatten().enumerate() {
        visit(one, &path.child("initContainers").index(index));
    }
    for (index, one) in spec.containers.iter().enumerate() {
        visit(one, &path.child("containers").index(index));
    }
    for (index, one) in spec.ephemeral_containers.iter().flatten().enumerate() {
        visit(&as_container(one), &path.child("ephemeralContainers").index(index));
    }
}

/// An ephemeral container has a container's fields and one more.
pub fn as_container(one: &EphemeralContainer) -> Container {
    let one = one.clone();
    Container {
        args: one.args,
        command: one.command,
        env: one.env,
        env_from: one.env_from,
        image: one.image,
        image_pull_policy: one.image_pull_policy,
        lifecycle: one.lifecycle,
        liveness_probe: one.liveness_probe,
        name: one.name,
        ports: one.ports,
        readiness_probe: one.readiness_probe,
        resize_policy: one.resize_policy,
        resources: one.resources,
        restart_policy: one.restart_policy,
        restart_policy_rules: one.restart_policy_rules,
        security_context: one.security_context,
        startup_probe: one.startup_probe,
        stdin: one.stdin,
        stdin_once: one.stdin_once,
        termination_message_path: one.termination_message_path,
        termination_message_policy: one.termination_message_policy,
        tty: one.tty,
        volume_devices: one.volume_devices,
        volume_mounts: one.volume_mounts,
        working_dir: one.working_dir,
    }
}

pub fn regular(errors: &mut FieldErrors, path: &Path, around: &Surroundings<'_>) {
    let containers = &around.spec.containers;
    if containers.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    let mut names = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        common(errors, &path, container, around);
        if !names.insert(container.name.as_str()) {
            errors.push(FieldError::duplicate(&path.child("name"), container.name.as_str()));
        }
        probes::container(errors, &path, container, around.spec.termination_grace_period_seconds);
        restart_policy(errors, &path, container);
    }
    host_ports(errors, path, containers);
}

pub fn init(errors: &mut FieldErrors, path: &Path, around: &Surroundings<'_>) {
    let mut names: BTreeSet<&str> = around.spec.containers.iter().map(|one| one.name.as_str()).collect();
    for (index, container) in around.spec.init_containers.iter().flatten().enumerate() {
        let item = path.index(index);
        common(errors, &item, container, around);
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        restart_policy(errors, &item, container);
        if !container.name.is_empty() && !names.insert(&container.name) {
            errors.push(FieldError::duplicate(&item.child("name"), container.name.as_str()));
        }
        host_ports(errors, path, std::slice::from_ref(container));
        if sidecar {
            probes::container(errors, &item, container, around.spec.termination_grace_period_seconds);
            continue;
        }
        let present = [
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
        ];
        for (name, _) in present.iter().filter(|(_, present)| *present) {
            errors.push(FieldError::forbidden(&item.child(name), NO_SIDECAR));
        }
        for (at, policy) in container.resize_policy.iter().flatten().enumerate() {
            if policy.restart_policy == "RestartContainer" {
                let path = item.child("resizePolicy").index(at).child("restartPolicy");
                let about = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                errors.push(FieldError::invalid(&path, policy.restart_policy.as_str(), about));
            }
        }
    }
}

pub fn ephemeral(errors: &mut FieldErrors, path: &Path, around: &Surroundings<'_>) {
    let others: BTreeSet<&str> = around
        .spec
        .containers
        .iter()
        .chain(around.spec.init_containers.iter().flatten())
        .map(|one| one.name.as_str())
        .collect();
    let mut names = others.clone();
    for (index, one) in around.spec.ephemeral_containers.iter().flatten().enumerate() {
        let path = path.index(index);
        let container = as_container(one);
        common(errors, &path, &container, around);
        trimmed_image(errors, &path, &container);
        if !names.insert(&one.name) {
            errors.push(FieldError::duplicate(&path.child("name"), one.name.as_str()));
        }
        let target = text(&one.target_container_name);
        if !target.is_empty() && !others.contains(target) {
            errors.push(FieldError::not_found(&path.child("targetContainerName"), target));
        }
        only_for_lasting_ones(errors, &path, &container);
    }
}

fn only_for_lasting_ones(errors: &mut FieldErrors, path: &Path, container: &Container) {
    let resources = container.resources.as_ref().is_some_and(|r| *r != Default::default());
    let present = [
        ("ports", container.ports.as_ref().is_some_and(|list| !list.is_empty())),
        ("resources", resources),
        ("resizePolicy", container.resize_policy.as_ref().is_some_and(|list| !list.is_empty())),
        ("restartPolicy", container.restart_policy.is_some()),
        ("restartPolicyRules", container.restart_policy_rules.as_ref().is_some_and(|list| !list.is_empty())),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
    ];
    let about = "cannot be set for an Ephemeral Container";
    for (name, _) in present.iter().filter(|(_, present)| *present) {
        errors.push(FieldError::forbidden(&path.child(name), about));
    }
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let path = path.child("volumeMounts").index(index);
        for (name, value) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
            if !text(value).is_empty() {
                errors.push(FieldError::forbidden(&path.child(name), about));
            }
        }
    }
}

/// Only Pods themselves refuse blanks around an image's name; templates always took them.
pub fn trimmed_image(errors: &mut FieldErrors, path: &Path, container: &Container) {
    let image = text(&container.image);
    if image.trim() != image {
        let about = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(&path.child("image"), image, about));
    }
}

fn common(errors: &mut FieldErrors, path: &Path, container: &Container, around: &Surroundings<'_>) {
    if required(errors, &path.child("name"), &container.name) {
        report(errors, &path.child("name"), &container.name, dns::label(&container.name));
    }
    required(errors, &path.child("image"), text(&container.image));
    let policies = ["File", "FallbackToLogsOnError"];
    required_one_of(
        errors,
        &path.child("terminationMessagePolicy"),
        text(&container.termination_message_policy),
        &policies,
    );
    ports(errors, &path.child("ports"), container.ports.as_deref().unwrap_or_default());
    environment::env(errors, &path.child("env"), container.env.as_deref());
    environment::env_from(errors, &path.child("envFrom"), container.env_from.as_deref());
    mounts::mounts(errors, &path.child("volumeMounts"), container, &around.volumes);
    mounts::devices(errors, &path.child("volumeDevices"), container, &around.volumes);
    required_one_of(errors, &path.child("imagePullPolicy"), text(&container.image_pull_policy), &PULL_POLICIES);
    if let Some(resources) = &container.resources {
        let path = path.child("resources");
        quantities::requirements(errors, &path, resources, container_resource);
        quantities::claims(errors, &path.child("claims"), resources, &around.claim_names);
    }
    resize_policy(errors, &path.child("resizePolicy"), container, text(&around.spec.restart_policy));
    let host_users = around.spec.host_users != Some(false);
    security::container(errors, &path.child("securityContext"), container.security_context.as_ref(), host_users);
}

fn ports(errors: &mut FieldErrors, path: &Path, ports: &[ContainerPort]) {
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(&port.name);
        if !name.is_empty() {
            let messages = dns::port_name(name);
            if messages.is_empty() && !names.insert(name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
            report(errors, &path.child("name"), name, messages);
        }
        if port.container_port == 0 {
            errors.push(FieldError::required(&path.child("containerPort"), ""));
        } else {
            numbers::port(errors, &path.child("containerPort"), port.container_port);
        }
        if let Some(number) = port.host_port.filter(|number| *number != 0) {
            numbers::port(errors, &path.child("hostPort"), number);
        }
        required_one_of(errors, &path.child("protocol"), text(&port.protocol), &PROTOCOLS);
    }
}

/// One taker for each host port, address and protocol.
fn host_ports(errors: &mut FieldErrors, path: &Path, containers: &[Container]) {
    let mut taken = BTreeSet::new();
    for (at, container) in containers.iter().enumerate() {
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let number = port.host_port.unwrap_or(0);
            let key = format!("{}/{}/{number}", text(&port.protocol), text(&port.host_ip));
            if number != 0 && !taken.insert(key.clone()) {
                let path = path.index(at).child("ports").index(index).child("hostPort");
                errors.push(FieldError::duplicate(&path, key));
            }
        }
    }
}

fn resize_policy(errors: &mut FieldErrors, path: &Path, container: &Container, pod_restart_policy: &str) {
    let mut seen = BTreeSet::new();
    for (index, policy) in container.resize_policy.iter().flatten().enumerate() {
        if !seen.insert(policy.resource_name.as_str()) {
            errors.push(FieldError::duplicate(&path.index(index), policy.resource_name.as_str()));
        }
        // Upstream reports these on the list, not on its entry.
        required_one_of(errors, path, &policy.resource_name, &["cpu", "memory"]);
        required_one_of(errors, path, &policy.restart_policy, &["NotRequired", "RestartContainer"]);
        if pod_restart_policy == "Never" && policy.restart_policy != "NotRequired" {
            let about = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(path, policy.restart_policy.as_str(), about));
        }
    }
}

fn restart_policy(errors: &mut FieldErrors, path: &Path, container: &Container) {
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    match &container.restart_policy {
        None if rules.is_empty() => {}
        None => {
            let about = "must specify restartPolicy when restart rules are used";
            errors.push(FieldError::required(&path.child("restartPolicy"), about));
        }
        Some(policy) => one_of(errors, &path.child("restartPolicy"), policy, &["Always", "Never", "OnFailure"]),
    }
    if rules.len() > MAX_RULES {
        errors.push(FieldError::too_many(&path.child("restartPolicyRules"), rules.len(), MAX_RULES));
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.child("restartPolicyRules").index(index);
        one_of(errors, &path.child("action"), &rule.action, &["Restart", "RestartAllContainers"]);
        let at = path.child("exitCodes");
        let Some(codes) = &rule.exit_codes else {
            errors.push(FieldError::required(&at, "must be specified"));
            continue;
        };
        one_of(errors, &at.child("operator"), &codes.operator, &["In", "NotIn"]);
        let count = codes.values.as_ref().map_or(0, Vec::len);
        if count > MAX_EXIT_CODES {
            errors.push(FieldError::too_many(&at.child("values"), count, MAX_EXIT_CODES));
        }
    }
}

/// In the host's network a container's port is the host's.
pub fn host_network_ports(errors: &mut FieldErrors, path: &Path, spec: &PodSpec, is_pod: bool) {
    if spec.host_network != Some(true) {
        return;
    }
    for (at, container) in spec.containers.iter().enumerate() {
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let number = port.host_port.unwrap_or(0);
            if (is_pod || number != 0) && number != port.container_port {
                let path = path.index(at).child("ports").index(index).child("hostPort");
                let about = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(&path, shown(&number), about));
            }
        }
    }
}
