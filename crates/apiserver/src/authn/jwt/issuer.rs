//! One issuer: its keys, fetched over TLS, and the check of its tokens.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls_pki_types::ServerName;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use xebec_base::SharedClock;

use super::super::User;
use super::config::IssuerRules;
use super::mapping::Claims;

/// Documents of issuers are some kilobytes; a larger one is no such document.
const MAX_DOCUMENT: usize = 1 << 20;
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two fetches, whatever tokens come: a stranger's made-up keys must not turn into a flood on the issuer.
const FETCH_PAUSE: Duration = Duration::from_secs(10);
/// How far the issuer's clock may be ahead, as in upstream's library.
const NOT_BEFORE_LEEWAY: i64 = 300;
/// Where Linux distributions keep the authorities that the machine trusts.
const MACHINE_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

pub struct Issuer {
    rules: IssuerRules,
    clock: SharedClock,
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    known: Arc<HashMap<String, DecodingKey>>,
    /// When the last fetch began, on the server's clock.
    fetched: Option<Duration>,
    /// Why it failed.
    failure: Option<String>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct IssuerClaim {
    iss: String,
}

/// Who says to have issued the token.
pub fn named_issuer(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let claims: IssuerClaim = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    // Google's tokens name it without the scheme.
    Some(if claims.iss == "accounts.google.com" { format!("https://{}", claims.iss) } else { claims.iss })
}

impl Issuer {
    pub fn new(rules: IssuerRules, clock: SharedClock) -> Self {
        Issuer { rules, clock, keys: Mutex::default() }
    }

    pub fn url(&self) -> &str {
        &self.rules.url
    }

    pub fn user(&self, claims: Claims) -> Result<User, String> {
        self.rules.mapping.user(claims)
    }

