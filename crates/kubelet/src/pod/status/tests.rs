//! Statuses as a table: what the runtime holds, what the API knew, what it is to show.

use serde_json::{Value, json};

use super::*;

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 2},
        "spec": {"restartPolicy": "Always", "containers": [{"name": "c", "image": "i:1"}]},
    }))
    .unwrap()
}

fn seen(id: &str, state: State, restart_count: u32) -> Seen {
    let at = |second: u32| Timestamp::from_second(i64::from(second)).unwrap();
    Seen {
        id: id.into(),
        name: "c".into(),
        sandbox: "s".into(),
        state,
        restart_count,
        hash: String::new(),
        image: "i:1".into(),
        image_ref: "sha256:1".into(),
        created_at: at(restart_count),
        started_at: Some(at(restart_count)),
        finished_at: (state == State::Exited).then(|| at(restart_count + 1)),
        exit_code: i32::from(state == State::Exited),
        reason: if state == State::Exited { "Error".into() } else { String::new() },
        message: String::new(),
        user: None,
        log_path: String::new(),
    }
}

/// `state last restarts ready`, where a state is `run:ID`, `end:CODE:ID` or `wait:REASON`.
fn shown(status: &ContainerStatus) -> String {
    let of = |state: &Option<ContainerState>| match state.clone().unwrap_or_default() {
        ContainerState { running: Some(_), .. } => "run".to_owned(),
        ContainerState { terminated: Some(it), .. } => {
            format!("end:{}:{}", it.exit_code, it.reason.unwrap_or_default())
        }
        ContainerState { waiting: Some(it), .. } => format!("wait:{}", it.reason.unwrap_or_default()),
        _ => "-".to_owned(),
    };
    format!("{} {} {} {}", of(&status.state), of(&status.last_state), status.restart_count, status.ready)
}

fn check(containers: Vec<Seen>, old: Value, failure: Option<&'static str>, expected: &str) -> PodStatus {
    let (pod, probes) = (pod(), Verdicts::default());
    let old: PodStatus = serde_json::from_value(old).unwrap();
    let observed = Observed { sandboxes: Vec::new(), containers };
    let failures: HashMap<String, Failure> =
        failure.map(|reason| ("c".to_owned(), Failure { reason, message: "why".into() })).into_iter().collect();
    let status = status(&Basis {
        pod: &pod,
        old: &old,
        observed: &observed,
        probes: &probes,
        failures: &failures,
        runtime_name: "fake",
        host_ips: &["192.0.2.1".to_owned()],
        ending: false,
        not_ready_to_start: None,
        ended_by_node: None,
        now: Timestamp::UNIX_EPOCH,
    });
    let containers = status.container_statuses.as_deref().unwrap();
    assert_eq!(format!("{} {}", status.phase.as_deref().unwrap(), shown(&containers[0])), expected);
    status
}

fn old(state: Value) -> Value {
    json!({"phase": "Running", "containerStatuses": [{
        "name": "c", "image": "i:1", "imageID": "", "ready": true, "restartCount": 3, "containerID": "fake://gone", "state": state,
    }]})
}

#[test]
fn containers_and_what_was_known_of_them() {
    check(vec![], json!({}), None, "Pending wait:ContainerCreating - 0 false");
    check(vec![], json!({}), Some("ErrImagePull"), "Pending wait:ErrImagePull - 0 false");
    check(vec![seen("a", State::Running, 0)], json!({}), None, "Running run - 0 true");
    let crashed = vec![seen("b", State::Exited, 1), seen("a", State::Exited, 0)];
    check(crashed.clone(), json!({}), None, "Running end:1:Error end:1:Error 1 false");
    check(crashed, json!({}), Some("CrashLoopBackOff"), "Running wait:CrashLoopBackOff end:1:Error 1 false");
    let again = vec![seen("b", State::Running, 1), seen("a", State::Exited, 0)];
    check(again, json!({}), None, "Running run end:1:Error 1 true");
}

#[test]
fn what_the_runtime_has_forgotten() {
    let lost = "Running wait:ContainerCreating end:137:ContainerStatusUnknown 4 false";
    check(vec![], old(json!({"running": {}})), None, lost);
    let ended = old(json!({"terminated": {"exitCode": 7, "reason": "Error"}}));
    check(vec![], ended.clone(), None, "Running end:7:Error - 3 false");
    check(vec![seen("a", State::Running, 4)], ended, None, "Running run end:7:Error 4 true");
}

#[test]
fn a_terminal_phase_stays() {
    let failed = json!({"phase": "Failed", "reason": "DeadlineExceeded", "message": "late"});
    let status = check(vec![seen("a", State::Running, 0)], failed, None, "Failed run - 0 true");
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
    assert_eq!(status.observed_generation, Some(2));
}

#[test]
fn the_last_status_leaves_nothing_open() {
    let running = check(vec![seen("a", State::Running, 0)], json!({}), None, "Running run - 0 true");
    let last = terminated(running);
    assert_eq!(last.phase.as_deref(), Some("Failed"));
    assert_eq!(shown(&last.container_statuses.unwrap()[0]), "end:137:ContainerStatusUnknown - 0 false");
}
