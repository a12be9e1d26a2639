//! The Redis example from manifests to packets: a master, slaves that find it by its Service's name, and every way in which
//! the parts of the cluster can die under it. One story on one cluster; at its end the host is as it was.
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use xebec_e2e::{Cluster, Process, wait_for};

const MASTER: &str = "ku8-redis-master";
const SLAVES: &str = "ku8-redis-slave";
/// Containers start in well under a second; a busy machine that also takes up crashed parts gets this much.
const SOON: Duration = Duration::from_secs(90);
const OUTSIDE: &str = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "outside"}, "spec": {"type": "NodePort",
    "selector": {"app": "ku8-redis-master"}, "ports": [{"port": 6379, "nodePort": 30079}]}}"#;

#[test]
fn the_redis_example_runs_and_heals() {
    story().expect("the story of the Redis example");
}

fn story() -> Result<()> {
    let mut cluster = Cluster::up()?;
    cluster.import(&["pause", "redis", "redis-slave"])?;
    step("creating from the manifests");
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/redis/");
    for file in ["redis-master.yaml", "redis-slave-rc.yaml"] {
        cluster.kubectl(&["create", "-f", &format!("{examples}{file}")])?.success()?;
    }
    replicates(&cluster, 2)?;
    step("a value set on the master is read on each slave");
    value_arrives(&cluster, "first")?;
    step("a client outside of the cluster reaches the master");
    let manifest = cluster.data().join("outside.json");
    std::fs::write(&manifest, OUTSIDE)?;
    cluster.xebec(&["create", "-f", &manifest.to_string_lossy()])?.success()?;
    wait_for("the node port's answer", SOON, || ping(&cluster).map(Some))?;
    step("logs, port-forward, describe");
    tools(&cluster)?;

    step("a slave's process dies");
    let victim = slaves(&cluster)?.remove(0);
    // The answer to a shutdown is the end of the connection.
    cluster.xebec(&["exec", &name(&victim), "--", "redis-cli", "shutdown", "nosave"])?;
    wait_for("the container's restart", SOON, || {
        let pod = json(&cluster, &["get", "pod", &name(&victim)])?;
        Ok((pod["status"]["containerStatuses"][0]["restartCount"].as_i64() >= Some(1)).then_some(()))
    })?;
    replicates(&cluster, 2)?;
    step("a slave's Pod is deleted");
    cluster.kubectl(&["delete", "pod", &name(&victim)])?.success()?;
    wait_for("another Pod in its place", SOON, || {
        let now = slaves(&cluster)?;
        Ok((now.len() == 2 && now.iter().all(|pod| name(pod) != name(&victim))).then_some(()))
    })?;
    replicates(&cluster, 2)?;
    step("the whole process dies");
    let run = run_id(&cluster)?;
    cluster.process()?.crash()?;
    cluster.start()?;
    ensure!(run_id(&cluster)? == run, "the master was restarted with the agent");
    replicates(&cluster, 2)?;
    step("containerd dies");
    let runtime = cluster.containerd()?;
    kill(Pid::from_raw(runtime.cast_signed()), Signal::SIGKILL)?;
    wait_for("another containerd", SOON, || Ok((cluster.containerd()? != runtime).then_some(())))?;
    wait_for("an answer from the container", SOON, || Ok((run_id(&cluster)? == run).then_some(())))?;
    step("scaling to three");
    cluster.kubectl(&["scale", "--replicas=3", &format!("rc/{SLAVES}")])?.success()?;
    replicates(&cluster, 3)?;
    value_arrives(&cluster, "second")?;
    ping(&cluster)?;
    step("taking down");
    cluster.down()
}

fn step(what: &str) {
    println!("- {what}");
}

/// Waits until the master counts `count` slaves, all of them up to date.
fn replicates(cluster: &Cluster, count: usize) -> Result<()> {
    wait_for(&format!("replication to {count} slaves"), SOON, || {
        let text = redis(cluster, &["info", "replication"])?;
        let connected = text.lines().any(|line| line.trim_end() == format!("connected_slaves:{count}"));
        Ok((connected && text.matches("state=online").count() == count && slaves(cluster)?.len() == count)
            .then_some(()))
    })
}

fn value_arrives(cluster: &Cluster, value: &str) -> Result<()> {
    redis(cluster, &["set", "ship", value])?;
    for pod in slaves(cluster)? {
        let address = pod["status"]["podIP"].as_str().context("a slave without an address")?.to_owned();
        wait_for(&format!("the value on {address}"), SOON, || {
            Ok((redis(cluster, &["-h", &address, "get", "ship"])?.trim() == value).then_some(()))
        })?;
    }
    Ok(())
}

fn tools(cluster: &Cluster) -> Result<()> {
    let text = cluster.xebec(&["logs", MASTER])?.success()?;
    ensure!(text.contains("Ready to accept connections"), "the log is not the master's:\n{text}");
    let text = cluster.kubectl(&["describe", "pod", MASTER])?.success()?;
    ensure!(text.contains("Started") && text.contains("Scheduled"), "events are missing:\n{text}");
    let Some(kubectl) = std::env::var_os("KUBECTL").filter(|path| !path.is_empty()) else { return Ok(()) };
    let mut command = cluster.verb(kubectl.into());
    command.args(["port-forward", &format!("pod/{MASTER}"), "16379:6379"]);
    let _forward = Process::start(&mut command, &cluster.data().join("forward.log"))?;
    wait_for("an answer through port-forward", SOON, || {
        let script = "exec 3<>/dev/tcp/127.0.0.1/16379; printf 'PING\\r\\n' >&3; head -n1 <&3";
        let answer = xebec_e2e::capture(cluster.host.command("bash").args(["-c", script]))?.success()?;
        Ok(answer.starts_with("+PONG").then_some(()))
    })
}

/// Asks the master through its node port, from outside of the cluster's network.
fn ping(cluster: &Cluster) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&(cluster.host.address(), 30079).into(), Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    ensure!(&answer == b"+PONG", "the answer is {answer:?}");
    Ok(())
}

fn run_id(cluster: &Cluster) -> Result<String> {
    let text = redis(cluster, &["info", "server"])?;
    let line = text.lines().find(|line| line.starts_with("run_id:")).context("the server names no run")?;
    Ok(line.trim_end().to_owned())
}

fn redis(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    cluster.xebec(&[&["exec", MASTER, "--", "redis-cli"], arguments].concat())?.success()
}

/// The slaves that are not on their way out.
fn slaves(cluster: &Cluster) -> Result<Vec<Value>> {
    let list = json(cluster, &["get", "pods", "-l", &format!("app={SLAVES}")])?;
    let pods = list["items"].as_array().cloned().unwrap_or_default();
    Ok(pods.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect())
}

fn name(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn json(cluster: &Cluster, arguments: &[&str]) -> Result<Value> {
    let text = cluster.kubectl(&[arguments, &["-o", "json"]].concat())?.success()?;
    Ok(serde_json::from_str(&text)?)
}
