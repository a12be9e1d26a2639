//! Containers, in Pods and in templates of Pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerState, ContainerStatus, EnvFromSource, EnvVar, Pod, Probe,
    ResourceFieldSelector, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use xebec_api::Quantity;

use super::page::{Page, or_none, quantity};
use crate::age;

/// Containers of one sort.
pub struct Containers<'a> {
    pub title: &'a str,
    pub containers: &'a [Container],
    pub statuses: &'a [ContainerStatus],
    /// The Pod they are in; a template has none, and stands deeper.
    pub pod: Option<&'a Pod>,
}

impl Containers<'_> {
    pub fn describe(&self, page: &mut Page) {
        let (space, indent) = if self.pod.is_some() { ("", "") } else { ("  ", " ") };
        let none = if self.containers.is_empty() { " <none>" } else { "" };
        page.line(0, format_args!("{space}{}:{none}", self.title));
        for container in self.containers {
            let status = self.statuses.iter().find(|status| status.name == container.name);
            page.line(1, format_args!("{indent}{}:", container.name));
            basics(container, status, page);
            words("Command", container.command.as_ref(), page);
            words("Args", container.args.as_ref(), page);
            if let Some(status) = status {
                running(status, page);
            }
            resources(container.resources.as_ref(), 2, page);
            probes(container, page);
            environment_from(container.env_from.as_ref(), page);
            environment(container, self.pod, page);
            mounts(container, page);
        }
    }
}

fn basics(container: &Container, status: Option<&ContainerStatus>, page: &mut Page) {
    if let Some(status) = status {
        page.field(2, "Container ID", status.container_id.as_deref().unwrap_or(""));
    }
    page.field(2, "Image", container.image.as_deref().unwrap_or(""));
    if let Some(status) = status {
        page.field(2, "Image ID", &status.image_id);
    }
    let ports = container.ports.as_deref().unwrap_or_default();
    ports_field("Port", ports, |port| port.container_port, page);
    ports_field("Host Port", ports, |port| port.host_port.unwrap_or(0), page);
    let profile = container.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
    if let Some(profile) = profile {
        page.field(2, "SeccompProfile", &profile.type_);
        if profile.type_ == "Localhost" {
            page.field(3, "LocalhostProfile", profile.localhost_profile.as_deref().unwrap_or(""));
        }
    }
}

fn ports_field(name: &str, ports: &[ContainerPort], number: impl Fn(&ContainerPort) -> i32, page: &mut Page) {
    let port = |port: &ContainerPort| {
        let text = format!("{}/{}", number(port), port.protocol.as_deref().unwrap_or(""));
        match port.name.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => format!("{text} ({name})"),
            None => text,
        }
    };
    let all: Vec<String> = ports.iter().map(port).collect();
    let plural = if all.len() > 1 { "s" } else { "" };
    page.field(2, &format!("{name}{plural}"), or_none(all.join(", ")));
}

fn words(title: &str, words: Option<&Vec<String>>, page: &mut Page) {
    let Some(words) = words.filter(|words| !words.is_empty()) else { return };
    page.line(2, format_args!("{title}:"));
    words.iter().flat_map(|word| word.split('\n')).for_each(|line| page.line(3, line));
}

fn running(status: &ContainerStatus, page: &mut Page) {
    state("State", status.state.as_ref(), page);
    if status.last_state.as_ref().is_some_and(|state| state.terminated.is_some()) {
        state("Last State", status.last_state.as_ref(), page);
    }
    page.field(2, "Ready", if status.ready { "True" } else { "False" });
    page.field(2, "Restart Count", status.restart_count);
}

fn state(title: &str, state: Option<&ContainerState>, page: &mut Page) {
    let Some(state) = state else { return page.field(2, title, "Waiting") };
    if let Some(running) = &state.running {
        page.field(2, title, "Running");
        page.field(3, "Started", age::date_of(running.started_at.as_ref()));
    } else if let Some(ended) = state.terminated.as_ref().filter(|_| state.waiting.is_none()) {
        page.field(2, title, "Terminated");
        page.optional(3, "Reason", ended.reason.as_deref());
        page.optional(3, "Message", ended.message.as_deref());
        page.field(3, "Exit Code", ended.exit_code);
        page.optional(3, "Signal", ended.signal.filter(|signal| *signal > 0));
        page.field(3, "Started", age::date_of(ended.started_at.as_ref()));
        page.field(3, "Finished", age::date_of(ended.finished_at.as_ref()));
    } else {
        page.field(2, title, "Waiting");
        page.optional(3, "Reason", state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref()));
    }
}

