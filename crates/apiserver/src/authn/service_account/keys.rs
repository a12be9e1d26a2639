//! The keys that sign and check tokens: RSA and elliptic curves, from the PEM files that operators keep them in.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey};
use rsa::pkcs1::{DecodeRsaPrivateKey, DecodeRsaPublicKey, EncodeRsaPrivateKey};
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::public_key::PublicKey as Parsed;
use xebec_pki::ServiceAccountKey;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} holds no {what} that can be used", path.display())]
    Unusable { path: PathBuf, what: &'static str },
}

/// A key that checks signatures.
#[derive(Clone)]
pub struct PublicKey {
    pub id: String,
    pub algorithm: Algorithm,
    pub decoding: DecodingKey,
    /// The JSON Web Key of the published set.
    pub document: Value,
}

/// A key that signs, with the one that checks.
pub struct SigningKey {
    pub encoding: EncodingKey,
    pub public: PublicKey,
}

/// The public keys in a PEM file, in any of the forms that upstream reads: public keys, private keys, certificates.
pub fn read_public(path: &Path) -> Result<Vec<PublicKey>, KeyError> {
    let keys: Vec<PublicKey> = sections(path)?.iter().filter_map(|(kind, der)| public(kind, der)).collect();
    if keys.is_empty() { Err(KeyError::Unusable { path: path.to_owned(), what: "public key" }) } else { Ok(keys) }
}

/// The first private key in a PEM file.
pub fn read_signing(path: &Path) -> Result<SigningKey, KeyError> {
    let found = sections(path)?.iter().find_map(|(kind, der)| private(kind, der));
    found.ok_or_else(|| KeyError::Unusable { path: path.to_owned(), what: "private key" })
}

impl SigningKey {
    /// The key that the server has made for itself.
    pub fn of(key: &ServiceAccountKey) -> Option<Self> {
        let (kind, der) = <(SectionKind, Vec<u8>)>::from_pem_slice(key.private_pem().as_bytes()).ok()?;
        private(&kind, &der)
    }
}

fn sections(path: &Path) -> Result<Vec<(SectionKind, Vec<u8>)>, KeyError> {
    let pem = std::fs::read(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
    // Sections of unknown kinds (EC PARAMETERS) are passed over by the iterator; what is broken ends it.
    Ok(<(SectionKind, Vec<u8>)>::pem_slice_iter(&pem).map_while(Result::ok).collect())
}

fn public(kind: &SectionKind, der: &[u8]) -> Option<PublicKey> {
    match kind {
        SectionKind::PublicKey => public_of_info(der).or_else(|| {
            // `RSA PUBLIC KEY` is the bare key without its algorithm.
            let key = rsa::RsaPublicKey::from_pkcs1_der(der).ok()?;
            public_of_info(key.to_public_key_der().ok()?.as_bytes())
        }),
        SectionKind::Certificate => {
            let (_, certificate) = X509Certificate::from_der(der).ok()?;
            public_of_info(certificate.public_key().raw)
        }
        _ => private(kind, der).map(|key| key.public),
    }
}

fn private(kind: &SectionKind, der: &[u8]) -> Option<SigningKey> {
    match kind {
        SectionKind::RsaPrivateKey => rsa_private(rsa::RsaPrivateKey::from_pkcs1_der(der).ok()?),
        SectionKind::EcPrivateKey => p256::SecretKey::from_sec1_der(der).ok().and_then(|key| ec_private(&key)),
        SectionKind::PrivateKey => match rsa::RsaPrivateKey::from_pkcs8_der(der) {
            Ok(key) => rsa_private(key),
            Err(_) => ec_private(&p256::SecretKey::from_pkcs8_der(der).ok()?),
        },
        _ => None,
    }
}

fn rsa_private(key: rsa::RsaPrivateKey) -> Option<SigningKey> {
    let public = public_of_info(key.to_public_key().to_public_key_der().ok()?.as_bytes())?;
    Some(SigningKey { encoding: EncodingKey::from_rsa_der(key.to_pkcs1_der().ok()?.as_bytes()), public })
}

fn ec_private(key: &p256::SecretKey) -> Option<SigningKey> {
    let public = public_of_info(key.public_key().to_public_key_der().ok()?.as_bytes())?;
    Some(SigningKey { encoding: EncodingKey::from_ec_der(key.to_pkcs8_der().ok()?.as_bytes()), public })
}

/// A SubjectPublicKeyInfo (RFC 5280). The key's name is upstream's: the digest of these bytes.
fn public_of_info(der: &[u8]) -> Option<PublicKey> {
    let (_, info) = SubjectPublicKeyInfo::from_der(der).ok()?;
    let id = URL_SAFE_NO_PAD.encode(Sha256::digest(der));
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    match info.parsed().ok()? {
        Parsed::RSA(key) => {
            let trimmed = |number: &[u8]| encode(&number[number.iter().position(|byte| *byte != 0).unwrap_or(0)..]);
            let (n, e) = (trimmed(key.modulus), trimmed(key.exponent));
            let decoding = DecodingKey::from_rsa_components(&n, &e).ok()?;
            let document = json!({ "use": "sig", "kty": "RSA", "kid": id, "alg": "RS256", "n": n, "e": e });
            Some(PublicKey { id, algorithm: Algorithm::RS256, decoding, document })
        }
        Parsed::EC(point) => {
            // SEC 1 section 2.3.3: an uncompressed point is a byte 4 and two coordinates.
            let coordinates = point.data().strip_prefix(&[4])?;
            let (curve, algorithm, name) = match coordinates.len() {
                64 => ("P-256", Algorithm::ES256, "ES256"),
                96 => ("P-384", Algorithm::ES384, "ES384"),
                _ => return None,
            };
            let (x, y) = coordinates.split_at(coordinates.len() / 2);
            let (x, y) = (encode(x), encode(y));
            let decoding = DecodingKey::from_ec_components(&x, &y).ok()?;
            let document = json!({ "use": "sig", "kty": "EC", "kid": id, "crv": curve, "alg": name, "x": x, "y": y });
            Some(PublicKey { id, algorithm, decoding, document })
        }
        _ => None,
    }
}
