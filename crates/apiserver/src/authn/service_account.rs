//! The tokens of service accounts: JSON Web Tokens bound to an account and mostly to a Pod, issued and checked here.
//!
//! A token is good as long as it has not expired and the account and the object it is bound to exist with the uids that it
//! names; both are looked up in the caches at every request. Behaviour: upstream's `pkg/serviceaccount` and the
//! TokenRequest API (KEP-1205). Tokens are signed with one key and believed with several, RSA and elliptic curves alike, so
//! that keys can be exchanged and upstream's tokens carried over. Tokens of the older form, which a Secret holds and which
//! never end, are believed as long as their Secret holds them.

mod keys;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use jsonwebtoken::{Header, Validation};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestStatus};
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use xebec_api::field::{FieldError, Path};
use xebec_api::resource::{Kind, ResourceType};
use xebec_api::status::StatusError;

use super::token_cache::TokenCache;
use super::{Authenticator, AuthnError, CREDENTIAL_ID, Credentials, Identified, TokenIssuer, User, bearer_token};
use crate::admission::node_restriction;
use crate::registry::Registry;

pub use keys::{KeyError, PublicKey, SigningKey, read_public, read_signing};

/// How far clocks may differ; also how long a token outlives the deletion of what it is bound to. Both as upstream's.
const LEEWAY: i64 = 60;
const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// Upstream's mark of the volume that each Pod gets: old clients do not read tokens again, so these live for a year.
const EXTENDED_FROM: i64 = 3607;
const EXTENDED_TO: i64 = 365 * 24 * 3600;

/// Who issues the tokens of the older form.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

/// What the server's operator decides about tokens.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// `iss`: the first is that of new tokens, and all are believed; `https://kubernetes.default.svc.cluster.local` by
    /// default.
    pub issuers: Vec<String>,
    /// For whom tokens are unless they say otherwise; the issuers by default.
    pub audiences: Vec<String>,
    /// Where the public keys are, as `/.well-known/openid-configuration` tells.
    pub key_set_url: String,
    /// The longest life that a token may be given.
    pub max_life: Option<Duration>,
    /// Whether the tokens of Pods' volumes live for a year, for clients that never read them again.
    pub extends: bool,
}

impl TokenSettings {
    /// `address`: host and port under which clients reach the server.
    pub fn default_for(address: &str) -> Self {
        let issuers = vec!["https://kubernetes.default.svc.cluster.local".to_owned()];
        let (audiences, key_set_url) = (issuers.clone(), format!("https://{address}/openid/v1/jwks"));
        TokenSettings { issuers, audiences, key_set_url, max_life: None, extends: true }
    }

    fn issuer(&self) -> &str {
        self.issuers.first().map_or("", String::as_str)
    }
}

/// The key that signs new tokens, and all that are believed, the signing one's own among them.
pub struct TokenKeys {
    signing: SigningKey,
    believed: Vec<PublicKey>,
}

impl TokenKeys {
    pub fn new(signing: SigningKey, others: Vec<PublicKey>) -> Self {
        let mut believed = vec![signing.public.clone()];
        for key in others {
            if believed.iter().all(|known| known.id != key.id) {
                believed.push(key);
            }
        }
        TokenKeys { signing, believed }
    }

