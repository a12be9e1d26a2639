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
use xebec_apiserver::authn::{
    Authenticator, Certificates, PeerCertificate, ServiceAccounts, SigningKey, TokenFile, TokenKeys, TokenSettings,
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
}

async fn house() -> House {
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
    let trust = ClientTrust::new(&authority.pem(), clock).unwrap();
    let key = ServiceAccountKey::load_or_create(folder.path(), "sa").unwrap();
    let settings = TokenSettings::default_for("10.1.2.3:6443");
    let audiences = settings.audiences.clone();
    let keys = TokenKeys::new(SigningKey::of(&key).unwrap(), Vec::new());
    let accounts = Arc::new(ServiceAccounts::new(registry.clone(), keys, settings));
    let path = folder.path().join("tokens.csv");
    std::fs::write(&path, TOKENS).unwrap();
    let ways: Vec<Arc<dyn Authenticator>> = vec![
        Arc::new(Certificates::new(trust)),
        Arc::new(TokenFile::read(&path, audiences).unwrap()),
        accounts.clone(),
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
        audit: None,
        anonymous: Default::default(),
        limits: Default::default(),
        store_metrics: None,
        node_tls: None,
        advertised: "10.1.2.3:6443".to_owned(),
    };
    House { state: ServerState::new(registry, parts), authority, shutdown, _folder: folder }
}

impl House {
    async fn send(&self, proof: Proof<'_>, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method.parse::<Method>().unwrap()).uri(path);
        let mut certificate = None;
        match proof {
            Proof::None => {}
            Proof::Token(token) => request = request.header("authorization", format!("Bearer {token}")),
            Proof::Certificate(one) => certificate = Some(one),
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
    let identity = house.authority.issue(profile).unwrap();
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
