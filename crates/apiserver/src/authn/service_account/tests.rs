//! Tokens issued and checked on the memory store.

use http::{HeaderMap, HeaderValue, Uri};
use k8s_openapi::api::core::v1::Namespace;
use serde_json::json;
use xebec_pki::ServiceAccountKey;

use super::*;
use crate::registry::{Call, DeleteRequest};
use crate::testing::{self, create};

struct House {
    registry: Arc<Registry>,
    accounts: ServiceAccounts,
    _folder: tempfile::TempDir,
}

async fn house() -> House {
    let folder = tempfile::TempDir::new().unwrap();
    let key = ServiceAccountKey::load_or_create(folder.path(), "sa").unwrap();
    let registry = testing::registry().await;
    create::<Namespace>(&registry, json!({"metadata": {"name": "ns"}})).await.unwrap();
    create::<ServiceAccount>(&registry, json!({"metadata": {"name": "robot", "namespace": "ns"}})).await.unwrap();
    create::<Pod>(
        &registry,
        json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"serviceAccountName": "robot", "nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}
        }),
    )
    .await
    .unwrap();
    let settings = TokenSettings::default_for("10.1.2.3:6443");
    let keys = TokenKeys::new(SigningKey::of(&key).unwrap(), Vec::new());
    House { accounts: ServiceAccounts::new(registry.clone(), keys, settings), registry, _folder: folder }
}

impl House {
    async fn issue(&self, spec: Value, warnings: &mut Vec<String>) -> Result<TokenRequest, StatusError> {
        self.issue_for(&User::master("admin"), spec, warnings).await
    }

    async fn issue_for(
        &self,
        user: &Arc<User>,
        spec: Value,
        warnings: &mut Vec<String>,
    ) -> Result<TokenRequest, StatusError> {
        let request = serde_json::from_value(json!({ "spec": spec })).unwrap();
        let account = self.registry.get::<ServiceAccount>("ns", "robot").unwrap();
        self.accounts.issue(&self.registry, user, &account, request, warnings).await
    }

    async fn token(&self, spec: Value) -> String {
        self.issue(spec, &mut Vec::new()).await.unwrap().status.unwrap().token.unwrap()
    }

    async fn who(&self, token: &str) -> Result<Option<Arc<User>>, String> {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
        let credentials = Credentials { headers: &headers, uri: &Uri::from_static("/"), certificate: None };
        self.accounts.authenticate(&credentials).await.map_err(|error| error.to_string())
    }

    async fn delete<K: Kind>(&self, name: &str) {
        let served = self.registry.index.find(K::GROUP, K::VERSION, K::URL_PATH_SEGMENT).unwrap();
        let options = serde_json::from_value(json!({"gracePeriodSeconds": 0})).unwrap();
        let request = DeleteRequest { namespace: "ns", name, options: &options };
        self.registry.delete(served, &request, &mut Call::new(&User::master("admin"))).await.unwrap();
        self.registry.catch_up().await.unwrap();
    }
}

fn pod_ref() -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "name": "p"})
}

#[tokio::test]
async fn a_token_names_its_account_and_pod() {
    let house = house().await;
    let user = house.who(&house.token(json!({})).await).await.unwrap().unwrap();
    assert_eq!(user.name, "system:serviceaccount:ns:robot");
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns"]);
    assert_eq!(user.extra.len(), 1, "{:?}", user.extra);
    let user = house.who(&house.token(json!({"boundObjectRef": pod_ref()})).await).await.unwrap().unwrap();
    let extra = |key: &str| user.extra[&format!("authentication.kubernetes.io/{key}")][0].clone();
    assert_eq!((extra("pod-name"), extra("node-name")), ("p".to_owned(), "n1".to_owned()));
    assert!(extra("credential-id").starts_with("JTI="));
    assert_eq!(house.who("no.jwt.atall").await, Ok(None));
}

#[tokio::test]
async fn a_token_ends_with_what_it_is_bound_to() {
    let house = house().await;
    let (plain, bound) = (house.token(json!({})).await, house.token(json!({"boundObjectRef": pod_ref()})).await);
    house.delete::<Pod>("p").await;
    assert_eq!(house.who(&bound).await, Err("service account token has been invalidated".to_owned()));
    assert!(house.who(&plain).await.unwrap().is_some());
    house.delete::<ServiceAccount>("robot").await;
    assert_eq!(house.who(&plain).await, Err("serviceaccounts \"robot\" not found".to_owned()));
    create::<ServiceAccount>(&house.registry, json!({"metadata": {"name": "robot", "namespace": "ns"}})).await.unwrap();
    let error = house.who(&plain).await.unwrap_err();
    assert!(error.starts_with("service account UID"), "{error}");
}