pub fn resources(resources: Option<&ResourceRequirements>, level: usize, page: &mut Page) {
    let Some(resources) = resources else { return };
    for (title, amounts) in [("Limits", &resources.limits), ("Requests", &resources.requests)] {
        let Some(amounts) = amounts.as_ref().filter(|amounts| !amounts.is_empty()) else { continue };
        page.line(level, format_args!("{title}:"));
        amounts.iter().for_each(|(name, amount)| page.field(level + 1, name, quantity(amount)));
    }
}

fn probes(container: &Container, page: &mut Page) {
    page.optional(2, "Liveness", container.liveness_probe.as_ref().map(probe));
    page.optional(2, "Readiness", container.readiness_probe.as_ref().map(probe));
    page.optional(2, "Startup", container.startup_probe.as_ref().map(probe));
}

fn probe(probe: &Probe) -> String {
    let number = |value: Option<i32>| value.unwrap_or(0);
    let times = format!(
        "delay={}s timeout={}s period={}s successThreshold={} failureThreshold={}",
        number(probe.initial_delay_seconds),
        number(probe.timeout_seconds),
        number(probe.period_seconds),
        number(probe.success_threshold),
        number(probe.failure_threshold)
    );
    if let Some(exec) = &probe.exec {
        return format!("exec [{}] {times}", exec.command.as_deref().unwrap_or_default().join(" "));
    }
    if let Some(get) = &probe.http_get {
        let scheme = get.scheme.as_deref().unwrap_or("").to_lowercase();
        let (host, path) = (get.host.as_deref().unwrap_or(""), url_path(get.path.as_deref().unwrap_or("")));
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        return format!("http-get {scheme}://{host}:{}{path} {times}", port(&get.port));
    }
    if let Some(socket) = &probe.tcp_socket {
        return format!("tcp-socket {}:{} {times}", socket.host.as_deref().unwrap_or(""), port(&socket.port));
    }
    if let Some(grpc) = &probe.grpc {
        return format!("grpc <pod>:{} {} {times}", grpc.port, grpc.service.as_deref().unwrap_or(""));
    }
    format!("unknown {times}")
}

/// A path as it stands in a URL: the whole is path to upstream, so a query in it is no query.
fn url_path(path: &str) -> String {
    let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
    let escaped = path.replace('%', "%25").replace('?', "%3F").replace('#', "%23").replace(' ', "%20");
    format!("{slash}{escaped}")
}

pub fn port(port: &IntOrString) -> String {
    match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    }
}

fn environment_from(sources: Option<&Vec<EnvFromSource>>, page: &mut Page) {
    let Some(sources) = sources.filter(|sources| !sources.is_empty()) else { return };
    page.line(2, "Environment Variables from:");
    for source in sources {
        let (kind, name, optional) = match (&source.config_map_ref, &source.secret_ref) {
            (Some(map), _) => ("ConfigMap", map.name.as_str(), map.optional),
            (None, Some(secret)) => ("Secret", secret.name.as_str(), secret.optional),
            (None, None) => ("", "", None),
        };
        let optional = optional.unwrap_or(false);
        let prefix = match source.prefix.as_deref().unwrap_or("") {
            "" => String::new(),
            prefix => format!(" with prefix '{prefix}'"),
        };
        page.line(3, format_args!("{name}\t{kind}{prefix}\tOptional: {optional}"));
    }
}

fn environment(container: &Container, pod: Option<&Pod>, page: &mut Page) {
    let variables = container.env.as_deref().unwrap_or_default();
    page.line(2, if variables.is_empty() { "Environment:\t<none>" } else { "Environment:" });
    for variable in variables {
        let name = &variable.name;
        let Some(source) = &variable.value_from else {
            let mut lines = variable.value.as_deref().unwrap_or("").split('\n');
            page.field(3, name, lines.next().unwrap_or(""));
            lines.for_each(|line| page.line(3, format_args!("\t{line}")));
            continue;
        };
        if let Some(field) = &source.field_ref {
            let value = pod.and_then(|pod| field_value(pod, &field.field_path)).unwrap_or_default();
            let version = field.api_version.as_deref().unwrap_or("");
            page.field(3, name, format_args!("{value} ({version}:{})", field.field_path));
        } else if let Some(field) = &source.resource_field_ref {
            page.field(3, name, format_args!("{} ({})", resource_value(container, field), field.resource));
        } else {
            key_reference(variable, page);
        }
    }
}

