//! Pods with and without accounts.

use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value, json};

use super::*;
use crate::testing::{self, create};

async fn house(account: Value) -> Arc<Registry> {
    let registry = testing::registry().await;
    create::<Namespace>(&registry, json!({"metadata": {"name": "ns"}})).await.unwrap();
    let mut account = account;
    account["metadata"]["namespace"] = json!("ns");
    create::<ServiceAccount>(&registry, account).await.unwrap();
    registry
}

async fn pod(registry: &Registry, spec: Value) -> Result<Arc<Pod>, String> {
    let mut full = json!({"containers": [{"name": "c", "image": "i"}]});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let tree = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": full});
    let object = create::<Pod>(registry, tree).await.map_err(|error| error.to_string())?;
    Ok(object.typed().unwrap())
}

#[tokio::test]
async fn a_pod_gets_the_default_account_and_its_token() {
    let account = json!({"metadata": {"name": "default"}, "imagePullSecrets": [{"name": "pull"}]});
    let registry = house(account).await;
    let pod = pod(&registry, json!({})).await.unwrap();
    let spec = serde_json::to_value(pod.spec.as_ref().unwrap()).unwrap();
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["serviceAccount"], "default");
    assert_eq!(spec["imagePullSecrets"][0]["name"], "pull");
    let name = spec["volumes"][0]["name"].as_str().unwrap();
    assert_eq!((name.starts_with(VOLUME_PREFIX), name.len()), (true, VOLUME_PREFIX.len() + 5));
    let mount = json!({"mountPath": MOUNT_PATH, "name": name, "readOnly": true});
    assert_eq!(spec["containers"][0]["volumeMounts"], json!([mount]));
    let expected = json!({"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
        {"downwardAPI": {"items": [
            {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace"}
        ]}}
    ]});
    assert_eq!(spec["volumes"][0]["projected"], expected);
}

async fn check_mounted(account: Value, spec: Value, expected: bool) {
    let mut account = account;
    account["metadata"] = json!({"name": "robot"});
    let registry = house(account.clone()).await;
    let mut full = spec.clone();
    full["serviceAccountName"] = json!("robot");
    let pod = pod(&registry, full).await.unwrap();
    let mounted = pod.spec.as_ref().unwrap().volumes.as_ref().is_some_and(|volumes| !volumes.is_empty());
    assert_eq!(mounted, expected, "{account} {spec}");
}

#[tokio::test]
async fn pods_and_accounts_may_do_without_a_token() {
    let no = json!({"automountServiceAccountToken": false});
    check_mounted(json!({}), json!({}), true).await;
    check_mounted(no.clone(), json!({}), false).await;
    check_mounted(json!({}), no.clone(), false).await;
    check_mounted(no, json!({"automountServiceAccountToken": true}), true).await;
    let own = json!([{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": MOUNT_PATH}]}]);
    let volumes = json!([{"name": "v", "emptyDir": {}}]);
    let registry = house(json!({"metadata": {"name": "default"}})).await;
    let pod = pod(&registry, json!({"containers": own, "volumes": volumes})).await.unwrap();
    assert_eq!(pod.spec.as_ref().unwrap().volumes.as_ref().unwrap().len(), 1);
}

#[tokio::test]
async fn a_missing_account_is_told() {
    let registry = house(json!({"metadata": {"name": "default"}})).await;
    let error = pod(&registry, json!({"serviceAccountName": "robot"})).await.unwrap_err();
    let expected =
        "pods \"p\" is forbidden: error looking up service account ns/robot: serviceaccount \"robot\" not found";
    assert_eq!(error, expected);
}

#[tokio::test]
async fn a_pod_waits_for_the_default_account() {
    let registry = house(json!({"metadata": {"name": "other"}})).await;
    let waiting = tokio::spawn({
        let registry = registry.clone();
        async move { pod(&registry, json!({})).await.map(drop) }
    });
    tokio::task::yield_now().await;
    let account = json!({"metadata": {"name": "default", "namespace": "ns"}});
    create::<ServiceAccount>(&registry, account).await.unwrap();
    assert_eq!(waiting.await.unwrap(), Ok(()));
}
