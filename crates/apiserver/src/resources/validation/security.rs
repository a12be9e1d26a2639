//! Security contexts of Pods and containers: ids, seccomp, AppArmor, sysctls.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Sysctl,
};
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::containers::for_each;
use super::volumes::descending_path;
use super::{numbers, one_of, required, shown_in_go, text, windows};

const PROFILE_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
/// PATH_MAX less one.
const MAX_PROFILE_NAME: usize = 4095;
const MAX_SYSCTL: usize = 253;
const SYSCTL: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

pub const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
pub const APPARMOR_CONTAINER: &str = "container.apparmor.security.beta.kubernetes.io/";

pub fn container(errors: &mut FieldErrors, path: &Path, context: Option<&SecurityContext>, host_users: bool) {
    let Some(context) = context else { return };
    numbers::id(errors, &path.child("runAsUser"), context.run_as_user);
    numbers::id(errors, &path.child("runAsGroup"), context.run_as_group);
    if let Some(mount) = &context.proc_mount {
        let path = path.child("procMount");
        one_of(errors, &path, mount, &["Default", "Unmasked"]);
        if host_users && mount == "Unmasked" {
            let about = "`hostUsers` must be false to use `Unmasked`";
            errors.push(FieldError::invalid(&path, mount.as_str(), about));
        }
    }
    seccomp(errors, &path.child("seccompProfile"), context.seccomp_profile.as_ref());
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            let about = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(path, shown_in_go("SecurityContext", context), about));
        }
        let added = context.capabilities.iter().flat_map(|one| one.add.iter().flatten());
        for _ in added.filter(|name| *name == "CAP_SYS_ADMIN") {
            let about = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(path, shown_in_go("SecurityContext", context), about));
        }
    }
    windows::options(errors, &path.child("windowsOptions"), context.windows_options.as_ref());
    apparmor(errors, &path.child("appArmorProfile"), context.app_armor_profile.as_ref());
}

pub fn pod(errors: &mut FieldErrors, path: &Path, spec: &PodSpec) {
    let Some(context) = &spec.security_context else { return };
    numbers::id(errors, &path.child("fsGroup"), context.fs_group);
    numbers::id(errors, &path.child("runAsUser"), context.run_as_user);
    numbers::id(errors, &path.child("runAsGroup"), context.run_as_group);
    for (index, group) in context.supplemental_groups.iter().flatten().enumerate() {
        numbers::id(errors, &path.child("supplementalGroups").index(index), Some(*group));
    }
    sysctls(errors, &path.child("sysctls"), context, spec);
    if let Some(policy) = &context.fs_group_change_policy {
        one_of(errors, &path.child("fsGroupChangePolicy"), policy, &["Always", "OnRootMismatch"]);
    }
    seccomp(errors, &path.child("seccompProfile"), context.seccomp_profile.as_ref());
    windows::options(errors, &path.child("windowsOptions"), context.windows_options.as_ref());
    apparmor(errors, &path.child("appArmorProfile"), context.app_armor_profile.as_ref());
    if let Some(policy) = &context.supplemental_groups_policy {
        one_of(errors, &path.child("supplementalGroupsPolicy"), policy, &["Merge", "Strict"]);
    }
    if let Some(policy) = &context.se_linux_change_policy {
        one_of(errors, &path.child("seLinuxChangePolicy"), policy, &["MountOption", "Recursive"]);
    }
}