    /// Those that a token may be signed with: the one it names or, if it names none that is known, all.
    fn named(&self, id: Option<&str>) -> Vec<&PublicKey> {
        let named: Vec<&PublicKey> = self.believed.iter().filter(|key| Some(key.id.as_str()) == id).collect();
        if named.is_empty() { self.believed.iter().collect() } else { named }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claims {
    aud: Audiences,
    exp: i64,
    iat: i64,
    iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    jti: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Private,
    nbf: i64,
    sub: String,
}

/// One audience may stand without a list (RFC 7519 section 4.1.3).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Audiences {
    Many(Vec<String>),
    One(String),
}

impl Audiences {
    fn as_slice(&self) -> &[String] {
        match self {
            Audiences::Many(all) => all,
            Audiences::One(one) => std::slice::from_ref(one),
        }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Private {
    namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Reference>,
    serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warnafter: Option<i64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Reference {
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    uid: String,
}

/// A token of the older form.
#[derive(Clone, Debug, Deserialize)]
struct LegacyClaims {
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
    sub: String,
}

enum Verified {
    Bound(Claims),
    Legacy(LegacyClaims),
}

#[derive(Deserialize)]
struct IssuerOnly {
    #[serde(default)]
    iss: String,
}

pub struct ServiceAccounts {
    registry: Arc<Registry>,
    settings: TokenSettings,
    keys: TokenKeys,
    verified: TokenCache<Verified>,
}

impl ServiceAccounts {
    pub fn new(registry: Arc<Registry>, keys: TokenKeys, settings: TokenSettings) -> Self {
        ServiceAccounts { registry, settings, keys, verified: TokenCache::default() }
    }

    /// `None` for a token of another issuer.
    fn verify(&self, token: &str) -> Result<Option<Arc<Verified>>, AuthnError> {
        let read = || {
            let unverified: IssuerOnly = jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| None)?;
            if unverified.iss == LEGACY_ISSUER {
                return self.signed(token).map(Verified::Legacy).map_err(Some);
            }
            if !self.settings.issuers.contains(&unverified.iss) {
                return Err(None);
            }
            self.signed(token).map(Verified::Bound).map_err(Some)
        };
        match self.verified.get(token, read) {
            Ok(claims) => Ok(Some(claims)),
            Err(None) => Ok(None),
            Err(Some(error)) => Err(error),
        }
    }

    /// What stands in a token that one of the keys has signed.
    fn signed<C: DeserializeOwned + Clone>(&self, token: &str) -> Result<C, AuthnError> {
        let refused = |error| AuthnError(format!("the token cannot be verified: {error}"));
        let header = jsonwebtoken::decode_header(token).map_err(refused)?;
        let mut why = AuthnError("the token cannot be verified: no key fits its algorithm".to_owned());
        for key in self.keys.named(header.kid.as_deref()).into_iter().filter(|key| key.algorithm == header.alg) {
            let mut rules = Validation::new(key.algorithm);
            // Times are held against the server's own clock, and audiences against what is asked, at every use.
            rules.validate_exp = false;
            rules.validate_nbf = false;
            rules.validate_aud = false;
            rules.required_spec_claims.clear();
            match jsonwebtoken::decode::<C>(token, &key.decoding, &rules) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) => why = refused(error),
            }
        }
        Err(why)
    }

    /// A token of the older form is good as long as its Secret holds it; it is meant for the API server.
    fn check_legacy(&self, claims: &LegacyClaims, token: &str, now: Timestamp) -> Result<User, AuthnError> {
        let invalid = || AuthnError("service account token has been invalidated".to_owned());
        if claims.sub != super::service_account_name(&claims.namespace, &claims.account) {
            return Err(AuthnError("sub claim is invalid".to_owned()));
        }
        let secret = self.registry.get::<Secret>(&claims.namespace, &claims.secret).ok_or_else(invalid)?;
        let held = secret.data.as_ref().and_then(|data| data.get("token")).map(|held| held.0.as_slice());
        if secret.metadata.deletion_timestamp.is_some() || held != Some(token.as_bytes()) {
            return Err(invalid());
        }
        let private = Private {
            namespace: claims.namespace.clone(),
            serviceaccount: Reference { name: claims.account.clone(), uid: claims.uid.clone() },
            ..Private::default()
        };
        self.check_objects(&private, now)?;
        Ok(User::of_service_account(&claims.namespace, &claims.account, &claims.uid))
    }

    /// Whose the token is now, and for which of the audiences.
    fn identify(&self, token: &str, audiences: &[String]) -> Result<Option<Identified>, AuthnError> {
        let Some(verified) = self.verify(token)? else { return Ok(None) };
        let audiences = if audiences.is_empty() { &self.settings.audiences } else { audiences };
        let meant = match &*verified {
            Verified::Bound(claims) => claims.aud.as_slice(),
            Verified::Legacy(_) => &self.settings.audiences,
        };
        let shared: Vec<String> = audiences.iter().filter(|one| meant.contains(one)).cloned().collect();
        if shared.is_empty() {
            return Err(AuthnError(format!(
                "token audiences {meant:?} is invalid for the target audiences {audiences:?}"
            )));
        }
        let now = self.registry.clock.now();
        let user = match &*verified {
            Verified::Bound(claims) => {
                claims.check_times(now.as_second())?;
                self.check_objects(&claims.kubernetes, now)?;
                claims.user()
            }
            Verified::Legacy(claims) => self.check_legacy(claims, token, now)?,
        };
        Ok(Some(Identified { user: Arc::new(user), audiences: shared }))
    }

