//! The checks of the Pod Security Standards, one row a check, each since a version. Pure.
//!
//! Facts and texts: upstream's `pod-security-admission/policy`. A row of the restricted level may take the place of a
//! baseline one.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EphemeralContainer, Lifecycle, LifecycleHandler, PodSpec, Probe, SecurityContext, Volume,
};

use super::level::{Level, Standard};

/// What is wrong: a reason and its details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: String,
    pub detail: String,
}

type Check = fn(&Subject<'_>) -> Option<Violation>;

struct Row {
    id: &'static str,
    level: Level,
    /// From which minor version on which check holds.
    since: &'static [(u32, Check)],
    /// The baseline check that it takes the place of, from a version on.
    replaces: Option<(&'static str, u32)>,
}

const fn baseline(id: &'static str, since: &'static [(u32, Check)]) -> Row {
    Row { id, level: Level::Baseline, since, replaces: None }
}

const fn restricted(id: &'static str, since: &'static [(u32, Check)]) -> Row {
    Row { id, level: Level::Restricted, since, replaces: None }
}

/// In the order in which upstream reports: by level, then by name.
const CHECKS: &[Row] = &[
    baseline("appArmorProfile", &[(0, app_armor)]),
    baseline("capabilities_baseline", &[(0, capabilities_baseline)]),
    baseline("hostNamespaces", &[(0, host_namespaces)]),
    baseline("hostPathVolumes", &[(0, host_path_volumes)]),
    baseline("hostPorts", &[(0, host_ports)]),
    baseline("hostProbesAndHostLifecycle", &[(34, hosts_of_probes)]),
    baseline("privileged", &[(0, privileged)]),
    baseline("procMount", &[(0, proc_mount), (35, |pod| unless_user_namespace(pod, proc_mount))]),
    baseline(
        "seLinuxOptions",
        &[(0, |pod| se_linux(pod, &SE_LINUX_TYPES[..4])), (31, |pod| se_linux(pod, SE_LINUX_TYPES))],
    ),
    baseline("seccompProfile_baseline", &[(0, seccomp_annotations), (19, seccomp_baseline)]),
    baseline(
        "sysctls",
        &[
            (0, |pod| sysctls(pod, &SYSCTLS[..5])),
            (27, |pod| sysctls(pod, &SYSCTLS[..6])),
            (29, |pod| sysctls(pod, &SYSCTLS[..10])),
            (32, |pod| sysctls(pod, &SYSCTLS[..12])),
            (37, |pod| sysctls(pod, SYSCTLS)),
        ],
    ),
    baseline("windowsHostProcess", &[(0, host_process)]),
    restricted("allowPrivilegeEscalation", &[(8, escalation), (25, |pod| unless_windows(pod, escalation))]),
    Row {
        replaces: Some(("capabilities_baseline", 22)),
        ..restricted(
            "capabilities_restricted",
            &[(22, capabilities_restricted), (25, |pod| unless_windows(pod, capabilities_restricted))],
        )
    },
    Row { replaces: Some(("procMount", 35)), ..restricted("procMount_restricted", &[(35, proc_mount)]) },
    Row { replaces: Some(("hostPathVolumes", 0)), ..restricted("restrictedVolumes", &[(0, restricted_volumes)]) },
    restricted("runAsNonRoot", &[(0, non_root), (35, |pod| unless_user_namespace(pod, non_root))]),
    restricted("runAsUser", &[(23, root_user), (35, |pod| unless_user_namespace(pod, root_user))]),
    Row {
        replaces: Some(("seccompProfile_baseline", 19)),
        ..restricted(
            "seccompProfile_restricted",
            &[(19, seccomp_restricted), (25, |pod| unless_windows(pod, seccomp_restricted))],
        )
    },
];

const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// In the order in which versions have added them.
const SE_LINUX_TYPES: &[&str] = &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// In the order in which versions have added them.
const SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_notsent_lowat",
];

type Annotations = std::collections::BTreeMap<String, String>;

/// A Pod, or the template of one.
pub struct Subject<'a> {
    pub spec: &'a PodSpec,
    pub annotations: Option<&'a Annotations>,
}

/// What checks ask of a container of any sort.
struct Part<'a> {
    name: &'a str,
    security: Option<&'a SecurityContext>,
    ports: &'a [ContainerPort],
    probes: [Option<&'a Probe>; 3],
    lifecycle: Option<&'a Lifecycle>,
}