fn sysctls(errors: &mut FieldErrors, path: &Path, context: &PodSecurityContext, spec: &PodSpec) {
    let mut seen = BTreeSet::new();
    for (index, Sysctl { name, .. }) in context.sysctls.iter().flatten().enumerate() {
        let path = path.index(index).child("name");
        if required(errors, &path, name) {
            if name.len() > MAX_SYSCTL || !is_sysctl(name) {
                let about = format!("must have at most {MAX_SYSCTL} characters and match regex {SYSCTL}");
                errors.push(FieldError::invalid(&path, name.as_str(), about));
            } else if seen.contains(name) {
                errors.push(FieldError::duplicate(&path, name.as_str()));
            }
        }
        // Either separator may be used; namespaces are told apart by the first segments.
        let dotted = name.replace('/', ".");
        let of_net = dotted.starts_with("net.");
        let of_ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| dotted.starts_with(prefix))
            || dotted == "kernel.sem";
        if spec.host_network == Some(true) && of_net {
            errors.push(FieldError::invalid(&path, name.as_str(), "may not be specified when 'hostNetwork' is true"));
        } else if spec.host_ipc == Some(true) && of_ipc {
            errors.push(FieldError::invalid(&path, name.as_str(), "may not be specified when 'hostIPC' is true"));
        }
        seen.insert(name);
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let segment = |part: &str| {
        part.starts_with(edge) && part.ends_with(edge) && part.chars().all(|c| edge(c) || c == '-' || c == '_')
    };
    name.split(['.', '/']).all(segment)
}

fn seccomp(errors: &mut FieldErrors, path: &Path, profile: Option<&SeccompProfile>) {
    let Some(profile) = profile else { return };
    if profile.type_.is_empty() {
        errors.push(FieldError::required(&path.child("type"), "type is required when seccompProfile is set"));
    } else {
        one_of(errors, &path.child("type"), &profile.type_, &PROFILE_TYPES);
    }
    let at = path.child("localhostProfile");
    match (profile.type_ == "Localhost", &profile.localhost_profile) {
        (true, None) => errors.push(FieldError::required(&at, "must be set when seccomp type is Localhost")),
        (true, Some(file)) => descending_path(errors, &at, file),
        (false, Some(_)) => {
            let about = "can only be set when seccomp type is Localhost";
            errors.push(FieldError::invalid(&at, shown_in_go("SeccompProfile", profile), about));
        }
        (false, None) => {}
    }
}

fn apparmor(errors: &mut FieldErrors, path: &Path, profile: Option<&AppArmorProfile>) {
    let Some(profile) = profile else { return };
    let at = path.child("localhostProfile");
    match profile.type_.as_str() {
        "Localhost" => {
            let missing = "must be set when AppArmor type is Localhost";
            match profile.localhost_profile.as_deref() {
                None | Some("") => errors.push(FieldError::required(&at, missing)),
                Some(name) => {
                    if name.trim() != name {
                        errors.push(FieldError::invalid(&at, name, "must not be padded with whitespace"));
                    }
                    if name.len() > MAX_PROFILE_NAME {
                        errors.push(FieldError::too_long(&at, MAX_PROFILE_NAME));
                    }
                }
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if let Some(name) = &profile.localhost_profile {
                let about = "can only be set when AppArmor type is Localhost";
                errors.push(FieldError::invalid(&at, name.as_str(), about));
            }
        }
        "" => errors.push(FieldError::required(&path.child("type"), "type is required when appArmorProfile is set")),
        other => errors.push(FieldError::not_supported(&path.child("type"), other, &PROFILE_TYPES)),
    }
}

/// The profiles that once were annotations, as far as they still are.
pub fn annotations(
    errors: &mut FieldErrors,
    path: &Path,
    annotations: Option<&BTreeMap<String, String>>,
    spec: &PodSpec,
) {
    for (key, value) in annotations.into_iter().flatten() {
        if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            let path = path.child(key);
            match value.strip_prefix("localhost/") {
                Some(file) => descending_path(errors, &path, file),
                None if matches!(value.as_str(), "runtime/default" | "docker/default" | "unconfined") => {}
                None => errors.push(FieldError::invalid(&path, value.as_str(), "must be a valid seccomp profile")),
            }
        }
        if let Some(name) = key.strip_prefix(APPARMOR_CONTAINER) {
            let path = path.key(key);
            let mut found = false;
            for_each(spec, &Path::root(), |container, _| found |= container.name == name);
            if !found {
                errors.push(FieldError::invalid(&path, name, "container not found"));
            }
            let known =
                matches!(value.as_str(), "" | "runtime/default" | "unconfined") || value.starts_with("localhost/");
            if !known {
                let about = format!("invalid AppArmor profile name: {value:?}");
                errors.push(FieldError::invalid(&path, value.as_str(), about));
            }
        }
    }
}

