//! What the conformance of single kinds does not show: revisions, watches from anywhere, the lives of Pods and Services.

mod cluster;

use std::time::Duration;

use cluster::{Answer, Cluster};
use http::StatusCode;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/n/configmaps";
const PODS: &str = "/api/v1/namespaces/n/pods";
const SERVICES: &str = "/api/v1/namespaces/n/services";

fn named(name: &str) -> Value {
    json!({ "metadata": { "name": name } })
}

fn pod(name: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "containers": [{ "name": "c", "image": "i" }] } })
}

fn service(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["selector"] = json!({ "app": "a" });
    if spec.get("ports").is_none() {
        spec["ports"] = json!([{ "port": 80 }]);
    }
    json!({ "metadata": { "name": name }, "spec": spec })
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

fn expect(answer: &Answer, code: u16, text: &str) {
    assert_eq!(answer.code, StatusCode::from_u16(code).unwrap(), "{}", answer.body);
    let message = answer.body["message"].as_str().unwrap_or("");
    assert!(message.contains(text), "{message}");
}

#[tokio::test]
async fn lists_are_read_at_the_revision_asked_for() {
    let cluster = Cluster::start().await;
    let one = version(&cluster.post(MAPS, &named("one")).await.body);
    let two = version(&cluster.post(MAPS, &named("two")).await.body);
    cluster.delete(&format!("{MAPS}/one")).await;
    let list = async |query: &str| cluster.get(&format!("{MAPS}?{query}")).await;

    assert_eq!(names(&list("").await.body), ["two"]);
    assert_eq!(names(&list("resourceVersion=0").await.body), ["two"]);
    assert_eq!(names(&list(&format!("resourceVersion={two}&resourceVersionMatch=NotOlderThan")).await.body), ["two"]);
    assert_eq!(names(&list(&format!("resourceVersion={two}&resourceVersionMatch=Exact")).await.body), ["one", "two"]);
    assert_eq!(names(&list(&format!("resourceVersion={one}&resourceVersionMatch=Exact")).await.body), ["one"]);
    assert_eq!(version(&list(&format!("resourceVersion={one}&limit=5")).await.body), one);
    expect(&list("resourceVersionMatch=Exact").await, 422, "forbidden unless resourceVersion is provided");
    expect(&list("resourceVersion=x").await, 400, "invalid resource version: resourceVersion: Invalid value");
    expect(&list("fieldSelector=data.k%3Dv").await, 400, "is not a known field selector");
    expect(&list("labelSelector=a+b").await, 400, "unable to parse requirement");

    let path = format!("{MAPS}?resourceVersion=999");
    let (answer, ()) = tokio::join!(cluster.get(&path), async {
        tokio::task::yield_now().await;
        cluster.clock.advance(Duration::from_secs(4));
    });
    expect(&answer, 504, "Too large resource version: 999");
    assert_eq!(answer.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn continue_tokens_expire_and_can_be_continued_inconsistently() {
    let cluster = Cluster::start().await;
    for name in ["a", "b", "c"] {
        cluster.post(MAPS, &named(name)).await;
    }
    let first = cluster.get(&format!("{MAPS}?limit=1")).await.body;
    assert_eq!(first["metadata"]["remainingItemCount"], 2);
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    // Another resource's changes move the horizon too: it is the store's.
    for _ in 0..2 {
        cluster.clock.advance(Duration::from_secs(301));
        cluster.post(SERVICES, &service("s", json!({}))).await;
        cluster.delete(&format!("{SERVICES}/s")).await;
    }
    cluster.post(MAPS, &named("d")).await;
    let expired = cluster.get(&format!("{MAPS}?limit=1&continue={token}")).await;
    expect(&expired, 410, "The provided continue parameter is too old");
    let token = expired.body["metadata"]["continue"].as_str().unwrap();
    let rest = cluster.get(&format!("{MAPS}?continue={token}")).await.body;
    assert_eq!(names(&rest), ["b", "c", "d"]);
}

#[tokio::test]
async fn watches_begin_where_they_are_asked_to() {
    let cluster = Cluster::start().await;
    let one = version(&cluster.post(MAPS, &named("one")).await.body);
    cluster.post(MAPS, &named("two")).await;
    let watch = async |query: &str, lines: usize| cluster.watch(&format!("{MAPS}?watch=1&{query}"), lines).await;

    assert_eq!(kinds(&watch("", 2).await), ["ADDED", "ADDED"]);
    assert_eq!(kinds(&watch("resourceVersion=0", 2).await), ["ADDED", "ADDED"]);
    let events = watch(&format!("resourceVersion={one}"), 1).await;
    assert_eq!(events[0]["object"]["metadata"]["name"], "two");
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let events = watch(query, 3).await;
    assert_eq!(kinds(&events), ["ADDED", "ADDED", "BOOKMARK"]);
    let bookmark = &events[2]["object"]["metadata"];
    assert_eq!(bookmark["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(bookmark["resourceVersion"], events[1]["object"]["metadata"]["resourceVersion"]);
    let events = watch("fieldSelector=metadata.name%3Dtwo", 1).await;
    assert_eq!(events[0]["object"]["metadata"]["name"], "two");
    let answer = cluster.get(&format!("{MAPS}?watch=1&sendInitialEvents=true")).await;
    expect(&answer, 422, "sendInitialEvents requires setting resourceVersionMatch");
}

#[tokio::test]
async fn a_node_sees_its_pods_come_and_go() {
    let cluster = Cluster::start().await;
    let start = version(&cluster.get(PODS).await.body);
    cluster.post(PODS, &pod("a")).await;
    cluster.post(PODS, &pod("b")).await;
    let path = format!("{PODS}?watch=1&resourceVersion={start}&fieldSelector=spec.nodeName%3Dn1");
    let watching = cluster.watch(&path, 3);
    let acting = async {
        tokio::task::yield_now().await;
        let target = json!({ "metadata": { "name": "a" }, "target": { "kind": "Node", "name": "n1" } });
        let bound = cluster.post(&format!("{PODS}/a/binding"), &target).await;
        assert_eq!(bound.code, StatusCode::CREATED, "{}", bound.body);
        let again = cluster.post(&format!("{PODS}/a/binding"), &target).await;
        expect(&again, 409, "pod a is already assigned to node \"n1\"");
        let gone = cluster.delete(&format!("{PODS}/a?gracePeriodSeconds=30")).await;
        assert_eq!(gone.body["metadata"]["deletionGracePeriodSeconds"], 30, "{}", gone.body);
        let shorter = cluster.delete(&format!("{PODS}/a?gracePeriodSeconds=60")).await;
        assert_eq!(shorter.body["metadata"]["deletionGracePeriodSeconds"], 30);
        cluster.delete(&format!("{PODS}/a?gracePeriodSeconds=0")).await;
        // A Pod without a node goes at once.
        cluster.delete(&format!("{PODS}/b")).await;
        assert_eq!(cluster.get(&format!("{PODS}/b")).await.code, StatusCode::NOT_FOUND);
    };
    let (events, ()) = tokio::join!(watching, acting);
    assert_eq!(kinds(&events), ["ADDED", "MODIFIED", "DELETED"]);
    assert_eq!(events[0]["object"]["status"]["conditions"][0]["type"], "PodScheduled");
}

#[tokio::test]
async fn names_and_preconditions_are_checked() {
    let cluster = Cluster::start().await;
    let generated = cluster.post(MAPS, &json!({ "metadata": { "generateName": "g-" } })).await;
    let name = generated.body["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("g-") && name.len() == 7, "{name}");
    expect(&cluster.post(MAPS, &json!({})).await, 422, "name or generateName is required");
    expect(&cluster.post(MAPS, &named("A_b")).await, 422, "a lowercase RFC 1123 subdomain");
    let elsewhere = json!({ "metadata": { "name": "a", "namespace": "m" } });
    expect(&cluster.post(MAPS, &elsewhere).await, 400, "does not match the namespace sent on the request");
    expect(&cluster.put(&format!("{MAPS}/{name}"), &named("b")).await, 400, "does not match the name on the URL");
    expect(&cluster.put(&format!("{MAPS}/b"), &named("b")).await, 404, "configmaps \"b\" not found");
    let wrong = json!({ "preconditions": { "uid": "other" } });
    let answer = cluster.send("DELETE", &format!("{MAPS}/{name}"), &[], wrong.to_string()).await;
    expect(&answer, 409, "the UID in the precondition (other) does not match");
    expect(
        &cluster.post(PODS, &json!({ "kind": "Service", "apiVersion": "v1" })).await,
        400,
        "cannot be handled as a Pod",
    );
    expect(&cluster.post(MAPS, &json!({ "data": 1 })).await, 400, "cannot unmarshal number");
    expect(&cluster.patch(&format!("{MAPS}/{name}"), "apply-patch+cbor; x", &json!({})).await, 415, "");
    assert_eq!(cluster.post("/api/v1/configmaps", &named("a")).await.code, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn services_get_addresses_and_ports_that_nobody_else_has() {
    let cluster = Cluster::start().await;
    let create = async |name: &str, spec: Value| cluster.post(SERVICES, &service(name, spec)).await;

    let a = create("a", json!({ "clusterIP": "10.96.0.10" })).await.body;
    assert_eq!(a["spec"]["clusterIPs"], json!(["10.96.0.10"]));
    assert_eq!(a["spec"]["ipFamilies"], json!(["IPv4"]));
    expect(&create("b", json!({ "clusterIP": "10.96.0.10" })).await, 422, "provided IP is already allocated");
    expect(&create("b", json!({ "clusterIP": "10.1.0.10" })).await, 422, "does not match the current range");
    cluster.delete(&format!("{SERVICES}/a")).await;
    assert_eq!(create("b", json!({ "clusterIP": "10.96.0.10" })).await.code, StatusCode::CREATED);

    let c = create("c", json!({ "type": "NodePort" })).await.body;
    let port = c["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30086..=32767).contains(&port), "{port}");
    let same = json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": port }] });
    expect(&create("d", same.clone()).await, 422, "provided port is already allocated");
    // An update that leaves out what was given keeps it.
    let mut bare = service("c", json!({ "type": "NodePort" }));
    bare["metadata"]["labels"] = json!({ "x": "y" });
    let kept = cluster.put(&format!("{SERVICES}/c"), &bare).await.body;
    assert_eq!(kept["spec"]["clusterIP"], c["spec"]["clusterIP"], "{kept}");
    assert_eq!(kept["spec"]["ports"][0]["nodePort"], port);
    // A Service that needs no port any more frees it.
    let patch = json!({ "spec": { "type": "ClusterIP", "ports": [{ "port": 80, "nodePort": null }] } });
    let plain = cluster.patch(&format!("{SERVICES}/c"), "merge-patch", &patch).await;
    assert_eq!(plain.code, StatusCode::OK, "{}", plain.body);
    assert_eq!(create("d", same).await.code, StatusCode::CREATED);
    let headless = create("e", json!({ "clusterIP": "None" })).await.body;
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    // What has gone out of the history is still known.
    for _ in 0..3 {
        cluster.clock.advance(Duration::from_secs(301));
        cluster.post(MAPS, &json!({ "metadata": { "generateName": "tick-" } })).await;
    }
    expect(&create("f", json!({ "clusterIP": "10.96.0.10" })).await, 422, "provided IP is already allocated");
    // A condition may come without a time.
    let condition = json!({ "type": "T", "status": "True", "reason": "R", "message": "", "lastTransitionTime": null });
    let patch = json!({ "status": { "conditions": [condition] } });
    let answer = cluster.patch(&format!("{SERVICES}/c/status"), "merge-patch", &patch).await;
    assert_eq!(answer.code, StatusCode::OK, "{}", answer.body);
    assert_eq!(answer.body["status"]["conditions"][0]["lastTransitionTime"], "0001-01-01T00:00:00Z");
    // A dry run holds nothing.
    let dry =
        cluster.post(&format!("{SERVICES}?dryRun=All"), &service("f", json!({ "clusterIP": "10.96.0.11" }))).await;
    assert_eq!(dry.code, StatusCode::CREATED, "{}", dry.body);
    assert_eq!(create("f", json!({ "clusterIP": "10.96.0.11" })).await.code, StatusCode::CREATED);
}

#[tokio::test]
async fn scaling_changes_nothing_but_replicas() {
    let cluster = Cluster::start().await;
    let template = json!({
        "metadata": { "labels": { "app": "a" } }, "spec": { "containers": [{ "name": "c", "image": "i" }] }
    });
    let spec = json!({ "replicas": 1, "selector": { "app": "a" }, "template": template });
    let path = "/api/v1/namespaces/n/replicationcontrollers";
    cluster.post(path, &json!({ "metadata": { "name": "r" }, "spec": spec })).await;
    let scale = cluster.get(&format!("{path}/r/scale")).await.body;
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(1)));
    assert_eq!(scale["status"]["selector"], "app=a");
    let mut wanted = scale.clone();
    wanted["spec"]["replicas"] = json!(3);
    let answer = cluster.put(&format!("{path}/r/scale"), &wanted).await;
    assert_eq!(answer.body["spec"]["replicas"], 3, "{}", answer.body);
    expect(&cluster.put(&format!("{path}/r/scale"), &wanted).await, 409, "the object has been modified");
    let patch = json!({ "spec": { "replicas": -1 } });
    expect(&cluster.patch(&format!("{path}/r/scale"), "merge-patch", &patch).await, 422, "greater than or equal to 0");
    assert_eq!(cluster.get(&format!("{path}/r")).await.body["metadata"]["generation"], 2);
}

#[tokio::test]
async fn events_are_one_object_in_two_groups_and_expire() {
    let cluster = Cluster::start().await;
    let old = "/api/v1/namespaces/n/events";
    let new = "/apis/events.k8s.io/v1/namespaces/n/events";
    let event = json!({
        "metadata": { "name": "e" }, "involvedObject": { "kind": "Pod", "name": "p", "namespace": "n" },
        "reason": "Began", "message": "hello", "type": "Normal", "source": { "component": "test" }
    });
    let created = cluster.post(old, &event).await;
    assert_eq!(created.code, StatusCode::CREATED, "{}", created.body);
    let seen = cluster.get(&format!("{new}/e")).await.body;
    assert_eq!((&seen["regarding"]["name"], &seen["note"]), (&json!("p"), &json!("hello")));
    assert_eq!(seen["apiVersion"], "events.k8s.io/v1");
    let selected = cluster.get(&format!("{old}?fieldSelector=involvedObject.name%3Dp")).await.body;
    assert_eq!(names(&selected), ["e"]);
    let start = version(&seen);
    let path = format!("{old}?watch=1&timeoutSeconds=9000&resourceVersion={start}");
    let (gone, ()) = tokio::join!(cluster.watch(&path, 1), async {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        cluster.clock.advance(Duration::from_secs(3601));
    });
    // The watch's own time is not over: it is the event that is.
    assert_eq!(kinds(&gone), ["DELETED"]);
}

#[tokio::test]
async fn answers_come_in_the_form_that_is_accepted() {
    let cluster = Cluster::start().await;
    cluster.post(MAPS, &named("a")).await;
    let accept = async |text: &str| cluster.send("GET", &format!("{MAPS}/a"), &[("accept", text)], "").await;
    let partial = accept("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").await.body;
    assert_eq!((&partial["kind"], &partial["metadata"]["name"]), (&json!("PartialObjectMetadata"), &json!("a")));
    let message = accept("application/vnd.kubernetes.protobuf, application/json").await.body;
    assert!(message.as_str().is_some_and(|text| text.starts_with("k8s\0")), "{message}");
    assert_eq!(accept("application/json, application/vnd.kubernetes.protobuf").await.body["kind"], "ConfigMap");
    expect(&accept("text/html").await, 406, "Available representations: application/json");
    let yaml = accept("application/yaml").await.body;
    assert!(yaml.as_str().unwrap().contains("kind: ConfigMap"), "{yaml}");
    let body = "metadata: {name: b}\ndata: {mode: \"0644\"}\n";
    let answer = cluster.send("POST", MAPS, &[("content-type", "application/yaml")], body).await;
    assert_eq!(answer.body["data"]["mode"], "0644", "{}", answer.body);
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let review = json!({ "spec": { "nonResourceAttributes": { "path": "/", "verb": "get" } } }).to_string();
    let table = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")];
    expect(&cluster.send("POST", reviews, &table, review).await, 406, "only the following media types are accepted");
    let version = cluster.get("/version").await.body;
    assert_eq!((&version["minor"], &version["gitVersion"]), (&json!("37"), &json!("v1.37.2")));
    expect(&cluster.get("/api/v1/nonsense").await, 404, "the server could not find the requested resource");
    let resources = cluster.get("/api/v1").await.body;
    let pods = resources["resources"].as_array().unwrap().iter().find(|one| one["name"] == "pods").unwrap();
    assert_eq!(pods["shortNames"], json!(["po"]));
}

#[tokio::test]
async fn health_is_told_check_by_check() {
    let cluster = Cluster::start().await;
    let told = async |path: &str| {
        let answer = cluster.get(path).await;
        (answer.code.as_u16(), answer.body.as_str().unwrap_or_default().to_owned())
    };
    let (code, text) = told("/readyz").await;
    assert!(code == 500 && text.contains("[-]poststarthook/rbac/bootstrap-roles failed: reason withheld\n"), "{text}");
    assert!(text.ends_with("\nreadyz check failed\n"), "{text}");
    assert_eq!(
        told("/livez/poststarthook/rbac/bootstrap-roles").await,
        (500, "internal server error: not finished\n".into())
    );
    cluster.api.state.ready.store(true, std::sync::atomic::Ordering::Release);
    for path in ["/healthz", "/livez", "/readyz", "/readyz/etcd", "/livez/poststarthook/rbac/bootstrap-roles"] {
        assert_eq!(told(path).await, (200, "ok".to_owned()), "{path}");
    }
    let (code, text) = told("/livez?verbose&exclude=etcd&exclude=strange").await;
    let begin = "[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\n";
    let end = "warn: some health checks cannot be excluded: no matches for \"strange\"\nlivez check passed\n";
    assert!(code == 200 && text.starts_with(begin) && text.ends_with(end), "{text}");
    assert_eq!(told("/livez/shutdown").await.0, 404, "asked for by readyz alone");
    cluster.api.state.ending.store(true, std::sync::atomic::Ordering::Release);
    assert_eq!(told("/livez").await.0, 200);
    let (code, text) = told("/readyz?exclude=shutdown").await;
    assert_eq!((code, &*text), (200, "ok"));
    assert!(told("/readyz").await.1.contains("[-]shutdown failed"));
    let slis = told("/metrics/slis").await.1;
    assert!(slis.contains("kubernetes_healthcheck{name=\"shutdown\",type=\"readyz\"} 0\n"), "{slis}");
}

#[tokio::test]
async fn proxied_pages_begin_with_a_slash() {
    let cluster = Cluster::start().await;
    let pods = "/api/v1/namespaces/n/pods";
    let answer = cluster.send("GET", &format!("{pods}/p:80/proxy?a=b"), &[], "").await;
    assert_eq!(answer.code, StatusCode::MOVED_PERMANENTLY);
    expect(&cluster.get(&format!("{pods}/p:80/proxy/")).await, 404, "pods \"p\" not found");
    let mut held = pod("p");
    held["spec"]["hostNetwork"] = json!(true);
    cluster.post(pods, &held).await;
    let patch = json!({ "status": { "podIP": "127.0.0.1", "podIPs": [{ "ip": "127.0.0.1" }] } });
    cluster.patch(&format!("{pods}/p/status"), "merge-patch", &patch).await;
    expect(&cluster.get(&format!("{pods}/p:80/proxy/")).await, 400, "address not allowed");
}