    fn check_objects(&self, private: &Private, now: Timestamp) -> Result<(), AuthnError> {
        let account = &private.serviceaccount;
        let namespace = &private.namespace;
        match self.state::<ServiceAccount>(namespace, account, now) {
            Bound::Good => {}
            Bound::Missing => return Err(AuthnError(format!("serviceaccounts {:?} not found", account.name))),
            Bound::Deleted => {
                return Err(AuthnError(format!("service account {namespace}/{} has been deleted", account.name)));
            }
            Bound::Another(uid) => {
                let text = format!("service account UID ({uid}) does not match claim ({})", account.uid);
                return Err(AuthnError(text));
            }
        }
        if let Some(secret) = &private.secret {
            self.state::<Secret>(namespace, secret, now).check("secret", secret)?;
        }
        if let Some(pod) = &private.pod {
            self.state::<Pod>(namespace, pod, now).check("pod", pod)?;
        } else if let Some(node) = &private.node {
            self.state::<Node>("", node, now).check("node", node)?;
        }
        Ok(())
    }

    fn state<K: Kind>(&self, namespace: &str, wanted: &Reference, now: Timestamp) -> Bound {
        let found = self.registry.cache_of::<K>().and_then(|cache| cache.get(namespace, &wanted.name));
        let Some(item) = found else { return Bound::Missing };
        let meta = item.object.meta();
        if *meta.uid != *wanted.uid {
            return Bound::Another(meta.uid.to_string());
        }
        let deadline =
            || item.object.typed::<K>().ok()?.metadata().deletion_timestamp.as_ref().map(|time| time.0.as_second());
        if meta.deleting && deadline().is_some_and(|deadline| deadline < now.as_second() - LEEWAY) {
            return Bound::Deleted;
        }
        Bound::Good
    }

    fn sign(&self, claims: &Claims) -> Result<String, StatusError> {
        let key = &self.keys.signing;
        let mut header = Header::new(key.public.algorithm);
        header.typ = None;
        header.kid = Some(key.public.id.clone());
        let token = jsonwebtoken::encode(&header, claims, &key.encoding);
        token.map_err(|error| StatusError::internal(format!("failed to generate token: {error}")))
    }
}

/// What has become of an object that a token names.
enum Bound {
    Good,
    Missing,
    Deleted,
    /// One with this uid has taken its place.
    Another(String),
}

impl Bound {
    fn check(self, kind: &str, wanted: &Reference) -> Result<(), AuthnError> {
        match self {
            Bound::Good => Ok(()),
            Bound::Missing | Bound::Deleted => Err(AuthnError("service account token has been invalidated".to_owned())),
            Bound::Another(uid) => Err(AuthnError(format!(
                "{kind} UID ({uid}) does not match service account {kind} ref claim ({})",
                wanted.uid
            ))),
        }
    }
}

impl Claims {
    fn check_times(&self, now: i64) -> Result<(), AuthnError> {
        let why = if self.exp < now - LEEWAY {
            "has expired"
        } else if self.nbf > now + LEEWAY {
            "is not valid yet"
        } else if self.iat > now + LEEWAY {
            "is issued in the future"
        } else {
            return Ok(());
        };
        Err(AuthnError(format!("service account token {why}")))
    }

    fn user(&self) -> User {
        let private = &self.kubernetes;
        let account = &private.serviceaccount;
        let mut user = User::of_service_account(&private.namespace, &account.name, &account.uid);
        let mut extra = |key: &str, value: &str| {
            if !value.is_empty() {
                user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
            }
        };
        if let Some(pod) = &private.pod {
            extra("pod-name", &pod.name);
            extra("pod-uid", &pod.uid);
        }
        if let Some(node) = &private.node {
            extra("node-name", &node.name);
            extra("node-uid", &node.uid);
        }
        if !self.jti.is_empty() {
            user.extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={}", self.jti)]);
        }
        user
    }
}

#[async_trait]
impl Authenticator for ServiceAccounts {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Arc<User>>, AuthnError> {
        let Some(token) = bearer_token(credentials.headers) else { return Ok(None) };
        Ok(self.identify(&token, &[])?.map(|found| found.user))
    }

