//! What a user of one namespace learns of another: nothing.
//!
//! Two servers differ in one thing: on the first, a namespace with objects exists of which the user must not know. The user
//! sends the same requests to both, every verb to everything that discovery names, and gets the same answers: whatever could
//! be told apart would be learned.

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use xebec_apiserver::admission::Plugins;
use xebec_apiserver::authn::{TokenFile, Union};
use xebec_apiserver::authz::{self, Authorizer};
use xebec_apiserver::chain::{self, Origin};
use xebec_apiserver::registry::RegistryConfig;
use xebec_apiserver::{Registry, ServerParts, ServerState, body, bootstrap, resources};
use xebec_base::{SharedClock, Shutdown, SystemClock};
use xebec_store::Memory;

const TOKENS: &str = "admin-token,root,1,\"system:masters\"\njane-token,jane,2,dev\n";
/// The name that everything of the hidden namespace has, and the word that is in all of it.
const NAME: &str = "thing";
const HIDDEN: &str = "hidden";
const WORD: &str = "plugh";

struct World {
    state: Arc<ServerState>,
    shutdown: Shutdown,
    _folder: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

/// One question. The body is sent as JSON, or as a merge patch.
struct Question {
    method: Method,
    path: String,
    accept: &'static str,
    body: Value,
}

/// What comes back, without what no two answers share.
#[derive(Debug, PartialEq)]
struct Answer {
    code: StatusCode,
    headers: Vec<(String, String)>,
    text: String,
}

async fn world(with_hidden: bool) -> World {
    let folder = TempDir::new().unwrap();
    let clock: SharedClock = SystemClock::shared();
    let shutdown = Shutdown::new();
    let config = RegistryConfig {
        store: Arc::new(Memory::default()),
        rows: resources::rows(),
        plugins: Plugins::standard(),
        service_ranges: Default::default(),
        clock: clock.clone(),
    };
    let registry = Registry::load(config, &shutdown).await.unwrap();
    bootstrap::run(&registry, "10.1.2.3:6443".parse().unwrap()).await.unwrap();
    let path = folder.path().join("tokens.csv");
    std::fs::write(&path, TOKENS).unwrap();
    let policies: Vec<Arc<dyn Authorizer>> = vec![
        Arc::new(authz::Masters),
        Arc::new(authz::node::Node::new(registry.clone())),
        Arc::new(authz::rbac::Rbac::new(registry.clone())),
    ];
    let parts = ServerParts {
        authenticator: Arc::new(Union(vec![Arc::new(TokenFile::read(&path, Vec::new()).unwrap())])),
        authorizer: Arc::new(authz::Union(policies)),
        token_issuer: None,
        audit: None,
        anonymous: Default::default(),
        limits: Default::default(),
        store_metrics: None,
        node_tls: None,
        advertised: "10.1.2.3:6443".to_owned(),
    };
    let world = World { state: ServerState::new(registry, parts), shutdown, _folder: folder };
    // A role that aggregates others has its rules from the start.
    let aggregation = bootstrap::Aggregation::of(&world.state.registry).expect("roles are served");
    world.shutdown.spawn(aggregation.run());
    world.fill("own", "mine").await;
    if with_hidden {
        world.fill(HIDDEN, WORD).await;
    }
    let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin" });
    let subject = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane" });
    let binding = json!({ "metadata": { "name": "jane" }, "roleRef": role, "subjects": [subject] });
    world.admin("/apis/rbac.authorization.k8s.io/v1/namespaces/own/rolebindings", binding).await;
    world.until_admin_has_rules().await;
    world
}

impl World {
    async fn fill(&self, namespace: &str, word: &str) {
        self.admin("/api/v1/namespaces", json!({ "metadata": { "name": namespace } })).await;
        let core = format!("/api/v1/namespaces/{namespace}");
        let meta = json!({ "name": NAME, "labels": { "app": word }, "annotations": { "note": word } });
        let containers = json!([{ "name": "c", "image": word }]);
        let template = json!({ "metadata": { "labels": { "app": word } }, "spec": { "containers": containers } });
        let selector = json!({ "matchLabels": { "app": word } });
        let objects = [
            ("serviceaccounts", json!({ "metadata": { "name": "default" } })),
            ("configmaps", json!({ "metadata": meta, "data": { "a": word } })),
            ("secrets", json!({ "metadata": meta, "stringData": { "a": word } })),
            ("services", json!({ "metadata": meta, "spec": { "clusterIP": "None", "selector": { "app": word } } })),
            // Without the volume that has a name made up.
            (
                "pods",
                json!({
                    "metadata": meta, "spec": { "containers": containers, "automountServiceAccountToken": false }
                }),
            ),
            (
                "persistentvolumeclaims",
                json!({
                    "metadata": meta,
                    "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } }
                }),
            ),
        ];
        for (plural, object) in objects {
            self.admin(&format!("{core}/{plural}"), object).await;
        }
        let deployment =
            json!({ "metadata": meta, "spec": { "replicas": 0, "selector": selector, "template": template } });
        self.admin(&format!("/apis/apps/v1/namespaces/{namespace}/deployments"), deployment).await;
        let rules = json!([{ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }]);
        let role = json!({ "metadata": meta, "rules": rules });
        self.admin(&format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles"), role).await;
    }

    async fn admin(&self, path: &str, object: Value) -> Value {
        let method = if object.is_null() { Method::GET } else { Method::POST };
        let question = Question { method, path: path.to_owned(), accept: "application/json", body: object };
        let answer = self.send("admin-token", &question).await;
        assert!(answer.code.is_success(), "{path}: {}", answer.text);
        self.state.registry.catch_up().await.unwrap();
        serde_json::from_str(&answer.text).unwrap()
    }

    async fn until_admin_has_rules(&self) {
        loop {
            let role = self.admin("/apis/rbac.authorization.k8s.io/v1/clusterroles/admin", Value::Null).await;
            if role["rules"].as_array().is_some_and(|rules| !rules.is_empty()) {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn send(&self, token: &str, question: &Question) -> Answer {
        let patch = question.method == Method::PATCH;
        let media_type = if patch { "application/merge-patch+json" } else { "application/json" };
        let bytes = if question.body.is_null() { String::new() } else { question.body.to_string() };
        let request = Request::builder()
            .method(question.method.clone())
            .uri(&question.path)
            .header("authorization", format!("Bearer {token}"))
            .header("accept", question.accept)
            .header("content-type", media_type)
            .body(body::full(bytes))
            .unwrap();
        let origin = Origin::Connection { certificate: None, address: "127.0.0.1" };
        let response = chain::serve(&self.state, request, origin).await;
        let code = response.status();
        let mut headers: Vec<(String, String)> = response
            .headers()
            .iter()
            .filter(|(name, _)| *name != "audit-id" && *name != "content-length")
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("").to_owned()))
            .collect();
        headers.sort();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer { code, headers, text: String::from_utf8_lossy(&bytes).into_owned() }
    }
}

/// Numbers, times and names that the server makes up differ from one server to the next.
fn comparable(mut answer: Answer) -> Answer {
    const MADE_UP: [&str; 6] = ["resourceVersion", "uid", "creationTimestamp", "time", "continue", "managedFields"];
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|key, _| !MADE_UP.contains(&key.as_str()));
                map.values_mut().for_each(strip);
            }
            Value::Array(all) => all.iter_mut().for_each(strip),
            _ => {}
        }
    }
    // The flow schemas of two clusters have uids of their own.
    answer.headers.retain(|(name, _)| !name.starts_with("x-kubernetes-pf-"));
    let lines = answer.text.lines().map(|line| match serde_json::from_str::<Value>(line) {
        Ok(mut tree) => {
            strip(&mut tree);
            tree.to_string()
        }
        Err(_) => line.to_owned(),
    });
    answer.text = lines.collect::<Vec<_>>().join("\n");
    answer
}

