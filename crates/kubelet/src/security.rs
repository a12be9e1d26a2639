//! Security contexts: what the Pod says, overridden by what the container says, in the runtime's words.
//! Source: "Configure a Security Context" in the Kubernetes documentation; defaults are upstream's.

use std::path::Path;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext,
};
use xebec_cri::v1::{
    Capability, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    SeLinuxOption, SecurityProfile, SupplementalGroupsPolicy, security_profile::ProfileType,
};

const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// As whom the image says to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUser {
    pub uid: Option<i64>,
    pub name: String,
}

/// The container's own settings over the Pod's.
struct Effective<'a> {
    pod: Option<&'a PodSecurityContext>,
    own: Option<&'a SecurityContext>,
}

impl<'a> Effective<'a> {
    fn of(pod: &'a Pod, container: &'a Container) -> Effective<'a> {
        let pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        Effective { pod, own: container.security_context.as_ref() }
    }

    fn user(&self) -> Option<i64> {
        self.own.and_then(|own| own.run_as_user).or_else(|| self.pod.and_then(|pod| pod.run_as_user))
    }

    fn group(&self) -> Option<i64> {
        self.own.and_then(|own| own.run_as_group).or_else(|| self.pod.and_then(|pod| pod.run_as_group))
    }

    fn non_root(&self) -> bool {
        let own = self.own.and_then(|own| own.run_as_non_root);
        own.or_else(|| self.pod.and_then(|pod| pod.run_as_non_root)) == Some(true)
    }

    fn seccomp(&self) -> Option<&'a SeccompProfile> {
        let own = self.own.and_then(|own| own.seccomp_profile.as_ref());
        own.or_else(|| self.pod.and_then(|pod| pod.seccomp_profile.as_ref()))
    }

    fn selinux(&self) -> Option<&'a SELinuxOptions> {
        let own = self.own.and_then(|own| own.se_linux_options.as_ref());
        own.or_else(|| self.pod.and_then(|pod| pod.se_linux_options.as_ref()))
    }
}

/// Whether `runAsNonRoot` allows this container to start; the text goes into its status.
pub fn check_non_root(pod: &Pod, container: &Container, image: &ImageUser) -> Result<(), String> {
    let effective = Effective::of(pod, container);
    if !effective.non_root() {
        return Ok(());
    }
    let place = format!("(pod: \"{}\", container: {})", crate::pod::identity::format(pod), container.name);
    match (effective.user(), image.uid) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {place}")),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        (None, Some(_)) => Ok(()),
        (None, None) if !image.name.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {place}",
            image.name
        )),
        (None, None) => Ok(()),
    }
}

/// `profiles` is where profiles of the type `Localhost` lie.
pub fn of_container(
    pod: &Pod,
    container: &Container,
    image: &ImageUser,
    profiles: &Path,
) -> Result<LinuxContainerSecurityContext, String> {
    let effective = Effective::of(pod, container);
    let own = effective.own;
    let unmasked = own.and_then(|own| own.proc_mount.as_deref()) == Some("Unmasked");
    let paths = |all: &[&str]| if unmasked { Vec::new() } else { all.iter().map(|path| (*path).to_owned()).collect() };
    let user = effective.user().or(image.uid);
    Ok(LinuxContainerSecurityContext {
        capabilities: own.and_then(|own| own.capabilities.as_ref()).map(capability),
        privileged: own.and_then(|own| own.privileged) == Some(true),
        namespace_options: Some(namespaces(pod)),
        selinux_options: effective.selinux().map(selinux),
        run_as_user: user.map(int64),
        run_as_username: if effective.user().is_none() { image.name.clone() } else { String::new() },
        run_as_group: effective.group().map(int64),
        readonly_rootfs: own.and_then(|own| own.read_only_root_filesystem) == Some(true),
        supplemental_groups: groups(effective.pod),
        supplemental_groups_policy: groups_policy(effective.pod) as i32,
        no_new_privs: own.and_then(|own| own.allow_privilege_escalation) == Some(false),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(seccomp(effective.seccomp(), profiles)?),
        apparmor: None,
    })
}

pub fn of_sandbox(pod: &Pod) -> LinuxSandboxSecurityContext {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let privileged = crate::qos::containers(pod)
        .any(|container| container.security_context.as_ref().and_then(|own| own.privileged) == Some(true));
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        selinux_options: context.and_then(|it| it.se_linux_options.as_ref()).map(selinux),
        run_as_user: context.and_then(|it| it.run_as_user).map(int64),
        run_as_group: context.and_then(|it| it.run_as_group).map(int64),
        readonly_rootfs: false,
        supplemental_groups: groups(context),
        supplemental_groups_policy: groups_policy(context) as i32,
        privileged,
        // The sandbox's own process needs nothing that the default profile forbids, whatever the containers are given.
        seccomp: Some(profile(ProfileType::RuntimeDefault, String::new())),
        apparmor: None,
    }
}

