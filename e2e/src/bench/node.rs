//! The rows that need a node: a whole cluster with containers, on a host of its own. Upstream's node is not started here:
//! its kubelet wants a configuration of the machine that a measurement should not make.
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::Method;
use http_body_util::BodyExt;
use serde_json::Value;
use xebec_e2e::{Api, Cluster};

use crate::{Values, objects};

/// Started one after the other; the first one warms up and does not count.
const PODS: usize = 11;
const LIMIT: Duration = Duration::from_secs(30);
const PATH: &str = "/api/v1/namespaces/default/pods";

pub async fn pod_start() -> Result<Values> {
    let mut cluster = tokio::task::block_in_place(Cluster::up)?;
    let measured = starts(&mut cluster).await;
    tokio::task::block_in_place(|| cluster.down())?;
    measured
}

async fn starts(cluster: &mut Cluster) -> Result<Values> {
    cluster.import(&["pause", "testtool"])?;
    let kubeconfig = std::fs::read_to_string(cluster.data().join("admin.kubeconfig"))?;
    let server =
        serde_json::from_str::<Value>(&kubeconfig)?["clusters"][0]["cluster"]["server"].as_str().map(str::to_owned);
    let port = server.as_deref().and_then(|server| server.rsplit_once(':')?.1.parse().ok());
    let address = (cluster.host.address(), port.context("the kubeconfig names no port")?).into();
    let mut watcher = Api::connect_as(address, &kubeconfig).await?;
    let mut writer = Api::connect_as(address, &kubeconfig).await?;
    let mut times = Vec::new();
    for number in 0..PODS {
        let name = format!("start-{number}");
        let body = watcher.watch(&format!("{PATH}?watch=true&fieldSelector=metadata.name%3D{name}")).await?;
        let began = Instant::now();
        writer.post(PATH, objects::sleeper(&name)).await?.success()?;
        tokio::time::timeout(LIMIT, running(body)).await.with_context(|| format!("{name} does not run"))??;
        times.push(began.elapsed());
        writer.call(Method::DELETE, &format!("{PATH}/{name}"), "", Vec::new()).await?.success()?;
    }
    times.remove(0);
    times.sort();
    let memory = cluster.process()?.usage()?.resident as f64 / 1e6;
    Ok(vec![("pod start", times[times.len() / 2].as_secs_f64() * 1e3), ("node memory", memory)])
}

async fn running(mut body: hyper::body::Incoming) -> Result<()> {
    let mut text = Vec::new();
    loop {
        let frame = body.frame().await.context("the watch ended early")??;
        text.extend_from_slice(frame.data_ref().map(AsRef::<[u8]>::as_ref).unwrap_or_default());
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let event: Value = serde_json::from_slice(&text[..end])?;
            text.drain(..=end);
            let phase = &event["object"]["status"]["phase"];
            ensure!(phase != "Failed" && phase != "Succeeded", "the Pod has ended");
            if phase == "Running" {
                return Ok(());
            }
        }
    }
}
