//! A worker over the fake runtime, with a simulated clock and an API that only remembers what it is told.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use serde_json::{Value, json};
use xebec_base::{Shutdown, SimulatedClock};
use xebec_client::transport::{Body, Io, Transport};
use xebec_client::{Client, Error};
use xebec_cri::fake::{Behaviour, Fake};
use xebec_runtime::{EventRecorder, Informers};

use super::*;
use crate::cgroup::{Nowhere, PodCgroups};
use crate::config::{Config, RuntimeSource};
use crate::dns::Resolvers;
use crate::image::Puller;
use crate::kernel::Unprivileged;
use crate::objects::Objects;

/// Merges status patches, counts deletions, answers every list with nothing.
#[derive(Clone)]
struct Api {
    status: watch::Sender<Value>,
    deleted: watch::Sender<bool>,
}

#[async_trait]
impl Transport for Api {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        let path = request.uri().path().to_owned();
        if request.method() == Method::PATCH && path.ends_with("/pods/web/status") {
            let patch: Value = serde_json::from_slice(request.body()).unwrap();
            self.status.send_modify(|status| {
                for (key, value) in patch["status"].as_object().unwrap() {
                    status[key] = value.clone();
                }
            });
        }
        if request.method() == Method::DELETE {
            self.deleted.send_replace(true);
        }
        let answer = match request.method() {
            &Method::GET => json!({"metadata": {"resourceVersion": "1"}, "items": []}),
            _ => json!({"metadata": {"name": "x"}, "involvedObject": {}}),
        };
        Ok(Response::new(serde_json::to_vec(&answer).unwrap().into()))
    }

    async fn open(&self, _: Request<Bytes>) -> Result<Response<Body>, Error> {
        Ok(Response::new(futures::stream::pending().boxed()))
    }

    async fn upgrade(&self, _: Request<Bytes>) -> Result<(Response<()>, Box<dyn Io>), Error> {
        unreachable!("a worker upgrades no connection")
    }
}

/// One running worker and everything around it.
struct Node {
    runtime: Arc<Fake>,
    clock: Arc<SimulatedClock>,
    status: watch::Receiver<Value>,
    deleted: watch::Receiver<bool>,
    assignment: watch::Sender<Assignment>,
    worker: tokio::task::JoinHandle<()>,
    root: tempfile::TempDir,
    _shutdown: Shutdown,
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "u-1", "generation": 1}, "spec": spec,
    }))
    .unwrap()
}

impl Node {
    async fn with(spec: Value) -> Node {
        Self::over(spec, |_| {}).await
    }

    async fn over(spec: Value, prepare: impl FnOnce(&Fake)) -> Node {
        let clock = SimulatedClock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let runtime = Fake::new(clock.clone());
        runtime.add_image("app:1");
        prepare(&runtime);
        let root = tempfile::tempdir().unwrap();
        let (status, seen_status) = watch::channel(json!({}));
        let (deleted, seen_deleted) = watch::channel(false);
        let client = Client::new(Api { status, deleted });
        let shutdown = Shutdown::new();
        let context = context(&runtime, &clock, (&client, &shutdown), root.path());
        let assignment = Assignment { pod: Arc::new(pod(spec)), removed: false };
        let (assignment, receiver) = watch::channel(assignment);
        let bell = Arc::<Bell>::default();
        let mut events = xebec_cri::Runtime::watch(&*runtime);
        let rung = bell.clone();
        shutdown.spawn(async move {
            while events.recv().await.is_some() {
                rung.ring();
            }
        });
        let worker = Worker::new(context, receiver, bell, Arc::new(|_| {}));
        let worker = tokio::spawn(worker.run());
        Node {
            runtime,
            clock,
            status: seen_status,
            deleted: seen_deleted,
            assignment,
            worker,
            root,
            _shutdown: shutdown,
        }
    }

    /// Waits until the API has been told this much of the Pod, as `phase container-state`.
    async fn shows(&mut self, expected: &str) {
        let reached = self.status.wait_for(|status| shown(status) == expected);
        let reached = tokio::time::timeout(Duration::from_secs(10), reached).await.map(drop);
        assert!(reached.is_ok(), "waiting for {expected:?}, the API knows {}", self.status.borrow().clone());
    }

    async fn delete(mut self) -> Vec<String> {
        self.assignment.send_modify(|assignment| {
            let mut pod = Pod::clone(&assignment.pod);
            pod.metadata.deletion_timestamp =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time("2026-01-01T00:00:30Z".parse().unwrap()));
            pod.metadata.deletion_grace_period_seconds = Some(5);
            assignment.pod = Arc::new(pod);
        });
        self.deleted.wait_for(|deleted| *deleted).await.unwrap();
        self.assignment.send_modify(|assignment| assignment.removed = true);
        self.worker.await.unwrap();
        assert!(!self.root.path().join("pods/u-1").exists(), "the Pod's directory is gone");
        self.runtime.calls()
    }
}

