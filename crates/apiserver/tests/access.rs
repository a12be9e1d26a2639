//! The way of a request through authentication, impersonation and authorisation: every way of proving an identity, on a server
//! with the default roles.

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use tempfile::TempDir;
use xebec_apiserver::admission::Plugins;
use xebec_apiserver::audit::{Audit, Policy, Sink};
use xebec_apiserver::authn::{
    Anonymous, Authenticator, BootstrapTokens, Certificates, PeerCertificate, RequestHeaderSettings, RequestHeaders,
    ServiceAccounts, SigningKey, TokenFile, TokenKeys, TokenSettings,
};
use xebec_apiserver::authz::{self, Authorizer};
use xebec_apiserver::chain::{self, Origin};
use xebec_apiserver::registry::RegistryConfig;
use xebec_apiserver::{Registry, ServerParts, ServerState, authn, body, bootstrap, resources};
use xebec_base::{SharedClock, Shutdown, SystemClock};
use xebec_pki::{Authority, ClientTrust, Profile, ServiceAccountKey};
use xebec_store::Memory;

const TOKENS: &str =
    "admin-token,root,1,\"system:masters\"\njane-token,jane,2,dev\nnode-token,system:node:n1,3,system:nodes\n";

struct House {
    state: Arc<ServerState>,
    authority: Authority,
    /// Of the certificates that may speak for users.
    proxies: Authority,
    shutdown: Shutdown,
    _folder: TempDir,
}

