//! Every Pod runs as a service account that exists, and gets its token.
//!
//! The volume with token, root certificates and namespace has upstream's shape to the field: clients and controllers tell
//! it by its name's beginning.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, ObjectFieldSelector, Pod,
    PodSpec, ProjectedVolumeSource, ServiceAccount, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};
use xebec_api::resource::ResourceType;
use xebec_api::selector::{FieldSelector, LabelSelector};
use xebec_api::status::StatusError;

use super::{AdmissionRequest, Mutating, Operation, Validating};
use crate::authz::references::{self, Environment};
use crate::cache::Selection;
use crate::registry::Registry;
use crate::registry::metadata::generated_name;

const DEFAULT: &str = "default";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Seven seconds above an hour: the server tells by it the tokens of Pods that did not ask for one.
const TOKEN_SECONDS: i64 = 3607;
const FILE_MODE: i32 = 0o644;
const ENFORCE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";
/// The default account of a new namespace is made by a controller; a Pod waits for it as long as upstream has it wait.
const DEFAULT_ACCOUNT_WAIT: Duration = Duration::from_millis(1500);

pub struct ServiceAccounts;

#[async_trait]
impl Mutating for ServiceAccounts {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        if request.operation != Operation::Create || !request.is_of::<Pod>() {
            return Ok(());
        }
        let (refuse, namespace) = (request.refuse(), request.namespace);
        let Some(pod) = request.object_as_mut::<Pod>() else { return Ok(()) };
        if references::is_mirror(pod) {
            return Ok(());
        }
        let spec = pod.spec.get_or_insert_default();
        if spec.service_account_name.as_deref().unwrap_or("").is_empty() {
            spec.service_account_name = Some(DEFAULT.to_owned());
            spec.service_account = Some(DEFAULT.to_owned());
        }
        let name = spec.service_account_name.clone().unwrap_or_default();
        let account = find(registry, namespace, &name).await?.ok_or_else(|| refuse(missing(namespace, &name)))?;
        let automount = spec.automount_service_account_token.or(account.automount_service_account_token);
        if automount.unwrap_or(true) {
            mount_token(spec);
        }
        if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
            spec.image_pull_secrets = account.image_pull_secrets.clone().filter(|secrets| !secrets.is_empty());
        }
        Ok(())
    }
}

#[async_trait]
impl Validating for ServiceAccounts {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    async fn validate(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        let ephemeral = request.operation == Operation::Update && request.subresource == "ephemeralcontainers";
        let created = request.operation == Operation::Create && request.subresource.is_empty();
        if !request.is_about::<Pod>() || !(ephemeral || created) {
            return Ok(());
        }
        let (refuse, namespace) = (request.refuse(), request.namespace);
        let Some(pod) = request.object_as::<Pod>() else { return Ok(()) };
        if created && references::is_mirror(pod) {
            return check_mirror(pod).map_err(|why| refuse(why.to_owned()));
        }
        let Some(spec) = pod.spec.as_ref() else { return Ok(()) };
        let name = spec.service_account_name.as_deref().unwrap_or("");
        if name.is_empty() {
            let pod = pod.metadata.name.as_deref().unwrap_or("");
            return Err(refuse(format!("no service account specified for pod {namespace}/{pod}")));
        }
        let account = find(registry, namespace, name).await?.ok_or_else(|| refuse(missing(namespace, name)))?;
        let annotation = account.metadata.annotations.as_ref().and_then(|all| all.get(ENFORCE_SECRETS));
        if !annotation.is_some_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True")) {
            return Ok(());
        }
        let allowed = if ephemeral { check_ephemeral(spec, &account) } else { check_secrets(spec, &account) };
        allowed.map_err(refuse)
    }
}

fn missing(namespace: &str, name: &str) -> String {
    // Upstream names the kind in the singular here.
    let resource = ResourceType::new("", "v1", "ServiceAccount", "serviceaccount", true);
    format!("error looking up service account {namespace}/{name}: {}", StatusError::not_found(&resource, name))
}

async fn find(registry: &Registry, namespace: &str, name: &str) -> Result<Option<Arc<ServiceAccount>>, StatusError> {
    if let Some(found) = registry.get::<ServiceAccount>(namespace, name) {
        return Ok(Some(found));
    }
    registry.catch_up().await?;
    if name == DEFAULT && registry.get::<ServiceAccount>(namespace, name).is_none() {
        tokio::select! {
            () = appearance(registry, namespace, name) => {}
            () = registry.clock.sleep(DEFAULT_ACCOUNT_WAIT) => {}
        }
    }
    Ok(registry.get::<ServiceAccount>(namespace, name))
}

/// Returns once the account is in the cache.
async fn appearance(registry: &Registry, namespace: &str, name: &str) {
    let Some(cache) = registry.cache_of::<ServiceAccount>() else { return };
    let (snapshot, revision) = registry.cache.current(cache);
    if snapshot.get(namespace, name).is_some() {
        return;
    }
    let all = (LabelSelector::everything(), FieldSelector::default());
    let Ok(selection) = Selection::new(namespace, all.0, &all.1, &*cache.strategy, &[]) else { return };
    let Ok(mut watcher) = cache.watch(revision, selection) else { return };
    let mut seen = Vec::new();
    while !seen.iter().any(|one: &crate::cache::Seen| one.object.name() == name) {
        if watcher.seen(&mut seen).await.is_err() {
            return;
        }
    }
}

