//! Container logs are kept small: one that has grown past 10 MiB is set aside under a dated name, and of those set aside the four
//! newest stay. Upstream's numbers and names (`0.log.20260131-120000`); it also compresses the older ones, this does not.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use xebec_base::{Chain, Clock};
use xebec_cri::Runtime;
use xebec_cri::v1::{ContainerFilter, ContainerState, ContainerStateValue};

use crate::pod::identity;

const LARGEST: u64 = 10 << 20;
const SET_ASIDE: usize = 4;
/// How often the logs are looked at. A container that writes 100 MB/s fills 3 GB meanwhile, on any agent.
const LOOK: Duration = Duration::from_secs(30);

/// Runs as long as the agent.
pub async fn keep_small(logs_dir: PathBuf, runtime: std::sync::Arc<dyn Runtime>, clock: std::sync::Arc<dyn Clock>) {
    loop {
        clock.sleep(LOOK).await;
        for log in large(&logs_dir) {
            if let Err(error) = rotate(&log, &*runtime, clock.now()).await {
                tracing::warn!(log = %log.path.display(), error, "cannot rotate a container's log");
            }
        }
    }
}

/// The log that a running container writes now.
#[derive(Debug, PartialEq, Eq)]
struct Log {
    path: PathBuf,
    pod_uid: String,
    container: String,
    attempt: u32,
}

/// `LOGS/namespace_name_uid/container/N.log`, the highest N only, where it is too large.
fn large(logs_dir: &Path) -> Vec<Log> {
    let mut found = Vec::new();
    for pod in directories(logs_dir) {
        let name = pod.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((_, pod_uid)) = name.rsplit_once('_') else { continue };
        for container in directories(&pod) {
            let numbers = fs::read_dir(&container).into_iter().flatten().flatten();
            let numbers = numbers.filter_map(|entry| {
                entry.file_name().to_string_lossy().strip_suffix(".log").and_then(|number| number.parse::<u32>().ok())
            });
            let Some(attempt) = numbers.max() else { continue };
            let path = container.join(format!("{attempt}.log"));
            if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LARGEST) {
                let container = container.file_name().unwrap_or_default().to_string_lossy().into_owned();
                found.push(Log { path, pod_uid: pod_uid.to_owned(), container, attempt });
            }
        }
    }
    found
}

fn directories(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

async fn rotate(log: &Log, runtime: &dyn Runtime, now: Timestamp) -> Result<(), String> {
    let labels = [(identity::POD_UID, &log.pod_uid), (identity::CONTAINER_NAME, &log.container)];
    let label_selector: HashMap<_, _> =
        labels.into_iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
    let state = Some(ContainerStateValue { state: ContainerState::ContainerRunning as i32 });
    let filter = ContainerFilter { label_selector, state, ..ContainerFilter::default() };
    let running = runtime.list_containers(filter).await.map_err(|error| Chain(&error).to_string())?;
    let writes = |metadata: &xebec_cri::v1::ContainerMetadata| metadata.attempt == log.attempt;
    let Some(container) = running.iter().find(|it| it.metadata.as_ref().is_some_and(writes)) else {
        return Ok(());
    };
    let aside = set_aside(&log.path, now).map_err(|error| error.to_string())?;
    if let Err(error) = runtime.reopen_container_log(&container.id).await {
        // The container still writes to the old file: it gets its name back.
        fs::rename(aside, &log.path).map_err(|error| error.to_string())?;
        return Err(Chain(&error).to_string());
    }
    Ok(())
}

fn set_aside(log: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let aside = PathBuf::from(format!("{}.{}", log.display(), now.strftime("%Y%m%d-%H%M%S")));
    fs::rename(log, &aside)?;
    let prefix = format!("{}.", log.file_name().unwrap_or_default().to_string_lossy());
    let entries = fs::read_dir(log.parent().unwrap_or(Path::new("/")))?.flatten();
    let old = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    let mut old: Vec<PathBuf> = old.map(|entry| entry.path()).collect();
    old.sort();
    for path in &old[..old.len().saturating_sub(SET_ASIDE)] {
        fs::remove_file(path)?;
    }
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_logs_are_found_and_set_aside() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("n_p_uid/app");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("0.log"), "").unwrap();
        let log = directory.join("1.log");
        for second in 0..6 {
            let file = fs::File::create(&log).unwrap();
            assert_eq!(large(root.path()), []);
            file.set_len(LARGEST + 1).unwrap();
            let expected = Log { path: log.clone(), pod_uid: "uid".into(), container: "app".into(), attempt: 1 };
            assert_eq!(large(root.path()), [expected]);
            set_aside(&log, Timestamp::from_second(second).unwrap()).unwrap();
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1 + SET_ASIDE);
        assert!(directory.join("1.log.19700101-000005").exists());
    }
}