impl Drop for House {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

/// How a request proves who sends it.
#[derive(Clone, Copy)]
enum Proof<'a> {
    None,
    Token(&'a str),
    Certificate(&'a PeerCertificate),
    /// A proxy's certificate, and the user and group that it names.
    Proxy(&'a PeerCertificate, &'a str, &'a str),
}

async fn house() -> House {
    house_with(None).await
}

async fn house_with(audit: Option<Arc<Audit>>) -> House {
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
    let authority = Authority::load_or_create(folder.path(), "ca", clock.clone()).unwrap();
    let trust = ClientTrust::new(&authority.pem(), clock.clone()).unwrap();
    let proxies = Authority::load_or_create(folder.path(), "proxies", clock.clone()).unwrap();
    let proxy_trust = ClientTrust::new(&proxies.pem(), clock).unwrap();
    let settings = RequestHeaderSettings { allowed_names: vec!["proxy".to_owned()], ..Default::default() };
    let headers = RequestHeaders::new(proxy_trust, settings);
    let key = ServiceAccountKey::load_or_create(folder.path(), "sa").unwrap();
    let settings = TokenSettings::default_for("10.1.2.3:6443");
    let audiences = settings.audiences.clone();
    let keys = TokenKeys::new(SigningKey::of(&key).unwrap(), Vec::new());
    let accounts = Arc::new(ServiceAccounts::new(registry.clone(), keys, settings));
    let path = folder.path().join("tokens.csv");
    std::fs::write(&path, TOKENS).unwrap();
    let ways: Vec<Arc<dyn Authenticator>> = vec![
        Arc::new(headers),
        Arc::new(Certificates::new(trust)),
        Arc::new(TokenFile::read(&path, audiences).unwrap()),
        accounts.clone(),
        Arc::new(BootstrapTokens::new(registry.clone(), Vec::new())),
    ];
    let policies: Vec<Arc<dyn Authorizer>> = vec![
        Arc::new(authz::Masters),
        Arc::new(authz::node::Node::new(registry.clone())),
        Arc::new(authz::rbac::Rbac::new(registry.clone())),
    ];
    let parts = ServerParts {
        authenticator: Arc::new(authn::Union(ways)),
        authorizer: Arc::new(authz::Union(policies)),
        token_issuer: Some(accounts),
        audit,
        anonymous: Default::default(),
        limits: Default::default(),
        store_metrics: None,
        node_tls: None,
        advertised: "10.1.2.3:6443".to_owned(),
    };
    House { state: ServerState::new(registry, parts), authority, proxies, shutdown, _folder: folder }
}

impl House {
    async fn send(&self, proof: Proof<'_>, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method.parse::<Method>().unwrap()).uri(path);
        let mut certificate = None;
        match proof {
            Proof::None => {}
            Proof::Token(token) => request = request.header("authorization", format!("Bearer {token}")),
            Proof::Certificate(one) => certificate = Some(one),
            Proof::Proxy(one, user, group) => {
                certificate = Some(one);
                request = request.header("x-remote-user", user).header("x-remote-group", group);
            }
        }
        let bytes = if body.is_null() { String::new() } else { body.to_string() };
        let request = request.body(body::full(bytes)).unwrap();
        let origin = Origin::Connection { certificate, address: "127.0.0.1" };
        let response = chain::serve(&self.state, request, origin).await;
        let code = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        // Policies read the caches, which follow the writes a moment later.
        self.state.registry.catch_up().await.unwrap();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// The name and groups that the server knows the sender by.
    async fn who(&self, proof: Proof<'_>) -> Result<String, u16> {
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let (code, answer) = self.send(proof, "POST", path, json!({})).await;
        if code != StatusCode::CREATED {
            return Err(code.as_u16());
        }
        let user = &answer["status"]["userInfo"];
        let groups: Vec<&str> = user["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        Ok(format!("{} {}", user["username"].as_str().unwrap_or(""), groups.join(",")))
    }

    async fn check(&self, proof: Proof<'_>, request: &str, code: u16, message: &str) {
        let (method, path) = request.split_once(' ').unwrap();
        let (got, answer) = self.send(proof, method, path, Value::Null).await;
        let shown = if got.is_success() { "" } else { answer["message"].as_str().unwrap_or("") };
        assert_eq!((got.as_u16(), shown), (code, message), "{request}");
    }
}

fn peer(house: &House, profile: &Profile) -> PeerCertificate {
    signed(&house.authority, profile)
}

fn signed(authority: &Authority, profile: &Profile) -> PeerCertificate {
    let identity = authority.issue(profile).unwrap();
    let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes()).collect::<Result<_, _>>().unwrap();
    PeerCertificate::new(chain)
}

#[tokio::test]
async fn senders_are_known_by_what_they_prove() {
    let house = house().await;
    let admin = peer(&house, &Profile::client("admin", ["system:masters", "ops"]));
    assert_eq!(
        house.who(Proof::Certificate(&admin)).await,
        Ok("admin system:masters,ops,system:authenticated".to_owned())
    );
    assert_eq!(house.who(Proof::Token("jane-token")).await, Ok("jane dev,system:authenticated".to_owned()));
    assert_eq!(house.who(Proof::Token("no-token")).await, Err(401));
    assert_eq!(house.who(Proof::None).await, Err(403));
    let other = self::house().await;
    let strange = peer(&other, &Profile::client("admin", ["system:masters"]));
    assert_eq!(house.who(Proof::Certificate(&strange)).await, Err(401));
    assert_eq!(house.who(Proof::Certificate(&strange)).await, Err(401), "the second request of a connection");
}

#[tokio::test]
async fn a_pods_token_works_until_the_pod_is_gone() {
    let house = house().await;
    let admin = Proof::Token("admin-token");
    let send = async |method: &str, path: &str, body: Value| {
        let (code, answer) = house.send(admin, method, path, body).await;
        assert!(code.is_success(), "{method} {path}: {answer}");
        answer
    };
    let base = "/api/v1/namespaces/default";
    send("POST", &format!("{base}/serviceaccounts"), json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    send("POST", &format!("{base}/pods"), pod).await;
    let bound = json!({"spec": {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}}});
    let answer = send("POST", &format!("{base}/serviceaccounts/default/token"), bound).await;
    let token = answer["status"]["token"].as_str().unwrap();
    let expected = "system:serviceaccount:default:default system:serviceaccounts,system:serviceaccounts:default,system:authenticated";
    assert_eq!(house.who(Proof::Token(token)).await, Ok(expected.to_owned()));
    let refusal = "pods is forbidden: User \"system:serviceaccount:default:default\" cannot list resource \"pods\" in API group \
                   \"\" in the namespace \"default\"";
    house.check(Proof::Token(token), "GET /api/v1/namespaces/default/pods", 403, refusal).await;
    house.check(Proof::Token(token), "GET /openid/v1/jwks", 200, "").await;
    send("DELETE", &format!("{base}/pods/p?gracePeriodSeconds=0"), Value::Null).await;
    assert_eq!(house.who(Proof::Token(token)).await, Err(401));
    house.check(Proof::Token(token), "GET /api/v1/namespaces/default/pods", 401, "Unauthorized").await;
}

#[tokio::test]
async fn policies_decide_for_everyone_else() {
    let house = house().await;
    let (jane, node) = (Proof::Token("jane-token"), Proof::Token("node-token"));
    house.check(Proof::Token("admin-token"), "GET /api/v1/nodes", 200, "").await;
    house.check(jane, "GET /version", 200, "").await;
    house.check(Proof::None, "GET /version", 200, "").await;
    house.check(jane, "GET /api", 200, "").await;
    let refusal = "forbidden: User \"system:anonymous\" cannot get path \"/api\"";
    house.check(Proof::None, "GET /api", 403, refusal).await;
    let refusal =
        "nodes is forbidden: User \"jane\" cannot list resource \"nodes\" in API group \"\" at the cluster scope";
    house.check(jane, "GET /api/v1/nodes", 403, refusal).await;
    house.check(node, "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn1", 200, "").await;
    let refusal = "secrets \"s\" is forbidden: User \"system:node:n1\" cannot get resource \"secrets\" in API group \"\" in the \
                   namespace \"default\": node: no relationship found between node 'n1' and this object";
    house.check(node, "GET /api/v1/namespaces/default/secrets/s", 403, refusal).await;
}

#[tokio::test]
async fn a_node_reads_what_its_pods_refer_to() {
    let house = house().await;
    let admin = Proof::Token("admin-token");
    let base = "/api/v1/namespaces/default";
    let post = async |what: &str, body: Value| {
        let (code, answer) = house.send(admin, "POST", &format!("{base}/{what}"), body).await;
        assert!(code.is_success(), "{answer}");
    };
    post("serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    for name in ["own", "other"] {
        post("secrets", json!({"metadata": {"name": name}})).await;
    }
    for (name, node, secret) in [("a", "n1", "own"), ("b", "n2", "other")] {
        let volume = json!({"name": "v", "secret": {"secretName": secret}});
        let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}], "volumes": [volume]});
        post("pods", json!({"metadata": {"name": name}, "spec": spec})).await;
    }
    let node = Proof::Token("node-token");
    let unrelated = |what: &str, name: &str| {
        format!(
            "{what} {name:?} is forbidden: User \"system:node:n1\" cannot get resource {what:?} in API group \"\" in the \
             namespace \"default\": node: no relationship found between node 'n1' and this object"
        )
    };
    house.check(node, &format!("GET {base}/secrets/own"), 200, "").await;
    house.check(node, &format!("GET {base}/secrets/other"), 403, &unrelated("secrets", "other")).await;
    house.check(node, &format!("GET {base}/pods/a"), 200, "").await;
    house.check(node, &format!("GET {base}/pods/b"), 403, &unrelated("pods", "b")).await;
    house.check(node, &format!("GET {base}/serviceaccounts/default"), 200, "").await;
    let missing = "configmaps \"kube-root-ca.crt\" not found";
    house.check(node, &format!("GET {base}/configmaps/kube-root-ca.crt"), 404, missing).await;
}

