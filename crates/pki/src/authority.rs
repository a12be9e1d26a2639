//! The certificate authority: a key and a self-signed certificate in a folder, and what it issues.
//!
//! The key lasts for the authority's whole life; a renewed certificate has the same name and key, so what was issued
//! before stays valid and whoever trusts the old certificate trusts the new one.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use xebec_base::SharedClock;

use crate::certificate::{self, Facts, Kind, Template, Usages};
use crate::files::{self, Access, Lasting};
use crate::identity::{self, Identity, Profile};
use crate::request::CertificateRequest;
use crate::subject::{Names, Subject};
use crate::{Error, Result};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// As long as kubeadm's authorities live; renewed long before.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * DAY.as_secs());
/// Certificates are valid from a little in the past, for peers whose clocks are slow; upstream's signers do the same.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// Below this life the end is not moved forward along with the beginning, as with upstream's signers.
const SHORT_LIFE: Duration = Duration::from_secs(8 * 60 * 60);

pub struct Authority {
    clock: SharedClock,
    key: KeyPair,
    certificate: CertificateDer<'static>,
    facts: Facts,
}

/// What the authority fills in the rest for: its own name, key and the times.
struct Leaf {
    subject: Vec<u8>,
    names: Names,
    public_key: Vec<u8>,
    usages: Usages,
    life: Duration,
}

