//! Plans as a table: the Pod, what runs, what the probes say, what is to be done.

use serde_json::{Value, json};
use xebec_cri::v1::{PodSandboxMetadata, PodSandboxNetworkStatus, PodSandboxStatus};

use super::*;

fn pod(policy: &str, init: &[Value], containers: &[&str]) -> Pod {
    let containers: Vec<Value> = containers.iter().map(|name| json!({"name": name})).collect();
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"restartPolicy": policy, "initContainers": init, "containers": containers},
    }))
    .unwrap()
}

/// Containers as `name:state`, where a state is `run`, `new`, `odd` or an exit code; newest first. `old/` is the sandbox before.
fn observed(sandbox: &str, containers: &[&str]) -> Observed {
    let mut found = Observed::default();
    for (index, name) in ["now", "old"].iter().enumerate() {
        let state = match (index, sandbox) {
            (_, "none") => continue,
            (0, "ready") => PodSandboxState::SandboxReady,
            _ => PodSandboxState::SandboxNotready,
        };
        found.sandboxes.push(PodSandboxStatus {
            id: (*name).to_owned(),
            metadata: Some(PodSandboxMetadata { attempt: 1 - index as u32, ..Default::default() }),
            state: state as i32,
            network: Some(PodSandboxNetworkStatus { ip: "10.0.0.1".into(), ..Default::default() }),
            ..Default::default()
        });
    }
    for (index, text) in containers.iter().enumerate() {
        let (name, state) = text.split_once(':').unwrap();
        let (sandbox, name) = name.split_once('/').unwrap_or(("now", name));
        let container = Container { name: name.into(), ..Container::default() };
        found.containers.push(Seen {
            id: format!("{name}-id"),
            name: name.into(),
            sandbox: sandbox.into(),
            state: match state {
                "run" => State::Running,
                "new" => State::Created,
                "odd" => State::Unknown,
                _ => State::Exited,
            },
            restart_count: 0,
            hash: identity::hash(&container),
            image: String::new(),
            image_ref: String::new(),
            created_at: jiff::Timestamp::from_second(1000 - index as i64).unwrap(),
            started_at: None,
            finished_at: None,
            exit_code: state.parse().unwrap_or(0),
            reason: String::new(),
            message: String::new(),
            user: None,
            log_path: String::new(),
        });
    }
    found
}

/// Describes a plan: `new`/`keep`/`none`, `kill-pod`, `-name` for stopped, `init:name`, `+name`.
fn describe(plan: &Plan) -> String {
    let mut parts = vec![match &plan.sandbox {
        Sandbox::Keep { .. } => "keep".to_owned(),
        Sandbox::Create { attempt, .. } => format!("new{attempt}"),
        Sandbox::None => "none".to_owned(),
    }];
    parts.extend(plan.kill_pod.then(|| "kill-pod".to_owned()));
    parts.extend(plan.kill.iter().map(|kill| format!("-{}", kill.name)));
    parts.extend(plan.start_init.iter().map(|name| format!("init:{name}")));
    parts.extend(plan.start.iter().map(|name| format!("+{name}")));
    parts.join(" ")
}

fn check(pod: &Pod, observed: &Observed, probes: &[(&str, Kind, bool)], expected: &str) {
    let verdicts = Verdicts::default();
    for (id, kind, verdict) in probes {
        verdicts.set(id, *kind, *verdict);
    }
    assert_eq!(describe(&plan(pod, observed, &verdicts)), expected, "{:?}", observed.containers);
}

#[test]
fn sandboxes() {
    let always = pod("Always", &[], &["a", "b"]);
    check(&always, &observed("none", &[]), &[], "new0 +a +b");
    check(&always, &observed("ready", &[]), &[], "keep +a +b");
    check(&always, &observed("dead", &["a:137", "b:137"]), &[], "new2 kill-pod +a +b");
    check(&pod("OnFailure", &[], &["a", "b"]), &observed("dead", &["a:0", "b:137"]), &[], "new2 kill-pod +b");
    check(&pod("Never", &[], &["a"]), &observed("dead", &["a:1"]), &[], "none kill-pod");
}