/// Annotation and field must say the same where both are there.
pub fn annotations_match_fields(
    errors: &mut FieldErrors,
    annotations: Option<&BTreeMap<String, String>>,
    spec: &PodSpec,
    path: &Path,
) {
    let Some(annotations) = annotations.filter(|annotations| !annotations.is_empty()) else { return };
    let context = spec.security_context.as_ref();
    let mut compare = |path: Path, what: &str, key: &str, kind: &str, file: Option<&str>| {
        let Some(annotation) = annotations.get(key) else { return };
        let wrong = match (kind, annotation.strip_prefix("localhost/")) {
            ("Unconfined", _) => (annotation != "unconfined").then_some("type"),
            ("RuntimeDefault", _) => {
                let docker = what == "seccomp" && annotation == "docker/default";
                (annotation != "runtime/default" && !docker).then_some("type")
            }
            ("Localhost", None) => Some("type"),
            ("Localhost", named) => (named != file).then_some("localhostProfile"),
            _ => None,
        };
        if let Some(field) = wrong {
            let noun = if field == "type" { "type" } else { "profile" };
            let about = format!("{what} {noun} in annotation and field must match");
            errors.push(FieldError::forbidden(&path.child(field), about));
        }
    };
    if let Some(profile) = context.and_then(|context| context.seccomp_profile.as_ref()) {
        let path = path.child("securityContext.seccompProfile");
        compare(path, "seccomp", SECCOMP_POD, &profile.type_, profile.localhost_profile.as_deref());
    }
    let windows = spec.os.as_ref().is_some_and(|os| os.name == "windows");
    for_each(spec, path, |container, path| {
        let own = container.security_context.as_ref();
        if let Some(profile) = own.and_then(|own| own.seccomp_profile.as_ref()) {
            let key = format!("{SECCOMP_CONTAINER}{}", container.name);
            let path = path.child("securityContext.seccompProfile");
            compare(path, "seccomp", &key, &profile.type_, profile.localhost_profile.as_deref());
        }
        let profile = own
            .and_then(|own| own.app_armor_profile.as_ref())
            .or_else(|| context.and_then(|context| context.app_armor_profile.as_ref()));
        if let Some(profile) = profile.filter(|_| !windows) {
            let key = format!("{APPARMOR_CONTAINER}{}", container.name);
            let path = path.child("securityContext.appArmorProfile");
            compare(path, "apparmor", &key, &profile.type_, profile.localhost_profile.as_deref());
        }
    });
}

/// A Pod of the host's process namespace cannot have one of its own.
pub fn process_namespace(errors: &mut FieldErrors, path: &Path, spec: &PodSpec) {
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let about = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(&path.child("shareProcessNamespace"), true, about));
    }
}

/// What a Pod with its own user namespace may not have.
pub fn host_users(errors: &mut FieldErrors, path: &Path, spec: &PodSpec) {
    if spec.host_users != Some(false) {
        return;
    }
    let about = "when `hostUsers` is false";
    let shared = [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)];
    for (name, _) in shared.iter().filter(|(_, value)| *value == Some(true)) {
        errors.push(FieldError::forbidden(&path.child(name), about));
    }
    for_each(spec, path, |container, path| {
        if container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty()) {
            errors.push(FieldError::forbidden(&path.child("volumeDevices"), about));
        }
    });
}

/// The profile's file of an optional annotation, for callers that turn annotations into fields.
pub fn apparmor_of_annotation(value: &str) -> Option<AppArmorProfile> {
    let (kind, file) = match value {
        "unconfined" => ("Unconfined", None),
        "runtime/default" => ("RuntimeDefault", None),
        _ => ("Localhost", Some(value.strip_prefix("localhost/").filter(|file| !file.is_empty())?.to_owned())),
    };
    let profile = AppArmorProfile { type_: kind.to_owned(), localhost_profile: file };
    let padded = text(&profile.localhost_profile).trim() != text(&profile.localhost_profile);
    (!padded).then_some(profile)
}