#[tokio::test]
async fn a_proxy_names_users() {
    let house = house().await;
    let proxy = |name: &str| signed(&house.proxies, &Profile::client(name, ["x"]));
    let expected = "jane dev,system:authenticated".to_owned();
    assert_eq!(house.who(Proof::Proxy(&proxy("proxy"), "jane", "dev")).await, Ok(expected));
    assert_eq!(house.who(Proof::Proxy(&proxy("other"), "jane", "dev")).await, Err(401), "a name that may not");
    let client = peer(&house, &Profile::client("joe", ["ops"]));
    let own = "joe ops,system:authenticated".to_owned();
    assert_eq!(house.who(Proof::Proxy(&client, "jane", "dev")).await, Ok(own), "of no proxy: it speaks for itself");
}

#[tokio::test]
async fn a_machine_joins_by_its_token() {
    let house = house().await;
    let token = Proof::Token("abcdef.0123456789abcdef");
    assert_eq!(house.who(token).await, Err(401));
    let data = json!({
        "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"
    });
    let secret = json!({
        "metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "stringData": data
    });
    let path = "/api/v1/namespaces/kube-system/secrets";
    let (code, answer) = house.send(Proof::Token("admin-token"), "POST", path, secret).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let expected = "system:bootstrap:abcdef system:bootstrappers,system:authenticated".to_owned();
    assert_eq!(house.who(token).await, Ok(expected));
}

