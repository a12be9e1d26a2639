//! Windows-only fields, and what Pods of either operating system may not say.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{PodSpec, WindowsSecurityContextOptions};
use regex::Regex;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::containers::for_each;
use super::{dns, report};

/// Upstream's limits: a credential spec in bytes, a domain and a user name in characters.
const MAX_SPEC: usize = 64 * 1024;
const MAX_DOMAIN: usize = 256;
const MAX_USER: usize = 104;

pub fn options(errors: &mut FieldErrors, path: &Path, options: Option<&WindowsSecurityContextOptions>) {
    let Some(options) = options else { return };
    if let Some(name) = &options.gmsa_credential_spec_name {
        report(errors, &path.child("gmsaCredentialSpecName"), name, dns::subdomain(name));
    }
    if let Some(spec) = &options.gmsa_credential_spec {
        let path = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.push(FieldError::invalid(&path, "", "gmsaCredentialSpec cannot be an empty string"));
        } else if spec.len() > MAX_SPEC {
            errors.push(FieldError::invalid(&path, spec.as_str(), "gmsaCredentialSpec size must be under 64 KiB"));
        }
    }
    if let Some(name) = &options.run_as_user_name {
        let about = user_name(name);
        errors.extend(
            about.into_iter().map(|about| FieldError::invalid(&path.child("runAsUserName"), name.as_str(), about)),
        );
    }
}

fn user_name(name: &str) -> Vec<String> {
    static DOMAIN: LazyLock<Regex> = LazyLock::new(|| {
        let label = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?";
        Regex::new(&format!(r#"^[^\\/:*?"<>|.][^\\/:*?"<>|]{{0,14}}$|^{label}(?:\.{label})*$"#)).expect("a constant")
    });
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string".to_owned()];
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters".to_owned()];
    }
    let (domain, user) = match name.split('\\').collect::<Vec<_>>()[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return vec!["runAsUserName cannot contain more than one backslash".to_owned()],
    };
    let mut messages = Vec::new();
    if domain.is_some_and(|domain| domain.len() >= MAX_DOMAIN) {
        messages.push(format!("runAsUserName's Domain length must be under {MAX_DOMAIN} characters"));
    }
    if domain.is_some_and(|domain| !DOMAIN.is_match(domain)) {
        messages.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format".to_owned());
    }
    if user.is_empty() {
        messages.push("runAsUserName's User cannot be empty".to_owned());
    } else if user.len() > MAX_USER {
        messages.push(format!("runAsUserName's User length must not be longer than {MAX_USER} characters"));
    } else if user.chars().all(|c| c == '.' || c == ' ') {
        messages.push("runAsUserName's User cannot contain only periods or spaces".to_owned());
    }
    if user.chars().any(|c| r#""/\:;|=,+*?<>@[]"#.contains(c)) {
        let about = r#"runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]"#;
        messages.push(about.to_owned());
    }
    messages
}

/// Host-process containers: all or none, and only in the host's network.
pub fn host_process(errors: &mut FieldErrors, path: &Path, spec: &PodSpec) {
    let of_pod = spec
        .security_context
        .as_ref()
        .and_then(|context| context.windows_options.as_ref())
        .and_then(|options| options.host_process);
    let (mut all, mut host) = (0, 0);
    for_each(spec, path, |container, path| {
        all += 1;
        let own = container
            .security_context
            .as_ref()
            .and_then(|context| context.windows_options.as_ref())
            .and_then(|options| options.host_process);
        if let (Some(of_pod), Some(own)) = (of_pod, own)
            && of_pod != own
        {
            let path = path.child("securityContext.windowsOptions.hostProcess");
            let about = format!("pod hostProcess value must be identical if both are specified, was {of_pod}");
            errors.push(FieldError::invalid(&path, own, about));
        }
        host += usize::from(own.or(of_pod) == Some(true));
    });
    if host == 0 {
        return;
    }
    if host != all {
        let about = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(FieldError::invalid(path, "", about));
    }
    if spec.host_network != Some(true) {
        let about = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(FieldError::invalid(&path.child("hostNetwork"), false, about));
    }
}

/// `spec.os` and what does not fit to it.
pub fn operating_system(errors: &mut FieldErrors, path: &Path, spec: &PodSpec) {
    let Some(os) = &spec.os else { return };
    match os.name.as_str() {
        "linux" => linux(errors, path, spec),
        "windows" => windows(errors, path, spec),
        "" => errors.push(FieldError::required(&path.child("os.name"), "")),
        other => errors.push(FieldError::not_supported(&path.child("os"), other, &["linux", "windows"])),
    }
}

fn linux(errors: &mut FieldErrors, path: &Path, spec: &PodSpec) {
    let about = "windows options cannot be set for a linux pod";
    if spec.security_context.as_ref().is_some_and(|context| context.windows_options.is_some()) {
        errors.push(FieldError::forbidden(&path.child("securityContext.windowsOptions"), about));
    }
    for_each(spec, path, |container, path| {
        if container.security_context.as_ref().is_some_and(|context| context.windows_options.is_some()) {
            errors.push(FieldError::forbidden(&path.child("securityContext.windowsOptions"), about));
        }
    });
}

fn windows(errors: &mut FieldErrors, path: &Path, spec: &PodSpec) {
    let mut forbid = |path: &Path, fields: &[(&str, bool)]| {
        for (name, _) in fields.iter().filter(|(_, present)| *present) {
            errors.push(FieldError::forbidden(&path.child(name), "cannot be set for a windows pod"));
        }
    };
    if let Some(context) = &spec.security_context {
        let fields = [
            ("appArmorProfile", context.app_armor_profile.is_some()),
            ("seLinuxOptions", context.se_linux_options.is_some()),
            ("seccompProfile", context.seccomp_profile.is_some()),
            ("fsGroup", context.fs_group.is_some()),
            ("fsGroupChangePolicy", context.fs_group_change_policy.is_some()),
            ("sysctls", context.sysctls.as_ref().is_some_and(|list| !list.is_empty())),
            ("runAsUser", context.run_as_user.is_some()),
            ("runAsGroup", context.run_as_group.is_some()),
            ("supplementalGroups", context.supplemental_groups.is_some()),
            ("supplementalGroupsPolicy", context.supplemental_groups_policy.is_some()),
            ("seLinuxChangePolicy", context.se_linux_change_policy.is_some()),
        ];
        forbid(&path.child("securityContext"), &fields);
    }
    let fields = [
        ("hostUsers", spec.host_users.is_some()),
        ("hostPID", spec.host_pid == Some(true)),
        ("hostIPC", spec.host_ipc == Some(true)),
        ("shareProcessNamespace", spec.share_process_namespace.is_some()),
    ];
    forbid(path, &fields);
    for_each(spec, path, |container, path| {
        let Some(context) = &container.security_context else { return };
        let fields = [
            ("appArmorProfile", context.app_armor_profile.is_some()),
            ("seLinuxOptions", context.se_linux_options.is_some()),
            ("seccompProfile", context.seccomp_profile.is_some()),
            ("capabilities", context.capabilities.is_some()),
            ("readOnlyRootFilesystem", context.read_only_root_filesystem.is_some()),
            ("privileged", context.privileged.is_some()),
            ("allowPrivilegeEscalation", context.allow_privilege_escalation.is_some()),
            ("procMount", context.proc_mount.is_some()),
            ("runAsUser", context.run_as_user.is_some()),
            ("runAsGroup", context.run_as_group.is_some()),
        ];
        forbid(&path.child("securityContext"), &fields);
    });
}