    /// The claims of a token that the issuer has signed, that is valid now and meant for one of the audiences.
    pub async fn verify(&self, token: &str) -> Result<Claims, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| error.to_string())?;
        if !self.allows(header.alg) {
            return Err(format!("the algorithm {:?} is not allowed", header.alg));
        }
        let id = header.kid.unwrap_or_default();
        let keys = self.keys_with(&id).await?;
        let named = keys.get(&id).into_iter();
        // A token that names no key may be signed with any of them.
        let candidates: Vec<&DecodingKey> = if id.is_empty() { keys.values().collect() } else { named.collect() };
        let mut rules = Validation::new(header.alg);
        rules.validate_exp = false;
        rules.validate_nbf = false;
        rules.validate_aud = false;
        rules.required_spec_claims.clear();
        let mut claims = None;
        for key in candidates {
            claims = claims.or_else(|| jsonwebtoken::decode::<Claims>(token, key, &rules).ok());
        }
        let claims = claims.ok_or("failed to verify signature: no key of the issuer fits")?.claims;
        self.check(&claims)?;
        Ok(claims)
    }

    fn allows(&self, algorithm: Algorithm) -> bool {
        let shared_secret = matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
        let listed = || self.rules.algorithms.iter().any(|name| *name == format!("{algorithm:?}"));
        !shared_secret && (self.rules.algorithms.is_empty() || listed())
    }

    fn check(&self, claims: &Claims) -> Result<(), String> {
        let now = self.clock.now().as_second();
        let seconds =
            |name: &str| claims.get(name).and_then(|value| value.as_i64().or(value.as_f64().map(|time| time as i64)));
        match seconds("exp") {
            Some(end) if end > now => {}
            Some(_) => return Err("token is expired".to_owned()),
            None => return Err("the token has no expiry".to_owned()),
        }
        if seconds("nbf").is_some_and(|begin| begin > now + NOT_BEFORE_LEEWAY) {
            return Err("current time before the nbf (not before) time".to_owned());
        }
        let meant: Vec<&str> = match claims.get("aud") {
            Some(serde_json::Value::String(one)) => vec![one],
            Some(serde_json::Value::Array(all)) => all.iter().filter_map(|one| one.as_str()).collect(),
            _ => Vec::new(),
        };
        if meant.iter().any(|one| self.rules.audiences.iter().any(|own| own == one)) {
            return Ok(());
        }
        Err(format!("oidc: expected audience in {:?} got {meant:?}", self.rules.audiences))
    }

    /// The issuer's keys, fetched anew if that one is not among them and the last fetch is a while ago.
    async fn keys_with(&self, id: &str) -> Result<Arc<HashMap<String, DecodingKey>>, String> {
        // Whoever comes meanwhile waits for the same fetch.
        let mut keys = self.keys.lock().await;
        let known = if id.is_empty() { !keys.known.is_empty() } else { keys.known.contains_key(id) };
        let now = self.clock.elapsed();
        let paused = keys.fetched.is_some_and(|last| now.saturating_sub(last) < FETCH_PAUSE);
        if !known && !paused {
            keys.fetched = Some(now);
            match self.fetch().await {
                Ok(found) => (keys.known, keys.failure) = (Arc::new(found), None),
                Err(why) => {
                    tracing::warn!(issuer = self.rules.url, why, "cannot fetch an issuer's keys");
                    keys.failure = Some(why);
                }
            }
        }
        match &keys.failure {
            Some(why) if keys.known.is_empty() => Err(format!("the keys of the issuer cannot be fetched: {why}")),
            _ => Ok(keys.known.clone()),
        }
    }

    async fn fetch(&self) -> Result<HashMap<String, DecodingKey>, String> {
        let below = || format!("{}/.well-known/openid-configuration", self.rules.url.trim_end_matches('/'));
        let place = self.rules.discovery_url.clone().unwrap_or_else(below);
        let discovery: Discovery = self.get(&place).await?;
        if discovery.issuer != self.rules.url {
            let (wanted, got) = (&self.rules.url, &discovery.issuer);
            return Err(format!(
                "issuer did not match the issuer returned by provider, expected {wanted:?} got {got:?}"
            ));
        }
        let set: JwkSet = self.get(&discovery.jwks_uri).await?;
        let usable = |key: &Jwk| match key.algorithm {
            AlgorithmParameters::OctetKey(_) => None,
            _ => Some((key.common.key_id.clone().unwrap_or_default(), DecodingKey::from_jwk(key).ok()?)),
        };
        Ok(set.keys.iter().filter_map(usable).collect())
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let fetched = tokio::time::timeout(FETCH_TIMEOUT, self.get_bytes(url)).await;
        let bytes = fetched.map_err(|_| format!("{url} does not answer"))?.map_err(|why| format!("{url}: {why}"))?;
        serde_json::from_slice(&bytes).map_err(|error| format!("{url}: {error}"))
    }

    async fn get_bytes(&self, url: &str) -> Result<Bytes, String> {
        let text = |error: &dyn std::error::Error| xebec_base::Chain(error).to_string();
        let url: Uri = url.parse().map_err(|_| "not a URL".to_owned())?;
        let (Some("https"), Some(host)) = (url.scheme_str(), url.host()) else {
            return Err("not an HTTPS URL".to_owned());
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let mut tls = xebec_pki::client_config(&self.authorities()?, None).map_err(|error| text(&error))?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tcp = TcpStream::connect((&*host, url.port_u16().unwrap_or(443))).await.map_err(|error| text(&error))?;
        let name = ServerName::try_from(host).map_err(|error| text(&error))?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.map_err(|error| text(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| text(&error))?;
        let connection = tokio::spawn(connection);
        let authority = url.authority().map_or("", |authority| authority.as_str()).to_owned();
        let path = url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let request = http::Request::get(path).header(http::header::HOST, authority).body(Empty::<Bytes>::new());
        let response = sender.send_request(request.map_err(|error| text(&error))?).await;
        let response = response.map_err(|error| text(&error))?;
        let (status, body) = (response.status(), Limited::new(response.into_body(), MAX_DOCUMENT).collect().await);
        connection.abort();
        if !status.is_success() {
            return Err(format!("the answer is {status}"));
        }
        Ok(body.map_err(|error| error.to_string())?.to_bytes())
    }

    fn authorities(&self) -> Result<String, String> {
        if let Some(pem) = &self.rules.authority {
            return Ok(pem.clone());
        }
        let found = MACHINE_AUTHORITIES.iter().find_map(|path| std::fs::read_to_string(path).ok());
        found.ok_or_else(|| "the machine has no file of trusted authorities".to_owned())
    }
}