    async fn review(&self, token: &str, audiences: &[String]) -> Result<Option<Identified>, AuthnError> {
        self.identify(token, audiences)
    }
}

#[async_trait]
impl TokenIssuer for ServiceAccounts {
    async fn issue(
        &self,
        registry: &Registry,
        user: &Arc<User>,
        account: &ServiceAccount,
        mut request: TokenRequest,
        warnings: &mut Vec<String>,
    ) -> Result<TokenRequest, StatusError> {
        let now = self.registry.clock.now();
        complete(&mut request, account, now)?;
        let spec = request.spec.get_or_insert_default();
        if spec.audiences.as_ref().is_none_or(Vec::is_empty) {
            spec.audiences = Some(self.settings.audiences.clone());
        }
        let mut seconds = *spec.expiration_seconds.get_or_insert(DEFAULT_SECONDS);
        validate(spec.attestations.as_ref(), seconds)?;
        node_restriction::token_request(registry, user, account, &request)?;

        let mut private = bind(registry, account, &request).await?;
        let spec = request.spec.get_or_insert_default();
        let longest = self.settings.max_life.map(|life| life.as_secs() as i64).filter(|longest| seconds > *longest);
        if let Some(longest) = longest {
            warnings.push(format!("requested expiration of {seconds} seconds shortened to {longest} seconds"));
            seconds = longest;
            spec.expiration_seconds = Some(longest);
        }
        let issued = now.as_second();
        let audiences = spec.audiences.clone().unwrap_or_default();
        let own = audiences.iter().all(|one| self.settings.audiences.contains(one));
        let life = if self.settings.extends && seconds == EXTENDED_FROM && private.pod.is_some() && own {
            private.warnafter = Some(issued + seconds);
            EXTENDED_TO
        } else {
            seconds
        };
        let token = self.sign(&Claims {
            aud: Audiences::Many(audiences),
            exp: issued + life,
            iat: issued,
            iss: self.settings.issuer().to_owned(),
            jti: uuid::Uuid::new_v4().to_string(),
            sub: super::service_account_name(&private.namespace, &private.serviceaccount.name),
            nbf: issued,
            kubernetes: private,
        })?;
        let expires = Timestamp::from_second(issued + seconds).map_err(StatusError::internal)?;
        request.status = Some(TokenRequestStatus { expiration_timestamp: Some(Time(expires)), token: Some(token) });
        Ok(request)
    }

    fn configuration(&self) -> Value {
        let algorithms: BTreeSet<&str> =
            self.keys.believed.iter().filter_map(|key| key.document["alg"].as_str()).collect();
        json!({
            "issuer": self.settings.issuer(),
            "jwks_uri": self.settings.key_set_url,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        })
    }

    fn key_set(&self) -> Value {
        let keys: Vec<&Value> = self.keys.believed.iter().map(|key| &key.document).collect();
        json!({ "keys": keys })
    }
}

fn token_requests() -> ResourceType {
    ResourceType::new("authentication.k8s.io", "v1", "TokenRequest", "TokenRequest", true)
}

/// The metadata of the answer; what the request has of it must be the account's.
fn complete(request: &mut TokenRequest, account: &ServiceAccount, now: Timestamp) -> Result<(), StatusError> {
    let (meta, own) = (&mut request.metadata, &account.metadata);
    let name = own.name.clone().unwrap_or_default();
    let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    crate::registry::metadata::check_namespace(meta, own.namespace.as_deref().unwrap_or(""))?;
    if let Some(value) = given(&meta.name).filter(|value| *value != name) {
        let path = Path::new("metadata").child("name");
        let text = "must match the service account name if specified";
        return Err(StatusError::invalid(&token_requests(), &name, vec![FieldError::invalid(&path, value, text)]));
    }
    let uid = own.uid.clone().unwrap_or_default();
    if let Some(given) = given(&meta.uid).filter(|given| *given != uid) {
        let why =
            format!("the UID in the token request ({given}) does not match the UID of the service account ({uid})");
        return Err(StatusError::conflict(&token_requests(), &name, why));
    }
    meta.name = own.name.clone();
    meta.namespace = own.namespace.clone();
    meta.uid = own.uid.clone();
    meta.creation_timestamp = Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)));
    request.status = None;
    Ok(())
}