#[tokio::test]
async fn forged_and_foreign_tokens_are_refused() {
    let house = house().await;
    let token = house.token(json!({})).await;
    let mut parts: Vec<&str> = token.split('.').collect();
    let other = house.token(json!({"boundObjectRef": pod_ref()})).await;
    let payload = other.split('.').nth(1).unwrap();
    parts[1] = payload;
    assert!(house.who(&parts.join(".")).await.unwrap_err().starts_with("the token cannot be verified"));
    // Whose algorithm says that there is nothing to be verified.
    let nothing = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, r#"{"alg":"none"}"#);
    let unsigned = format!("{nothing}.{payload}.");
    assert!(house.who(&unsigned).await.unwrap_err().starts_with("the token cannot be verified"));
    let another = self::house().await;
    let foreign = another.token(json!({})).await;
    assert!(house.who(&foreign).await.unwrap_err().starts_with("the token cannot be verified"));
    let vault = house.token(json!({"audiences": ["vault"]})).await;
    assert!(house.who(&vault).await.unwrap_err().contains("is invalid for the target audiences"));
    let found = house.accounts.review(&vault, &["vault".to_owned(), "x".to_owned()]).await.unwrap().unwrap();
    assert_eq!(found.audiences, ["vault"]);
}

async fn check_refused(house: &House, spec: Value, message: &str) {
    let error = house.issue(spec.clone(), &mut Vec::new()).await.err().unwrap();
    assert_eq!(error.to_string(), message, "{spec}");
}

#[tokio::test]
async fn requests_are_checked_as_upstream_checks_them() {
    let house = house().await;
    check_refused(
        &house,
        json!({"expirationSeconds": 5}),
        "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 5: may not specify a \
         duration less than 10 minutes",
    )
    .await;
    let config_map = json!({"kind": "ConfigMap", "apiVersion": "v1", "name": "x"});
    let message = "cannot bind token to object of type /v1, Kind=ConfigMap";
    check_refused(&house, json!({"boundObjectRef": config_map}), message).await;
    let missing = json!({"kind": "Secret", "apiVersion": "v1", "name": "x"});
    check_refused(&house, json!({"boundObjectRef": missing}), "secrets \"x\" not found").await;
    let mut other = pod_ref();
    other["uid"] = json!("1");
    let error = house.issue(json!({"boundObjectRef": other}), &mut Vec::new()).await.err().unwrap();
    assert_eq!(error.code(), 409, "{error}");

    let node = User::new("system:node:n2", &["system:nodes"]);
    let error = house.issue_for(&node, json!({}), &mut Vec::new()).await.err().unwrap();
    let expected = "serviceaccounts \"robot\" is forbidden: node requested token not bound to a pod";
    assert_eq!(error.to_string(), expected);
    let uid = house.registry.get::<Pod>("ns", "p").unwrap().metadata.uid.clone();
    let mut own = pod_ref();
    own["uid"] = json!(uid);
    let error = house.issue_for(&node, json!({"boundObjectRef": own}), &mut Vec::new()).await.err().unwrap();
    assert!(
        error.to_string().ends_with("node requested token bound to a pod scheduled on a different node"),
        "{error}"
    );
    let node = User::new("system:node:n1", &["system:nodes"]);
    house.issue_for(&node, json!({"boundObjectRef": own}), &mut Vec::new()).await.unwrap();
}

#[tokio::test]
async fn lives_are_told_and_bounded() {
    let mut house = house().await;
    house.accounts.settings.max_life = Some(Duration::from_secs(7200));
    let mut warnings = Vec::new();
    let issued = house.issue(json!({"expirationSeconds": 9000}), &mut warnings).await.unwrap();
    assert_eq!(warnings, ["requested expiration of 9000 seconds shortened to 7200 seconds"]);
    assert_eq!(issued.spec.unwrap().expiration_seconds, Some(7200));
    let projected = json!({"expirationSeconds": 3607, "boundObjectRef": pod_ref()});
    let issued = house.issue(projected, &mut Vec::new()).await.unwrap();
    let status = issued.status.unwrap();
    let claims: Claims = jsonwebtoken::dangerous::insecure_decode_claims(status.token.as_deref().unwrap()).unwrap();
    assert_eq!(claims.exp - claims.iat, EXTENDED_TO);
    assert_eq!(claims.kubernetes.warnafter, Some(claims.iat + 3607));
    assert_eq!(status.expiration_timestamp.unwrap().0.as_second(), claims.iat + 3607);
    let times = |now: i64| claims.check_times(now).map_err(|error| error.to_string());
    assert_eq!(times(claims.exp + LEEWAY), Ok(()));
    assert_eq!(times(claims.exp + LEEWAY + 1), Err("service account token has expired".to_owned()));
    assert_eq!(times(claims.nbf - LEEWAY - 1), Err("service account token is not valid yet".to_owned()));
}