fn context(
    runtime: &Arc<Fake>,
    clock: &Arc<SimulatedClock>,
    (client, shutdown): (&Client, &Shutdown),
    root: &std::path::Path,
) -> Arc<Context> {
    let events = EventRecorder::new(client.clone(), clock.clone(), shutdown, "kubelet");
    let informers = Informers::new(client.clone(), clock.clone(), shutdown.clone());
    let address = vec!["192.0.2.1".parse().unwrap()];
    let config = Config::new("node", address, root.to_owned(), RuntimeSource::Endpoint("/none".into()));
    Arc::new(Context {
        runtime: runtime.clone(),
        runtime_name: "fake".into(),
        puller: Puller::new(runtime.clone(), Default::default(), clock.clone(), events.clone()),
        kernel: Arc::new(Unprivileged),
        cgroups: PodCgroups::new(Arc::new(Nowhere), "/x"),
        clock: clock.clone(),
        events,
        objects: Objects::new(client.clone(), clock.clone(), shutdown.clone(), Arc::new(|_| {})),
        services: informers.of(),
        resolvers: Resolvers { cluster: vec![], domain: "cluster.local".into(), host: Default::default() },
        memory_capacity: 1 << 30,
        allocatable: BTreeMap::new(),
        client: client.clone(),
        shutdown: shutdown.clone(),
        config,
    })
}

/// `Running run#0` for a running container without restarts; a waiting one shows its reason, an ended one its code.
fn shown(status: &Value) -> String {
    let mut parts = vec![status["phase"].as_str().unwrap_or_default().to_owned()];
    for container in status["containerStatuses"].as_array().into_iter().flatten() {
        let state = &container["state"];
        let text = if state.get("running").is_some() {
            if container["ready"] == true { "ready".to_owned() } else { "run".to_owned() }
        } else if let Some(reason) = state["waiting"]["reason"].as_str() {
            reason.to_owned()
        } else {
            state["terminated"]["exitCode"].to_string()
        };
        parts.push(format!("{text}#{}", container["restartCount"]));
    }
    parts.join(" ")
}

fn one_container() -> Value {
    json!({"containers": [{"name": "app", "image": "app:1"}], "volumes": [{"name": "v", "emptyDir": {}}]})
}

#[tokio::test]
async fn a_pod_lives_crashes_and_goes() {
    let mut node = Node::with(one_container()).await;
    node.shows("Running ready#0").await;
    node.runtime.exit("web", "app", 1);
    node.shows("Running ready#1").await;
    node.runtime.exit("web", "app", 1);
    node.shows("Running CrashLoopBackOff#1").await;
    let message = node.status.borrow()["containerStatuses"][0]["state"]["waiting"]["message"].clone();
    assert_eq!(message, "back-off 10s restarting failed container=app pod=web_n(u-1)");
    node.clock.advance(Duration::from_secs(10));
    node.shows("Running ready#2").await;
    let calls = node.delete().await;
    let expected = [
        "RunPodSandbox web",
        "CreateContainer web/app#0",
        "StartContainer web/app#0",
        "CreateContainer web/app#1",
        "StartContainer web/app#1",
        "CreateContainer web/app#2",
        "StartContainer web/app#2",
    ];
    assert_eq!(calls[..7], expected);
    assert!(calls.contains(&"StopContainer web/app#2 5s".to_owned()), "{calls:?}");
    assert!(calls.last().unwrap().starts_with("RemovePodSandbox"), "{calls:?}");
}

#[tokio::test]
async fn a_pod_that_has_done_its_work_ends() {
    let mut spec = one_container();
    spec["restartPolicy"] = json!("Never");
    spec["initContainers"] = json!([{"name": "init", "image": "app:1"}]);
    let mut node = Node::over(spec, |runtime| runtime.behave("init", [Behaviour::Exits(0)])).await;
    node.shows("Running ready#0").await;
    node.runtime.exit("web", "app", 0);
    node.shows("Succeeded 0#0").await;
    let calls = node.delete().await;
    let starts: Vec<_> = calls.iter().filter(|call| call.starts_with("StartContainer")).collect();
    assert_eq!(starts, ["StartContainer web/init#0", "StartContainer web/app#0"]);
}

#[tokio::test]
async fn a_missing_image_is_waited_for() {
    let mut spec = one_container();
    spec["containers"][0]["image"] = json!("none:1");
    let mut node = Node::with(spec).await;
    node.shows("Pending ErrImagePull#0").await;
    node.clock.advance(Duration::from_secs(3));
    node.shows("Pending ImagePullBackOff#0").await;
    node.runtime.add_pullable("none:1");
    node.clock.advance(Duration::from_secs(10));
    node.shows("Running ready#0").await;
    node.delete().await;
}

#[tokio::test]
async fn readiness_follows_the_probe() {
    let mut spec = one_container();
    spec["containers"][0]["readinessProbe"] = json!({"exec": {"command": ["check"]}, "periodSeconds": 1});
    let ready = Arc::new(AtomicBool::new(false));
    let answer = ready.clone();
    let mut node = Node::over(spec, |runtime| {
        runtime.on_exec(move |_, _| {
            let exit_code = if answer.load(Ordering::SeqCst) { 0 } else { 1 };
            Ok(xebec_cri::v1::ExecSyncResponse { exit_code, ..Default::default() })
        });
    })
    .await;
    node.shows("Running run#0").await;
    ready.store(true, Ordering::SeqCst);
    node.clock.advance(Duration::from_secs(1));
    node.shows("Running ready#0").await;
    node.delete().await;
}

#[tokio::test]
async fn a_lost_sandbox_is_made_anew() {
    let mut node = Node::with(one_container()).await;
    node.shows("Running ready#0").await;
    xebec_cri::Runtime::stop_pod_sandbox(&*node.runtime, "sandbox-1").await.unwrap();
    node.shows("Running ready#1").await;
    let calls = node.delete().await;
    assert_eq!(calls.iter().filter(|call| *call == "RunPodSandbox web").count(), 2, "{calls:?}");
}