impl Authority {
    /// Loads `<name>.crt` and `<name>.key` from the folder, or makes them. `name` is also the common name of a new one.
    pub fn load_or_create(folder: &Path, name: &str, clock: SharedClock) -> Result<Self> {
        let key_path = folder.join(format!("{name}.key"));
        let path = folder.join(format!("{name}.crt"));
        let existing = files::read(&path)?;
        let key = match (files::read(&key_path)?, &existing) {
            (Some(pem), _) => identity::parse_key(&pem)
                .map_err(|source| Error::KeyFile { path: key_path.clone(), source: Some(source) })?,
            // A new key would cut off everyone who trusts the certificate; that is not for a start to decide.
            (None, Some(_)) => return Err(Error::KeyMissing { path: key_path }),
            (None, None) => {
                let key = identity::new_key()?;
                files::write(&key_path, &key.serialize_pem(), Access::Owner, Lasting::Yes)?;
                key
            }
        };
        if !key.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256) {
            return Err(Error::KeyFile { path: key_path, source: None });
        }
        let certificate = match existing {
            Some(pem) => {
                let unusable = || Error::CertificateFile { path: path.clone() };
                let certificate = certificate::from_pem(&pem).ok_or_else(unusable)?;
                let facts = Facts::read(&certificate).map_err(|_| unusable())?;
                if facts.public_key != key.subject_public_key_info() {
                    return Err(Error::KeyMismatch { path });
                }
                (clock.now() < facts.renew_at()).then_some(certificate).ok_or(facts.subject_der)
            }
            None => Err(Subject::new(name, [""; 0]).encode()),
        };
        let certificate = match certificate {
            Ok(certificate) => certificate,
            Err(subject) => {
                let certificate = self_sign(&key, subject, clock.now())?;
                files::write(&path, &certificate::to_pem(&certificate), Access::Everyone, Lasting::Yes)?;
                certificate
            }
        };
        let facts = Facts::read(&certificate)?;
        Ok(Authority { clock, key, certificate, facts })
    }

    /// The authority's own certificate, for whoever is to trust it.
    pub fn pem(&self) -> String {
        certificate::to_pem(&self.certificate)
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A new key and a certificate for it.
    pub fn issue(&self, profile: &Profile) -> Result<Identity> {
        let key = identity::new_key()?;
        let certificate = self.sign(Leaf {
            subject: profile.subject.encode(),
            names: profile.names.clone(),
            public_key: key.subject_public_key_info(),
            usages: Usages::parse(profile.usages.iter().copied())?,
            life: profile.life,
        })?;
        Ok(Identity::new(&certificate, &key))
    }

    /// The identity in `<name>.crt` and `<name>.key` of the folder. It is issued anew if there is none, if it says something
    /// else than the profile does, if it is not this authority's, or if a third or less of its life is left.
    pub fn load_or_issue(&self, folder: &Path, name: &str, profile: &Profile) -> Result<Identity> {
        let path = folder.join(format!("{name}.crt"));
        let key_path = folder.join(format!("{name}.key"));
        if let (Some(certificate), Some(key)) = (files::read(&path)?, files::read(&key_path)?) {
            let identity = Identity { certificate_pem: certificate, key_pem: key };
            if self.vouches_for(&identity, profile) {
                return Ok(identity);
            }
        }
        let identity = self.issue(profile)?;
        files::write(&key_path, &identity.key_pem, Access::Owner, Lasting::Replaceable)?;
        files::write(&path, &identity.certificate_pem, Access::Everyone, Lasting::Replaceable)?;
        Ok(identity)
    }

    /// Signs someone else's request: its subject, names and key as they are, nothing else of it. The caller has decided
    /// that the requester may have them. `usages` are names of the certificates API ("client auth", …).
    pub fn sign_request<'a>(
        &self,
        request: &CertificateRequest,
        life: Duration,
        usages: impl IntoIterator<Item = &'a str>,
    ) -> Result<String> {
        let certificate = self.sign(Leaf {
            subject: request.subject_der().to_vec(),
            names: request.names.clone(),
            public_key: request.public_key().to_vec(),
            usages: Usages::parse(usages)?,
            life,
        })?;
        Ok(certificate::to_pem(&certificate))
    }

    /// Signs a request in PEM; see [`Self::sign_request`].
    pub fn sign_csr<'a>(&self, pem: &str, life: Duration, usages: impl IntoIterator<Item = &'a str>) -> Result<String> {
        self.sign_request(&CertificateRequest::parse(pem)?, life, usages)
    }

    fn sign(&self, leaf: Leaf) -> Result<CertificateDer<'static>> {
        let now = self.clock.now();
        if now >= self.facts.not_after {
            return Err(Error::Expired);
        }
        let not_after = if leaf.life < SHORT_LIFE { now + leaf.life } else { now + leaf.life - BACKDATE };
        let template = Template {
            subject: leaf.subject,
            issuer: self.facts.subject_der.clone(),
            names: leaf.names,
            not_before: now - BACKDATE,
            not_after: not_after.min(self.facts.not_after),
            public_key: leaf.public_key,
            usages: leaf.usages,
            kind: Kind::Leaf,
            authority_key: self.facts.key_id.clone(),
        };
        template.sign(&self.key)
    }

    fn vouches_for(&self, identity: &Identity, profile: &Profile) -> bool {
        let Some(certificate) = certificate::from_pem(&identity.certificate_pem) else { return false };
        let (Ok(facts), Ok(key)) = (Facts::read(&certificate), identity::parse_key(&identity.key_pem)) else {
            return false;
        };
        facts.subject == profile.subject
            && facts.names == profile.names
            && facts.public_key == key.subject_public_key_info()
            && self.clock.now() < facts.renew_at()
            && certificate::is_signed_by(&certificate, &self.certificate)
    }
}

fn self_sign(key: &KeyPair, subject: Vec<u8>, now: Timestamp) -> Result<CertificateDer<'static>> {
    // RFC 7093 section 2, method 1.
    let key_id = Sha256::digest(key.der_bytes())[..20].to_vec();
    let template = Template {
        issuer: subject.clone(),
        subject,
        names: Names::default(),
        not_before: now - BACKDATE,
        not_after: now + AUTHORITY_LIFE,
        public_key: key.subject_public_key_info(),
        usages: Usages::parse(["digital signature", "key encipherment", "cert sign"])?,
        kind: Kind::Authority { key_id },
        authority_key: None,
    };
    template.sign(key)
}

#[cfg(test)]
mod tests;