fn validate(attestations: Option<&BTreeMap<String, Vec<String>>>, seconds: i64) -> Result<(), StatusError> {
    let path = Path::new("spec");
    let mut errors = Vec::new();
    let mut life = |text: &str| errors.push(FieldError::invalid(&path.child("expirationSeconds"), seconds, text));
    if seconds < MIN_SECONDS {
        life("may not specify a duration less than 10 minutes");
    }
    if seconds > MAX_SECONDS {
        life("may not specify a duration larger than 2^32 seconds");
    }
    if attestations.is_some_and(|all| !all.is_empty()) {
        let text = "attestations may only be specified with a webhook bound object reference";
        errors.push(FieldError::invalid(&path.child("attestations"), json!(attestations), text));
    }
    if errors.is_empty() { Ok(()) } else { Err(StatusError::invalid(&token_requests(), "", errors)) }
}

/// What the token will say about the account and the object it is bound to.
async fn bind(registry: &Registry, account: &ServiceAccount, request: &TokenRequest) -> Result<Private, StatusError> {
    let meta = &account.metadata;
    let namespace = meta.namespace.clone().unwrap_or_default();
    let name = meta.name.clone().unwrap_or_default();
    let serviceaccount = Reference { name: name.clone(), uid: meta.uid.clone().unwrap_or_default() };
    let mut private = Private { namespace: namespace.clone(), serviceaccount, ..Private::default() };
    let Some(wanted) = request.spec.as_ref().and_then(|spec| spec.bound_object_ref.as_ref()) else {
        return Ok(private);
    };
    let (version, kind) = (wanted.api_version.as_deref().unwrap_or(""), wanted.kind.as_deref().unwrap_or(""));
    let core = !version.contains('/');
    match kind {
        "Pod" if core => {
            let pod = bound::<Pod>(registry, &namespace, wanted).await?;
            let spec = pod.spec.as_ref();
            if spec.and_then(|spec| spec.service_account_name.as_deref()) != Some(&name) {
                return Err(StatusError::bad_request(format!(
                    "cannot bind token for serviceaccount {name:?} to pod running with different serviceaccount name."
                )));
            }
            private.pod = Some(reference(&*pod));
            let node = spec.and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty());
            // A node that is gone is named without its uid.
            private.node = node.map(|node| match registry.get::<Node>("", &node) {
                Some(found) => reference(&*found),
                None => Reference { name: node, uid: String::new() },
            });
        }
        "Node" if core => private.node = Some(reference(&*bound::<Node>(registry, "", wanted).await?)),
        "Secret" if core => private.secret = Some(reference(&*bound::<Secret>(registry, &namespace, wanted).await?)),
        _ => {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let text = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(StatusError::bad_request(text));
        }
    }
    Ok(private)
}

fn reference<K: Kind>(object: &K) -> Reference {
    let meta = object.metadata();
    Reference { name: meta.name.clone().unwrap_or_default(), uid: meta.uid.clone().unwrap_or_default() }
}

async fn bound<K: Kind>(
    registry: &Registry,
    namespace: &str,
    wanted: &BoundObjectReference,
) -> Result<Arc<K>, StatusError> {
    let name = wanted.name.as_deref().unwrap_or("");
    registry.catch_up().await?;
    let resource = ResourceType::of::<K>();
    let object = registry.get::<K>(namespace, name).ok_or_else(|| StatusError::not_found(&resource, name))?;
    if let Some(uid) =
        wanted.uid.as_deref().filter(|uid| !uid.is_empty() && Some(*uid) != object.metadata().uid.as_deref())
    {
        let kind = ResourceType { plural: resource.kind.clone(), ..resource };
        return Err(StatusError::conflict(
            &kind,
            name,
            format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
            ),
        ));
    }
    Ok(object)
}

#[cfg(test)]
mod tests;
