//! Pods.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, PodStatus};

use super::container::{self, Containers};
use super::events::{self, Involved};
use super::page::{Page, controller};
use super::{Subject, pod_template, volume};
use crate::age;

/// Where the kubelet notes the identity under which it reports on a Pod of its own.
const MIRROR: &str = "kubernetes.io/config.mirror";

pub async fn describe(subject: &Subject<'_>, page: &mut Page) -> anyhow::Result<()> {
    let pod: Pod = subject.get().await?;
    let (spec, status) = (pod.spec.clone().unwrap_or_default(), pod.status.clone().unwrap_or_default());
    place(&pod, &spec, &status, page);
    state(&pod, &spec, &status, page);
    containers(&pod, &spec, &status, page);
    conditions(&spec, &status, page);
    volume::describe(spec.volumes.as_ref(), "", page);
    page.field(0, "QoS Class", status.qos_class.as_deref().unwrap_or(""));
    page.labels("Node-Selectors", spec.node_selector.as_ref());
    page.tolerations("Tolerations", spec.tolerations.as_ref());
    pod_template::spreading(spec.topology_spread_constraints.as_ref(), "", page);
    if subject.with_events {
        let annotations = pod.metadata.annotations.as_ref();
        let uid = annotations.and_then(|all| all.get(MIRROR)).or(pod.metadata.uid.as_ref());
        let uid = uid.map_or("", String::as_str);
        let involved = Involved { namespace: subject.namespace, name: subject.name, kind: "", uid };
        events::write(events::find(subject, &involved).await, page);
    }
    Ok(())
}

fn place(pod: &Pod, spec: &PodSpec, status: &PodStatus, page: &mut Page) {
    let meta = &pod.metadata;
    page.field(0, "Name", meta.name.as_deref().unwrap_or(""));
    page.field(0, "Namespace", meta.namespace.as_deref().unwrap_or(""));
    page.optional(0, "Priority", spec.priority);
    page.optional(0, "Priority Class Name", spec.priority_class_name.as_deref());
    page.optional(0, "Runtime Class Name", spec.runtime_class_name.as_deref());
    page.optional(0, "Service Account", spec.service_account_name.as_deref());
    match spec.node_name.as_deref().unwrap_or("") {
        "" => page.field(0, "Node", "<none>"),
        node => page.field(0, "Node", format_args!("{node}/{}", status.host_ip.as_deref().unwrap_or(""))),
    }
    page.optional(0, "Start Time", status.start_time.as_ref().map(|time| age::date_of(Some(time))));
    page.labels("Labels", meta.labels.as_ref());
    page.annotations("Annotations", meta.annotations.as_ref());
}

fn state(pod: &Pod, spec: &PodSpec, status: &PodStatus, page: &mut Page) {
    let meta = &pod.metadata;
    match &meta.deletion_timestamp {
        Some(time) if !xebec_api::pod::is_terminal(pod) => {
            page.field(0, "Status", format_args!("Terminating (lasts {})", age::since(Some(time.0))));
            let grace = meta.deletion_grace_period_seconds.unwrap_or(0);
            page.field(0, "Termination Grace Period", format_args!("{grace}s"));
        }
        _ => page.field(0, "Status", status.phase.as_deref().unwrap_or("")),
    }
    page.optional(0, "Reason", status.reason.as_deref());
    page.optional(0, "Message", status.message.as_deref());
    let profile = spec.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
    if let Some(profile) = profile {
        page.field(0, "SeccompProfile", &profile.type_);
        if profile.type_ == "Localhost" {
            page.field(0, "LocalhostProfile", profile.localhost_profile.as_deref().unwrap_or(""));
        }
    }
    page.field(0, "IP", status.pod_ip.as_deref().unwrap_or(""));
    match status.pod_ips.as_deref().unwrap_or_default() {
        [] => page.field(0, "IPs", "<none>"),
        addresses => {
            page.line(0, "IPs:");
            addresses.iter().for_each(|address| page.field(1, "IP", &address.ip));
        }
    }
    page.optional(0, "Controlled By", controller(meta));
    page.optional(0, "NominatedNodeName", status.nominated_node_name.as_deref());
    if spec.resources.is_some() {
        page.line(0, "Resources:");
        container::resources(spec.resources.as_ref(), 1, page);
    }
}

fn containers(pod: &Pod, spec: &PodSpec, status: &PodStatus, page: &mut Page) {
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let ephemeral: Vec<Container> = spec.ephemeral_containers.iter().flatten().map(as_container).collect();
    let sorts = [
        ("Init Containers", init, &status.init_container_statuses),
        ("Containers", spec.containers.as_slice(), &status.container_statuses),
        ("Ephemeral Containers", ephemeral.as_slice(), &status.ephemeral_container_statuses),
    ];
    for (title, containers, statuses) in sorts {
        if !containers.is_empty() || title == "Containers" {
            let statuses = statuses.as_deref().unwrap_or_default();
            Containers { title, containers, statuses, pod: Some(pod) }.describe(page);
        }
    }
}

/// The fields of an ephemeral container that any container has.
fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let ephemeral = ephemeral.clone();
    Container {
        name: ephemeral.name,
        image: ephemeral.image,
        command: ephemeral.command,
        args: ephemeral.args,
        ports: ephemeral.ports,
        env: ephemeral.env,
        env_from: ephemeral.env_from,
        resources: ephemeral.resources,
        liveness_probe: ephemeral.liveness_probe,
        readiness_probe: ephemeral.readiness_probe,
        startup_probe: ephemeral.startup_probe,
        security_context: ephemeral.security_context,
        volume_mounts: ephemeral.volume_mounts,
        volume_devices: ephemeral.volume_devices,
        ..Container::default()
    }
}

fn conditions(spec: &PodSpec, status: &PodStatus, page: &mut Page) {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let gates = spec.readiness_gates.as_deref().unwrap_or_default();
    if !gates.is_empty() {
        page.line(0, "Readiness Gates:\n  Type\tStatus");
        for gate in gates {
            let condition = conditions.iter().find(|condition| condition.type_ == gate.condition_type);
            let value = condition.map_or("<none>", |condition| &condition.status);
            page.line(1, format_args!("{} \t{value} ", gate.condition_type));
        }
    }
    if !conditions.is_empty() {
        page.line(0, "Conditions:\n  Type\tStatus");
        conditions.iter().for_each(|one| page.line(1, format_args!("{} \t{} ", one.type_, one.status)));
    }
}
