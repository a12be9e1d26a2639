//! Defaults of a Pod's specification. Every template has them; a Pod itself has some more.
//!
//! Fields behind gates that are off by default upstream are dropped here, as upstream drops them before it validates.

use k8s_openapi::api::core::v1::{
    Container, EphemeralContainer, HTTPGetAction, Lifecycle, LifecycleHandler, ObjectFieldSelector, Pod, PodSpec,
    PodTemplateSpec, Probe, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Raw;
use xebec_api::Quantity;

use super::pod_resources::Amounts;
use super::{persistent_volume_claim, pod_resources};
use crate::resources::validation::text;

const FILE_MODE: i32 = 0o644;
const GRACE_PERIOD: i64 = 30;
const TOKEN_LIFETIME: i64 = 3600;

pub fn default_text(field: &mut Option<String>, value: &str) {
    if text(field).is_empty() {
        *field = Some(value.to_owned());
    }
}

/// Zero counts as unset for Go's plain numbers.
fn default_number(field: &mut Option<i32>, value: i32) {
    if field.unwrap_or(0) == 0 {
        *field = Some(value);
    }
}

/// What only a Pod gets, not the template it came from.
pub fn pod(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_default();
    pod_spec(spec);
    if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        spec.termination_grace_period_seconds = Some(1);
    }
    let all = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    for container in all {
        pod_resources::requests_from_limits(container);
    }
    spec.enable_service_links.get_or_insert(true);
    if spec.host_network == Some(true) {
        host_ports(spec);
    }
}

/// In the host's network a container's port is the host's.
fn host_ports(spec: &mut PodSpec) {
    let all = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    for port in all.flat_map(|container| container.ports.iter_mut().flatten()) {
        default_number(&mut port.host_port, port.container_port);
    }
}

pub fn template(template: &mut PodTemplateSpec) {
    template.metadata.get_or_insert_default();
    let spec = template.spec.get_or_insert_default();
    pod_spec(spec);
    if spec.host_network == Some(true) {
        host_ports(spec);
    }
}

pub fn pod_spec(spec: &mut PodSpec) {
    let account = match text(&spec.service_account_name) {
        "" => spec.service_account.take(),
        _ => spec.service_account_name.take(),
    };
    spec.service_account = account.clone();
    spec.service_account_name = account;
    default_text(&mut spec.dns_policy, "ClusterFirst");
    default_text(&mut spec.restart_policy, "Always");
    default_text(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_default();
    spec.termination_grace_period_seconds.get_or_insert(GRACE_PERIOD);
    spec.scheduling_group = None;
    spec.eviction_responders = None;
    amounts(spec.overhead.as_mut());
    for volume in spec.volumes.iter_mut().flatten() {
        self::volume(volume);
    }
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        self::container(container);
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        ephemeral(container);
    }
}

fn ephemeral(one: &mut EphemeralContainer) {
    let mut common = crate::resources::validation::containers::as_container(one);
    container(&mut common);
    one.env = common.env;
    one.image_pull_policy = common.image_pull_policy;
    one.lifecycle = common.lifecycle;
    one.liveness_probe = common.liveness_probe;
    one.readiness_probe = common.readiness_probe;
    one.startup_probe = common.startup_probe;
    one.ports = common.ports;
    one.resources = common.resources;
    one.termination_message_path = common.termination_message_path;
    one.termination_message_policy = common.termination_message_policy;
    one.volume_mounts = common.volume_mounts;
}

fn container(one: &mut Container) {
    let policy = pull_policy(text(&one.image));
    default_text(&mut one.image_pull_policy, policy);
    default_text(&mut one.termination_message_path, "/dev/termination-log");
    default_text(&mut one.termination_message_policy, "File");
    let resources = one.resources.get_or_insert_default();
    amounts(resources.limits.as_mut());
    amounts(resources.requests.as_mut());
    for port in one.ports.iter_mut().flatten() {
        default_text(&mut port.protocol, "TCP");
    }
    for source in one.env.iter_mut().flatten().filter_map(|variable| variable.value_from.as_mut()) {
        field_version(source.field_ref.as_mut());
        if let Some(field) = &mut source.resource_field_ref {
            field.divisor.get_or_insert_with(|| Raw("0".to_owned()));
        }
    }
    for mount in one.volume_mounts.iter_mut().flatten() {
        mount.bind_mount_options = None;
    }
    for one in [&mut one.liveness_probe, &mut one.readiness_probe, &mut one.startup_probe].into_iter().flatten() {
        probe(one);
    }
    if let Some(lifecycle) = &mut one.lifecycle {
        let had_signal = lifecycle.stop_signal.take().is_some();
        for hook in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
            let LifecycleHandler { http_get, .. } = hook;
            self::http_get(http_get.as_mut());
        }
        if had_signal && *lifecycle == Lifecycle::default() {
            one.lifecycle = None;
        }
    }
}

fn probe(probe: &mut Probe) {
    default_number(&mut probe.timeout_seconds, 1);
    default_number(&mut probe.period_seconds, 10);
    default_number(&mut probe.success_threshold, 1);
    default_number(&mut probe.failure_threshold, 3);
    http_get(probe.http_get.as_mut());
    if let Some(grpc) = &mut probe.grpc {
        grpc.mode = None;
        grpc.service.get_or_insert_default();
    }
}

fn http_get(action: Option<&mut HTTPGetAction>) {
    if let Some(action) = action {
        default_text(&mut action.path, "/");
        default_text(&mut action.scheme, "HTTP");
        action.protocol = None;
    }
}

