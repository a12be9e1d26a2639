//! Server-side apply and the owners of fields, as scripts: who sends what, and what is owned and set then.

mod cluster;

use std::time::Duration;

use cluster::{Answer, Cluster};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/n/configmaps/m";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/n/deployments";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/n/deployments/d";
const SCALERS: &str = "/apis/autoscaling/v2/namespaces/n/horizontalpodautoscalers";

fn map(data: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m" }, "data": data })
}

fn deployment(spec: Value) -> Value {
    let mut object =
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" }, "spec": spec });
    let labels = json!({ "a": "b" });
    object["spec"]["selector"] = json!({ "matchLabels": labels });
    object["spec"]["template"] =
        json!({ "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    object
}

/// Applies as a manager; `how` is `manager` or `manager force`, and may end in further options.
async fn apply(cluster: &Cluster, path: &str, how: &str, config: &Value) -> Answer {
    // Each write is at a time of its own.
    cluster.clock.advance(Duration::from_secs(1));
    let (manager, options) = how.split_once(' ').unwrap_or((how, ""));
    let options = match options {
        "" => String::new(),
        "force" => "&force=true".to_owned(),
        other => format!("&{other}"),
    };
    let path = format!("{path}?fieldManager={manager}{options}");
    cluster.send("PATCH", &path, &[("content-type", "application/apply-patch+yaml")], config.to_string()).await
}

/// `manager operation version subresource: fields` for each owner.
fn owners(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or("-").to_owned();
    let shown = |entry: &Value| {
        let keys = ["manager", "operation", "apiVersion", "subresource"].map(|key| text(entry, key)).join(" ");
        format!("{keys}: {}", entry["fieldsV1"])
    };
    entries.iter().map(shown).collect()
}

#[tokio::test]
async fn a_configuration_creates_changes_and_gives_up_fields() {
    let cluster = Cluster::start().await;
    // How, the data that is applied, the code, the data then, the owners then.
    let steps: &[(&str, Value, u16, Value, &[&str])] = &[
        (
            "one",
            json!({ "a": "1", "b": "2" }),
            201,
            json!({ "a": "1", "b": "2" }),
            &[r#"one Apply v1 -: {"f:data":{"f:a":{},"f:b":{}}}"#],
        ),
        (
            "two",
            json!({ "b": "2", "c": "3" }),
            200,
            json!({ "a": "1", "b": "2", "c": "3" }),
            &[r#"one Apply v1 -: {"f:data":{"f:a":{},"f:b":{}}}"#, r#"two Apply v1 -: {"f:data":{"f:b":{},"f:c":{}}}"#],
        ),
        (
            "one",
            json!({}),
            200,
            json!({ "b": "2", "c": "3" }),
            &[r#"two Apply v1 -: {"f:data":{"f:b":{},"f:c":{}}}"#, r#"one Apply v1 -: {"f:data":{}}"#],
        ),
        (
            "one force",
            json!({ "b": "9" }),
            200,
            json!({ "b": "9", "c": "3" }),
            &[r#"two Apply v1 -: {"f:data":{"f:c":{}}}"#, r#"one Apply v1 -: {"f:data":{"f:b":{}}}"#],
        ),
    ];
    for (how, data, code, expected, owned) in steps {
        let answer = apply(&cluster, MAPS, how, &map(data.clone())).await;
        assert_eq!(answer.code, *code, "{how} {data}: {}", answer.body);
        assert_eq!(answer.body["data"], *expected, "{how} {data}");
        assert_eq!(owners(&answer.body), *owned, "{how} {data}");
    }
}

#[tokio::test]
async fn conflicts_name_managers_and_fields() {
    let cluster = Cluster::start().await;
    apply(&cluster, DEPLOYMENT, "one", &deployment(json!({ "replicas": 1 }))).await;
    cluster.patch(DEPLOYMENT, "merge-patch", &json!({ "spec": { "paused": true } })).await;
    let check = async |how: &str, spec: Value, message: &str, fields: &[&str]| {
        let answer = apply(&cluster, DEPLOYMENT, how, &deployment(spec)).await;
        assert_eq!((answer.code.as_u16(), answer.body["message"].as_str()), (409, Some(message)));
        let causes = answer.body["details"]["causes"].as_array().unwrap();
        assert!(causes.iter().all(|cause| cause["reason"] == "FieldManagerConflict"));
        assert_eq!(causes.iter().map(|cause| &cause["field"]).collect::<Vec<_>>(), fields);
    };
    check(
        "two",
        json!({ "replicas": 2 }),
        r#"Apply failed with 1 conflict: conflict with "one": .spec.replicas"#,
        &[".spec.replicas"],
    )
    .await;
    check(
        "two",
        json!({ "replicas": 2, "paused": false }),
        "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.replicas\nconflicts with \"unknown\" using apps/v1:\n- .spec.paused",
        &[".spec.replicas", ".spec.paused"],
    )
    .await;
}

#[tokio::test]
async fn writes_of_every_verb_are_followed() {
    let cluster = Cluster::start().await;
    let agent = |name: &'static str| [("user-agent", name), ("content-type", "application/merge-patch+json")];
    let created =
        cluster.post(&format!("{DEPLOYMENTS}?fieldManager=maker"), &deployment(json!({ "replicas": 1 }))).await;
    let made = owners(&created.body);
    assert!(made[0].starts_with("maker Update apps/v1 -: {\"f:spec\":{\"f:progressDeadlineSeconds\":{}"), "{made:?}");

    let scaled = json!({ "spec": { "replicas": 3 } }).to_string();
    cluster.send("PATCH", &format!("{DEPLOYMENT}/scale"), &agent("scaler/1.0 (x)"), scaled).await;
    cluster.clock.advance(Duration::from_secs(1));
    let status = json!({ "status": { "replicas": 3, "readyReplicas": 1 }, "spec": { "replicas": 9 } }).to_string();
    let answer = cluster.send("PATCH", &format!("{DEPLOYMENT}/status"), &agent("controller"), status.clone()).await;
    let now = owners(&answer.body);
    assert_eq!(
        now[..2],
        [
            r#"scaler Update apps/v1 scale: {"f:spec":{"f:replicas":{}}}"#.to_owned(),
            made[0].replace(r#""f:replicas":{},"#, "")
        ]
    );
    assert_eq!(now[2], r#"controller Update apps/v1 status: {"f:status":{"f:readyReplicas":{},"f:replicas":{}}}"#);

    // What changes nothing is not dated and makes no new revision, whoever sends it.
    cluster.clock.advance(Duration::from_secs(60));
    let again = cluster.send("PATCH", &format!("{DEPLOYMENT}/status"), &agent("other"), status).await;
    assert_eq!(again.body, answer.body);

    let mut forgotten = cluster.get(DEPLOYMENT).await.body;
    forgotten["metadata"]["managedFields"] = json!([]);
    assert!(owners(&cluster.put(DEPLOYMENT, &forgotten).await.body).is_empty());
    let answer = apply(&cluster, DEPLOYMENT, "late", &deployment(json!({ "replicas": 4 }))).await;
    assert_eq!(
        answer.body["message"],
        r#"Apply failed with 1 conflict: conflict with "before-first-apply" using apps/v1: .spec.replicas"#
    );
}

#[tokio::test]
async fn client_side_apply_is_taken_over() {
    let cluster = Cluster::start().await;
    const LAST: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let mut first = deployment(json!({ "replicas": 1 }));
    first["metadata"]["annotations"] = json!({ LAST: deployment(json!({ "replicas": 1 })).to_string() });
    cluster.post(&format!("{DEPLOYMENTS}?fieldManager=kubectl-client-side-apply"), &first).await;
    let second = deployment(json!({ "replicas": 2 }));
    assert_eq!(apply(&cluster, DEPLOYMENT, "someone", &second).await.code, 409);
    let answer = apply(&cluster, DEPLOYMENT, "kubectl", &second).await;
    assert_eq!((answer.code.as_u16(), &answer.body["spec"]["replicas"]), (200, &json!(2)));
    let last: Value = serde_json::from_str(answer.body["metadata"]["annotations"][LAST].as_str().unwrap()).unwrap();
    assert_eq!(last, second);
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused() {
    let cluster = Cluster::start().await;
    apply(&cluster, MAPS, "one", &map(json!({ "a": "1" }))).await;
    let with = |path: &str, value: Value| {
        let mut config = map(json!({ "a": "1" }));
        let (parent, key) = path.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value;
        config
    };
    let check = async |how: &str, config: Value, code: u16, text: &str| {
        let answer = apply(&cluster, MAPS, how, &config).await;
        let message = answer.body["message"].as_str().unwrap_or("");
        assert!(answer.code == code && message.contains(text), "{how} {config}: {}", answer.body);
    };
    check("", with("/x", json!(1)), 422, "fieldManager: Required value: is required for apply patch").await;
    check(&"x".repeat(129), with("/x", json!(1)), 422, "may not be more than 128 bytes").await;
    check("a%07", with("/x", json!(1)), 422, "invalid character U+0007 (at position 1)").await;
    check("a", with("/kind", json!("Secret")), 400, "invalid object type: /v1, Kind=Secret").await;
    check("a", with("/metadata/managedFields", json!([])), 400, "metadata.managedFields must be nil").await;
    check("a", with("/metadata/name", json!("b")), 400, "does not match the name on the URL").await;
    check("a", with("/metadata/resourceVersion", json!("1")), 409, "the object has been modified").await;
    check("a", with("/nope", json!(1)), 500, "(/m; /v1, Kind=ConfigMap): .nope: field not declared in schema").await;
    check("a", with("/data/b", json!(1)), 500, ".data.b: expected string").await;
    check("a", json!([]), 400, "error decoding patch").await;
}

#[tokio::test]
async fn versions_of_one_object_share_their_owners() {
    let cluster = Cluster::start().await;
    let older = SCALERS.replace("v2", "v1");
    let scaler = |version: &str, max: i32| {
        json!({ "apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler", "metadata": { "name": "h" },
            "spec": { "maxReplicas": max, "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "d" } } })
    };
    let created = apply(&cluster, &format!("{older}/h"), "one", &scaler("v1", 3)).await;
    assert_eq!(created.code, 201, "{}", created.body);
    let refused = apply(&cluster, &format!("{SCALERS}/h"), "two", &scaler("v2", 4)).await;
    assert_eq!(refused.body["message"], r#"Apply failed with 1 conflict: conflict with "one": .spec.maxReplicas"#);
    let moved = apply(&cluster, &format!("{SCALERS}/h"), "one", &scaler("v2", 4)).await;
    let expected = r#"one Apply autoscaling/v2 -: {"f:spec":{"f:maxReplicas":{},"f:scaleTargetRef":{"f:apiVersion":{},"f:kind":{},"f:name":{}}}}"#;
    assert_eq!(owners(&moved.body), [expected]);
}
