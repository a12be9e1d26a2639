//! What the runtime holds of one Pod, in the order in which decisions need it: newest first.

use std::collections::HashMap;
use std::path::Path;

use futures::future::try_join_all;
use jiff::Timestamp;
use xebec_cri::v1::{
    ContainerFilter, ContainerState, ContainerStatus, LinuxContainerUser, PodSandboxFilter, PodSandboxState,
    PodSandboxStatus,
};
use xebec_cri::{Error, Runtime};

use super::identity;

/// Upstream's limits on what a dying container may say.
const MESSAGE_LIMIT: u64 = 4096;
const LOG_MESSAGE_LIMIT: u64 = 2048;
const LOG_MESSAGE_LINES: usize = 80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Exited,
    Unknown,
}

/// A container as the runtime holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub id: String,
    pub name: String,
    pub sandbox: String,
    pub state: State,
    pub restart_count: u32,
    pub hash: String,
    pub image: String,
    /// The image's digest where it has one, else its id.
    pub image_ref: String,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    pub user: Option<LinuxContainerUser>,
    pub log_path: String,
}

#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub sandboxes: Vec<PodSandboxStatus>,
    pub containers: Vec<Seen>,
}

impl Observed {
    /// The newest container of that name, whatever sandbox it lives in.
    pub fn container(&self, name: &str) -> Option<&Seen> {
        self.containers.iter().find(|seen| seen.name == name)
    }

    /// The newest container of that name in one sandbox.
    pub fn container_in(&self, sandbox: &str, name: &str) -> Option<&Seen> {
        self.containers.iter().find(|seen| seen.name == name && seen.sandbox == sandbox)
    }

    pub fn running(&self) -> impl Iterator<Item = &Seen> {
        self.containers.iter().filter(|seen| seen.state == State::Running)
    }

    /// The newest sandbox, if it is ready.
    pub fn ready_sandbox(&self) -> Option<&PodSandboxStatus> {
        self.sandboxes.first().filter(|sandbox| sandbox.state() == PodSandboxState::SandboxReady)
    }

    /// The addresses of the ready sandbox.
    pub fn ips(&self) -> Vec<String> {
        self.ready_sandbox().map(sandbox_ips).unwrap_or_default()
    }
}

pub fn sandbox_ips(sandbox: &PodSandboxStatus) -> Vec<String> {
    let Some(network) = &sandbox.network else { return Vec::new() };
    let more = network.additional_ips.iter().map(|more| more.ip.clone());
    std::iter::once(network.ip.clone()).chain(more).filter(|ip| !ip.is_empty()).collect()
}

/// Containers that have ended do not change any more: what was learnt of them is kept.
#[derive(Default)]
pub struct Memory {
    ended: HashMap<String, Seen>,
}

impl Memory {
    /// Asks the runtime about everything that bears the Pod's UID.
    pub async fn observe(&mut self, runtime: &dyn Runtime, uid: &str) -> Result<Observed, Error> {
        let label_selector = HashMap::from([(identity::POD_UID.to_owned(), uid.to_owned())]);
        let sandbox_filter = PodSandboxFilter { label_selector: label_selector.clone(), ..PodSandboxFilter::default() };
        let filter = ContainerFilter { label_selector, ..ContainerFilter::default() };
        let (sandboxes, containers) =
            futures::try_join!(runtime.list_pod_sandboxes(sandbox_filter), runtime.list_containers(filter))?;
        let sandboxes = try_join_all(sandboxes.iter().map(|listed| present(runtime.pod_sandbox_status(&listed.id))));
        let unknown = containers.iter().filter(|listed| !self.ended.contains_key(&listed.id));
        let statuses = try_join_all(unknown.map(|listed| async {
            let status = present(runtime.container_status(&listed.id)).await?;
            Ok(status.map(|status| seen(status, listed.pod_sandbox_id.clone())))
        }));
        let (sandboxes, statuses) = futures::try_join!(sandboxes, statuses)?;
        self.ended.retain(|id, _| containers.iter().any(|listed| listed.id == *id));
        let mut found: Vec<Seen> = self.ended.values().cloned().collect();
        for seen in statuses.into_iter().flatten() {
            if seen.state == State::Exited {
                self.ended.insert(seen.id.clone(), seen.clone());
            }
            found.push(seen);
        }
        found.sort_by_key(|seen| std::cmp::Reverse((seen.created_at, seen.restart_count)));
        let mut sandboxes: Vec<_> = sandboxes.into_iter().flatten().collect();
        let attempt = |sandbox: &PodSandboxStatus| sandbox.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
        sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.created_at, attempt(sandbox))));
        Ok(Observed { sandboxes, containers: found })
    }
}