const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";

fn ask(method: Method, path: impl Into<String>, accept: &'static str, body: Value) -> Question {
    Question { method, path: path.into(), accept, body }
}

/// Every way of reading and changing what lies at a collection's path.
fn about(collection: &str, kind: &str, api_version: &str) -> Vec<Question> {
    let mut all = Vec::new();
    // A watch that is let through ends at once.
    const QUERIES: [&str; 8] = [
        "",
        "?watch=true&timeoutSeconds=1&resourceVersion=1",
        "?limit=1",
        "?fieldSelector=metadata.name%3Dthing",
        "?fieldSelector=metadata.namespace%3Dhidden",
        "?labelSelector=app%3Dplugh",
        "?resourceVersion=0",
        "?continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJoaWRkZW4vdGhpbmdcdTAwMDAifQ",
    ];
    for query in QUERIES {
        for accept in [JSON, TABLE, METADATA_LIST] {
            all.push(ask(Method::GET, format!("{collection}{query}"), accept, Value::Null));
        }
    }
    let object = json!({ "kind": kind, "apiVersion": api_version, "metadata": { "name": NAME } });
    let one = format!("{collection}/{NAME}");
    for accept in [JSON, TABLE, METADATA] {
        all.push(ask(Method::GET, one.clone(), accept, Value::Null));
    }
    all.push(ask(Method::POST, format!("{collection}?dryRun=All"), JSON, object.clone()));
    all.push(ask(Method::PUT, format!("{one}?dryRun=All"), JSON, object.clone()));
    all.push(ask(Method::PATCH, format!("{one}?dryRun=All"), JSON, json!({ "metadata": { "labels": { "a": "b" } } })));
    all.push(ask(Method::DELETE, format!("{one}?dryRun=All"), JSON, Value::Null));
    all.push(ask(Method::DELETE, format!("{collection}?dryRun=All&labelSelector=app%3Dplugh"), JSON, Value::Null));
    all
}