/// Everything that keeps a Pod from meeting a standard.
pub fn violations(pod: &Subject<'_>, standard: Standard) -> Vec<Violation> {
    let at = standard.version.unwrap_or(u32::MAX);
    let held = |row: &&Row| row.level <= standard.level && row.since.first().is_some_and(|(minor, _)| *minor <= at);
    let rows: Vec<&Row> = CHECKS.iter().filter(held).collect();
    let replaced =
        |row: &&&Row| rows.iter().any(|other| other.replaces.is_some_and(|(id, minor)| id == row.id && minor <= at));
    let current = |row: &&Row| row.since.iter().rev().find(|(minor, _)| *minor <= at).map(|(_, check)| *check);
    rows.iter().filter(|row| !replaced(row)).filter_map(current).filter_map(|check| check(pod)).collect()
}

impl<'a> Subject<'a> {
    fn parts(&self) -> impl Iterator<Item = Part<'a>> + use<'a> {
        let plain = self.spec.init_containers.iter().flatten().chain(&self.spec.containers);
        plain.map(Part::of).chain(self.spec.ephemeral_containers.iter().flatten().map(Part::of_ephemeral))
    }

    /// The names of the containers for which something holds.
    fn named(&self, wanted: impl Fn(&Part<'a>) -> bool) -> Vec<&'a str> {
        self.parts().filter(|part| wanted(part)).map(|part| part.name).collect()
    }

    fn volumes(&self) -> impl Iterator<Item = &'a Volume> + use<'a> {
        self.spec.volumes.iter().flatten()
    }
}

impl<'a> Part<'a> {
    fn of(container: &'a Container) -> Self {
        Part {
            name: &container.name,
            security: container.security_context.as_ref(),
            ports: container.ports.as_deref().unwrap_or_default(),
            probes: [&container.liveness_probe, &container.readiness_probe, &container.startup_probe]
                .map(Option::as_ref),
            lifecycle: container.lifecycle.as_ref(),
        }
    }

    fn of_ephemeral(container: &'a EphemeralContainer) -> Self {
        Part {
            name: &container.name,
            security: container.security_context.as_ref(),
            ports: container.ports.as_deref().unwrap_or_default(),
            probes: [&container.liveness_probe, &container.readiness_probe, &container.startup_probe]
                .map(Option::as_ref),
            lifecycle: container.lifecycle.as_ref(),
        }
    }
}

fn unless_windows(pod: &Subject<'_>, check: Check) -> Option<Violation> {
    if pod.spec.os.as_ref().is_some_and(|os| os.name == "windows") { None } else { check(pod) }
}

/// Root in a user namespace of its own is not the host's root (KEP-127).
fn unless_user_namespace(pod: &Subject<'_>, check: Check) -> Option<Violation> {
    if pod.spec.host_users == Some(false) { None } else { check(pod) }
}

fn violation(reason: impl Into<String>, detail: impl Into<String>) -> Option<Violation> {
    Some(Violation { reason: reason.into(), detail: detail.into() })
}

fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect::<Vec<_>>().join(", ")
}

fn plural<'t>(singular: &'t str, plural: &'t str, count: usize) -> &'t str {
    if count == 1 { singular } else { plural }
}

fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// `pod and containers "a", "b"`: who has set something wrong; `None` for nobody.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    match (pod, names.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".to_owned()),
        (false, false) => Some(containers(names)),
        (true, false) => Some(format!("pod and {}", containers(names))),
    }
}

fn app_armor(pod: &Subject<'_>) -> Option<Violation> {
    let allowed = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let mut values = BTreeSet::new();
    let own = pod.spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    let own = own.map(|profile| profile.type_.as_str()).filter(|kind| !allowed(kind));
    values.extend(own);
    let mut names = Vec::new();
    for part in pod.parts() {
        let kind = part.security.and_then(|context| context.app_armor_profile.as_ref()).map(|one| one.type_.as_str());
        if let Some(kind) = kind.filter(|kind| !allowed(kind)) {
            names.push(part.name);
            values.insert(kind);
        }
    }
    let mut who: Vec<String> = setters(own.is_some(), &names).into_iter().collect();
    let mut values: Vec<String> = values.into_iter().map(str::to_owned).collect();
    let wrong = |(key, value): &(&String, &String)| {
        key.starts_with("container.apparmor.security.beta.kubernetes.io/")
            && !(value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/"))
    };
    let annotations: Vec<_> = pod.annotations.into_iter().flatten().filter(wrong).collect();
    if !annotations.is_empty() {
        values.extend(annotations.iter().map(|(key, value)| format!("{key}={value:?}")));
        who.push(plural("annotation", "annotations", annotations.len()).to_owned());
    }
    if who.is_empty() {
        return None;
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    violation(reason, format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(&values)))
}

fn added<'a>(part: &Part<'a>) -> &'a [String] {
    let capabilities = part.security.and_then(|context| context.capabilities.as_ref());
    capabilities.and_then(|capabilities| capabilities.add.as_deref()).unwrap_or_default()
}

