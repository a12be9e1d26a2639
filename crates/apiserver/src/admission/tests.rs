//! The smaller plugins, on a registry of their own.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, PersistentVolumeClaim, Pod, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};
use xebec_api::resource::Kind;

use crate::authn::User;
use crate::cache::Item;
use crate::registry::{Call, DeleteRequest, Edit, Part, Registry};
use crate::testing::{self, create, create_as};

/// A certificate request in PEM, base64 as JSON carries bytes.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIR01HNENBUUF3RERFS01BZ0dBMVVFQXd3QllUQlpNQk1HQnlx\
    R1NNNDlBZ0VHQ0NxR1NNNDlBd0VIQTBJQQpCRmlUcitPREZmZUxEenpIZ01nRzk2TkhPczd2cGVjSEtieWFxNE1NdjFaLy8wTVla\
    eGl3RXgyajlVdCtXd0lWCklaM1VDcm5HRUIvMmROdThqZjRBSWNLZ0FEQUtCZ2dxaGtqT1BRUURBZ05JQURCRkFpRUE3dkdVT0JF\
    SkF0VU0KYXo0bU9IL1NHN2ZTTGUrTExXTmd0UlNCSXZBU1IwQUNJR3FRNDNaMk5IS2ZZTWtpbGUrVmhLZXE5TWRXTnNDbgpoM0Ri\
    eXA2Sk5uZGUKLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg==";

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

async fn update<K: Kind>(
    registry: &Registry,
    user: &std::sync::Arc<User>,
    key: (&str, &str),
    part: Part,
    tree: Value,
) -> Result<Value, String> {
    registry.catch_up().await.unwrap();
    let served = registry.index.find(K::GROUP, K::VERSION, K::URL_PATH_SEGMENT).unwrap();
    let edit = |item: &Item, _: &mut Vec<String>| {
        let mut current = item.object.value().unwrap();
        json_patch::merge(&mut current, &tree);
        current["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        current["metadata"]["resourceVersion"] = json!(item.object.revision().to_string());
        Ok(current)
    };
    let subresource = match part {
        Part::Status => "status",
        Part::Subresource(name) => name,
        Part::Main | Part::Direct => "",
    };
    let mut call = Call { subresource, ..Call::new(user) };
    let outcome = registry.update(served, key, part, Edit::Tree(&edit), &mut call).await;
    registry.catch_up().await.unwrap();
    outcome.map(|outcome| outcome.object.value().unwrap()).map_err(|error| error.to_string())
}

fn claim(name: &str, spec: Value) -> Value {
    let mut whole = json!({
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}
    });
    json_patch::merge(&mut whole, &spec);
    json!({"metadata": {"name": name, "namespace": "ns"}, "spec": whole})
}

#[tokio::test]
async fn claims_get_a_class_are_protected_and_grow_where_the_class_lets_them() {
    let registry = house().await;
    let class = |name: &str, default: &str, grows: bool| {
        json!({
            "metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": default}},
            "provisioner": "example.com/p", "allowVolumeExpansion": grows
        })
    };
    let made = create::<PersistentVolumeClaim>(&registry, claim("none", json!({}))).await.unwrap().value().unwrap();
    assert_eq!(made["spec"].get("storageClassName"), None);
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    for (name, default, grows) in [("fixed", "false", false), ("b", "true", true), ("a", "true", true)] {
        create::<StorageClass>(&registry, class(name, default, grows)).await.unwrap();
    }
    let made = create::<PersistentVolumeClaim>(&registry, claim("one", json!({}))).await.unwrap().value().unwrap();
    assert_eq!(made["spec"]["storageClassName"], "a", "of two of one second the first by name");
    create::<PersistentVolumeClaim>(&registry, claim("two", json!({"storageClassName": "fixed"}))).await.unwrap();
    let admin = User::master("admin");
    let check = |name: &'static str| {
        let (registry, admin) = (&registry, &admin);
        let larger = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
        async move { update::<PersistentVolumeClaim>(registry, admin, ("ns", name), Part::Main, larger).await }
    };
    let refusal = |name: &str, why: &str| format!("persistentvolumeclaims {name:?} is forbidden: {why}");
    let not_bound = check("one").await.unwrap_err();
    assert!(not_bound.contains("spec is immutable after creation"), "{not_bound}");
    let bound = json!({"status": {"phase": "Bound"}});
    for name in ["one", "two"] {
        update::<PersistentVolumeClaim>(&registry, &admin, ("ns", name), Part::Status, bound.clone()).await.unwrap();
    }
    assert_eq!(check("one").await.unwrap()["spec"]["resources"]["requests"]["storage"], "2Gi");
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
    assert_eq!(check("two").await.unwrap_err(), refusal("two", why));
}

#[tokio::test]
async fn ingresses_get_the_default_class() {
    let registry = house().await;
    let ingress = |name: &str, annotations: Value| {
        json!({
            "metadata": {"name": name, "namespace": "ns", "annotations": annotations},
            "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}
        })
    };
    let class = json!({
        "metadata": {"name": "c", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "example.com/c"}
    });
    create::<IngressClass>(&registry, class).await.unwrap();
    let made = create::<Ingress>(&registry, ingress("a", json!({}))).await.unwrap().value().unwrap();
    assert_eq!(made["spec"]["ingressClassName"], "c");
    let own = json!({"kubernetes.io/ingress.class": "own"});
    let made = create::<Ingress>(&registry, ingress("b", own)).await.unwrap().value().unwrap();
    assert_eq!(made["spec"].get("ingressClassName"), None);
}

