//! Users named by a proxy in front of the server, which proves itself by its certificate.
//!
//! Behaviour: upstream's request header authenticator; its flags are the fields of [`RequestHeaderSettings`].

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;
use xebec_pki::ClientTrust;

use super::{Authenticator, AuthnError, Credentials, User};

#[derive(Clone, Debug)]
pub struct RequestHeaderSettings {
    /// The first of these that is there holds the user's name.
    pub username: Vec<String>,
    pub uid: Vec<String>,
    pub group: Vec<String>,
    pub extra_prefix: Vec<String>,
    /// Common names of certificates that may speak for users; none: all that the authority has signed.
    pub allowed_names: Vec<String>,
}

impl Default for RequestHeaderSettings {
    fn default() -> Self {
        let one = |name: &str| vec![name.to_owned()];
        RequestHeaderSettings {
            username: one("X-Remote-User"),
            uid: one("X-Remote-Uid"),
            group: one("X-Remote-Group"),
            extra_prefix: one("X-Remote-Extra-"),
            allowed_names: Vec::new(),
        }
    }
}

pub struct RequestHeaders {
    trust: ClientTrust,
    settings: RequestHeaderSettings,
}

impl RequestHeaders {
    pub fn new(trust: ClientTrust, settings: RequestHeaderSettings) -> Self {
        RequestHeaders { trust, settings }
    }

    fn values<'h>(headers: &'h HeaderMap, names: &'h [String]) -> impl Iterator<Item = &'h str> {
        let all = names.iter().flat_map(|name| headers.get_all(name.as_str()));
        all.filter_map(|value| value.to_str().ok()).filter(|value| !value.is_empty())
    }

    fn prefix<'n>(&self, name: &'n HeaderName) -> Option<&'n str> {
        self.settings.extra_prefix.iter().find_map(|prefix| name.as_str().strip_prefix(&*prefix.to_ascii_lowercase()))
    }

    fn user(&self, headers: &HeaderMap) -> Option<User> {
        let name = Self::values(headers, &self.settings.username).next()?.to_owned();
        let uid = Self::values(headers, &self.settings.uid).next().unwrap_or("").to_owned();
        let groups = Self::values(headers, &self.settings.group).map(str::to_owned).collect();
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for header in headers.keys() {
            let Some(encoded) = self.prefix(header) else { continue };
            let key =
                percent_decode_str(encoded).decode_utf8().map_or_else(|_| encoded.to_owned(), |key| key.into_owned());
            let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
            extra.entry(key).or_default().extend(values.map(str::to_owned));
        }
        Some(User { name, uid, groups, extra })
    }
}

#[async_trait]
impl Authenticator for RequestHeaders {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Arc<User>>, AuthnError> {
        let Some(certificate) = credentials.certificate.filter(|one| !one.chain.is_empty()) else { return Ok(None) };
        let Some(user) = self.user(credentials.headers) else { return Ok(None) };
        // A client of another authority is not the proxy; its headers say nothing, and its certificate may name itself.
        let Ok(peer) = self.trust.authenticate(&certificate.chain) else { return Ok(None) };
        let allowed = &self.settings.allowed_names;
        if !allowed.is_empty() && !allowed.contains(&peer.subject.user) {
            return Err(AuthnError(format!("x509: subject with cn={} is not in the allowed list", peer.subject.user)));
        }
        Ok(Some(Arc::new(user)))
    }

    fn take_credentials(&self, headers: &mut HeaderMap) {
        let settings = &self.settings;
        for name in settings.username.iter().chain(&settings.uid).chain(&settings.group) {
            headers.remove(name.as_str());
        }
        let extra: Vec<HeaderName> = headers.keys().filter(|name| self.prefix(name).is_some()).cloned().collect();
        for name in extra {
            headers.remove(name);
        }
    }
}
