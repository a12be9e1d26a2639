//! The real thing: a containerd of our own under a temporary directory, one container, and what has to survive what.
//!
//! It needs root, containerd and runc, and says so where they are missing. The image holds one program without libc that only
//! waits, made here by `rustc`; the sandbox uses the host's network, so that no network plugin is asked for.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use xebec_base::Shutdown;
use xebec_cri::containerd::{Config, Containerd, import_images};
use xebec_cri::v1::*;
use xebec_cri::{Event, Images, Remote, Runtime};

const IMAGE: &str = "localhost/waits:1";

#[tokio::test]
async fn containers_outlive_their_containerd_and_exits_are_told() {
    if !rustix::process::geteuid().is_root() || Command::new("containerd").arg("--version").output().is_err() {
        eprintln!("skipped: needs root and containerd");
        return;
    }
    let directory = tempfile::Builder::new().prefix("xc").tempdir_in("/tmp").unwrap();
    let _remains = Remains { directory: directory.path().to_owned() };
    let shutdown = Shutdown::new();
    let containerd = Containerd::start(config(directory.path()), shutdown.clone()).await.unwrap();
    import_images(containerd.socket(), &image_archive(directory.path())).await.unwrap();
    let remote = containerd.remote();
    assert!(remote.image_status(IMAGE).await.unwrap().is_some());
    assert!(remote.image_status("localhost/none:1").await.unwrap().is_none());

    let mut events = remote.watch();
    next(&mut events, &Event::Resync).await;
    let pod = pod_config(directory.path());
    let sandbox = remote.run_pod_sandbox(pod.clone(), "").await.unwrap();
    let (stays, goes) = (start(&remote, &sandbox, &pod, "stays").await, start(&remote, &sandbox, &pod, "goes").await);

    remote.stop_container(&goes, Duration::ZERO).await.unwrap();
    next(&mut events, &Event::Exited { id: goes.clone() }).await;
    let status = remote.container_status(&goes).await.unwrap();
    assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 137));

    kill(&containerd).await;
    next(&mut events, &Event::Resync).await;
    wait_until_answering(&remote).await;
    assert_eq!(remote.container_status(&stays).await.unwrap().state(), ContainerState::ContainerRunning);
    let missing = remote.container_status("none").await.unwrap_err();
    assert!(missing.is_not_found(), "{missing}");

    // A second agent on the same directory takes the running containerd over.
    let second = Containerd::start(config(directory.path()), shutdown.clone()).await.unwrap();
    assert_eq!(second.remote().list_containers(ContainerFilter::default()).await.unwrap().len(), 2);

    remote.stop_pod_sandbox(&sandbox).await.unwrap();
    next(&mut events, &Event::Exited { id: stays }).await;
    remote.remove_pod_sandbox(&sandbox).await.unwrap();
    remote.remove_pod_sandbox(&sandbox).await.unwrap();
    containerd.stop().await;
    shutdown.trigger();
    second.stop().await;
    assert!(remote.version().await.is_err());
}

/// What must not outlast the test, however it ends: the containerd, and the cgroups of its containers.
struct Remains {
    directory: std::path::PathBuf,
}

impl Drop for Remains {
    fn drop(&mut self) {
        let listener = std::os::unix::net::UnixStream::connect(self.directory.join("c.sock"));
        if let Ok(credentials) = listener.and_then(|it| Ok(rustix::net::sockopt::socket_peercred(it)?)) {
            let _ = rustix::process::kill_process(credentials.pid, rustix::process::Signal::KILL);
        }
        let name = self.directory.file_name().unwrap_or_default();
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(hierarchy.path().join(name));
        }
        let _ = std::fs::remove_dir(Path::new("/sys/fs/cgroup").join(name));
    }
}

fn config(directory: &Path) -> Config {
    Config {
        directory: directory.to_owned(),
        program: std::env::var_os("XEBEC_TEST_CONTAINERD").map(Into::into),
        pause_image: IMAGE.into(),
        cni_bin_dir: directory.join("cni/bin"),
        cni_conf_dir: directory.join("cni/conf"),
        restrict_oom_score_adj: true,
    }
}

fn pod_config(directory: &Path) -> PodSandboxConfig {
    let host = NamespaceOption { network: NamespaceMode::Node as i32, ..Default::default() };
    let context = LinuxSandboxSecurityContext { namespace_options: Some(host), ..Default::default() };
    let cgroup_parent = format!("/{}", directory.file_name().unwrap().to_string_lossy());
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata { name: "p".into(), uid: "u".into(), namespace: "n".into(), attempt: 0 }),
        log_directory: directory.join("logs").to_string_lossy().into_owned(),
        labels: HashMap::from([("io.kubernetes.pod.uid".to_owned(), "u".to_owned())]),
        linux: Some(LinuxPodSandboxConfig { cgroup_parent, security_context: Some(context), ..Default::default() }),
        ..Default::default()
    }
}

async fn start(remote: &Remote, sandbox: &str, pod: &PodSandboxConfig, name: &str) -> String {
    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(ImageSpec { image: IMAGE.into(), ..Default::default() }),
        log_path: format!("{name}.log"),
        linux: Some(LinuxContainerConfig {
            resources: Some(LinuxContainerResources { cpu_shares: 2, oom_score_adj: 1000, ..Default::default() }),
            security_context: Some(LinuxContainerSecurityContext::default()),
        }),
        ..Default::default()
    };
    let id = remote.create_container(sandbox, config, pod.clone()).await.unwrap();
    remote.start_container(&id).await.unwrap();
    id
}

/// Reads events until the wanted one; others in between belong to other things.
async fn next(events: &mut mpsc::Receiver<Event>, wanted: &Event) {
    let found = async {
        while let Some(event) = events.recv().await {
            if event == *wanted {
                return;
            }
        }
        panic!("the events ended before {wanted:?}");
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.unwrap_or_else(|_| panic!("no {wanted:?}"));
}

async fn kill(containerd: &Containerd) {
    let connection = tokio::net::UnixStream::connect(containerd.socket()).await.unwrap();
    let pid = rustix::process::Pid::from_raw(connection.peer_cred().unwrap().pid().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

async fn wait_until_answering(remote: &Remote) {
    let answering = async {
        while remote.status().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), answering).await.expect("containerd is back");
}

/// A docker archive of one image with one layer that holds `/waits`.
fn image_archive(directory: &Path) -> std::path::PathBuf {
    let program = compile(directory);
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, "waits", &std::fs::read(program).unwrap());
    let layer = layer.into_inner().unwrap();
    let digest = hex::encode(Sha256::digest(&layer));
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Entrypoint":["/waits"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:{digest}"]}}}}"#
    );
    let manifest = format!(r#"[{{"Config":"config.json","RepoTags":["{IMAGE}"],"Layers":["layer.tar"]}}]"#);
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "manifest.json", manifest.as_bytes());
    append(&mut archive, "config.json", config.as_bytes());
    append(&mut archive, "layer.tar", &layer);
    let path = directory.join("image.tar");
    std::fs::write(&path, archive.into_inner().unwrap()).unwrap();
    path
}

fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o755);
    archive.append_data(&mut header, name, bytes).unwrap();
}

fn compile(directory: &Path) -> std::path::PathBuf {
    let (source, program) = (directory.join("waits.rs"), directory.join("waits"));
    let text = "fn main() { loop { std::thread::park() } }";
    std::fs::write(&source, text).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--edition", "2024", "-C", "target-feature=+crt-static", "-o"]).arg(&program).arg(&source);
    assert!(command.status().unwrap().success(), "rustc compiles the waiting program");
    program
}