#[tokio::test]
async fn anonymous_requests_end_where_they_may_not_begin() {
    let house = house().await;
    house.check(Proof::None, "GET /version", 200, "").await;
    house.state.anonymous.store(Arc::new(Anonymous::Paths(vec!["/livez".to_owned()])));
    house.check(Proof::None, "GET /version", 401, "Unauthorized").await;
    assert_eq!(house.send(Proof::None, "GET", "/livez", Value::Null).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    house.check(Proof::Token("jane-token"), "GET /version", 200, "").await;
    house.state.anonymous.store(Arc::new(Anonymous::Nowhere));
    house.check(Proof::None, "GET /livez", 401, "Unauthorized").await;
}

/// Keeps records as they come.
#[derive(Default)]
struct Kept(parking_lot::Mutex<Vec<Value>>);

impl Sink for Kept {
    fn record(&self, event: &[u8]) {
        self.0.lock().push(serde_json::from_slice(event).unwrap());
    }
}

#[tokio::test]
async fn requests_are_on_record() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("policy.yaml");
    let rules = "rules:\n- level: RequestResponse\n  resources: [{resources: [configmaps]}]\n- level: Metadata\n";
    let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\n";
    std::fs::write(&path, format!("{head}{rules}")).unwrap();
    let kept = Arc::new(Kept::default());
    let audit = Audit::new(Policy::read(&path).unwrap(), vec![kept.clone()], SystemClock::shared());
    let house = house_with(Some(audit)).await;
    let last = async |proof: Proof<'_>, method: &str, path: &str, body: Value| {
        house.send(proof, method, path, body).await;
        std::mem::take(&mut *kept.0.lock()).pop().unwrap()
    };
    let admin = Proof::Token("admin-token");
    let maps = "/api/v1/namespaces/default/configmaps";
    let record = last(admin, "POST", maps, json!({"metadata": {"name": "c"}, "data": {"a": "b"}})).await;
    let sent = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}, "data": {"a": "b"}});
    assert_eq!((&record["requestObject"], &record["responseObject"]["data"]), (&sent, &json!({"a": "b"})));
    assert_eq!((&record["objectRef"]["name"], &record["responseStatus"]["code"]), (&json!("c"), &json!(201)));
    let record = last(admin, "GET", maps, Value::Null).await;
    assert_eq!(record["responseObject"]["items"][0]["metadata"]["name"], "c", "lists too");

    let record = last(Proof::Token("jane-token"), "GET", "/api/v1/nodes", Value::Null).await;
    assert_eq!(
        (&record["user"]["username"], &record["responseStatus"]["reason"]),
        (&json!("jane"), &json!("Forbidden"))
    );
    assert_eq!(record["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(record["responseObject"], Value::Null);
    let record = last(Proof::Token("no-token"), "GET", "/api/v1/nodes", Value::Null).await;
    assert_eq!((&record["stage"], &record["user"]), (&json!("ResponseStarted"), &json!({})));
    assert_eq!(record["responseStatus"]["code"], 401);

    // A watch is on record when it begins and when it ends.
    let watch = "/api/v1/namespaces/default/secrets?watch=true&timeoutSeconds=1&resourceVersion=1";
    house.send(admin, "GET", watch, Value::Null).await;
    let stages: Vec<Value> = kept.0.lock().drain(..).map(|mut record| record["stage"].take()).collect();
    assert_eq!(stages, ["ResponseStarted", "ResponseComplete"]);
}

#[tokio::test]
async fn a_flood_is_told_to_come_back() {
    let house = house().await;
    let request = || {
        Request::builder()
            .uri("/api/v1/namespaces/default/pods")
            .header("authorization", "Bearer jane-token")
            .body(body::empty())
            .unwrap()
    };
    let origin = || Origin::Connection { certificate: None, address: "127.0.0.1" };
    let response = chain::serve(&house.state, request(), origin()).await;
    assert!(response.headers().contains_key("x-kubernetes-pf-flowschema-uid"));
    assert!(response.headers().contains_key("audit-id"));
    // Every seat and every place in jane's queues is taken.
    let user = authn::User::new("jane", &["dev", "system:authenticated"]);
    let info = xebec_apiserver::request_info::RequestInfo {
        is_resource: true,
        verb: "list",
        version: "v1",
        namespace: "default",
        resource: "pods",
        ..Default::default()
    };
    let options = xebec_apiserver::Options::default();
    let mut held = Vec::new();
    let mut waiting = Vec::new();
    let refused = loop {
        let mut entry = Box::pin(async { house.state.flow_control.enter(&user, &info, &options).await });
        match futures::poll!(&mut entry) {
            std::task::Poll::Ready(Ok(permit)) => held.push(permit),
            std::task::Poll::Ready(Err(refused)) => break refused,
            std::task::Poll::Pending => waiting.push(entry),
        }
    };
    assert_eq!(waiting.len(), 300, "six queues of fifty");
    assert!((49..100).contains(&held.len()), "20 of 245 shares of 600 seats, and what others lend: {}", held.len());
    assert_eq!(refused.retry_after, 1);
    let response = chain::serve(&house.state, request(), origin()).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(response.headers().contains_key("retry-after"));
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&bytes[..], b"Too many requests, please try again later.\n");
    house.check(Proof::Token("admin-token"), "GET /api/v1/namespaces/default/pods", 200, "").await;
}