fn capabilities_baseline(pod: &Subject<'_>) -> Option<Violation> {
    let wrong = |name: &&String| !CAPABILITIES.contains(&name.as_str());
    let names = pod.named(|part| added(part).iter().any(|name| wrong(&name)));
    let values: BTreeSet<&String> = pod.parts().flat_map(|part| added(&part)).filter(wrong).collect();
    if names.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not include {} in securityContext.capabilities.add", containers(&names), quoted(values));
    violation("non-default capabilities", detail)
}

fn capabilities_restricted(pod: &Subject<'_>) -> Option<Violation> {
    let drops_all = |part: &Part<'_>| {
        let capabilities = part.security.and_then(|context| context.capabilities.as_ref());
        capabilities.is_some_and(|capabilities| capabilities.drop.iter().flatten().any(|name| name == "ALL"))
    };
    let wrong = |name: &&String| *name != "NET_BIND_SERVICE";
    let missing = pod.named(|part| !drops_all(part));
    let adding = pod.named(|part| added(part).iter().any(|name| wrong(&name)));
    let values: BTreeSet<&String> = pod.parts().flat_map(|part| added(&part)).filter(wrong).collect();
    let mut details = Vec::new();
    if !missing.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&missing)));
    }
    if !adding.is_empty() {
        let values = quoted(values);
        details.push(format!("{} must not include {values} in securityContext.capabilities.add", containers(&adding)));
    }
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}

fn host_namespaces(pod: &Subject<'_>) -> Option<Violation> {
    let spec = pod.spec;
    let all =
        [("hostNetwork=true", spec.host_network), ("hostPID=true", spec.host_pid), ("hostIPC=true", spec.host_ipc)];
    let set: Vec<&str> = all.iter().filter(|(_, value)| *value == Some(true)).map(|(name, _)| *name).collect();
    if set.is_empty() { None } else { violation("host namespaces", set.join(", ")) }
}

fn host_path_volumes(pod: &Subject<'_>) -> Option<Violation> {
    let names: Vec<&str> =
        pod.volumes().filter(|volume| volume.host_path.is_some()).map(|volume| volume.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    violation("hostPath volumes", format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names)))
}

fn host_ports(pod: &Subject<'_>) -> Option<Violation> {
    let port = |port: &ContainerPort| port.host_port.filter(|number| *number != 0);
    let names = pod.named(|part| part.ports.iter().any(|one| port(one).is_some()));
    if names.is_empty() {
        return None;
    }
    let ports: BTreeSet<String> =
        pod.parts().flat_map(|part| part.ports).filter_map(|one| port(one).map(|number| number.to_string())).collect();
    let (uses, noun) = (plural("uses", "use", names.len()), plural("hostPort", "hostPorts", ports.len()));
    let ports = ports.into_iter().collect::<Vec<_>>().join(", ");
    violation("hostPort", format!("{} {uses} {noun} {ports}", containers(&names)))
}