pub fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = pod.spec.as_ref();
    let host = |set: Option<bool>, otherwise| if set == Some(true) { NamespaceMode::Node } else { otherwise };
    let shared = spec.and_then(|spec| spec.share_process_namespace) == Some(true);
    let own_pid = if shared { NamespaceMode::Pod } else { NamespaceMode::Container };
    NamespaceOption {
        network: host(spec.and_then(|spec| spec.host_network), NamespaceMode::Pod) as i32,
        pid: host(spec.and_then(|spec| spec.host_pid), own_pid) as i32,
        ipc: host(spec.and_then(|spec| spec.host_ipc), NamespaceMode::Pod) as i32,
        ..NamespaceOption::default()
    }
}

fn groups(context: Option<&PodSecurityContext>) -> Vec<i64> {
    let Some(context) = context else { return Vec::new() };
    context.fs_group.into_iter().chain(context.supplemental_groups.iter().flatten().copied()).collect()
}

fn groups_policy(context: Option<&PodSecurityContext>) -> SupplementalGroupsPolicy {
    match context.and_then(|it| it.supplemental_groups_policy.as_deref()) {
        Some("Strict") => SupplementalGroupsPolicy::Strict,
        _ => SupplementalGroupsPolicy::Merge,
    }
}

fn seccomp(wanted: Option<&SeccompProfile>, profiles: &Path) -> Result<SecurityProfile, String> {
    match wanted.map(|wanted| (wanted.type_.as_str(), wanted.localhost_profile.as_deref())) {
        Some(("RuntimeDefault", _)) => Ok(profile(ProfileType::RuntimeDefault, String::new())),
        Some(("Localhost", Some(name))) if !name.is_empty() => {
            Ok(profile(ProfileType::Localhost, profiles.join(name).to_string_lossy().into_owned()))
        }
        Some(("Localhost", _)) => Err("localhostProfile must be set if seccompProfile type is Localhost.".into()),
        _ => Ok(profile(ProfileType::Unconfined, String::new())),
    }
}

fn profile(kind: ProfileType, localhost_ref: String) -> SecurityProfile {
    SecurityProfile { profile_type: kind as i32, localhost_ref }
}

fn capability(capabilities: &Capabilities) -> Capability {
    Capability {
        add_capabilities: capabilities.add.clone().unwrap_or_default(),
        drop_capabilities: capabilities.drop.clone().unwrap_or_default(),
        add_ambient_capabilities: Vec::new(),
    }
}

fn selinux(options: &SELinuxOptions) -> SeLinuxOption {
    SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    }
}

fn int64(value: i64) -> Int64Value {
    Int64Value { value }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(context: serde_json::Value, own: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": context, "containers": [{"name": "c", "securityContext": own}]},
        }))
        .unwrap()
    }

    fn check_non_root_of(context: serde_json::Value, own: serde_json::Value, image: ImageUser, error: &str) {
        let pod = pod(context, own);
        let result = check_non_root(&pod, &pod.spec.as_ref().unwrap().containers[0], &image);
        assert_eq!(result.err().unwrap_or_default(), error);
    }

    #[test]
    fn root_is_refused_where_it_is_forbidden() {
        let root = || ImageUser { uid: Some(0), name: String::new() };
        let named = || ImageUser { uid: None, name: "app".into() };
        let forbid = json!({"runAsNonRoot": true});
        let place = "(pod: \"p_n(u)\", container: c)";
        check_non_root_of(json!({}), json!({}), root(), "");
        let will = format!("container has runAsNonRoot and image will run as root {place}");
        check_non_root_of(forbid.clone(), json!({}), root(), &will);
        check_non_root_of(forbid.clone(), json!({"runAsUser": 5}), root(), "");
        let breaks = format!("container's runAsUser breaks non-root policy {place}");
        check_non_root_of(forbid.clone(), json!({"runAsUser": 0}), root(), &breaks);
        let cannot = format!(
            "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root {place}"
        );
        check_non_root_of(forbid.clone(), json!({}), named(), &cannot);
        check_non_root_of(forbid, json!({"runAsNonRoot": false}), root(), "");
    }

    #[test]
    fn the_container_overrides_the_pod() {
        let pod = pod(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]}),
            json!({"runAsUser": 5, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}),
        );
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let context = of_container(&pod, container, &ImageUser::default(), Path::new("/seccomp")).unwrap();
        assert_eq!(context.run_as_user, Some(int64(5)));
        assert_eq!(context.run_as_group, Some(int64(2)));
        assert_eq!(context.supplemental_groups, [3, 4]);
        assert!(context.no_new_privs);
        assert_eq!(context.capabilities.unwrap().drop_capabilities, ["ALL"]);
        assert_eq!(context.masked_paths.len(), 12);
    }
}
