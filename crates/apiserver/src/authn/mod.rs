//! Who sends a request: the user, and the seam through which every way of proving it is asked.
//!
//! Relies on the TLS layer for the proof that a client holds its certificate's key. It does not decide what a user may do;
//! that is [`crate::authz`].

mod anonymous;
mod bootstrap_token;
mod certificate;
pub mod impersonation;
pub mod jwt;
mod request_header;
mod service_account;
mod token_cache;
mod token_file;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, Uri};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use rustls_pki_types::CertificateDer;
use xebec_api::status::StatusError;

use crate::registry::Registry;

pub use anonymous::Anonymous;
pub use bootstrap_token::BootstrapTokens;
pub use certificate::Certificates;
pub use request_header::{RequestHeaderSettings, RequestHeaders};
pub use service_account::{
    KeyError, PublicKey, ServiceAccounts, SigningKey, TokenKeys, TokenSettings, read_public, read_signing,
};
pub use token_file::{TokenFile, TokenFileError};

pub const ANONYMOUS: &str = "system:anonymous";
pub const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";
pub const GROUP_AUTHENTICATED: &str = "system:authenticated";
const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// Where a user's extra names the credential: audit records and tokens refer to it.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// A browser's WebSocket can send no header but its protocols: one of them carries the token behind this.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";
/// Members pass every authorisation check, as upstream's privileged group does.
pub const GROUP_MASTERS: &str = "system:masters";

/// An identity, as audit records, RBAC subjects and reviews name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Arc<User> {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Arc::new(User { name: name.into(), groups, ..User::default() })
    }

    /// Who a request without credentials is.
    pub fn anonymous() -> Arc<User> {
        User::new(ANONYMOUS, &[GROUP_UNAUTHENTICATED])
    }

    /// A user that every check lets pass: for parts of the server that act on its own behalf, and for tests.
    pub fn master(name: &str) -> Arc<User> {
        User::new(name, &[GROUP_MASTERS, GROUP_AUTHENTICATED])
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|one| one == group)
    }

    /// The namespace and name of the service account that the user is by its name.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self.name.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
        (!name.contains(':')).then_some((namespace, name))
    }

    /// The user of a service account, with the groups that go with it.
    pub fn of_service_account(namespace: &str, name: &str, uid: &str) -> User {
        User {
            name: service_account_name(namespace, name),
            uid: uid.to_owned(),
            groups: service_account_groups(namespace),
            extra: BTreeMap::new(),
        }
    }
}

/// How a service account is called as a user.
pub fn service_account_name(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}")
}

/// The groups of a namespace's service accounts.
pub fn service_account_groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
}

/// The client certificates of one connection. The TLS layer has had the client prove that it holds the key; whether the
/// chain is trusted is for the authenticator to say.
pub struct PeerCertificate {
    pub chain: Vec<CertificateDer<'static>>,
    /// Kept by the authenticator that reads certificates, for all further requests of the connection.
    pub identity: OnceLock<Result<Arc<User>, AuthnError>>,
}

impl PeerCertificate {
    pub fn new(chain: Vec<CertificateDer<'static>>) -> Self {
        PeerCertificate { chain, identity: OnceLock::new() }
    }
}

/// What a request offers as proof.
pub struct Credentials<'a> {
    pub headers: &'a HeaderMap,
    pub uri: &'a Uri,
    pub certificate: Option<&'a PeerCertificate>,
}

/// The credentials were offered and are wrong; the request ends with 401.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuthnError(pub String);

/// One way, or a union of ways, of proving an identity.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// `None`: the request offers nothing that this authenticator understands; the next one is asked.
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Arc<User>>, AuthnError>;

    /// Whose a bearer token is, if it is meant for one of these audiences (none: for the API server).
    async fn review(&self, _token: &str, _audiences: &[String]) -> Result<Option<Identified>, AuthnError> {
        Ok(None)
    }

    /// Takes away what proved who sends the request: neither handlers nor whom they pass it on to get to see it.
    fn take_credentials(&self, _headers: &mut HeaderMap) {}
}

/// The bearer of a token.
pub struct Identified {
    pub user: Arc<User>,
    /// Those asked for that the token is meant for.
    pub audiences: Vec<String>,
}

impl Identified {
    /// The bearer of a token that is good for `own`, asked about for `wanted` (none: for any); `None` if they share nothing.
    fn for_audiences(user: Arc<User>, own: &[String], wanted: &[String]) -> Option<Self> {
        let wanted = if wanted.is_empty() { own } else { wanted };
        let shared: Vec<String> = wanted.iter().filter(|one| own.contains(one)).cloned().collect();
        (!shared.is_empty()).then_some(Identified { user, audiences: shared })
    }
}

