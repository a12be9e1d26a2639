//! Verdicts on a registry with the default roles and a few of its own.

use serde_json::json;

use super::*;
use crate::authz::{Decision, Union};
use crate::bootstrap;
use crate::testing::{self, create, create_as};

fn user(name: &str, groups: &[&str]) -> Arc<User> {
    User::new(name, groups)
}

async fn house() -> Arc<Registry> {
    let registry = testing::registry().await;
    bootstrap::run(&registry, "10.1.2.3:6443".parse().unwrap()).await.unwrap();
    create::<Role>(
        &registry,
        json!({
            "metadata": {"name": "reader", "namespace": "default"},
            "rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]
        }),
    )
    .await
    .unwrap();
    let role = |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    let bind = |name: &str, role: serde_json::Value, subject: serde_json::Value| {
        let meta = json!({"name": name, "namespace": "default"});
        create::<RoleBinding>(&registry, json!({"metadata": meta, "roleRef": role, "subjects": [subject]}))
    };
    let rbac = "rbac.authorization.k8s.io";
    bind("jane", role("Role", "reader"), json!({"kind": "User", "apiGroup": rbac, "name": "jane"})).await.unwrap();
    bind("ops", role("ClusterRole", "edit"), json!({"kind": "Group", "apiGroup": rbac, "name": "ops"})).await.unwrap();
    let robot = json!({"kind": "ServiceAccount", "name": "robot", "namespace": "default"});
    bind("robot", role("ClusterRole", "view"), robot).await.unwrap();
    bind("gone", role("Role", "nothing"), json!({"kind": "User", "apiGroup": rbac, "name": "lost"})).await.unwrap();
    registry
}

/// `verb group resource[/subresource] namespace name`, a dash for what is empty; or `verb /path`.
async fn check(rbac: &Rbac, user: &User, request: &str, allowed: bool, reason: &str) {
    let words: Vec<&str> = request.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
    let attributes = if words.len() == 2 {
        Attributes { verb: words[0], path: words[1], ..Attributes::new(user) }
    } else {
        let (resource, subresource) = words[2].split_once('/').unwrap_or((words[2], ""));
        let (group, namespace, name) = (words[1], words[3], words[4]);
        let verb = words[0];
        Attributes { verb, group, resource, subresource, namespace, name, is_resource: true, ..Attributes::new(user) }
    };
    let verdict = rbac.authorize(&attributes).await;
    assert_eq!(verdict.decision == Decision::Allow, allowed, "{} {request}: {verdict:?}", user.name);
    assert_eq!(verdict.reason, reason, "{} {request}", user.name);
}

#[tokio::test]
async fn bindings_decide() {
    let registry = house().await;
    let rbac = Rbac::new(registry.clone());
    let jane = user("jane", &["system:authenticated"]);
    let by = r#"RBAC: allowed by RoleBinding "jane/default" of Role "reader" to User "jane""#;
    check(&rbac, &jane, "list - pods default -", true, by).await;
    check(&rbac, &jane, "list - pods kube-system -", false, "").await;
    check(&rbac, &jane, "list - pods - -", false, "").await;
    check(&rbac, &jane, "delete - pods default a", false, "").await;
    let ops = user("joe", &["ops", "system:authenticated"]);
    let by = r#"RBAC: allowed by RoleBinding "ops/default" of ClusterRole "edit" to Group "ops""#;
    check(&rbac, &ops, "create apps deployments default -", true, by).await;
    check(&rbac, &ops, "create rbac.authorization.k8s.io roles default -", false, "").await;
    let robot = User::of_service_account("default", "robot", "1");
    let by = r#"RBAC: allowed by RoleBinding "robot/default" of ClusterRole "view" to ServiceAccount "robot/default""#;
    check(&rbac, &robot, "get - pods/log default a", true, by).await;
    check(&rbac, &robot, "get - secrets default a", false, "").await;
    let lost = user("lost", &[]);
    let why = r#"rbac: RBAC: role.rbac.authorization.k8s.io "nothing" not found"#;
    check(&rbac, &lost, "get - pods default a", false, why).await;
    let by = r#"RBAC: allowed by ClusterRoleBinding "system:public-info-viewer" of ClusterRole "system:public-info-viewer" to Group "system:unauthenticated""#;
    check(&rbac, &User::anonymous(), "get /healthz", true, by).await;
    check(&rbac, &User::anonymous(), "get /metrics", false, "").await;
    let scheduler = user("system:kube-scheduler", &["system:authenticated"]);
    let by = r#"RBAC: allowed by ClusterRoleBinding "system:kube-scheduler" of ClusterRole "system:kube-scheduler" to User "system:kube-scheduler""#;
    check(&rbac, &scheduler, "create - pods/binding default a", true, by).await;

    create::<ClusterRoleBinding>(
        &registry,
        json!({
            "metadata": {"name": "jane"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}]
        }),
    )
    .await
    .unwrap();
    let by = r#"RBAC: allowed by ClusterRoleBinding "jane" of ClusterRole "view" to User "jane""#;
    check(&rbac, &jane, "list - pods kube-system -", true, by).await;
}

