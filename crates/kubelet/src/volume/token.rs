//! Service-account tokens for projected volumes: asked for by TokenRequest, bound to the Pod, renewed when four fifths of their
//! life are over (or after a day, whichever is sooner).

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use xebec_client::Client;

use super::VolumeError;

const OLDEST: Duration = Duration::from_secs(24 * 3600);
/// A token that cannot be renewed is tried again after so long, while the old one still serves.
const RETRY: Duration = Duration::from_secs(30);

/// The tokens of one Pod, by what was asked for.
#[derive(Default)]
pub struct Tokens {
    held: HashMap<(String, i64), Held>,
}

/// For whom tokens are asked for, and when.
pub struct Asker<'a> {
    pub client: &'a Client,
    pub pod: &'a Pod,
    pub now: Timestamp,
}

struct Held {
    token: String,
    expires: Timestamp,
    renew: Timestamp,
}

impl Tokens {
    /// The token and when to come back for the next.
    pub async fn get(
        &mut self,
        asker: &Asker<'_>,
        wanted: &ServiceAccountTokenProjection,
    ) -> Result<(String, Timestamp), VolumeError> {
        let now = asker.now;
        let audience = wanted.audience.clone().unwrap_or_default();
        let key = (audience.clone(), wanted.expiration_seconds.unwrap_or(3600));
        if let Some(held) = self.held.get(&key)
            && now < held.renew
        {
            return Ok((held.token.clone(), held.renew));
        }
        match request(asker.client, asker.pod, audience, key.1).await {
            Ok((token, expires)) => {
                let renew = renewal(now, expires);
                self.held.insert(key, Held { token: token.clone(), expires, renew });
                Ok((token, renew))
            }
            Err(error) => match self.held.get_mut(&key) {
                Some(held) if now < held.expires => {
                    tracing::warn!(%error, "cannot renew a service-account token yet");
                    held.renew = now + RETRY;
                    Ok((held.token.clone(), held.renew))
                }
                _ => Err(error),
            },
        }
    }
}

fn renewal(now: Timestamp, expires: Timestamp) -> Timestamp {
    let life = Duration::try_from(expires.duration_since(now)).unwrap_or_default();
    now + life.mul_f64(0.8).min(OLDEST)
}

async fn request(
    client: &Client,
    pod: &Pod,
    audience: String,
    seconds: i64,
) -> Result<(String, Timestamp), VolumeError> {
    let spec = pod.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.clone()).filter(|name| !name.is_empty());
    let account = account.unwrap_or_else(|| "default".to_owned());
    let body = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: (!audience.is_empty()).then(|| vec![audience]),
            expiration_seconds: Some(seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let accounts = client.namespaced::<ServiceAccount>(pod.metadata.namespace.as_deref().unwrap_or_default());
    let answer: Result<TokenRequest, _> = accounts.create_subresource(&account, "token", &body).await;
    let answer = answer.map_err(|error| VolumeError::Content(format!("failed to fetch token: {error}")))?;
    let incomplete = || VolumeError::Content("failed to fetch token: the answer has none".into());
    let status = answer.status.ok_or_else(incomplete)?;
    let expires = status.expiration_timestamp.ok_or_else(incomplete)?;
    Ok((status.token.ok_or_else(incomplete)?, expires.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_in_time() {
        let check = |life: i64, renewed_after: i64| {
            let now = Timestamp::UNIX_EPOCH;
            assert_eq!(renewal(now, now + Duration::from_secs(life as u64)).as_second(), renewed_after);
        };
        check(3600, 2880);
        check(600, 480);
        check(30 * 24 * 3600, 24 * 3600);
    }
}
