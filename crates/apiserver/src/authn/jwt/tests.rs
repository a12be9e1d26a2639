//! Tokens of an issuer that runs beside the test, on loopback with TLS.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::pkcs8::EncodePrivateKey;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use xebec_base::SimulatedClock;
use xebec_pki::{Authority, Profile, RotatingIdentity};

use super::*;

/// An issuer's key: its name, its private half, and its JSON Web Key.
struct Key {
    id: &'static str,
    private: EncodingKey,
    document: Value,
}

fn key(id: &'static str) -> Key {
    let secret = loop {
        let bytes: [u8; 32] = rand::random();
        if let Ok(secret) = p256::SecretKey::from_slice(&bytes) {
            break secret;
        }
    };
    let point = secret.public_key().to_encoded_point(false);
    let encode = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes);
    let (x, y) = (encode(point.x().unwrap()), encode(point.y().unwrap()));
    let document = json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": id, "x": x, "y": y });
    Key { id, private: EncodingKey::from_ec_der(secret.to_pkcs8_der().unwrap().as_bytes()), document }
}

struct House {
    url: String,
    keys: Arc<Mutex<Vec<Value>>>,
    fetches: Arc<AtomicUsize>,
    clock: Arc<SimulatedClock>,
    folder: TempDir,
    authority: String,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for House {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn house(keys: &[&Key]) -> House {
    let folder = TempDir::new().unwrap();
    let clock = SimulatedClock::starting_at(xebec_base::SystemClock::shared().now());
    let authority = Authority::load_or_create(folder.path(), "ca", clock.clone()).unwrap();
    let profile = Profile::server("issuer", ["localhost"], ["127.0.0.1".parse().unwrap()]);
    let identity = RotatingIdentity::new(&authority.issue(&profile).unwrap()).unwrap();
    let mut tls = xebec_pki::server_config(identity, None).unwrap();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://127.0.0.1:{}/realm", listener.local_addr().unwrap().port());
    let keys = Arc::new(Mutex::new(keys.iter().map(|key| key.document.clone()).collect::<Vec<_>>()));
    let fetches = Arc::new(AtomicUsize::new(0));
    let shown = (url.clone(), keys.clone(), fetches.clone());
    let server = tokio::spawn(async move {
        let tls = TlsAcceptor::from(Arc::new(tls));
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(stream) = tls.accept(tcp).await else { continue };
            let (url, keys, fetches) = shown.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let document = match request.uri().path() {
                    "/realm/.well-known/openid-configuration" => {
                        json!({ "issuer": url, "jwks_uri": format!("{url}/keys") })
                    }
                    "/realm/keys" => {
                        fetches.fetch_add(1, Ordering::Relaxed);
                        json!({ "keys": *keys.lock() })
                    }
                    path => panic!("nobody should ask for {path}"),
                };
                async move {
                    Ok::<_, std::convert::Infallible>(Response::new(Full::new(bytes::Bytes::from(
                        document.to_string(),
                    ))))
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    House { url, keys, fetches, clock, folder, authority: authority.pem(), server }
}

impl House {
    fn write(&self, rest: &str) -> PathBuf {
        let indented = self.authority.replace('\n', "\n      ");
        let issuer =
            format!("    url: {}\n    certificateAuthority: |\n      {indented}\n    audiences: [app]\n", self.url);
        let path = self.folder.path().join("authentication.yaml");
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
        std::fs::write(&path, format!("{head}jwt:\n- issuer:\n{issuer}{rest}")).unwrap();
        path
    }

    fn authenticator(&self, rest: &str) -> JwtAuthenticator {
        JwtAuthenticator::load(&self.write(rest), self.setting()).unwrap()
    }

    fn setting(&self) -> Setting {
        let own_issuers = vec!["https://own.example".to_owned()];
        let audiences = vec!["api".to_owned()];
        Setting { own_issuers, audiences, anonymous: Default::default(), clock: self.clock.clone() }
    }

    fn token(&self, key: &Key, change: Value) -> String {
        use xebec_base::Clock;
        let now = self.clock.now().as_second();
        let mut claims = json!({
            "iss": self.url, "aud": ["app", "other"], "exp": now + 600, "iat": now, "sub": "jane", "jti": "7",
            "email": "jane@example.com", "roles": ["dev", "ops"], "org": { "name": "acme" }
        });
        json_patch::merge(&mut claims, &change);
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(key.id.to_owned());
        jsonwebtoken::encode(&header, &claims, &key.private).unwrap()
    }
}

async fn who(authenticator: &JwtAuthenticator, token: &str) -> Result<Option<String>, String> {
    let found = authenticator.find(token).await.map_err(|error| error.to_string())?;
    Ok(found.map(|user| {
        let extra: Vec<String> = user.extra.iter().map(|(key, values)| format!("{key}={}", values.join(","))).collect();
        format!("{}|{}|{}|{}", user.name, user.uid, user.groups.join(","), extra.join(";"))
    }))
}

const BY_CLAIM: &str = "  claimMappings:
    username: {claim: sub, prefix: 'oidc:'}
    groups: {claim: roles, prefix: 'role:'}
    uid: {claim: jti}
";

const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id=JTI=7";

#[tokio::test]
async fn claims_become_a_user() {
    let first = key("one");
    let house = house(&[&first]).await;
    let authenticator = house.authenticator(BY_CLAIM);
    let expected = format!("oidc:jane|7|role:dev,role:ops|{CREDENTIAL}");
    assert_eq!(who(&authenticator, &house.token(&first, json!({}))).await, Ok(Some(expected)));
    let one_group = house.token(&first, json!({"roles": "dev"}));
    assert!(who(&authenticator, &one_group).await.unwrap().unwrap().contains("|role:dev|"));
    assert_eq!(who(&authenticator, &house.token(&first, json!({"iss": "https://other"}))).await, Ok(None));
    assert_eq!(who(&authenticator, "no.token.here").await, Ok(None));
    let refused = async |change: Value, why: &str| {
        let error = who(&authenticator, &house.token(&first, change.clone())).await.unwrap_err();
        assert!(error.contains(why), "{change} gives {error}");
    };
    refused(json!({"exp": 1}), "token is expired").await;
    refused(json!({"exp": null}), "no expiry").await;
    refused(json!({"nbf": 99_999_999_999_i64}), "nbf").await;
    refused(json!({"aud": "other"}), "expected audience in").await;
    refused(json!({"sub": null}), "claim not present").await;
    refused(json!({"sub": 1}), "not a string").await;
    let forged = house.token(&Key { id: "one", ..key("two") }, json!({}));
    assert!(who(&authenticator, &forged).await.unwrap_err().contains("failed to verify signature"));
    let found = authenticator.review(&house.token(&first, json!({})), &["api".to_owned()]).await.unwrap().unwrap();
    assert_eq!(found.audiences, ["api"]);
    assert!(authenticator.review(&house.token(&first, json!({})), &["x".to_owned()]).await.unwrap().is_none());
    assert_eq!(house.fetches.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn expressions_map_and_check() {
    let first = key("one");
    let house = house(&[&first]).await;
    let authenticator = house.authenticator(
        r#"  claimMappings:
    username: {expression: 'claims.email_verified ? claims.email : ""'}
    groups: {expression: 'claims.roles.map(r, claims.org.name + ":" + r)'}
    uid: {expression: 'claims.sub + "-1"'}
    extra:
    - {key: example.com/org, valueExpression: claims.org.name}
    - {key: example.com/none, valueExpression: '""'}
  claimValidationRules:
  - {claim: sub, requiredValue: jane}
  - {expression: 'claims.exp - claims.iat <= 3600', message: too long}
  userValidationRules:
  - {expression: '!user.username.startsWith("system:")', message: reserved}
  - {expression: 'user.groups.all(g, g.startsWith("acme:"))'}
"#,
    );
    let verified = json!({"email_verified": true});
    let with = |change: Value| {
        let mut all = verified.clone();
        json_patch::merge(&mut all, &change);
        house.token(&first, all)
    };
    let expected = format!("jane@example.com|jane-1|acme:dev,acme:ops|{CREDENTIAL};example.com/org=acme");
    assert_eq!(who(&authenticator, &with(json!({}))).await, Ok(Some(expected)));
    let refused = async |change: Value, why: &str| {
        let error = who(&authenticator, &with(change.clone())).await.unwrap_err();
        assert!(error.contains(why), "{change} gives {error}");
    };
    refused(json!({"email_verified": false}), "empty username").await;
    refused(json!({"email_verified": null}), "error evaluating username claim expression").await;
    refused(json!({"sub": "joe"}), "required claim sub value does not match. Got = joe, want = jane").await;
    refused(json!({"iat": 0}), "too long").await;
    refused(json!({"email": "system:admin"}), "reserved").await;
    refused(json!({"email": 7}), "must return a string").await;
}

#[tokio::test]
async fn keys_are_fetched_when_they_are_needed() {
    let (first, second, stranger) = (key("one"), key("two"), key("three"));
    let house = house(&[&first]).await;
    let authenticator = house.authenticator(BY_CLAIM);
    assert_eq!(house.fetches.load(Ordering::Relaxed), 0);
    assert!(who(&authenticator, &house.token(&first, json!({}))).await.unwrap().is_some());
    *house.keys.lock() = vec![first.document.clone(), second.document.clone()];
    let new = house.token(&second, json!({}));
    assert!(who(&authenticator, &new).await.is_err(), "too soon after the last fetch");
    house.clock.advance(Duration::from_secs(10));
    assert!(who(&authenticator, &new).await.unwrap().is_some());
    for _ in 0..20 {
        assert!(who(&authenticator, &house.token(&stranger, json!({}))).await.is_err());
    }
    house.clock.advance(Duration::from_secs(10));
    for _ in 0..20 {
        assert!(who(&authenticator, &house.token(&stranger, json!({}))).await.is_err());
    }
    assert_eq!(house.fetches.load(Ordering::Relaxed), 3, "strangers cause one fetch in ten seconds");
}

#[tokio::test]
async fn the_file_is_read_anew() {
    let first = key("one");
    let house = house(&[&first]).await;
    let authenticator = house.authenticator(BY_CLAIM);
    let token = house.token(&first, json!({}));
    house.write(&format!(
        "{}anonymous:\n  enabled: true\n  conditions: [{{path: /livez}}, {{path: /readyz}}]\n",
        BY_CLAIM.replace("oidc:", "new:")
    ));
    authenticator.reload().unwrap();
    assert!(who(&authenticator, &token).await.unwrap().unwrap().starts_with("new:jane|"));
    let anonymous = authenticator.anonymous.load_full();
    assert!(anonymous.allows("/livez") && !anonymous.allows("/livez/ping") && !anonymous.allows("/version"));
    house.write("  claimMappings:\n    username: {claim: sub}\n");
    assert!(authenticator.reload().is_err());
    assert!(who(&authenticator, &token).await.unwrap().unwrap().starts_with("new:jane|"), "the old state stays");
}

#[tokio::test]
async fn flags_name_one_issuer() {
    let first = key("one");
    let house = house(&[&first]).await;
    let ca = house.folder.path().join("issuer.crt");
    std::fs::write(&ca, &house.authority).unwrap();
    let flags = Flags {
        issuer_url: house.url.clone(),
        client_id: "app".to_owned(),
        ca_file: Some(ca),
        username_claim: "sub".to_owned(),
        groups_claim: Some("roles".to_owned()),
        signing_algs: vec!["ES256".to_owned()],
        ..Flags::default()
    };
    let authenticator = JwtAuthenticator::from_flags(&flags, house.setting()).unwrap();
    let expected = format!("{}#jane||dev,ops|{CREDENTIAL}", house.url);
    let token = house.token(&first, json!({}));
    assert_eq!(who(&authenticator, &token).await, Ok(Some(expected)));
    let flags = Flags { signing_algs: vec!["RS256".to_owned()], ..flags };
    let authenticator = JwtAuthenticator::from_flags(&flags, house.setting()).unwrap();
    assert!(who(&authenticator, &token).await.unwrap_err().contains("ES256 is not allowed"));
}

fn check_refused(body: &str, expected: &str) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("authentication.yaml");
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
    std::fs::write(&path, format!("{head}{body}")).unwrap();
    let setting = Setting {
        own_issuers: vec!["https://own.example".to_owned()],
        audiences: Vec::new(),
        anonymous: Default::default(),
        clock: SimulatedClock::starting_at(jiff::Timestamp::UNIX_EPOCH),
    };
    let error = JwtAuthenticator::load(&path, setting).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains(expected), "{body} gives {error:?}");
}

#[test]
fn wrong_configurations_are_refused() {
    let jwt = |issuer: &str, rest: &str| format!("jwt:\n- issuer: {{{issuer}}}\n{rest}");
    let good = "url: 'https://a.example', audiences: [x]";
    let sub = "  claimMappings: {username: {claim: sub, prefix: ''}}\n";
    check_refused(&jwt("audiences: [x]", sub), "issuer.url: Required value");
    check_refused(&jwt("url: 'http://a', audiences: [x]", sub), "URL scheme must be https");
    check_refused(&jwt("url: 'https://own.example', audiences: [x]", sub), "must not overlap with disallowed issuers");
    check_refused(&jwt("url: 'https://a'", sub), "audiences: Required value");
    check_refused(&jwt("url: 'https://a', audiences: [x, y]", sub), "must be MatchAny for multiple audiences");
    check_refused(&jwt(good, ""), "claimMappings.username: Required value");
    check_refused(&jwt(good, "  claimMappings: {username: {claim: sub}}\n"), "prefix is required when claim is set");
    let expression = |text: &str| format!("  claimMappings: {{username: {{expression: '{text}'}}}}\n");
    check_refused(&jwt(good, &expression("claims.")), "compilation failed");
    check_refused(&jwt(good, &expression("user.name")), "undeclared reference to 'user'");
    check_refused(&jwt(good, &expression("claims.email")), "claims.email_verified must be used");
    let extra = |key: &str| {
        format!("{sub}").replace("}}\n", &format!("}}, extra: [{{key: {key}, valueExpression: claims.a}}]}}\n"))
    };
    check_refused(&jwt(good, &extra("plain")), "domain-prefixed path");
    check_refused(&jwt(good, &extra("a.k8s.io/x")), "reserved for Kubernetes");
    check_refused(&jwt(good, &extra("Example.com/x")), "must be lowercase");
    let rules = |rule: &str| format!("{sub}  claimValidationRules: [{{{rule}}}]\n");
    check_refused(&jwt(good, &rules("claim: a, expression: b")), "can't both be set");
    check_refused(&jwt(good, &rules("claim: a, message: b")), "may not be specified when claim is set");
    let twice = format!("{}- issuer: {{{good}}}\n{sub}", jwt(good, sub));
    check_refused(&twice, "Duplicate value");
    check_refused("anonymous: {enabled: false, conditions: [{path: /a}]}\n", "enabled should be set to true");
    check_refused("unknown: 1\n", "not an AuthenticationConfiguration");
}
