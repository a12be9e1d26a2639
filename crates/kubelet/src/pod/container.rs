//! The configuration of one container: command and environment expanded, volumes mounted, user and limits set.
//!
//! It relies on volumes that are set up. What is missing (a key of a ConfigMap, say) becomes `CreateContainerConfigError`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use xebec_cri::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig, Mount, MountPropagation,
    NamespaceMode,
};

use super::{files, identity};
use crate::context::Context;
use crate::env::expand::expand;
use crate::env::{self, services};
use crate::image::Present;
use crate::volume::Mounted;
use crate::volume::sub_path::{self, SubPath};
use crate::{qos, security};

/// What the moment adds to the specification.
pub struct Moment<'a> {
    pub image: &'a Present,
    pub restart_count: u32,
    pub ips: &'a [String],
    pub volumes: &'a Mounted,
    /// The container whose processes this one shall see, by its id.
    pub target: Option<&'a str>,
}

/// The error is the message of `CreateContainerConfigError`.
pub async fn config(
    context: &Context,
    pod: &Pod,
    container: &Container,
    moment: &Moment<'_>,
) -> Result<ContainerConfig, String> {
    security::check_non_root(pod, container, &moment.image.user)?;
    let making = Making { context, pod, container, moment };
    let environment = making.environment().await?;
    let values: BTreeMap<&str, &str> =
        environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
        let value_of = |name: &str| values.get(name).map(|value| (*value).to_owned());
        words.iter().flatten().map(|word| expand(word, value_of)).collect()
    };
    let profiles = context.config.root_dir.join("seccomp");
    let mut security = security::of_container(pod, container, &moment.image.user, &profiles)?;
    if let (Some(target), Some(options)) = (moment.target, &mut security.namespace_options) {
        options.pid = NamespaceMode::Target as i32;
        options.target_id = target.to_owned();
    }
    let mounts = making.mounts(&values, security.privileged)?;
    let log_directory = identity::log_directory(&context.config.logs_dir, pod).join(&container.name);
    std::fs::create_dir_all(&log_directory)
        .map_err(|error| format!("create container log directory for container {} failed: {error}", container.name))?;
    let pair = |(key, value): &(String, String)| KeyValue { key: key.clone(), value: value.clone().into() };
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt: moment.restart_count }),
        image: Some(ImageSpec {
            image: moment.image.id.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..ImageSpec::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: environment.iter().map(pair).collect(),
        mounts,
        labels: identity::container_labels(pod, container),
        annotations: identity::container_annotations(pod, container, moment.restart_count),
        log_path: identity::log_path(&container.name, moment.restart_count),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(LinuxContainerConfig {
            resources: Some(qos::container_resources(pod, container, context.memory_capacity)),
            security_context: Some(security),
        }),
        ..ContainerConfig::default()
    })
}

/// One container in the making.
struct Making<'a> {
    context: &'a Context,
    pod: &'a Pod,
    container: &'a Container,
    moment: &'a Moment<'a>,
}

impl Making<'_> {
    async fn environment(&self) -> Result<Vec<(String, String)>, String> {
        let (context, pod) = (self.context, self.pod);
        context.services.synced().await;
        let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
        let all = context.services.list();
        let services = services::variables(all.iter().map(AsRef::as_ref), identity::namespace(pod), links);
        let objects = context.objects.of(identity::uid(pod));
        let facts = context.facts(pod, self.moment.ips.to_vec());
        env::environment(&objects, &facts, self.container, services).await.map_err(|error| error.to_string())
    }

    fn mounts(&self, environment: &BTreeMap<&str, &str>, privileged: bool) -> Result<Vec<Mount>, String> {
        let pod_dir = self.context.config.pod_dir(identity::uid(self.pod));
        let mut all = Vec::new();
        for (index, wanted) in self.container.volume_mounts.iter().flatten().enumerate() {
            let volume = self.moment.volumes.paths.get(&wanted.name).ok_or_else(|| {
                format!("cannot find volume {:?} to mount into container {:?}", wanted.name, self.container.name)
            })?;
            let host_path = match sub_path_of(wanted, environment)? {
                None => volume.clone(),
                Some(path) => {
                    let parts = pod_dir.join("volume-subpaths").join(&wanted.name);
                    let place = parts.join(&self.container.name).join(index.to_string());
                    self.bind(&SubPath { volume, path: &path, place })?
                }
            };
            all.push(Mount {
                container_path: from_root(&wanted.mount_path),
                host_path: host_path.to_string_lossy().into_owned(),
                readonly: wanted.read_only == Some(true),
                propagation: propagation(wanted, privileged)? as i32,
                ..Mount::default()
            });
        }
        let place = files::Place { pod_dir: &pod_dir, cluster_domain: &self.context.config.cluster_domain };
        let hosts = files::hosts_mount(&place, self.pod, self.container, self.moment.ips);
        all.extend(hosts.map_err(|error| format!("failed to write the hosts file: {error}"))?);
        let termination = files::termination_mount(self.container, &pod_dir);
        all.extend(termination.map_err(|error| format!("failed to make the termination log: {error}"))?);
        Ok(all)
    }

    fn bind(&self, wanted: &SubPath<'_>) -> Result<PathBuf, String> {
        sub_path::bind(&*self.context.kernel, wanted).map_err(|error| {
            tracing::warn!(%error, path = wanted.path, "cannot prepare a subPath");
            let volume = wanted.volume.file_name().unwrap_or_default();
            format!("failed to prepare subPath for volumeMount {volume:?} of container {:?}", self.container.name)
        })
    }
}

fn propagation(mount: &VolumeMount, privileged: bool) -> Result<MountPropagation, String> {
    match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => Ok(MountPropagation::PropagationHostToContainer),
        Some("Bidirectional") if privileged => Ok(MountPropagation::PropagationBidirectional),
        Some("Bidirectional") => {
            Err("Bidirectional mount propagation is available only to privileged containers".into())
        }
        _ => Ok(MountPropagation::PropagationPrivate),
    }
}

/// A relative mount path means one from the root.
fn from_root(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn sub_path_of(mount: &VolumeMount, environment: &BTreeMap<&str, &str>) -> Result<Option<String>, String> {
    if let Some(expression) = mount.sub_path_expr.as_deref().filter(|it| !it.is_empty()) {
        let missing = std::cell::RefCell::new(None);
        let expanded = expand(expression, |name| {
            let value = environment.get(name).map(|value| (*value).to_owned());
            if value.is_none() {
                missing.replace(Some(name.to_owned()));
            }
            value
        });
        return match missing.into_inner() {
            Some(name) => Err(format!("missing value for {name:?}")),
            None => Ok(Some(expanded)),
        };
    }
    Ok(mount.sub_path.clone().filter(|path| !path.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expression: &str, expected: Result<Option<&str>, &str>) {
        let mount = VolumeMount { sub_path_expr: Some(expression.into()), ..VolumeMount::default() };
        let environment = BTreeMap::from([("POD", "web")]);
        let found = sub_path_of(&mount, &environment);
        assert_eq!(found.as_ref().map(Option::as_deref).map_err(String::as_str), expected);
    }

    #[test]
    fn sub_paths_are_expanded() {
        check("logs/$(POD)", Ok(Some("logs/web")));
        check("$(NONE)", Err("missing value for \"NONE\""));
        check("", Ok(None));
    }
}
