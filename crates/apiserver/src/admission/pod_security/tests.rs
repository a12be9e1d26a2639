//! Pods held to levels, and the plugin on a registry.

use k8s_openapi::api::core::v1::{PodSpec, ServiceAccount};
use serde_json::{Value, json};

use super::*;
use crate::testing::{self, create};

fn check(spec: Value, level: Level, version: Option<u32>, expected: &str) {
    let mut full = json!({"containers": [{"name": "c", "image": "i"}]});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let spec: PodSpec = serde_json::from_value(full.clone()).unwrap();
    let found = checks::violations(&Subject { spec: &spec, annotations: None }, Standard { level, version });
    assert_eq!(details(&found), expected, "{full} {level:?} {version:?}");
}

fn container(security: Value) -> Value {
    json!([{"name": "c", "image": "i", "securityContext": security}])
}

#[test]
fn baseline() {
    let check = |spec: Value, expected: &str| check(spec, Level::Baseline, None, expected);
    check(json!({}), "");
    check(json!({"hostNetwork": true, "hostIPC": true}), "host namespaces (hostNetwork=true, hostIPC=true)");
    check(
        json!({"containers": container(json!({"privileged": true}))}),
        "privileged (container \"c\" must not set securityContext.privileged=true)",
    );
    check(
        json!({"containers": container(json!({"capabilities": {"add": ["NET_RAW", "CHOWN", "SYS_ADMIN"]}}))}),
        "non-default capabilities (container \"c\" must not include \"NET_RAW\", \"SYS_ADMIN\" in \
         securityContext.capabilities.add)",
    );
    check(
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "hostPath": {"path": "/"}}]}),
        "hostPath volumes (volumes \"v\", \"w\")",
    );
    check(
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": 80}]}]}),
        "hostPort (container \"a\" uses hostPort 80)",
    );
    check(
        json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
        "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
    );
    check(
        json!({"securityContext": {"seLinuxOptions": {"type": "spc_t", "user": "u"}}}),
        "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
    );
    check(
        json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "h", "port": 1}}}]}),
        "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\")",
    );
    let unmasked = json!({"containers": container(json!({"procMount": "Unmasked"}))});
    check(unmasked.clone(), "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")");
    let mut namespaced = unmasked;
    namespaced["hostUsers"] = json!(false);
    check(namespaced, "");
}

#[test]
fn versions_differ() {
    let sysctl = json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1"}]}});
    check(sysctl.clone(), Level::Baseline, Some(31), "forbidden sysctls (net.ipv4.tcp_rmem)");
    check(sysctl, Level::Baseline, Some(32), "");
    let probe = json!({"containers": [{"name": "a", "livenessProbe": {"tcpSocket": {"host": "h", "port": 1}}}]});
    check(probe, Level::Baseline, Some(33), "");
}

#[test]
fn restricted() {
    let check = |spec: Value, expected: &str| check(spec, Level::Restricted, None, expected);
    check(
        json!({}),
        "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
         \"Localhost\")",
    );
    let good = json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, "seccompProfile": {"type": "RuntimeDefault"}
    });
    check(json!({"containers": container(good.clone())}), "");
    let with = |key: &str, value: Value| {
        let mut security = good.clone();
        security[key] = value;
        json!({"containers": container(security)})
    };
    check(with("runAsUser", json!(0)), "runAsUser=0 (container \"c\" must not set runAsUser=0)");
    check(
        with("runAsNonRoot", json!(false)),
        "runAsNonRoot != true (container \"c\" must not set securityContext.runAsNonRoot=false)",
    );
    let mut volumes = json!({"containers": container(good.clone())});
    volumes["volumes"] =
        json!([{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "nfs": {"server": "s", "path": "/"}}]);
    check(volumes, "restricted volume types (volumes \"v\", \"w\" use restricted volume types \"hostPath\", \"nfs\")");
}

#[tokio::test]
async fn the_namespaces_labels_decide() {
    let registry = testing::registry().await;
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline"});
    create::<Namespace>(&registry, json!({"metadata": {"name": "ns", "labels": labels}})).await.unwrap();
    create::<ServiceAccount>(&registry, json!({"metadata": {"name": "default", "namespace": "ns"}})).await.unwrap();
    let pod = |host: bool| {
        let spec = json!({"hostNetwork": host, "containers": [{"name": "c", "image": "i"}]});
        json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec})
    };
    let error = create::<Pod>(&registry, pod(true)).await.err().unwrap().to_string();
    let expected =
        "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)";
    assert_eq!(error, expected);
    create::<Pod>(&registry, pod(false)).await.unwrap();
    let wrong = json!({"pod-security.kubernetes.io/enforce": "strict"});
    let error =
        create::<Namespace>(&registry, json!({"metadata": {"name": "x", "labels": wrong}})).await.err().unwrap();
    let expected = "Namespace \"x\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \
                    \"strict\": must be one of privileged, baseline, restricted";
    assert_eq!(error.to_string(), expected);
}