fn hosts_of_probes(pod: &Subject<'_>) -> Option<Violation> {
    let (mut names, mut hosts) = (BTreeSet::new(), BTreeSet::new());
    for part in pod.parts() {
        let of_probe = |probe: &'_ Probe| {
            [
                probe.http_get.as_ref().and_then(|get| get.host.clone()),
                probe.tcp_socket.as_ref().and_then(|tcp| tcp.host.clone()),
            ]
        };
        let of_handler = |handler: &'_ LifecycleHandler| {
            [
                handler.http_get.as_ref().and_then(|get| get.host.clone()),
                handler.tcp_socket.as_ref().and_then(|tcp| tcp.host.clone()),
            ]
        };
        let probes = part.probes.into_iter().flatten().flat_map(of_probe);
        let handlers = part.lifecycle.into_iter().flat_map(|lifecycle| [&lifecycle.post_start, &lifecycle.pre_stop]);
        let found = probes.chain(handlers.flatten().flat_map(of_handler)).flatten().filter(|host| !host.is_empty());
        for host in found {
            names.insert(part.name);
            hosts.insert(host);
        }
    }
    if names.is_empty() {
        return None;
    }
    let names: Vec<&str> = names.into_iter().collect();
    let uses = plural("uses", "use", names.len());
    let noun = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
    violation("probe or lifecycle host", format!("{} {uses} {noun} {}", containers(&names), quoted(&hosts)))
}

fn privileged(pod: &Subject<'_>) -> Option<Violation> {
    let names = pod.named(|part| part.security.is_some_and(|context| context.privileged == Some(true)));
    if names.is_empty() {
        return None;
    }
    violation("privileged", format!("{} must not set securityContext.privileged=true", containers(&names)))
}

fn proc_mount(pod: &Subject<'_>) -> Option<Violation> {
    let mount = |part: &Part<'_>| {
        part.security.and_then(|context| context.proc_mount.clone()).filter(|mount| mount != "Default")
    };
    let names = pod.named(|part| mount(part).is_some());
    if names.is_empty() {
        return None;
    }
    let values: BTreeSet<String> = pod.parts().filter_map(|part| mount(&part)).collect();
    let detail = format!("{} must not set securityContext.procMount to {}", containers(&names), quoted(values));
    violation("procMount", detail)
}

fn se_linux(pod: &Subject<'_>, allowed: &[&str]) -> Option<Violation> {
    use k8s_openapi::api::core::v1::SELinuxOptions;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut wrong = |options: &SELinuxOptions| {
        let kind = text(&options.type_);
        let bad_type = !allowed.contains(&kind.as_str());
        if bad_type {
            types.insert(kind);
        }
        user |= !text(&options.user).is_empty();
        role |= !text(&options.role).is_empty();
        bad_type || !text(&options.user).is_empty() || !text(&options.role).is_empty()
    };
    let own = pod
        .spec
        .security_context
        .as_ref()
        .and_then(|context| context.se_linux_options.as_ref())
        .is_some_and(&mut wrong);
    let of_part = |part: &Part<'_>| part.security.and_then(|context| context.se_linux_options.clone());
    let names: Vec<&str> =
        pod.parts().filter(|part| of_part(part).as_ref().is_some_and(&mut wrong)).map(|part| part.name).collect();
    let who = setters(own, &names)?;
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    if user {
        data.push("user may not be set".to_owned());
    }
    if role {
        data.push("role may not be set".to_owned());
    }
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; "));
    violation("seLinuxOptions", detail)
}

fn seccomp_annotations(pod: &Subject<'_>) -> Option<Violation> {
    let allowed =
        |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let mut keys = vec!["seccomp.security.alpha.kubernetes.io/pod".to_owned()];
    keys.extend(pod.parts().map(|part| format!("container.seccomp.security.alpha.kubernetes.io/{}", part.name)));
    let value = |key: &String| pod.annotations.and_then(|all| all.get(key)).filter(|value| !allowed(value));
    let wrong: BTreeSet<String> = keys.iter().filter_map(|key| Some(format!("{key}={:?}", value(key)?))).collect();
    if wrong.is_empty() {
        return None;
    }
    let noun = plural("annotation", "annotations", wrong.len());
    violation("seccompProfile", format!("forbidden {noun} {}", wrong.into_iter().collect::<Vec<_>>().join(", ")))
}

fn has_seccomp(kind: &str) -> bool {
    matches!(kind, "RuntimeDefault" | "Localhost")
}

fn seccomp_of<'a>(part: &Part<'a>) -> Option<&'a str> {
    part.security.and_then(|context| context.seccomp_profile.as_ref()).map(|profile| profile.type_.as_str())
}

fn own_seccomp<'a>(pod: &Subject<'a>) -> Option<&'a str> {
    let profile = pod.spec.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
    profile.map(|profile| profile.type_.as_str())
}

