//! Ephemeral containers: started once in a Pod that runs, for looking into it. Source: "Ephemeral Containers" in the Kubernetes
//! documentation. They are never restarted and count for nothing in the Pod's phase.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};

/// As ordinary containers that do not start again.
pub fn containers(pod: &Pod) -> Vec<Container> {
    specs(pod).iter().map(as_container).collect()
}

pub fn is_ephemeral(pod: &Pod, name: &str) -> bool {
    specs(pod).iter().any(|it| it.name == name)
}

/// The container whose processes this one shall see.
pub fn target<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    let found = specs(pod).iter().find(|it| it.name == name)?;
    found.target_container_name.as_deref().filter(|target| !target.is_empty())
}

fn specs(pod: &Pod) -> &[EphemeralContainer] {
    pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default()
}

/// The two types differ in the target's name alone.
fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let it = ephemeral.clone();
    Container {
        name: it.name,
        image: it.image,
        image_pull_policy: it.image_pull_policy,
        command: it.command,
        args: it.args,
        env: it.env,
        env_from: it.env_from,
        working_dir: it.working_dir,
        volume_mounts: it.volume_mounts,
        security_context: it.security_context,
        stdin: it.stdin,
        stdin_once: it.stdin_once,
        tty: it.tty,
        termination_message_path: it.termination_message_path,
        termination_message_policy: it.termination_message_policy,
        restart_policy: Some("Never".to_owned()),
        ..Container::default()
    }
}
