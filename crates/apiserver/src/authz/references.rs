//! Which other objects a Pod refers to by name in its specification. Pure.

use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVar, EphemeralContainer, PersistentVolume, Pod, PodSpec, Volume,
};

/// Upstream marks with it the API's copies of Pods that a node runs from files.
pub const MIRROR_POD: &str = "kubernetes.io/config.mirror";

pub fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR_POD))
}

/// The environment of one container of any sort.
pub struct Environment<'a> {
    pub container: &'a str,
    pub env: &'a [EnvVar],
    pub env_from: &'a [EnvFromSource],
}

impl<'a> Environment<'a> {
    pub fn of(container: &'a Container) -> Self {
        let env = container.env.as_deref().unwrap_or_default();
        Environment { container: &container.name, env, env_from: container.env_from.as_deref().unwrap_or_default() }
    }

    pub fn of_ephemeral(container: &'a EphemeralContainer) -> Self {
        let env = container.env.as_deref().unwrap_or_default();
        Environment { container: &container.name, env, env_from: container.env_from.as_deref().unwrap_or_default() }
    }
}

/// The environments of all containers: initial, main and ephemeral.
pub fn environments(spec: &PodSpec) -> impl Iterator<Item = Environment<'_>> {
    let plain = spec.init_containers.iter().flatten().chain(&spec.containers).map(Environment::of);
    plain.chain(spec.ephemeral_containers.iter().flatten().map(Environment::of_ephemeral))
}

pub fn secrets(spec: &PodSpec) -> Vec<&str> {
    let mut names: Vec<&str> = spec.image_pull_secrets.iter().flatten().map(|one| one.name.as_str()).collect();
    for environment in environments(spec) {
        names.extend(
            environment.env.iter().filter_map(|env| Some(&*env.value_from.as_ref()?.secret_key_ref.as_ref()?.name)),
        );
        names.extend(environment.env_from.iter().filter_map(|from| Some(&*from.secret_ref.as_ref()?.name)));
    }
    for volume in spec.volumes.iter().flatten() {
        names.extend(volume_secrets(volume));
    }
    names.retain(|name| !name.is_empty());
    names
}

fn volume_secrets(volume: &Volume) -> Vec<&str> {
    let local = [
        volume.cephfs.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.cinder.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.flex_volume.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.rbd.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.scale_io.as_ref().map(|source| &source.secret_ref),
        volume.iscsi.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.storageos.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.csi.as_ref().and_then(|source| source.node_publish_secret_ref.as_ref()),
    ];
    let mut names: Vec<&str> = local.into_iter().flatten().map(|reference| reference.name.as_str()).collect();
    names.extend(volume.azure_file.as_ref().map(|source| source.secret_name.as_str()));
    names.extend(volume.secret.as_ref().and_then(|source| source.secret_name.as_deref()));
    let projected = volume.projected.iter().flat_map(|source| source.sources.iter().flatten());
    names.extend(projected.filter_map(|source| Some(&*source.secret.as_ref()?.name)));
    names
}

/// The Secrets of a namespace that a volume's driver is given. A reference without a namespace means that of the claim.
pub fn volume_secrets_in<'v>(volume: &'v PersistentVolume, namespace: &str) -> Vec<&'v str> {
    let Some(spec) = &volume.spec else { return Vec::new() };
    let csi = spec.csi.iter().flat_map(|source| {
        [
            &source.controller_expand_secret_ref,
            &source.controller_publish_secret_ref,
            &source.node_expand_secret_ref,
            &source.node_publish_secret_ref,
            &source.node_stage_secret_ref,
        ]
    });
    let others = [
        spec.cephfs.as_ref().map(|source| &source.secret_ref),
        spec.cinder.as_ref().map(|source| &source.secret_ref),
        spec.flex_volume.as_ref().map(|source| &source.secret_ref),
        spec.rbd.as_ref().map(|source| &source.secret_ref),
        spec.iscsi.as_ref().map(|source| &source.secret_ref),
    ];
    let references = others.into_iter().flatten().chain(csi).flatten();
    let scale_io = spec.scale_io.iter().map(|source| &source.secret_ref);
    let mut names: Vec<&str> = references
        .chain(scale_io)
        .filter(|one| one.namespace.as_deref().is_none_or(|own| own.is_empty() || own == namespace))
        .filter_map(|one| one.name.as_deref())
        .collect();
    let azure =
        spec.azure_file.iter().filter(|source| source.secret_namespace.as_deref().is_none_or(|own| own == namespace));
    names.extend(azure.map(|source| source.secret_name.as_str()));
    let storage_os = spec.storageos.iter().filter_map(|source| source.secret_ref.as_ref());
    names.extend(
        storage_os
            .filter(|one| one.namespace.as_deref().is_none_or(|own| own == namespace))
            .filter_map(|one| one.name.as_deref()),
    );
    names
}

pub fn config_maps(spec: &PodSpec) -> Vec<&str> {
    let mut names = Vec::new();
    for environment in environments(spec) {
        let refs = environment.env.iter();
        names.extend(refs.filter_map(|env| Some(&*env.value_from.as_ref()?.config_map_key_ref.as_ref()?.name)));
        names.extend(environment.env_from.iter().filter_map(|from| Some(&*from.config_map_ref.as_ref()?.name)));
    }
    for volume in spec.volumes.iter().flatten() {
        names.extend(volume.config_map.as_ref().map(|source| source.name.as_str()));
        let projected = volume.projected.iter().flat_map(|source| source.sources.iter().flatten());
        names.extend(projected.filter_map(|source| Some(&*source.config_map.as_ref()?.name)));
    }
    names.retain(|name: &&str| !name.is_empty());
    names
}

/// Claims named by volumes, and those made for ephemeral ones.
pub fn claims(pod: &Pod) -> Vec<String> {
    let name = pod.metadata.name.as_deref().unwrap_or("");
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(source), _) => Some(source.claim_name.clone()),
            (None, Some(_)) => Some(format!("{name}-{}", volume.name)),
            (None, None) => None,
        })
        .collect()
}

/// ResourceClaims of a Pod: those it names and those that its status says were made for it.
pub fn resource_claims(pod: &Pod) -> Vec<&str> {
    let named = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
    let named = named.filter_map(|claim| claim.resource_claim_name.as_deref());
    let made = pod.status.iter().flat_map(|status| status.resource_claim_statuses.iter().flatten());
    named.chain(made.filter_map(|claim| claim.resource_claim_name.as_deref())).collect()
}