#[tokio::test]
async fn nobody_gives_away_what_he_has_not() {
    let registry = house().await;
    let ops = user("joe", &["ops", "system:authenticated"]);
    let role = |rules: serde_json::Value| json!({"metadata": {"name": "new", "namespace": "default"}, "rules": rules});
    let secrets =
        json!([{"verbs": ["get", "list"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"]}]);
    let error = create_as::<Role>(&registry, &ops, role(secrets)).await.err().unwrap();
    let expected = "roles.rbac.authorization.k8s.io \"new\" is forbidden: user \"joe\" (groups=[\"ops\" \"system:authenticated\"]) \
                    is attempting to grant RBAC permissions not currently held:\n\
                    {APIGroups:[\"rbac.authorization.k8s.io\"], Resources:[\"roles\"], Verbs:[\"get\" \"list\"]}";
    assert_eq!(error.to_string(), expected);
    let pods = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    create_as::<Role>(&registry, &ops, role(pods)).await.unwrap();
    let binding = |name: &str| {
        json!({
            "metadata": {"name": name, "namespace": "default"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
        })
    };
    create_as::<RoleBinding>(&registry, &ops, binding("view")).await.unwrap();
    let error = create_as::<RoleBinding>(&registry, &ops, binding("cluster-admin")).await.err().unwrap();
    assert_eq!(error.code(), 403, "{error}");
    let error = create_as::<RoleBinding>(&registry, &ops, binding("missing")).await.err().unwrap();
    assert_eq!(error.to_string(), "rolebindings.rbac.authorization.k8s.io \"missing\" not found");
}

#[tokio::test]
async fn refusals_read_as_upstreams() {
    let registry = house().await;
    let union = Union(vec![Arc::new(crate::authz::node::Node::new(registry.clone())), Arc::new(Rbac::new(registry))]);
    let node = user("system:node:n1", &["system:nodes"]);
    let request =
        Attributes { verb: "list", resource: "pods", is_resource: true, version: "v1", ..Attributes::new(&node) };
    let verdict = union.authorize(&request).await;
    assert_eq!(
        request.refusal(&verdict.reason).to_string(),
        "pods is forbidden: User \"system:node:n1\" cannot list resource \"pods\" in API group \"\" at the cluster scope: \
         node: can only list/watch pods with spec.nodeName field selector"
    );
    let own = Attributes { field_selector: "spec.nodeName=n1", ..request.clone() };
    assert_eq!(union.authorize(&own).await.decision, Decision::Allow);
    let other = Attributes { field_selector: "spec.nodeName=n2", ..request.clone() };
    assert_ne!(union.authorize(&other).await.decision, Decision::Allow);
    let jane = user("jane", &[]);
    let path = Attributes { verb: "get", path: "/a", ..Attributes::new(&jane) };
    assert_eq!(path.refusal("").to_string(), "forbidden: User \"jane\" cannot get path \"/a\"");
    let log = Attributes {
        verb: "get",
        resource: "pods",
        subresource: "log",
        name: "y",
        namespace: "x",
        is_resource: true,
        ..Attributes::new(&jane)
    };
    assert_eq!(
        log.refusal("").to_string(),
        "pods \"y\" is forbidden: User \"jane\" cannot get resource \"pods/log\" in API group \"\" in the namespace \"x\""
    );
}