fn key_reference(variable: &EnvVar, page: &mut Page) {
    let (name, source) = (&variable.name, variable.value_from.as_ref());
    if let Some(secret) = source.and_then(|source| source.secret_key_ref.as_ref()) {
        let optional = secret.optional.unwrap_or(false);
        let from = format!("<set to the key '{}' in secret '{}'>", secret.key, secret.name);
        page.field(3, name, format_args!("{from}\tOptional: {optional}"));
    } else if let Some(map) = source.and_then(|source| source.config_map_key_ref.as_ref()) {
        let optional = map.optional.unwrap_or(false);
        let from = format!("<set to the key '{}' of config map '{}'>", map.key, map.name);
        page.field(3, name, format_args!("{from}\tOptional: {optional}"));
    }
}

/// The fields of a Pod that are known here as well as on its node. kubectl does not look up single labels and annotations either.
fn field_value(pod: &Pod, path: &str) -> Option<String> {
    let meta = &pod.metadata;
    let all = |map: &Option<BTreeMap<String, String>>| {
        let lines = map.iter().flatten().map(|(key, value)| format!("{key}={value:?}"));
        Some(lines.collect::<Vec<_>>().join("\n"))
    };
    match path {
        "metadata.annotations" => all(&meta.annotations),
        "metadata.labels" => all(&meta.labels),
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        _ => None,
    }
}

/// In units of the divisor, rounded up.
fn resource_value(container: &Container, field: &ResourceFieldSelector) -> String {
    let Some((list, name)) = field.resource.split_once('.') else { return String::new() };
    let resources = container.resources.as_ref();
    let amounts = match list {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        _ => resources.and_then(|resources| resources.requests.as_ref()),
    };
    let amount = Quantity::of(amounts.and_then(|amounts| amounts.get(name)));
    let divisor = Some(Quantity::of(field.divisor.as_ref())).filter(|divisor| !divisor.is_zero());
    let divisor = divisor.unwrap_or(Quantity::from_integer(1));
    let units = |amount: Quantity| if name == "cpu" { amount.milli_value() } else { amount.value() };
    let value = (units(amount) as f64 / units(divisor) as f64).ceil() as i64;
    if value == 0 && matches!(field.resource.as_str(), "limits.cpu" | "limits.memory") {
        return "node allocatable".to_owned();
    }
    value.to_string()
}

fn mounts(container: &Container, page: &mut Page) {
    let mut mounts: Vec<_> = container.volume_mounts.iter().flatten().collect();
    page.line(2, if mounts.is_empty() { "Mounts:\t<none>" } else { "Mounts:" });
    mounts.sort_by_key(|mount| &mount.mount_path);
    for mount in mounts {
        let access = if mount.read_only == Some(true) { "ro" } else { "rw" };
        let path = match mount.sub_path.as_deref().unwrap_or("") {
            "" => String::new(),
            path => format!(",path={path:?}"),
        };
        page.line(3, format_args!("{} from {} ({access}{path})", mount.mount_path, mount.name));
    }
    let mut devices: Vec<_> = container.volume_devices.iter().flatten().collect();
    if !devices.is_empty() {
        page.line(2, "Devices:");
    }
    devices.sort_by_key(|device| &device.device_path);
    devices.iter().for_each(|device| page.line(3, format_args!("{} from {}", device.device_path, device.name)));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn probes_in_a_line() {
        let times = "delay=0s timeout=1s period=0s successThreshold=0 failureThreshold=0";
        let check = |value: serde_json::Value, expected: &str| {
            let mut value = value;
            value["timeoutSeconds"] = json!(1);
            assert_eq!(probe(&serde_json::from_value(value).unwrap()), format!("{expected} {times}"));
        };
        check(json!({"exec": {"command": ["a", "b"]}}), "exec [a b]");
        check(json!({"httpGet": {"scheme": "HTTP", "port": "web", "path": "/x?y"}}), "http-get http://:web/x%3Fy");
        check(json!({"tcpSocket": {"port": 80}}), "tcp-socket :80");
        check(json!({}), "unknown");
    }

    #[test]
    fn resource_fields() {
        let container: Container =
            serde_json::from_value(json!({"name": "a", "resources": {"requests": {"cpu": "150m", "memory": "65Mi"}}}))
                .unwrap();
        let check = |resource: &str, divisor: &str, expected: &str| {
            let field = serde_json::from_value(json!({"resource": resource, "divisor": divisor})).unwrap();
            assert_eq!(resource_value(&container, &field), expected, "{resource}");
        };
        check("requests.cpu", "0", "1");
        check("requests.cpu", "1m", "150");
        check("requests.memory", "1Mi", "65");
        check("limits.memory", "0", "node allocatable");
    }
}
