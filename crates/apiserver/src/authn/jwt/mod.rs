//! Users by JSON Web Tokens of other issuers (OpenID Connect).
//!
//! A file says which issuers are believed and how their claims become a user: upstream's `AuthenticationConfiguration`,
//! claims and CEL expressions included. The file is read anew when it changes. An issuer's keys are fetched when its first
//! token comes and again when a token names a key that is not known; nothing is fetched for tokens of strangers.

mod config;
mod expression;
mod issuer;
mod mapping;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use xebec_base::SharedClock;

use super::{Anonymous, Authenticator, AuthnError, Credentials, Identified, User, bearer_token};
use config::Configuration;
pub use config::{ConfigError, Flags};
use issuer::Issuer;

/// All issuers of one configuration, and what it says of requests without credentials.
pub struct JwtAuthenticator {
    /// `None` where flags say it all.
    path: Option<PathBuf>,
    /// The server's own issuers, which no file may claim to be.
    own_issuers: Vec<String>,
    /// For whom a token is that a configured issuer has signed for its own audiences.
    audiences: Vec<String>,
    anonymous: Arc<ArcSwap<Anonymous>>,
    issuers: ArcSwap<Vec<Arc<Issuer>>>,
    clock: SharedClock,
}

/// What the server tells about itself.
pub struct Setting {
    pub own_issuers: Vec<String>,
    pub audiences: Vec<String>,
    /// Follows the file's `anonymous`, where it has one.
    pub anonymous: Arc<ArcSwap<Anonymous>>,
    pub clock: SharedClock,
}

impl JwtAuthenticator {
    /// Reads the file that `--authentication-config` names.
    pub fn load(path: &Path, setting: Setting) -> Result<Self, ConfigError> {
        let configuration = Configuration::read(path, &setting.own_issuers)?;
        let authenticator = Self::new(Some(path.to_owned()), setting);
        authenticator.apply(configuration);
        Ok(authenticator)
    }

    /// One issuer by upstream's `--oidc-*` flags.
    pub fn from_flags(flags: &Flags, setting: Setting) -> Result<Self, ConfigError> {
        let configuration = Configuration::of_flags(flags, &setting.own_issuers)?;
        let authenticator = Self::new(None, setting);
        authenticator.apply(configuration);
        Ok(authenticator)
    }

    fn new(path: Option<PathBuf>, setting: Setting) -> Self {
        let Setting { own_issuers, audiences, anonymous, clock } = setting;
        JwtAuthenticator { path, own_issuers, audiences, anonymous, issuers: ArcSwap::default(), clock }
    }

    /// Reads the file again; an error leaves in force what was.
    pub fn reload(&self) -> Result<(), ConfigError> {
        if let Some(path) = &self.path {
            self.apply(Configuration::read(path, &self.own_issuers)?);
        }
        Ok(())
    }

    fn apply(&self, configuration: Configuration) {
        if let Some(anonymous) = configuration.anonymous {
            self.anonymous.store(Arc::new(anonymous));
        }
        let issuers = configuration.issuers.into_iter();
        self.issuers.store(Arc::new(issuers.map(|rules| Arc::new(Issuer::new(rules, self.clock.clone()))).collect()));
    }

    async fn find(&self, token: &str) -> Result<Option<Arc<User>>, AuthnError> {
        let Some(named) = issuer::named_issuer(token) else { return Ok(None) };
        let found = self.issuers.load().iter().find(|one| one.url() == named).cloned();
        let Some(issuer) = found else { return Ok(None) };
        let claims = issuer.verify(token).await.map_err(|why| AuthnError(format!("oidc: verify token: {why}")))?;
        let user = issuer.user(claims).map_err(|why| AuthnError(format!("oidc: {why}")))?;
        Ok(Some(Arc::new(user)))
    }
}

#[async_trait]
impl Authenticator for JwtAuthenticator {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Arc<User>>, AuthnError> {
        match bearer_token(credentials.headers) {
            Some(token) => self.find(&token).await,
            None => Ok(None),
        }
    }

    async fn review(&self, token: &str, audiences: &[String]) -> Result<Option<Identified>, AuthnError> {
        let found = self.find(token).await?;
        Ok(found.and_then(|user| Identified::for_audiences(user, &self.audiences, audiences)))
    }
}

#[cfg(test)]
mod tests;