/// Asks in turn; the first that knows the credentials answers. A proven user belongs to `system:authenticated`.
///
/// As with upstream's union, one that finds the credentials wrong does not keep the others from knowing them.
pub struct Union(pub Vec<Arc<dyn Authenticator>>);

#[async_trait]
impl Authenticator for Union {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Arc<User>>, AuthnError> {
        let mut refused = None;
        for one in &self.0 {
            match one.authenticate(credentials).await {
                Ok(Some(user)) => return Ok(Some(proven(user))),
                Ok(None) => {}
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        if let Some(error) = refused {
            return Err(error);
        }
        match bearer_token(credentials.headers) {
            Some(_) => Err(AuthnError("invalid bearer token".to_owned())),
            None => Ok(None),
        }
    }

    async fn review(&self, token: &str, audiences: &[String]) -> Result<Option<Identified>, AuthnError> {
        let mut refused = None;
        for one in &self.0 {
            match one.review(token, audiences).await {
                Ok(Some(found)) => return Ok(Some(Identified { user: proven(found.user), ..found })),
                Ok(None) => {}
                Err(AuthnError(why)) => {
                    let both = AuthnError(format!("[invalid bearer token, {why}]"));
                    refused = refused.or(Some(both));
                }
            }
        }
        refused.map_or(Ok(None), Err)
    }

    fn take_credentials(&self, headers: &mut HeaderMap) {
        headers.remove(AUTHORIZATION);
        drop_token_protocol(headers);
        self.0.iter().for_each(|one| one.take_credentials(headers));
    }
}

fn proven(user: Arc<User>) -> Arc<User> {
    if user.name == ANONYMOUS || user.is_in(GROUP_AUTHENTICATED) || user.is_in(GROUP_UNAUTHENTICATED) {
        return user;
    }
    let mut user = Arc::unwrap_or_clone(user);
    user.groups.push(GROUP_AUTHENTICATED.to_owned());
    Arc::new(user)
}

/// The token of `Authorization: Bearer`, or the one that a browser's WebSocket carries as a sub-protocol.
pub fn bearer_token<'a>(headers: &'a HeaderMap) -> Option<Cow<'a, str>> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(Cow::Borrowed(token));
    }
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let encoded = protocols.flat_map(|list| list.split(',')).find_map(|one| one.trim().strip_prefix(TOKEN_PROTOCOL))?;
    let token = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    String::from_utf8(token).ok().filter(|token| !token.is_empty()).map(Cow::Owned)
}

/// What a WebSocket speaks is chosen among the other protocols.
fn drop_token_protocol(headers: &mut HeaderMap) {
    let lists = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let all: Vec<&str> = lists.flat_map(|list| list.split(',')).map(str::trim).collect();
    if !all.iter().any(|one| one.starts_with(TOKEN_PROTOCOL)) {
        return;
    }
    let others: Vec<&str> = all.into_iter().filter(|one| !one.starts_with(TOKEN_PROTOCOL)).collect();
    let others = http::HeaderValue::from_str(&others.join(", ")).ok().filter(|value| !value.is_empty());
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    headers.extend(others.map(|value| (SEC_WEBSOCKET_PROTOCOL, value)));
}

/// Takes every request for the same user's: for servers that only their own process reaches, and for tests.
pub struct Fixed(pub Arc<User>);

#[async_trait]
impl Authenticator for Fixed {
    async fn authenticate(&self, _credentials: &Credentials<'_>) -> Result<Option<Arc<User>>, AuthnError> {
        Ok(Some(self.0.clone()))
    }
}

/// Issues the tokens of `serviceaccounts/token`.
#[async_trait]
pub trait TokenIssuer: Send + Sync + 'static {
    /// The request with its status filled in.
    async fn issue(
        &self,
        registry: &Registry,
        user: &Arc<User>,
        account: &ServiceAccount,
        request: TokenRequest,
        warnings: &mut Vec<String>,
    ) -> Result<TokenRequest, StatusError>;

    /// `/.well-known/openid-configuration`: who issues the tokens, and where the keys are.
    fn configuration(&self) -> serde_json::Value;

    /// `/openid/v1/jwks`: the keys with which the tokens are verified.
    fn key_set(&self) -> serde_json::Value;
}
