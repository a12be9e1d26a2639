//! Who asks, and whether they may: authentication and authorisation of the node server's requests.
//!
//! A request is about the Node object: reading metrics needs `nodes/metrics`, everything that reaches into containers
//! `nodes/proxy` (API reference, "Kubelet authentication/authorization"). [`Authority`] is the seam; [`ApiAuthority`]
//! asks the API server, as upstream's webhook mode does. Anonymous requests are refused.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use http::{Method, Request, Response, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use xebec_base::SharedClock;
use xebec_client::Client;
use xebec_pki::ClientTrust;

use super::answer::{Answer, error};

/// How long a decision of the API server is kept: upstream's defaults for a token, a permission and a refusal.
const TOKEN_LIFE: Duration = Duration::from_secs(2 * 60);
const ALLOWED_LIFE: Duration = Duration::from_secs(5 * 60);
const DENIED_LIFE: Duration = Duration::from_secs(30);

/// How many decisions are kept. The API server is all but the only client, so this is never reached in earnest.
const CACHE_SIZE: usize = 1024;

/// Why it is not known who asks or whether they may.
#[derive(Debug, thiserror::Error)]
#[error("ask the API server for {what}")]
pub struct AuthError {
    pub what: &'static str,
    pub source: xebec_client::Error,
}

/// What a request shows of who sent it.
pub struct Credentials<'a> {
    /// The certificates shown in the TLS handshake, the client's own first. The client holds its key; whether the
    /// certificates are to be believed has not been checked.
    pub chain: &'a [CertificateDer<'a>],
    /// The bearer token.
    pub token: Option<&'a str>,
}

/// What a request wants, as an access to the Node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attributes {
    pub verb: &'static str,
    pub subresource: &'static str,
}

/// Decides about requests to the node server.
#[async_trait]
pub trait Authority: Send + Sync + 'static {
    /// Who sent the request; `None` where that cannot be told.
    async fn authenticate(&self, credentials: Credentials<'_>) -> Result<Option<UserInfo>, AuthError>;

    /// Whether the user may do this to the Node.
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Result<bool, AuthError>;

    /// The Node's name, for the text of refusals.
    fn node_name(&self) -> &str;
}