fn mount_token(spec: &mut PodSpec) {
    let own = spec.volumes.iter().flatten().find(|volume| volume.name.starts_with(VOLUME_PREFIX));
    let existing = own.map(|volume| volume.name.clone());
    let name = existing.clone().unwrap_or_else(|| generated_name(VOLUME_PREFIX));
    let mut needed = false;
    let mut mount = |container: &mut Container| {
        let mounts = container.volume_mounts.get_or_insert_default();
        if mounts.iter().any(|mount| mount.mount_path == MOUNT_PATH) {
            return;
        }
        needed = true;
        mounts.push(VolumeMount {
            name: name.clone(),
            read_only: Some(true),
            mount_path: MOUNT_PATH.to_owned(),
            ..VolumeMount::default()
        });
    };
    spec.init_containers.iter_mut().flatten().for_each(&mut mount);
    spec.containers.iter_mut().for_each(&mut mount);
    if needed && existing.is_none() {
        spec.volumes.get_or_insert_default().push(token_volume(name));
    }
}

fn token_volume(name: String) -> Volume {
    let token = ServiceAccountTokenProjection {
        path: "token".to_owned(),
        expiration_seconds: Some(TOKEN_SECONDS),
        ..ServiceAccountTokenProjection::default()
    };
    let file = KeyToPath { key: "ca.crt".to_owned(), path: "ca.crt".to_owned(), ..KeyToPath::default() };
    let roots = ConfigMapProjection { name: "kube-root-ca.crt".to_owned(), items: Some(vec![file]), optional: None };
    let field = ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: "metadata.namespace".to_owned() };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".to_owned(),
        field_ref: Some(field),
        ..DownwardAPIVolumeFile::default()
    };
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(roots), ..VolumeProjection::default() },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }),
            ..VolumeProjection::default()
        },
    ];
    let projected = ProjectedVolumeSource {
        default_mode: Some(FILE_MODE),
        sources: Some(sources),
        ..ProjectedVolumeSource::default()
    };
    Volume { name, projected: Some(projected), ..Volume::default() }
}

fn check_mirror(pod: &Pod) -> Result<(), &'static str> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    if spec.service_account_name.as_deref().is_some_and(|name| !name.is_empty()) {
        return Err("a mirror pod may not reference service accounts");
    }
    if !references::secrets(spec).is_empty() {
        return Err("a mirror pod may not reference secrets");
    }
    let projected = spec.volumes.iter().flatten().filter_map(|volume| volume.projected.as_ref()?.sources.as_ref());
    if projected.flatten().any(|source| source.service_account_token.is_some()) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

fn mountable(account: &ServiceAccount) -> Vec<&str> {
    account.secrets.iter().flatten().filter_map(|secret| secret.name.as_deref()).collect()
}

fn check_secrets(spec: &PodSpec, account: &ServiceAccount) -> Result<(), String> {
    let own = account.metadata.name.as_deref().unwrap_or("");
    let mountable = mountable(account);
    for volume in spec.volumes.iter().flatten() {
        let secret = volume.secret.as_ref().map(|source| source.secret_name.as_deref().unwrap_or(""));
        if let Some(secret) = secret.filter(|secret| !mountable.contains(secret)) {
            return Err(format!(
                "volume with secret.secretName=\"{secret}\" is not allowed because service account {own} does not \
                 reference that secret"
            ));
        }
    }
    for container in spec.init_containers.iter().flatten() {
        check_environment("init container", &Environment::of(container), &mountable, own)?;
    }
    for container in &spec.containers {
        check_environment("container", &Environment::of(container), &mountable, own)?;
    }
    let pull: Vec<&str> = account.image_pull_secrets.iter().flatten().map(|secret| secret.name.as_str()).collect();
    for (index, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        if !pull.contains(&secret.name.as_str()) {
            return Err(format!(
                "imagePullSecrets[{index}].name=\"{}\" is not allowed because service account {own} does not reference \
                 that imagePullSecret",
                secret.name
            ));
        }
    }
    Ok(())
}

fn check_ephemeral(spec: &PodSpec, account: &ServiceAccount) -> Result<(), String> {
    let own = account.metadata.name.as_deref().unwrap_or("");
    let mountable = mountable(account);
    for container in spec.ephemeral_containers.iter().flatten() {
        check_environment("ephemeral container", &Environment::of_ephemeral(container), &mountable, own)?;
    }
    Ok(())
}

fn check_environment(
    kind: &str,
    environment: &Environment<'_>,
    mountable: &[&str],
    account: &str,
) -> Result<(), String> {
    let container = environment.container;
    let unlike = |why: String, secret: &str| {
        format!(
            "{kind} {container} with {why} referencing secret.secretName=\"{secret}\" is not allowed because service \
             account {account} does not reference that secret"
        )
    };
    for env in environment.env {
        let secret = env.value_from.as_ref().and_then(|source| source.secret_key_ref.as_ref());
        if let Some(secret) = secret.filter(|secret| !mountable.contains(&secret.name.as_str())) {
            return Err(unlike(format!("envVar {}", env.name), &secret.name));
        }
    }
    for from in environment.env_from {
        if let Some(secret) = from.secret_ref.as_ref().filter(|secret| !mountable.contains(&secret.name.as_str())) {
            return Err(unlike("envFrom".to_owned(), &secret.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
