//! kube-rs, as other people use it, against `xebec server`: its own types, patches, watches and discovery.
use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Client, Config, ResourceExt};
use serde_json::json;
use xebec_e2e::{Server, free_port};

#[test]
fn kube_rs_finds_kubernetes() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(calls()).expect("every call");
}

async fn calls() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("xebec-e2e-clients-").tempdir()?;
    let _server = Server::start(folder.path(), free_port()?, "scheduler")?;
    let file = Kubeconfig::read_from(folder.path().join("admin.kubeconfig"))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(config)?;
    ensure!(client.apiserver_version().await?.minor == "37");
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": "rust" } }))?;
    namespaces.create(&PostParams::default(), &namespace).await?;
    objects(&client).await?;
    deployments(&client).await?;
    watched(&client).await?;
    everything(&client).await?;
    namespaces.delete("rust", &DeleteParams::foreground()).await?;
    Ok(())
}

async fn objects(client: &Client) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "rust");
    let map: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": "c" }, "data": { "a": "1" } }))?;
    let created = maps.create(&PostParams::default(), &map).await?;
    let refused = maps.create(&PostParams::default(), &map).await.err().context("it exists")?;
    ensure!(matches!(&refused, kube::Error::Api(status) if status.reason == "AlreadyExists"), "{refused}");
    let merge = Patch::Merge(json!({ "data": { "b": "2" } }));
    let patched = maps.patch("c", &PatchParams::default(), &merge).await?;
    ensure!(patched.data.unwrap_or_default().len() == 2);
    let stale = maps.replace("c", &PostParams::default(), &created).await.err().context("it is stale")?;
    ensure!(matches!(&stale, kube::Error::Api(status) if status.code == 409), "{stale}");
    let applied = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" }, "data": { "b": "3" } });
    let conflict = maps.patch("c", &PatchParams::apply("e2e"), &Patch::Apply(&applied)).await;
    ensure!(matches!(&conflict, Err(kube::Error::Api(status)) if status.code == 409), "{conflict:?}");
    let forced = maps.patch("c", &PatchParams::apply("e2e").force(), &Patch::Apply(&applied)).await?;
    ensure!(forced.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some("e2e")));
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "rust");
    ensure!(secrets.get_opt("none").await?.is_none());
    let partial = maps.get_metadata("c").await?;
    ensure!(partial.uid() == created.uid());
    let listed = maps.list(&ListParams::default().fields("metadata.name=c").limit(1)).await?;
    ensure!(listed.items.len() == 1);
    Ok(())
}

async fn deployments(client: &Client) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "rust");
    let labels = json!({ "app": "d" });
    let deployment = serde_json::from_value(json!({
        "metadata": { "name": "d" },
        "spec": { "replicas": 0, "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels },
            "spec": { "containers": [{ "name": "c", "image": "image:1" }] } } }
    }))?;
    deployments.create(&PostParams::default(), &deployment).await?;
    let two = Patch::Merge(json!({ "spec": { "replicas": 2 } }));
    let scaled = deployments.patch_scale("d", &PatchParams::default(), &two).await?;
    ensure!(scaled.spec.and_then(|spec| spec.replicas) == Some(2));
    let image = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": "image:2" }] } } } });
    let patched = deployments.patch("d", &PatchParams::default(), &Patch::Strategic(image)).await?;
    let containers = patched.spec.template.spec.map(|spec| spec.containers).unwrap_or_default();
    ensure!(containers.len() == 1 && containers[0].image.as_deref() == Some("image:2"));
    Ok(())
}

async fn watched(client: &Client) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "rust");
    let revision = maps.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    let events = maps.watch(&WatchParams::default().timeout(10), &revision).await?;
    pin_mut!(events);
    maps.delete("c", &DeleteParams::default()).await?;
    let event = events.try_next().await?.context("the watch has ended")?;
    ensure!(matches!(&event, WatchEvent::Deleted(map) if map.name_any() == "c"), "{event:?}");
    drop(events.next());
    Ok(())
}

/// Every kind of the discovery that can be listed is.
async fn everything(client: &Client) -> Result<()> {
    let discovery = Discovery::new(client.clone()).run().await?;
    for (resource, capabilities) in discovery.groups().flat_map(kube::discovery::ApiGroup::recommended_resources) {
        if !capabilities.supports_operation(verbs::LIST) {
            continue;
        }
        let objects: Api<DynamicObject> = match capabilities.scope {
            Scope::Cluster => Api::all_with(client.clone(), &resource),
            Scope::Namespaced => Api::namespaced_with(client.clone(), "rust", &resource),
        };
        let listed = objects.list(&ListParams::default()).await;
        listed.with_context(|| format!("listing {} of {}", resource.plural, resource.api_version))?;
    }
    Ok(())
}