/// Lets a request pass, or says why not. One of the accesses it may count as has to be allowed.
pub(super) async fn permit<B>(
    authority: &dyn Authority,
    request: &Request<B>,
    chain: &[CertificateDer<'_>],
) -> Result<(), Response<Answer>> {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token =
        header.and_then(|header| header.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
    let credentials = Credentials { chain, token: token.map(|(_, token)| token.trim()) };
    let user = match authority.authenticate(credentials).await {
        Ok(Some(user)) => user,
        Ok(None) => return Err(error(StatusCode::UNAUTHORIZED, "Unauthorized")),
        Err(failure) => {
            tracing::warn!(error = %xebec_base::Chain(&failure), "authenticate a request to the node server");
            return Err(error(StatusCode::UNAUTHORIZED, "Unauthorized"));
        }
    };
    let name = user.username.as_deref().unwrap_or_default();
    let wanted = attributes(request.method(), request.uri().path());
    for attributes in &wanted {
        match authority.authorize(&user, attributes).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(failure) => {
                tracing::warn!(error = %xebec_base::Chain(&failure), "authorise a request to the node server");
                let Attributes { verb, subresource } = attributes;
                let text = format!(
                    "Authorization error (user={name}, verb={verb}, resource=nodes, subresource={subresource})"
                );
                return Err(error(StatusCode::INTERNAL_SERVER_ERROR, text));
            }
        }
    }
    let subresources: Vec<_> = wanted.iter().map(|attributes| attributes.subresource).collect();
    let verb = wanted.first().map_or("", |attributes| attributes.verb);
    tracing::debug!(user = name, node = authority.node_name(), verb, ?subresources, "forbidden");
    let subresources = subresources.join(" ");
    let text = format!("Forbidden (user={name}, verb={verb}, resource=nodes, subresource(s)=[{subresources}])\n");
    Err(error(StatusCode::FORBIDDEN, text))
}

/// The accesses that a request may count as, the finer one first (KEP-2862).
fn attributes(method: &Method, path: &str) -> Vec<Attributes> {
    let verb = match method.as_str() {
        "POST" => "create",
        "GET" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    };
    let subresources: &[&'static str] = match path.split('/').nth(1).unwrap_or_default() {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        _ => &["proxy"],
    };
    subresources.iter().map(|subresource| Attributes { verb, subresource }).collect()
}

/// The authority of a cluster: client certificates by its own authorities, everything else by asking the API server.
pub struct ApiAuthority {
    node_name: String,
    trust: ClientTrust,
    client: Client,
    tokens: Cache<Option<UserInfo>>,
    accesses: Cache<bool>,
}

impl ApiAuthority {
    pub fn new(node_name: impl Into<String>, trust: ClientTrust, client: Client, clock: SharedClock) -> Self {
        let (tokens, accesses) = (Cache::new(clock.clone()), Cache::new(clock));
        ApiAuthority { node_name: node_name.into(), trust, client, tokens, accesses }
    }
}

#[async_trait]
impl Authority for ApiAuthority {
    async fn authenticate(&self, credentials: Credentials<'_>) -> Result<Option<UserInfo>, AuthError> {
        if !credentials.chain.is_empty() {
            match self.trust.authenticate(credentials.chain) {
                Ok(peer) => {
                    let mut groups = peer.subject.groups;
                    groups.push("system:authenticated".to_owned());
                    let (username, uid) = (Some(peer.subject.user), peer.subject.uid);
                    return Ok(Some(UserInfo { username, uid, groups: Some(groups), extra: None }));
                }
                Err(error) => tracing::debug!(%error, "client certificate not believed"),
            }
        }
        let Some(token) = credentials.token.filter(|token| !token.is_empty()) else { return Ok(None) };
        if let Some(user) = self.tokens.get(token) {
            return Ok(user);
        }
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        let review = self.client.all::<TokenReview>().create(&review).await;
        let review = review.map_err(|source| AuthError { what: "a review of a token", source })?;
        let status = review.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        self.tokens.put(token.to_owned(), user.clone(), TOKEN_LIFE);
        Ok(user)
    }

    async fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Result<bool, AuthError> {
        let key = format!("{user:?} {attributes:?}");
        if let Some(allowed) = self.accesses.get(&key) {
            return Ok(allowed);
        }
        let resource = ResourceAttributes {
            verb: Some(attributes.verb.to_owned()),
            version: Some("v1".to_owned()),
            resource: Some("nodes".to_owned()),
            subresource: Some(attributes.subresource.to_owned()),
            name: Some(self.node_name.clone()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: user.username.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: user.extra.clone(),
            resource_attributes: Some(resource),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let review = self.client.all::<SubjectAccessReview>().create(&review).await;
        let review = review.map_err(|source| AuthError { what: "a review of an access", source })?;
        let allowed = review.status.is_some_and(|status| status.allowed && status.denied != Some(true));
        self.accesses.put(key, allowed, if allowed { ALLOWED_LIFE } else { DENIED_LIFE });
        Ok(allowed)
    }

    fn node_name(&self) -> &str {
        &self.node_name
    }
}

/// Decisions of the API server, for as long as they hold.
struct Cache<V> {
    clock: SharedClock,
    entries: Mutex<HashMap<String, (Duration, V)>>,
}

impl<V: Clone> Cache<V> {
    fn new(clock: SharedClock) -> Self {
        Cache { clock, entries: Mutex::default() }
    }

    fn get(&self, key: &str) -> Option<V> {
        let entries = self.entries.lock();
        entries.get(key).filter(|(until, _)| *until > self.clock.elapsed()).map(|(_, value)| value.clone())
    }

    fn put(&self, key: String, value: V, life: Duration) {
        let now = self.clock.elapsed();
        let mut entries = self.entries.lock();
        if entries.len() >= CACHE_SIZE {
            entries.retain(|_, (until, _)| *until > now);
        }
        if entries.len() < CACHE_SIZE {
            entries.insert(key, (now + life, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_accesses_to_the_node() {
        fn check(method: Method, path: &str, verb: &str, subresources: &[&str]) {
            let found = attributes(&method, path);
            assert!(found.iter().all(|attributes| attributes.verb == verb), "{path}: {found:?}");
            let found: Vec<_> = found.iter().map(|attributes| attributes.subresource).collect();
            assert_eq!(found, subresources, "{path}");
        }
        check(Method::GET, "/metrics/cadvisor", "get", &["metrics"]);
        check(Method::GET, "/pods", "get", &["pods", "proxy"]);
        check(Method::GET, "/podsecurity", "get", &["proxy"]);
        check(Method::POST, "/exec/default/web/app", "create", &["proxy"]);
        check(Method::GET, "/containerLogs/default/web/app", "get", &["proxy"]);
        check(Method::GET, "/healthz/ping", "get", &["healthz", "proxy"]);
        check(Method::DELETE, "/", "delete", &["proxy"]);
    }
}