/// Discovery as a list of (group and version, path of the version, resource).
async fn discovered(world: &World) -> Vec<(String, String, Value)> {
    let mut places = vec![("v1".to_owned(), "/api/v1".to_owned())];
    let groups = world.admin("/apis", Value::Null).await;
    for group in groups["groups"].as_array().unwrap() {
        for version in group["versions"].as_array().unwrap() {
            let name = version["groupVersion"].as_str().unwrap();
            places.push((name.to_owned(), format!("/apis/{name}")));
        }
    }
    let mut all = Vec::new();
    for (name, path) in places {
        let list = world.admin(&path, Value::Null).await;
        all.extend(list["resources"].as_array().unwrap().iter().map(|one| (name.clone(), path.clone(), one.clone())));
    }
    all
}

async fn questions(world: &World) -> Vec<Question> {
    let mut all = Vec::new();
    for (api_version, root, resource) in discovered(world).await {
        let (name, kind) = (resource["name"].as_str().unwrap(), resource["kind"].as_str().unwrap());
        let namespaced = resource["namespaced"] == true;
        if let Some((plural, subresource)) = name.split_once('/') {
            let place = if namespaced { format!("{root}/namespaces/{HIDDEN}") } else { root.clone() };
            // A namespace's own name is the one that must not be known.
            let object = if plural == "namespaces" { HIDDEN } else { NAME };
            let path = format!("{place}/{plural}/{object}/{subresource}");
            for method in [Method::GET, Method::PUT, Method::POST, Method::PATCH] {
                all.push(ask(method, path.clone(), JSON, json!({ "kind": kind, "apiVersion": api_version })));
            }
            continue;
        }
        all.extend(about(&format!("{root}/{name}"), kind, &api_version));
        if namespaced {
            all.extend(about(&format!("{root}/namespaces/{HIDDEN}/{name}"), kind, &api_version));
            all.push(ask(Method::GET, format!("{root}/watch/namespaces/{HIDDEN}/{name}"), JSON, Value::Null));
        }
        if name == "namespaces" {
            all.extend(
                [Method::GET, Method::DELETE, Method::PUT]
                    .map(|method| ask(method, format!("{root}/namespaces/{HIDDEN}?dryRun=All"), JSON, Value::Null)),
            );
        }
    }
    for path in ["/metrics", "/metrics/slis", "/debug/pprof/heap", "/debug/pprof/profile", "/logs/", "/api", "/version"]
    {
        all.push(ask(Method::GET, path, JSON, Value::Null));
    }
    for namespace in [HIDDEN, "own"] {
        let spec = json!({ "spec": { "namespace": namespace } });
        all.push(ask(Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", JSON, spec));
        let attributes = json!({ "namespace": namespace, "verb": "get", "resource": "secrets", "name": NAME });
        let spec = json!({ "spec": { "resourceAttributes": attributes, "user": "root" } });
        all.push(ask(Method::POST, "/apis/authorization.k8s.io/v1/subjectaccessreviews", JSON, spec.clone()));
        let local = format!("/apis/authorization.k8s.io/v1/namespaces/{namespace}/localsubjectaccessreviews");
        all.push(ask(Method::POST, local, JSON, spec));
    }
    all
}

/// Ways out of the user's own namespace.
fn from_within() -> Vec<Question> {
    let own = "/api/v1/namespaces/own";
    let mut all: Vec<Question> = ["pods", "secrets", "configmaps", "services"]
        .iter()
        .flat_map(|plural| about(&format!("{own}/{plural}"), "Pod", "v1"))
        .filter(|question| question.method == Method::GET)
        // Watches that are let through last; one form of them is enough.
        .filter(|question| {
            !question.path.contains("watch=") || question.path.contains("pods") && question.accept == JSON
        })
        .collect();
    // An object that claims to lie elsewhere, and one that points there.
    let elsewhere = json!({ "metadata": { "name": "new", "namespace": HIDDEN } });
    all.push(ask(Method::POST, format!("{own}/configmaps?dryRun=All"), JSON, elsewhere));
    let reference = json!({ "kind": "Secret", "name": NAME, "namespace": HIDDEN });
    let endpoints = json!({
        "metadata": { "name": "new" }, "subsets": [{ "addresses": [{ "ip": "10.0.0.1", "targetRef": reference }] }]
    });
    all.push(ask(Method::POST, format!("{own}/endpoints?dryRun=All"), JSON, endpoints));
    let role = |kind: &str, name: &str| json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name });
    for (kind, name) in [("ClusterRole", "cluster-admin"), ("Role", NAME)] {
        let binding = json!({ "metadata": { "name": "new" }, "roleRef": role(kind, name) });
        let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/own/rolebindings?dryRun=All";
        all.push(ask(Method::POST, path, JSON, binding));
    }
    all
}