/// What vanished between listing and asking is as good as not listed.
async fn present<T>(call: impl Future<Output = Result<T, Error>>) -> Result<Option<T>, Error> {
    match call.await {
        Ok(status) => Ok(Some(status)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn seen(status: ContainerStatus, sandbox: String) -> Seen {
    let state = match status.state() {
        ContainerState::ContainerCreated => State::Created,
        ContainerState::ContainerRunning => State::Running,
        ContainerState::ContainerExited => State::Exited,
        ContainerState::ContainerUnknown => State::Unknown,
    };
    let message = if state == State::Exited { last_words(&status) } else { String::new() };
    let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    let restart_count = annotation(identity::RESTART_COUNT).parse().unwrap_or_default();
    let hash = annotation(identity::HASH);
    let metadata = status.metadata.unwrap_or_default();
    Seen {
        name: status.labels.get(identity::CONTAINER_NAME).cloned().unwrap_or(metadata.name),
        sandbox,
        state,
        restart_count,
        hash,
        image: status.image.map(|image| image.image).unwrap_or_default(),
        image_ref: status.image_ref,
        created_at: timestamp(status.created_at),
        started_at: (state != State::Created && status.started_at > 0).then(|| timestamp(status.started_at)),
        finished_at: (state == State::Exited).then(|| timestamp(status.finished_at)),
        exit_code: status.exit_code,
        reason: status.reason,
        message,
        user: status.user.and_then(|user| user.linux),
        log_path: status.log_path,
        id: status.id,
    }
}

fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default()
}

/// The termination message: the runtime's own, then what the container wrote to its file, then, where the policy asks for it
/// and the container failed, the end of its log.
fn last_words(status: &ContainerStatus) -> String {
    let path = status.annotations.get(identity::TERMINATION_PATH).map(String::as_str).unwrap_or_default();
    let policy = status.annotations.get(identity::TERMINATION_POLICY).map(String::as_str).unwrap_or_default();
    let from_log = policy == "FallbackToLogsOnError" && status.exit_code != 0 && status.reason != "ContainerCannotRun";
    let mount = status.mounts.iter().find(|mount| !path.is_empty() && mount.container_path == path);
    let mut words = match mount.map(|mount| read_end(Path::new(&mount.host_path), MESSAGE_LIMIT)) {
        Some(Ok(text)) => text,
        Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
            format!(
                "Error on reading termination log {}: {error}",
                mount.map(|it| it.host_path.as_str()).unwrap_or_default()
            )
        }
        _ => String::new(),
    };
    if words.is_empty() && from_log {
        words = log_end(Path::new(&status.log_path));
    }
    if !status.message.is_empty() {
        words = if words.is_empty() { status.message.clone() } else { format!("{}: {words}", status.message) };
    }
    words
}

fn read_end(path: &Path, limit: u64) -> std::io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines of a log in the runtime's format (`TIME STREAM TAG TEXT`), without what the format adds.
fn log_end(path: &Path) -> String {
    // Each line bears some fifty bytes of its own.
    let Ok(raw) = read_end(path, LOG_MESSAGE_LIMIT + 64 * LOG_MESSAGE_LINES as u64) else { return String::new() };
    let lines: Vec<&str> = raw.lines().collect();
    let mut text = String::new();
    for line in &lines[lines.len().saturating_sub(LOG_MESSAGE_LINES)..] {
        let mut parts = line.splitn(4, ' ');
        let (Some(_), Some(_), Some(tag), content) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        text.push_str(content.unwrap_or_default());
        if tag.starts_with('F') {
            text.push('\n');
        }
    }
    let mut start = text.len().saturating_sub(LOG_MESSAGE_LIMIT as usize);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.split_off(start)
}

#[cfg(test)]
mod tests {
    use xebec_cri::v1::Mount;

    use super::*;

    fn check(policy: &str, code: i32, [file, log]: [&str; 2], expected: &str) {
        let directory = tempfile::tempdir().unwrap();
        let (message, log_path) = (directory.path().join("message"), directory.path().join("0.log"));
        std::fs::write(&message, file).unwrap();
        std::fs::write(&log_path, log).unwrap();
        let status = ContainerStatus {
            exit_code: code,
            annotations: HashMap::from([
                (identity::TERMINATION_PATH.to_owned(), "/dev/termination-log".to_owned()),
                (identity::TERMINATION_POLICY.to_owned(), policy.to_owned()),
            ]),
            mounts: vec![Mount {
                container_path: "/dev/termination-log".into(),
                host_path: message.to_string_lossy().into_owned(),
                ..Mount::default()
            }],
            log_path: log_path.to_string_lossy().into_owned(),
            ..ContainerStatus::default()
        };
        assert_eq!(last_words(&status), expected, "{policy} {code}");
    }

    #[test]
    fn last_words_come_from_the_file_or_the_log() {
        let log =
            "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:00Z stderr P tw\n2026-01-01T00:00:00Z stderr F o\n";
        check("File", 1, ["said", log], "said");
        check("File", 1, ["", log], "");
        check("FallbackToLogsOnError", 1, ["said", log], "said");
        check("FallbackToLogsOnError", 1, ["", log], "one\ntwo\n");
        check("FallbackToLogsOnError", 0, ["", log], "");
    }
}