fn seccomp_baseline(pod: &Subject<'_>) -> Option<Violation> {
    let own = own_seccomp(pod).filter(|kind| !has_seccomp(kind));
    let names = pod.named(|part| seccomp_of(part).is_some_and(|kind| !has_seccomp(kind)));
    let who = setters(own.is_some(), &names)?;
    let of_parts = pod.parts().filter_map(|part| seccomp_of(&part)).filter(|kind| !has_seccomp(kind));
    let values: BTreeSet<&str> = own.into_iter().chain(of_parts).collect();
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(values));
    violation("seccompProfile", detail)
}

fn seccomp_restricted(pod: &Subject<'_>) -> Option<Violation> {
    if let Some(wrong) = seccomp_baseline(pod) {
        return Some(wrong);
    }
    let covered = own_seccomp(pod).is_some();
    let names = pod.named(|part| seccomp_of(part).is_none() && !covered);
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        containers(&names)
    );
    violation("seccompProfile", detail)
}

fn sysctls(pod: &Subject<'_>, allowed: &[&str]) -> Option<Violation> {
    let all = pod.spec.security_context.as_ref().and_then(|context| context.sysctls.as_ref()).into_iter().flatten();
    let wrong: Vec<&str> = all.map(|one| one.name.as_str()).filter(|name| !allowed.contains(name)).collect();
    if wrong.is_empty() { None } else { violation("forbidden sysctls", wrong.join(", ")) }
}

fn host_process(pod: &Subject<'_>) -> Option<Violation> {
    let own = pod.spec.security_context.as_ref().and_then(|context| context.windows_options.as_ref());
    let own = own.is_some_and(|options| options.host_process == Some(true));
    let names = pod.named(|part| {
        let options = part.security.and_then(|context| context.windows_options.as_ref());
        options.is_some_and(|options| options.host_process == Some(true))
    });
    let who = setters(own, &names)?;
    violation("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}

fn escalation(pod: &Subject<'_>) -> Option<Violation> {
    let names = pod.named(|part| part.security.and_then(|context| context.allow_privilege_escalation) != Some(false));
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names));
    violation("allowPrivilegeEscalation != false", detail)
}

fn restricted_volumes(pod: &Subject<'_>) -> Option<Violation> {
    let mut names = Vec::new();
    let mut kinds = BTreeSet::new();
    for volume in pod.volumes() {
        let allowed = volume.config_map.is_some()
            || volume.csi.is_some()
            || volume.downward_api.is_some()
            || volume.empty_dir.is_some()
            || volume.ephemeral.is_some()
            || volume.image.is_some()
            || volume.persistent_volume_claim.is_some()
            || volume.projected.is_some()
            || volume.secret.is_some();
        if !allowed {
            names.push(volume.name.as_str());
            kinds.insert(volume_kind(volume));
        }
    }
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", names.len()),
        quoted(&names),
        plural("uses", "use", names.len()),
        plural("restricted volume type", "restricted volume types", kinds.len()),
        quoted(&kinds)
    );
    violation("restricted volume types", detail)
}

/// The source as the API names it. Only its name stands beside it in the object.
fn volume_kind(volume: &Volume) -> String {
    let fields = serde_json::to_value(volume).unwrap_or_default();
    let kind = fields.as_object().and_then(|fields| fields.keys().find(|key| *key != "name").cloned());
    kind.unwrap_or_else(|| "unknown".to_owned())
}

fn non_root(pod: &Subject<'_>) -> Option<Violation> {
    let own = pod.spec.security_context.as_ref().and_then(|context| context.run_as_non_root);
    let of_part = |part: &Part<'_>| part.security.and_then(|context| context.run_as_non_root);
    let explicit = pod.named(|part| of_part(part) == Some(false));
    if let Some(who) = setters(own == Some(false), &explicit) {
        return violation("runAsNonRoot != true", format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let implicit = pod.named(|part| of_part(part).is_none() && own != Some(true));
    if implicit.is_empty() {
        return None;
    }
    let detail = format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&implicit));
    violation("runAsNonRoot != true", detail)
}

fn root_user(pod: &Subject<'_>) -> Option<Violation> {
    let own = pod.spec.security_context.as_ref().and_then(|context| context.run_as_user) == Some(0);
    let names = pod.named(|part| part.security.and_then(|context| context.run_as_user) == Some(0));
    let who = setters(own, &names)?;
    violation("runAsUser=0", format!("{who} must not set runAsUser=0"))
}