#[tokio::test]
async fn pods_take_overhead_and_placement_from_their_runtime_class() {
    let registry = house().await;
    let class = json!({
        "metadata": {"name": "heavy"}, "handler": "h", "overhead": {"podFixed": {"cpu": "1"}},
        "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "t", "operator": "Exists"}]}
    });
    create::<RuntimeClass>(&registry, class).await.unwrap();
    let spec = pod(&registry, "a", json!({"runtimeClassName": "heavy"})).await.unwrap();
    assert_eq!((&spec["overhead"]["cpu"], &spec["nodeSelector"]["a"]), (&json!("1"), &json!("b")));
    assert!(spec["tolerations"].as_array().unwrap().iter().any(|one| one["key"] == "t"), "{spec}");
    let check = |spec: Value, expected: &'static str| {
        let registry = &registry;
        async move {
            let error = pod(registry, "b", spec).await.unwrap_err();
            assert!(error.ends_with(expected), "{error}");
        }
    };
    check(json!({"runtimeClassName": "none"}), "pod rejected: RuntimeClass \"none\" not found").await;
    let other = json!({"runtimeClassName": "heavy", "overhead": {"cpu": "2"}});
    check(other, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead").await;
    let other = json!({"runtimeClassName": "heavy", "nodeSelector": {"a": "c"}});
    check(other, "conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = c").await;
    let alone = json!({"overhead": {"cpu": "2"}});
    check(alone, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead").await;
}

#[tokio::test]
async fn pods_carry_their_nodes_zone_and_outgrow_no_node() {
    let registry = house().await;
    let node = json!({
        "metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z", "own": "1"}},
        "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}
    });
    create::<Node>(&registry, node).await.unwrap();
    let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}});
    let tree = json!({
        "metadata": {"name": "p", "namespace": "ns"}, "spec": {"nodeName": "n", "containers": [container]}
    });
    let made = create::<Pod>(&registry, tree).await.unwrap().value().unwrap();
    assert_eq!(made["metadata"]["labels"], json!({"topology.kubernetes.io/zone": "z"}));
    let admin = User::master("admin");
    let resize = |cpu: &str| {
        let container = json!({"name": "c", "image": "other", "resources": {"requests": {"cpu": cpu}}});
        let (registry, admin) = (&registry, &admin);
        async move {
            let tree = json!({"spec": {"containers": [container]}});
            update::<Pod>(registry, admin, ("ns", "p"), Part::Subresource("resize"), tree).await
        }
    };
    let resized = resize("2").await.unwrap();
    let container = &resized["spec"]["containers"][0];
    assert_eq!((&container["resources"]["requests"]["cpu"], &container["image"]), (&json!("2"), &json!("i")));
    assert_eq!(resized["metadata"]["generation"], 2);
    let error = resize("3").await.unwrap_err();
    let why = "node didn't have enough allocatable resources: cpu, requested: 3000, allocatable: 2000";
    assert_eq!(error, format!("pods \"p\" is forbidden: {why}"));
}

#[tokio::test]
async fn signers_are_for_those_who_may() {
    let registry = house().await;
    let tree = json!({
        "metadata": {"name": "r"},
        "spec": {"request": REQUEST, "signerName": "example.com/signer", "usages": ["client auth"]}
    });
    create::<CertificateSigningRequest>(&registry, tree).await.unwrap();
    let role = json!({
        "metadata": {"name": "approver"},
        "rules": [{
            "apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": ["approve"],
            "resourceNames": ["example.com/*"]
        }]
    });
    create::<ClusterRole>(&registry, role).await.unwrap();
    let binding = json!({
        "metadata": {"name": "approver"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "approver"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]
    });
    create::<ClusterRoleBinding>(&registry, binding).await.unwrap();
    let conditions = |kinds: &[&str]| {
        let condition = |kind: &&str| {
            let time = "2026-01-01T00:00:00Z";
            json!({"type": kind, "status": "True", "reason": "r", "lastUpdateTime": time, "lastTransitionTime": time})
        };
        json!({"status": {"conditions": kinds.iter().map(condition).collect::<Vec<_>>()}})
    };
    let refused = |what: &str| {
        let why = format!("user not permitted to {what} requests with signerName \"example.com/signer\"");
        Err(format!("certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: {why}"))
    };
    let (jane, joe) = (User::new("jane", &[]), User::new("joe", &[]));
    let attempt = |user: std::sync::Arc<User>, part: Part, kinds: &'static [&str]| {
        let registry = &registry;
        async move {
            let key = ("", "r");
            update::<CertificateSigningRequest>(registry, &user, key, part, conditions(kinds)).await.map(drop)
        }
    };
    let approval = Part::Subresource("approval");
    assert_eq!(attempt(joe, approval, &["Approved"]).await, refused("approve"));
    assert_eq!(attempt(jane.clone(), approval, &["Approved"]).await, Ok(()));
    assert_eq!(attempt(jane, Part::Status, &["Approved", "Failed"]).await, refused("sign"));
}
