//! TLS settings for servers and clients, with certificates that can be exchanged while they are in use.
//!
//! A server asks clients for a certificate but does not judge it during the handshake: as with upstream, a client with a
//! certificate of a strange authority gets through and is told 401 by whoever calls [`ClientTrust::authenticate`]. Nothing
//! else in this crate turns a peer's certificate into a user.

use std::fmt;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use xebec_base::SharedClock;

use crate::certificate::Facts;
use crate::identity::Identity;
use crate::subject::Subject;
use crate::{Error, Result};

/// HTTP/2 before HTTP/1.1, as the peer can.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Settings for a server that shows `identity` and, given a trust, asks clients for certificates without demanding them.
pub fn server_config(identity: Arc<RotatingIdentity>, clients: Option<&ClientTrust>) -> Result<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(tls)?;
    let builder = match clients {
        Some(trust) => builder.with_client_cert_verifier(Arc::new(AskOnly((**trust.verifier.load()).clone()))),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(identity);
    config.alpn_protocols = PROTOCOLS.map(Vec::from).into();
    Ok(config)
}

/// Settings for a client that trusts the authorities in `authorities_pem` and, given an identity, shows it if asked.
/// Whoever needs a connection for one protocol only changes `alpn_protocols`.
pub fn client_config(authorities_pem: &str, identity: Option<Arc<RotatingIdentity>>) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(tls)?.with_root_certificates(roots(authorities_pem)?);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(identity),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = PROTOCOLS.map(Vec::from).into();
    Ok(config)
}

/// Settings for a client that believes any server and shows no identity: for backends with certificates of their own, to
/// which the API server is only a way. Signatures are still checked, so that the connection is with whoever showed the certificate.
pub fn unverified_client_config() -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(tls)?.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider())));
    Ok(builder.with_no_client_auth())
}

/// Believes every certificate.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// An identity in use, which can be replaced at any time; connections made afterwards show the new one.
pub struct RotatingIdentity {
    current: ArcSwap<CertifiedKey>,
}

impl RotatingIdentity {
    pub fn new(identity: &Identity) -> Result<Arc<Self>> {
        Ok(Arc::new(RotatingIdentity { current: ArcSwap::from_pointee(certified(identity)?) }))
    }

    pub fn replace(&self, identity: &Identity) -> Result<()> {
        self.current.store(Arc::new(certified(identity)?));
        Ok(())
    }
}

impl fmt::Debug for RotatingIdentity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RotatingIdentity").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for RotatingIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl ResolvesClientCert for RotatingIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The authorities whose client certificates are believed. They can be exchanged at any time, for all clones at once.
#[derive(Clone)]
pub struct ClientTrust {
    verifier: Arc<ArcSwap<Arc<dyn ClientCertVerifier>>>,
    clock: SharedClock,
}

/// A client that has proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub subject: Subject,
    /// `X509SHA256=` and the digest of the certificate: upstream's `authentication.kubernetes.io/credential-id`.
    pub credential_id: String,
}

impl ClientTrust {
    pub fn new(authorities_pem: &str, clock: SharedClock) -> Result<Self> {
        Ok(ClientTrust { verifier: Arc::new(ArcSwap::from_pointee(verifier(authorities_pem)?)), clock })
    }

    /// Believes these authorities from now on, and no others.
    pub fn replace(&self, authorities_pem: &str) -> Result<()> {
        self.verifier.store(Arc::new(verifier(authorities_pem)?));
        Ok(())
    }

    /// Checks the chain that a client has shown in its handshake, its own certificate first, and reads who it is.
    pub fn authenticate(&self, chain: &[CertificateDer<'_>]) -> Result<Peer> {
        let [certificate, intermediates @ ..] = chain else { return Err(Error::NoUser) };
        let now = Duration::from_secs(self.clock.now().as_second().max(0) as u64);
        let verified =
            self.verifier.load().verify_client_cert(certificate, intermediates, UnixTime::since_unix_epoch(now));
        verified.map_err(|source| Error::Untrusted { source })?;
        let subject = Facts::read(certificate)?.subject;
        if subject.user.is_empty() {
            return Err(Error::NoUser);
        }
        let mut credential_id = String::from("X509SHA256=");
        for byte in Sha256::digest(certificate) {
            write!(credential_id, "{byte:02x}").expect("a string takes everything");
        }
        Ok(Peer { subject, credential_id })
    }
}

/// Has clients prove that they hold the key of the certificate they show, and leaves it at that.
#[derive(Debug)]
struct AskOnly(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AskOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: the authorities may be exchanged, and a client that is told names would keep back a certificate of another.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn verifier(authorities_pem: &str) -> Result<Arc<dyn ClientCertVerifier>> {
    let roots = Arc::new(roots(authorities_pem)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
    verifier.build().map_err(|error| Error::Tls { source: error.into() })
}

fn certified(identity: &Identity) -> Result<CertifiedKey> {
    let unusable = |source| Error::Identity { source };
    let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|_| Error::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes());
    let key = key.map_err(|error| unusable(rustls::Error::General(error.to_string())))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(unusable)
}

fn roots(authorities_pem: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities_pem.as_bytes()) {
        let certificate = certificate.map_err(|_| Error::Certificate)?;
        roots.add(certificate).map_err(|_| Error::Certificate)?;
    }
    if roots.is_empty() { Err(Error::NoAuthorities) } else { Ok(roots) }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn tls(source: rustls::Error) -> Error {
    Error::Tls { source: source.into() }
}

#[cfg(test)]
mod tests;