/// The digest of the key's SubjectPublicKeyInfo, as upstream names it.
const RSA_ID: &str = "JC5rAomWk3gJ2Mx3WxZTTQdHhO-M0v66sj5blAlEbNU";

#[tokio::test]
async fn keys_are_exchanged_without_cutting_anyone_off() {
    let mut house = house().await;
    let old = house.token(json!({})).await;
    let own = ServiceAccountKey::load_or_create(house._folder.path(), "sa").unwrap();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/authn/service_account/testdata/rsa.pem");
    let rsa = read_signing(&path).unwrap();
    assert_eq!((rsa.public.id.as_str(), rsa.public.algorithm), (RSA_ID, jsonwebtoken::Algorithm::RS256));
    assert_eq!(read_public(&path).unwrap()[0].id, RSA_ID);
    let own_public = read_public(&house._folder.path().join("sa.pub")).unwrap();
    assert_eq!(own_public[0].id, own.key_id());
    house.accounts.keys = TokenKeys::new(rsa, own_public);
    let new = house.token(json!({})).await;
    assert_eq!(jsonwebtoken::decode_header(&new).unwrap().kid.as_deref(), Some(RSA_ID));
    for token in [&old, &new] {
        assert_eq!(house.who(token).await.unwrap().unwrap().name, "system:serviceaccount:ns:robot");
    }
    let keys = house.accounts.key_set();
    let shown: Vec<&str> = keys["keys"].as_array().unwrap().iter().filter_map(|key| key["kty"].as_str()).collect();
    assert_eq!(shown, ["RSA", "EC"]);
    assert_eq!(keys["keys"][0]["e"], "AQAB");
    let algorithms = &house.accounts.configuration()["id_token_signing_alg_values_supported"];
    assert_eq!(*algorithms, json!(["ES256", "RS256"]));
    house.accounts.settings.issuers.insert(0, "https://new.example".to_owned());
    let renamed = house.token(json!({"audiences": ["https://kubernetes.default.svc.cluster.local"]})).await;
    for token in [&old, &renamed] {
        assert!(house.who(token).await.unwrap().is_some(), "both issuers are believed");
    }
}

#[tokio::test]
async fn a_token_of_the_older_form_lives_in_its_secret() {
    let house = house().await;
    let uid = house.registry.get::<ServiceAccount>("ns", "robot").unwrap().metadata.uid.clone().unwrap();
    let key = &house.accounts.keys.signing;
    let claims = |name: &str| {
        json!({
            "iss": LEGACY_ISSUER, "sub": format!("system:serviceaccount:ns:{name}"),
            "kubernetes.io/serviceaccount/namespace": "ns", "kubernetes.io/serviceaccount/secret.name": "robot-token",
            "kubernetes.io/serviceaccount/service-account.name": "robot",
            "kubernetes.io/serviceaccount/service-account.uid": uid
        })
    };
    let sign = |name| jsonwebtoken::encode(&Header::new(key.public.algorithm), &claims(name), &key.encoding).unwrap();
    let token = sign("robot");
    assert!(house.who(&token).await.unwrap_err().contains("invalidated"), "there is no Secret yet");
    let secret = json!({
        "metadata": {
            "name": "robot-token", "namespace": "ns", "annotations": {"kubernetes.io/service-account.name": "robot"}
        },
        "type": "kubernetes.io/service-account-token", "stringData": {"token": token}
    });
    create::<Secret>(&house.registry, secret).await.unwrap();
    assert_eq!(house.who(&token).await.unwrap().unwrap().name, "system:serviceaccount:ns:robot");
    assert!(house.who(&sign("other")).await.is_err());
    house.delete::<Secret>("robot-token").await;
    assert!(house.who(&token).await.unwrap_err().contains("invalidated"));
}
