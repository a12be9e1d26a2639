//! Certificates: an authority that issues them, the keys behind them, and the TLS settings that use them.
//!
//! An [`Authority`] lives in a folder as a certificate and a key. It issues [`Identity`]s (a certificate with its key) for
//! servers and clients, keeps them in files and renews them when a third of their life is left; a [`RotatingIdentity`]
//! lets a running server or client change over without a restart. It also signs [`CertificateRequest`]s of others.
//!
//! Who a client is stands in its certificate: the user in the common name, the groups in the organizations. Any number
//! of organizations matters here, which is why certificates are encoded by this crate: rcgen, which makes the keys,
//! keeps one value for each attribute of a name and would drop groups.
//!
//! Keys are ECDSA P-256, made in well under a millisecond; times come from the clock of `xebec_base`. The crate knows no
//! Kubernetes object and opens no connection. It never checks revocation: Kubernetes has none.

mod authority;
mod certificate;
mod der;
mod files;
mod identity;
mod request;
mod service_account;
mod subject;
mod tls;

pub use authority::Authority;
pub use identity::{Identity, Profile};
pub use request::CertificateRequest;
pub use service_account::ServiceAccountKey;
pub use subject::{Names, Subject};
pub use tls::{ClientTrust, Peer, RotatingIdentity, client_config, server_config, unverified_client_config};

use std::path::PathBuf;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on keys or certificates failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{} has no usable P-256 private key in PKCS#8 PEM", path.display())]
    KeyFile { path: PathBuf, source: Option<rcgen::Error> },
    #[error("{} has no usable certificate in PEM", path.display())]
    CertificateFile { path: PathBuf },
    #[error("the key {} is missing, so the certificate beside it cannot issue; put it back, or remove the certificate to begin anew", path.display())]
    KeyMissing { path: PathBuf },
    #[error("the certificate {} belongs to another key than the one beside it", path.display())]
    KeyMismatch { path: PathBuf },
    #[error("cannot make a key")]
    Generate { source: rcgen::Error },
    #[error("cannot sign a certificate")]
    Sign { source: rcgen::Error },
    #[error("the certificate authority has expired")]
    Expired,
    #[error("the certificate request is invalid: {reason}")]
    Request { reason: String },
    #[error("unrecognized usage values: {names:?}")]
    Usages { names: Vec<String> },
    #[error("not a certificate")]
    Certificate,
    #[error("the certificate's subject cannot be read: {reason}")]
    Subject { reason: String },
    #[error("no certificate authority in PEM")]
    NoAuthorities,
    #[error("the certificate and its key cannot be used for TLS")]
    Identity { source: rustls::Error },
    #[error("TLS cannot be set up")]
    Tls { source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the client certificate is not trusted")]
    Untrusted { source: rustls::Error },
    #[error("the client certificate names no user")]
    NoUser,
}