#[test]
fn containers_by_policy() {
    let containers = &["a", "b"];
    check(&pod("Always", &[], containers), &observed("ready", &["a:run", "b:0"]), &[], "keep +b");
    check(&pod("OnFailure", &[], containers), &observed("ready", &["a:0", "b:1"]), &[], "keep +b");
    check(&pod("OnFailure", &[], containers), &observed("ready", &["a:0", "b:0"]), &[], "keep kill-pod");
    check(&pod("Never", &[], containers), &observed("ready", &["a:0", "b:1"]), &[], "keep kill-pod");
    check(&pod("Never", &[], containers), &observed("ready", &["a:run", "b:1"]), &[], "keep");
    check(&pod("Never", &[], containers), &observed("ready", &["a:new", "b:odd"]), &[], "keep -b +a +b");
}

#[test]
fn failed_probes_restart() {
    let running = observed("ready", &["a:run"]);
    let always = pod("Always", &[], &["a"]);
    check(&always, &running, &[("a-id", Kind::Liveness, true)], "keep");
    check(&always, &running, &[("a-id", Kind::Liveness, false)], "keep -a +a");
    check(&always, &running, &[("a-id", Kind::Startup, false)], "keep -a +a");
    check(&always, &running, &[("a-id", Kind::Readiness, false)], "keep");
    check(&pod("Never", &[], &["a"]), &running, &[("a-id", Kind::Liveness, false)], "keep kill-pod");
}

#[test]
fn init_containers_one_after_the_other() {
    let two = pod("Always", &[json!({"name": "i"}), json!({"name": "j"})], &["a"]);
    check(&two, &observed("none", &[]), &[], "new0 init:i");
    check(&two, &observed("ready", &["i:run"]), &[], "keep");
    check(&two, &observed("ready", &["i:1"]), &[], "keep init:i");
    check(&two, &observed("ready", &["i:0"]), &[], "keep init:j");
    check(&two, &observed("ready", &["j:run"]), &[], "keep");
    check(&two, &observed("ready", &["j:0", "i:0"]), &[], "keep +a");
    check(&two, &observed("ready", &["a:run"]), &[], "keep");
    check(&two, &observed("ready", &["old/i:0", "old/j:0", "old/a:137"]), &[], "keep init:i");
    let never = pod("Never", &[json!({"name": "i"})], &["a"]);
    check(&never, &observed("ready", &["i:1"]), &[], "keep kill-pod");
    check(&never, &observed("dead", &["i:1"]), &[], "none kill-pod");
}

#[test]
fn sidecars_stay() {
    let sidecar = json!({"name": "s", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["x"]}}});
    let mixed = pod("OnFailure", &[sidecar, json!({"name": "i"})], &["a"]);
    check(&mixed, &observed("ready", &["s:run"]), &[], "keep");
    check(&mixed, &observed("ready", &["s:run"]), &[("s-id", Kind::Startup, true)], "keep init:i");
    check(&mixed, &observed("ready", &["s:run"]), &[("s-id", Kind::Startup, false)], "keep -s init:s");
    let started: &[(&str, Kind, bool)] = &[("s-id", Kind::Startup, true)];
    check(&mixed, &observed("ready", &["i:run", "s:1"]), started, "keep init:s");
    check(&mixed, &observed("ready", &["i:0", "s:run"]), started, "keep +a");
    check(&mixed, &observed("ready", &["a:run", "i:0", "s:0"]), started, "keep init:s");
    check(&mixed, &observed("ready", &["a:1", "i:0", "s:run"]), started, "keep +a");
    check(&mixed, &observed("ready", &["a:0", "i:0", "s:run"]), started, "keep kill-pod");
}