fn field_version(field: Option<&mut ObjectFieldSelector>) {
    if let Some(field) = field {
        default_text(&mut field.api_version, "v1");
    }
}

fn volume(volume: &mut Volume) {
    if *volume == (Volume { name: volume.name.clone(), ..Volume::default() }) {
        volume.empty_dir = Some(Default::default());
    }
    if let Some(source) = &mut volume.empty_dir {
        source.mode = None;
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(FILE_MODE);
        source.default_user = None;
        source.items.iter_mut().flatten().for_each(|item| item.user = None);
    }
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(FILE_MODE);
        source.default_user = None;
        source.items.iter_mut().flatten().for_each(|item| item.user = None);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(FILE_MODE);
        source.default_user = None;
        source.items.iter_mut().flatten().for_each(downward_file);
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
    if let Some(source) = &mut volume.image {
        let policy = pull_policy(text(&source.reference));
        default_text(&mut source.pull_policy, policy);
    }
    projected(volume);
    storage(volume);
}

fn downward_file(file: &mut k8s_openapi::api::core::v1::DownwardAPIVolumeFile) {
    file.user = None;
    field_version(file.field_ref.as_mut());
    if let Some(field) = &mut file.resource_field_ref {
        field.divisor.get_or_insert_with(|| Raw("0".to_owned()));
    }
}

fn projected(volume: &mut Volume) {
    let Some(projected) = &mut volume.projected else { return };
    projected.default_mode.get_or_insert(FILE_MODE);
    projected.default_user = None;
    for source in projected.sources.iter_mut().flatten() {
        if let Some(token) = &mut source.service_account_token {
            token.expiration_seconds.get_or_insert(TOKEN_LIFETIME);
            token.user = None;
        }
        if let Some(downward) = &mut source.downward_api {
            downward.items.iter_mut().flatten().for_each(downward_file);
        }
        let secret = source.secret.iter_mut().flat_map(|one| one.items.iter_mut().flatten());
        let map = source.config_map.iter_mut().flat_map(|one| one.items.iter_mut().flatten());
        secret.chain(map).for_each(|item| item.user = None);
        if let Some(bundle) = &mut source.cluster_trust_bundle {
            bundle.user = None;
        }
        if let Some(certificate) = &mut source.pod_certificate {
            certificate.user = None;
        }
    }
}

/// Defaults of the sources that storage systems serve.
fn storage(volume: &mut Volume) {
    if let Some(source) = &mut volume.iscsi {
        default_text(&mut source.iscsi_interface, "default");
    }
    if let Some(source) = &mut volume.rbd {
        default_text(&mut source.pool, "rbd");
        default_text(&mut source.user, "admin");
        default_text(&mut source.keyring, "/etc/ceph/keyring");
    }
    if let Some(source) = &mut volume.azure_disk {
        source.caching_mode.get_or_insert_with(|| "ReadWrite".to_owned());
        source.kind.get_or_insert_with(|| "Shared".to_owned());
        source.fs_type.get_or_insert_with(|| "ext4".to_owned());
        source.read_only.get_or_insert(false);
    }
    if let Some(source) = &mut volume.scale_io {
        default_text(&mut source.storage_mode, "ThinProvisioned");
        default_text(&mut source.fs_type, "xfs");
    }
    if let Some(template) = volume.ephemeral.as_mut().and_then(|source| source.volume_claim_template.as_mut()) {
        template.metadata.get_or_insert_default();
        persistent_volume_claim::default_spec(&mut template.spec);
    }
}

/// Amounts finer than a thousandth are rounded up, as upstream stores them.
pub fn amounts(list: Option<&mut Amounts>) {
    for value in list.into_iter().flat_map(|list| list.values_mut()) {
        let quantity = Quantity::of(Some(value));
        let rounded = Quantity::from_milli(quantity.milli_value());
        if quantity != rounded && quantity.milli_value() < i64::MAX {
            *value = rounded.to_api();
        }
    }
}

const LONGEST_REPOSITORY: usize = 255;

/// `Always` for the tag `latest`, which is also what no tag means; a digest never changes.
fn pull_policy(image: &str) -> &'static str {
    if is_latest(image) { "Always" } else { "IfNotPresent" }
}

fn is_latest(image: &str) -> bool {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rfind('/').map_or(0, |at| at + 1);
    let (repository, tag) = match name[last..].rfind(':') {
        Some(at) => (&name[..last + at], Some(&name[last + at + 1..])),
        None => (name, None),
    };
    // A reference that cannot be parsed has no tag at all; upper case is legal only in a registry's name.
    let path = match repository.split_once('/') {
        Some((host, rest))
            if host.contains(['.', ':']) || host == "localhost" || host.chars().any(char::is_uppercase) =>
        {
            rest
        }
        _ => repository,
    };
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-' | '/');
    if path.is_empty() || repository.len() > LONGEST_REPOSITORY || !path.chars().all(legal) {
        return false;
    }
    match tag {
        Some(tag) => tag == "latest",
        None => digest.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pull_policy_follows_the_tag() {
        let check = |image: &str, policy: &str| assert_eq!(pull_policy(image), policy, "{image}");
        check("redis", "Always");
        check("redis:latest", "Always");
        check("redis:7", "IfNotPresent");
        check("localhost:5000/redis", "Always");
        check("localhost:5000/redis:1", "IfNotPresent");
        check("redis@sha256:0123", "IfNotPresent");
        check("redis:latest@sha256:0123", "Always");
        check("Redis", "IfNotPresent");
        check("", "IfNotPresent");
    }
}
