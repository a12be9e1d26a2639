//! The smaller plugins, on a registry of their own.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::{Value, json};
use xebec_api::resource::Kind;

use crate::authn::User;
use crate::registry::{Call, DeleteRequest, Registry};
use crate::testing::{self, create, create_as};

async fn delete<K: Kind>(registry: &Registry, name: &str) -> Result<(), String> {
    let served = registry.index.find(K::GROUP, K::VERSION, K::URL_PATH_SEGMENT).unwrap();
    let options = serde_json::from_value(json!({})).unwrap();
    let request = DeleteRequest { namespace: "", name, options: &options };
    let deleted = registry.delete(served, &request, &mut Call::new(&User::master("admin"))).await;
    deleted.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn namespaces_have_to_exist_and_to_last() {
    let registry = testing::registry().await;
    let map = || json!({"metadata": {"name": "m", "namespace": "ns"}});
    let error = create::<ConfigMap>(&registry, map()).await.err().unwrap();
    assert_eq!((error.code(), error.to_string()), (404, "namespaces \"ns\" not found".to_owned()));
    for name in ["ns", "default"] {
        create::<Namespace>(&registry, json!({"metadata": {"name": name}})).await.unwrap();
    }
    create::<ConfigMap>(&registry, map()).await.unwrap();
    let error = delete::<Namespace>(&registry, "default").await.unwrap_err();
    assert_eq!(error, "namespaces \"default\" is forbidden: this namespace may not be deleted");
    delete::<Namespace>(&registry, "ns").await.unwrap();
    let error = create::<ConfigMap>(&registry, map()).await.err().unwrap();
    let expected =
        "configmaps \"m\" is forbidden: unable to create new content in namespace ns because it is being terminated";
    assert_eq!((error.code(), error.to_string()), (403, expected.to_owned()));
    let cause = error.0.details.unwrap().causes.unwrap().remove(0);
    assert_eq!(cause.reason.as_deref(), Some("NamespaceTerminating"));
}

async fn pod(registry: &Registry, name: &str, spec: Value) -> Result<Value, String> {
    let mut full = json!({"containers": [{"name": "c", "image": "i"}]});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let tree = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": full});
    let object = create::<Pod>(registry, tree).await.map_err(|error| error.to_string())?;
    Ok(object.value().unwrap()["spec"].clone())
}

async fn house() -> std::sync::Arc<Registry> {
    let registry = testing::registry().await;
    create::<Namespace>(&registry, json!({"metadata": {"name": "ns"}})).await.unwrap();
    create::<ServiceAccount>(&registry, json!({"metadata": {"name": "default", "namespace": "ns"}})).await.unwrap();
    registry
}

#[tokio::test]
async fn pods_get_their_classs_priority() {
    let registry = house().await;
    let spec = pod(&registry, "a", json!({})).await.unwrap();
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(0), &json!("PreemptLowerPriority")));
    create::<PriorityClass>(&registry, json!({"metadata": {"name": "high"}, "value": 7, "preemptionPolicy": "Never"}))
        .await
        .unwrap();
    let spec = pod(&registry, "b", json!({"priorityClassName": "high"})).await.unwrap();
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(7), &json!("Never")));
    let error = pod(&registry, "c", json!({"priorityClassName": "none"})).await.unwrap_err();
    assert_eq!(error, "pods \"c\" is forbidden: no PriorityClass with name none was found");
    let error = pod(&registry, "c", json!({"priorityClassName": "high", "priority": 8})).await.unwrap_err();
    assert!(error.contains("computed 7 from the given PriorityClass name"), "{error}");
    let class = |name: &str| json!({"metadata": {"name": name}, "value": 3, "globalDefault": true});
    create::<PriorityClass>(&registry, class("usual")).await.unwrap();
    let spec = pod(&registry, "d", json!({})).await.unwrap();
    assert_eq!((&spec["priority"], &spec["priorityClassName"]), (&json!(3), &json!("usual")));
    let error = create::<PriorityClass>(&registry, class("other")).await.err().unwrap().to_string();
    assert!(error.ends_with("PriorityClass usual is already marked as default. Only one default can exist"), "{error}");
}

#[tokio::test]
async fn tolerations_are_added_where_none_says_otherwise() {
    let registry = house().await;
    let keys = |spec: &Value| -> Vec<String> {
        let all = spec["tolerations"].as_array().cloned().unwrap_or_default();
        all.iter().map(|one| one["key"].as_str().unwrap_or("").to_owned()).collect()
    };
    let spec = pod(&registry, "a", json!({})).await.unwrap();
    assert_eq!(keys(&spec), ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
    assert_eq!(spec["tolerations"][0]["tolerationSeconds"], 300);
    let own = json!({"tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]});
    let spec = pod(&registry, "b", own).await.unwrap();
    assert_eq!(keys(&spec), ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
    assert_eq!(spec["tolerations"][0].get("tolerationSeconds"), None);
    let spec = pod(&registry, "c", json!({"tolerations": [{"operator": "Exists"}]})).await.unwrap();
    assert_eq!(keys(&spec), [""]);
}

#[tokio::test]
async fn nodes_keep_to_themselves() {
    let registry = house().await;
    let node = User::new("system:node:n1", &["system:nodes", "system:authenticated"]);
    let object = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}});
    let error = create_as::<Node>(&registry, &node, object("n2", json!({}))).await.err().unwrap().to_string();
    assert_eq!(error, "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\"");
    let labels = json!({"node-restriction.kubernetes.io/a": "1", "kubernetes.io/role": "x", "kubernetes.io/os": "linux", "own": "1"});
    let error = create_as::<Node>(&registry, &node, object("n1", labels)).await.err().unwrap().to_string();
    let expected = "nodes \"n1\" is forbidden: node \"n1\" is not allowed to set the following labels: kubernetes.io/role, \
                    node-restriction.kubernetes.io/a";
    assert_eq!(error, expected);
    let labels = json!({"kubernetes.io/os": "linux", "own": "1", "a.node.kubernetes.io/b": "1"});
    let created = create_as::<Node>(&registry, &node, object("n1", labels)).await.unwrap().value().unwrap();
    assert_eq!(created["spec"]["taints"][0]["key"], "node.kubernetes.io/not-ready");
    let plain =
        json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let error = create_as::<Pod>(&registry, &node, plain).await.err().unwrap().to_string();
    assert!(error.contains("can only create mirror pods"), "{error}");
}
