//! Our verbs held against kubectl on the same server: the same command gives the same text, the same complaint and the same
//! exit code. Without a kubectl (`KUBECTL`) there is nothing to hold them against, and the test says so. No node is needed.
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use xebec_e2e::{Output, Server, binary, capture, free_port, wait_for};

const OBJECTS: &str = r#"{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1", "b": "two\nlines\n"}},
  {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hidden"}, "stringData": {"word": "sesame"}},
  {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "front", "labels": {"app": "web"}}, "spec": {"type": "NodePort",
    "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30080}]}},
  {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {"replicas": 2,
    "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
      {"name": "main", "image": "example.invalid/web:1", "env": [{"name": "A", "value": "b"}], "ports": [{"containerPort": 8080}],
       "resources": {"requests": {"cpu": "100m"}}, "readinessProbe": {"httpGet": {"path": "/", "port": 8080}}}]}}}},
  {"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "old"}, "spec": {"replicas": 0,
    "selector": {"app": "old"}, "template": {"metadata": {"labels": {"app": "old"}}, "spec": {"containers": [
      {"name": "main", "image": "example.invalid/old:1"}]}}}},
  {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lone", "labels": {"app": "lone"}, "annotations": {"note": "x"}},
    "spec": {"nodeSelector": {"disk": "fast"}, "volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "settings"}}],
    "initContainers": [{"name": "first", "image": "example.invalid/first:1", "command": ["sh", "-c", "true"]}],
    "containers": [{"name": "main", "image": "example.invalid/lone:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}}
]}"#;

/// Commands that change nothing, or nothing any more.
const COMMANDS: &[&str] = &[
    "get pods",
    "get pods -o wide",
    "get pods -A",
    "get pods -l app=web",
    "get pods --show-labels",
    "get pods --no-headers",
    "get pod lone",
    "get pod lone -o yaml",
    "get pod lone -o json",
    "get pod lone -o name",
    "get pods -o name",
    "get po,svc",
    "get svc",
    "get svc -o wide",
    "get deploy",
    "get deployments.apps -o wide",
    "get rs",
    "get rs -o wide",
    "get rc",
    "get rc -o wide",
    "get cm",
    "get configmap settings -o yaml",
    "get secret",
    "get secret hidden -o yaml",
    "get sa",
    "get ns",
    "get nodes",
    "get endpoints",
    "get endpointslices",
    "get role",
    "get clusterroles -o name",
    "get pods -n nowhere",
    "get pod absent",
    "get nonsense",
    "get pod lone web",
    "describe pod lone",
    "describe pods -l app=web",
    "describe svc front",
    "describe deploy web",
    "describe rc old",
    "describe cm settings",
    "describe secret hidden",
    "describe pod absent",
    "create -f OBJECTS",
    "apply -f OBJECTS",
    "logs absent",
    "logs lone",
    "delete pod absent",
    "scale --replicas=2 deploy/web",
    "scale --replicas=2 deploy/absent",
    "exec absent -- true",
];
/// Ages and counters may tick between the two commands.
const TRIES: usize = 5;

#[test]
fn verbs_print_as_kubectl_does() {
    let Some(kubectl) = std::env::var_os("KUBECTL").filter(|path| !path.is_empty()) else {
        println!("no KUBECTL: nothing to hold our verbs against");
        return;
    };
    story(Path::new(&kubectl)).expect("the same output");
}

fn story(kubectl: &Path) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("xebec-e2e-verbs-").tempdir()?;
    let _server = Server::start(folder.path(), free_port()?, "")?;
    let objects = folder.path().join("objects.json");
    std::fs::write(&objects, OBJECTS)?;
    let objects = objects.to_string_lossy().into_owned();
    let run = |program: &Path, line: &str| -> Result<Output> {
        let words = line.split(' ').map(|word| if word == "OBJECTS" { objects.as_str() } else { word });
        capture(Command::new(program).args(words).env("KUBECONFIG", folder.path().join("admin.kubeconfig")))
    };
    run(kubectl, "apply -f OBJECTS")?.success()?;
    wait_for("the Deployment's Pods and their first events", Duration::from_secs(20), || {
        let events = run(kubectl, "get events")?.success()?;
        Ok((events.matches("FailedScheduling").count() >= 3).then_some(()))
    })?;
    let mut differences = Vec::new();
    for line in COMMANDS {
        let mut difference = None;
        for _ in 0..TRIES {
            let (theirs, ours) = (run(kubectl, line)?, run(&binary(), line)?);
            difference = compare(&theirs, &ours);
            if difference.is_none() {
                break;
            }
        }
        differences.extend(difference.map(|text| format!("== {line}\n{text}")));
    }
    ensure!(differences.is_empty(), "{} of {} differ\n{}", differences.len(), COMMANDS.len(), differences.join("\n"));
    Ok(())
}

/// The first line that differs, of stdout and of stderr, or the codes.
fn compare(theirs: &Output, ours: &Output) -> Option<String> {
    let first = |stream: &str, theirs: &str, ours: &str| {
        let (mut left, mut right) = (theirs.lines(), ours.lines());
        loop {
            match (left.next(), right.next()) {
                (None, None) => return None,
                (one, other) if one != other => {
                    let shown = |line: Option<&str>| line.unwrap_or("(ends)").to_owned();
                    return Some(format!("{stream}\n  kubectl: {}\n  xebec:   {}", shown(one), shown(other)));
                }
                _ => {}
            }
        }
    };
    let code = (theirs.code != ours.code).then(|| format!("code: {:?} instead of {:?}", ours.code, theirs.code));
    let texts = [first("stdout", &theirs.stdout, &ours.stdout), first("stderr", &theirs.stderr, &ours.stderr), code];
    let found: Vec<_> = texts.into_iter().flatten().collect();
    (!found.is_empty()).then(|| found.join("\n"))
}