#[tokio::test]
async fn another_namespace_might_as_well_not_exist() {
    let (with, without) = (world(true).await, world(false).await);
    let mut all = questions(&with).await;
    assert!(all.len() > 1500, "discovery names little: {}", all.len());
    all.extend(from_within());
    let (mut refused, mut differing) = (0, Vec::new());
    for question in &all {
        let answer = comparable(with.send("jane-token", question).await);
        let other = comparable(without.send("jane-token", question).await);
        let shown = format!("{} {}", question.method, question.path);
        // Requests name the word themselves; answers that let something through must not.
        assert!(!answer.code.is_success() || !answer.text.contains(WORD), "{shown}: {}", answer.text);
        refused += usize::from(answer.code == StatusCode::FORBIDDEN);
        if answer != other {
            differing.push(format!("{shown}\n  {answer:?}\n  {other:?}"));
        }
    }
    assert!(differing.is_empty(), "{} answers tell the worlds apart:\n{}", differing.len(), differing.join("\n"));
    assert!(refused > all.len() / 2, "only {refused} of {} were refused", all.len());
}

/// The same questions tell an administrator a lot: they are not all refused for being nonsense.
#[tokio::test]
async fn the_questions_would_find_it() {
    let (with, without) = (world(true).await, world(false).await);
    let mut found = 0;
    let all = questions(&with).await;
    let lists =
        |one: &&Question| one.method == Method::GET && !one.path.contains("watch") && !one.path.contains("pprof");
    for question in all.iter().filter(lists) {
        let answer = comparable(with.send("admin-token", question).await);
        found += usize::from(answer != comparable(without.send("admin-token", question).await));
    }
    assert!(found > 100, "an administrator sees {found} differences");
}
