//! Users by their client certificates: the common name is the user, the organizations are the groups.

use std::sync::Arc;

use async_trait::async_trait;
use xebec_pki::ClientTrust;

use super::{Authenticator, AuthnError, CREDENTIAL_ID, Credentials, GROUP_AUTHENTICATED, PeerCertificate, User};

/// Believes certificates of its authorities. A connection's certificate is judged once, at its first request.
pub struct Certificates {
    trust: ClientTrust,
}

impl Certificates {
    pub fn new(trust: ClientTrust) -> Self {
        Certificates { trust }
    }

    fn judge(&self, certificate: &PeerCertificate) -> Result<Arc<User>, AuthnError> {
        let peer = self.trust.authenticate(&certificate.chain);
        let peer = peer.map_err(|error| AuthnError(xebec_base::Chain(&error).to_string()))?;
        let mut groups = peer.subject.groups;
        groups.push(GROUP_AUTHENTICATED.to_owned());
        let extra = [(CREDENTIAL_ID.to_owned(), vec![peer.credential_id])].into();
        Ok(Arc::new(User { name: peer.subject.user, uid: peer.subject.uid.unwrap_or_default(), groups, extra }))
    }
}

#[async_trait]
impl Authenticator for Certificates {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<Arc<User>>, AuthnError> {
        let Some(certificate) = credentials.certificate.filter(|one| !one.chain.is_empty()) else { return Ok(None) };
        certificate.identity.get_or_init(|| self.judge(certificate)).clone().map(Some)
    }
}
