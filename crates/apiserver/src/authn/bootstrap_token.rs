//! Users by bootstrap tokens: how a machine that has nothing else joins a cluster.
//!
//! A token is `id.secret`; the Secret `bootstrap-token-ID` of `kube-system` says what it is good for and until when.
//! Behaviour: upstream's bootstrap token authenticator.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use sha2::{Digest, Sha256};

use super::{Authenticator, AuthnError, Credentials, Identified, User, bearer_token};
use crate::registry::Registry;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
const USER_PREFIX: &str = "system:bootstrap:";

pub struct BootstrapTokens {
    registry: Arc<Registry>,
    /// What the tokens are good for.
    audiences: Vec<String>,
}

impl BootstrapTokens {
    pub fn new(registry: Arc<Registry>, audiences: Vec<String>) -> Self {
        BootstrapTokens { registry, audiences }
    }

    fn find(&self, token: &str) -> Option<Arc<User>> {
        let (id, secret) = parse(token)?;
        let object = self.registry.get::<Secret>(NAMESPACE, &format!("bootstrap-token-{id}"))?;
        user(&object, id, secret, self.registry.clock.now()).map(Arc::new)
    }
}

#[async_trait]
impl Authenticator for BootstrapTokens {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Arc<User>>, AuthnError> {
        Ok(bearer_token(credentials.headers).and_then(|token| self.find(&token)))
    }

    async fn review(&self, token: &str, audiences: &[String]) -> Result<Option<Identified>, AuthnError> {
        Ok(self.find(token).and_then(|user| Identified::for_audiences(user, &self.audiences, audiences)))
    }
}

/// `[a-z0-9]{6}.[a-z0-9]{16}`
fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

/// Whom the Secret lets the bearer be, if it is what it should be and the token is the one that it holds.
fn user(object: &Secret, id: &str, secret: &str, now: Timestamp) -> Option<User> {
    if object.metadata.deletion_timestamp.is_some() || object.type_.as_deref() != Some(TYPE) {
        return None;
    }
    let data = |key: &str| {
        let value = object.data.as_ref()?.get(key)?;
        std::str::from_utf8(&value.0).ok()
    };
    // Digests are compared, so that the time it takes says nothing about the secret.
    if Sha256::digest(data("token-secret")?) != Sha256::digest(secret) || data("token-id")? != id {
        return None;
    }
    // A time that cannot be read is one that is over, as upstream has it.
    if let Some(text) = data("expiration").filter(|text| !text.is_empty())
        && text.parse::<Timestamp>().ok().is_none_or(|end| end <= now)
    {
        return None;
    }
    if data("usage-bootstrap-authentication") != Some("true") {
        return None;
    }
    let mut groups = vec![GROUP.to_owned()];
    let extra = data("auth-extra-groups").unwrap_or("").split(',').filter(|group| !group.is_empty());
    for group in extra {
        if !is_group(group) {
            return None;
        }
        groups.push(group.to_owned());
    }
    groups.sort();
    groups.dedup();
    Some(User { name: format!("{USER_PREFIX}{id}"), groups, ..User::default() })
}

/// `system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]`
fn is_group(group: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let rest = group.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':')).unwrap_or("").as_bytes();
    rest.len() <= 256
        && rest.iter().all(|byte| plain(*byte) || matches!(byte, b':' | b'-'))
        && rest.last().is_some_and(|last| plain(*last))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(change: Value, token: &str, expected: Option<&[&str]>) {
        let mut secret = json!({
            "type": TYPE,
            "stringData": {
                "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
                "expiration": "2030-01-01T00:00:00Z", "auth-extra-groups": "system:bootstrappers:b,system:bootstrappers:a"
            }
        });
        json_patch::merge(&mut secret, &change);
        let mut object: Secret = serde_json::from_value(secret).unwrap();
        let text = object.string_data.take().unwrap();
        object.data =
            Some(text.into_iter().map(|(key, text)| (key, k8s_openapi::ByteString(text.into_bytes()))).collect());
        let now = "2029-12-31T23:59:59Z".parse().unwrap();
        let found = parse(token).and_then(|(id, secret)| user(&object, id, secret, now));
        let groups = found.as_ref().map(|user| user.groups.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(groups.as_deref(), expected, "{change} {token}");
        assert!(found.is_none_or(|user| user.name == "system:bootstrap:abcdef"));
    }

    #[test]
    fn a_token_is_as_good_as_its_secret_says() {
        const GOOD: &str = "abcdef.0123456789abcdef";
        check(json!({}), GOOD, Some(&[GROUP, "system:bootstrappers:a", "system:bootstrappers:b"]));
        check(json!({"stringData": {"auth-extra-groups": null, "expiration": null}}), GOOD, Some(&[GROUP]));
        check(json!({}), "abcdef.0123456789abcdee", None);
        check(json!({}), "abcdeg.0123456789abcdef", None);
        check(json!({}), "abcdef0123456789abcdef", None);
        check(json!({}), "ABCDEF.0123456789abcdef", None);
        check(json!({"type": "Opaque"}), GOOD, None);
        check(json!({"metadata": {"deletionTimestamp": "2029-01-01T00:00:00Z"}}), GOOD, None);
        check(json!({"stringData": {"expiration": "2029-12-31T23:59:59Z"}}), GOOD, None);
        check(json!({"stringData": {"expiration": "tomorrow"}}), GOOD, None);
        check(json!({"stringData": {"usage-bootstrap-authentication": "yes"}}), GOOD, None);
        check(json!({"stringData": {"token-id": "abcdeg"}}), GOOD, None);
        check(json!({"stringData": {"auth-extra-groups": "system:masters"}}), GOOD, None);
        check(json!({"stringData": {"auth-extra-groups": "system:bootstrappers:a-"}}), GOOD, None);
    }
}
