//! An identity: a certificate together with its private key, and the profile by which one is issued.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::CertificateDer;

use crate::certificate::{self, Facts};
use crate::subject::{Names, Subject};
use crate::{Error, Result};

/// A year, as kubeadm's certificates; renewed when a third of it is left.
const LEAF_LIFE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A certificate and its key, both in PEM, as they stand in files and kubeconfigs.
#[derive(Clone)]
pub struct Identity {
    pub certificate_pem: String,
    pub key_pem: String,
}

/// Keeps the key out of logs.
impl fmt::Debug for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Identity").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

impl Identity {
    pub(crate) fn new(certificate: &CertificateDer<'_>, key: &KeyPair) -> Self {
        Identity { certificate_pem: certificate::to_pem(certificate), key_pem: key.serialize_pem() }
    }

    /// When the certificate should be replaced: a third of its life is left then.
    pub fn renew_at(&self) -> Result<Timestamp> {
        Ok(self.facts()?.renew_at())
    }

    pub fn subject(&self) -> Result<Subject> {
        Ok(self.facts()?.subject)
    }

    fn facts(&self) -> Result<Facts> {
        Facts::read(&certificate::from_pem(&self.certificate_pem).ok_or(Error::Certificate)?)
    }
}

/// What to put into a certificate.
#[derive(Clone, Debug)]
pub struct Profile {
    pub subject: Subject,
    pub names: Names,
    /// Names of the certificates API.
    pub usages: Vec<&'static str>,
    pub life: Duration,
}

impl Profile {
    /// A server that is reached under these names and addresses.
    pub fn server(
        user: impl Into<String>,
        dns: impl IntoIterator<Item = impl Into<String>>,
        ips: impl IntoIterator<Item = IpAddr>,
    ) -> Self {
        let dns = dns.into_iter().map(Into::into).collect();
        let names = Names { dns, ips: ips.into_iter().collect(), ..Names::default() };
        Profile { names, ..Self::with_usage(Subject::new(user, [""; 0]), "server auth") }
    }

    /// A client that is to be known as this user in these groups.
    pub fn client(user: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::with_usage(Subject::new(user, groups), "client auth")
    }

    fn with_usage(subject: Subject, usage: &'static str) -> Self {
        let usages = vec!["digital signature", "key encipherment", usage];
        Profile { subject, names: Names::default(), usages, life: LEAF_LIFE }
    }
}

pub fn new_key() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|source| Error::Generate { source })
}

/// Reads a private key in PKCS#8 PEM.
pub fn parse_key(pem: &str) -> Result<KeyPair, rcgen::Error> {
    KeyPair::from_pem(pem)
}
