//! X.509 certificates (RFC 5280): the template of one, its signing, and what is read back from one.

use jiff::Timestamp;
use rcgen::{KeyPair, SigningKey};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use crate::der;
use crate::subject::{Names, Subject};
use crate::{Error, Result};

const ECDSA_WITH_SHA256: &[u64] = &[1, 2, 840, 10045, 4, 3, 2];
const SUBJECT_KEY_IDENTIFIER: &[u64] = &[2, 5, 29, 14];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const SUBJECT_ALTERNATIVE_NAME: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY_IDENTIFIER: &[u64] = &[2, 5, 29, 35];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];

/// Everything that a certificate says. Names are in DER, so that a request's subject is taken over as it came.
pub struct Template {
    pub subject: Vec<u8>,
    pub issuer: Vec<u8>,
    pub names: Names,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// The subject's public key as a SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
    pub usages: Usages,
    pub kind: Kind,
    /// The issuer's key identifier, if it has one.
    pub authority_key: Option<Vec<u8>>,
}

pub enum Kind {
    /// May issue certificates. Carries its key identifier.
    Authority {
        key_id: Vec<u8>,
    },
    Leaf,
}

impl Template {
    pub fn sign(&self, key: &KeyPair) -> Result<CertificateDer<'static>> {
        let algorithm = der::sequence(&[der::object_identifier(ECDSA_WITH_SHA256)]);
        let validity = der::sequence(&[der::time(self.not_before), der::time(self.not_after)]);
        let extensions = der::explicit(3, &der::sequence(&self.extensions()));
        let body = der::sequence(&[
            der::explicit(0, &der::element(der::INTEGER, &[2])),
            der::element(der::INTEGER, &serial_number()?),
            algorithm.clone(),
            self.issuer.clone(),
            validity,
            self.subject.clone(),
            self.public_key.clone(),
            extensions,
        ]);
        let signature = key.sign(&body).map_err(|source| Error::Sign { source })?;
        Ok(der::sequence(&[body, algorithm, der::bit_string(&signature)]).into())
    }

    fn extensions(&self) -> Vec<Vec<u8>> {
        let truth = der::element(der::BOOLEAN, &[0xff]);
        let extension = |kind: &[u64], critical: bool, content: Vec<u8>| {
            let mut parts = vec![der::object_identifier(kind)];
            parts.extend(critical.then(|| truth.clone()));
            parts.push(der::element(der::OCTET_STRING, &content));
            der::sequence(&parts)
        };
        let mut extensions = Vec::new();
        if self.usages.bits != 0 {
            extensions.push(extension(KEY_USAGE, true, der::named_bits(self.usages.bits)));
        }
        if !self.usages.purposes.is_empty() {
            let purposes: Vec<_> = self.usages.purposes.iter().map(|purpose| der::object_identifier(purpose)).collect();
            extensions.push(extension(EXTENDED_KEY_USAGE, false, der::sequence(&purposes)));
        }
        match &self.kind {
            Kind::Authority { key_id } => {
                extensions.push(extension(BASIC_CONSTRAINTS, true, der::sequence([&truth])));
                extensions.push(extension(SUBJECT_KEY_IDENTIFIER, false, der::element(der::OCTET_STRING, key_id)));
            }
            Kind::Leaf => extensions.push(extension(BASIC_CONSTRAINTS, true, der::sequence(&[]))),
        }
        if let Some(key_id) = &self.authority_key {
            extensions.push(extension(AUTHORITY_KEY_IDENTIFIER, false, der::sequence(&[der::implicit(0, key_id)])));
        }
        if !self.names.is_empty() {
            extensions.push(extension(SUBJECT_ALTERNATIVE_NAME, false, self.names.encode()));
        }
        extensions
    }
}

/// A positive number of 127 random bits, so that no two certificates of an authority share it.
fn serial_number() -> Result<[u8; 16]> {
    let mut number = [0; 16];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut number).map_err(|_| Error::Sign { source: rcgen::Error::RingUnspecified })?;
    number[0] = number[0] & 0x7f | 0x40;
    Ok(number)
}

/// What a certificate's key may be used for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usages {
    bits: u16,
    purposes: Vec<&'static [u64]>,
}

/// The bits of the key usage extension under their names in the certificates API, in its order of bits.
const KEY_USAGES: [(&str, u16); 10] = [
    ("digital signature", 0),
    ("signing", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];

/// The purposes of the extended key usage extension under their names in the certificates API.
const PURPOSES: [(&str, &[u64]); 13] = [
    ("any", &[2, 5, 29, 37, 0]),
    ("server auth", &[1, 3, 6, 1, 5, 5, 7, 3, 1]),
    ("client auth", &[1, 3, 6, 1, 5, 5, 7, 3, 2]),
    ("code signing", &[1, 3, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[1, 3, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[1, 3, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[1, 3, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[1, 3, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[1, 3, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
    ("netscape sgc", &[2, 16, 840, 1, 113730, 4, 1]),
];

impl Usages {
    /// Reads the names of the certificates API; names all that it does not know.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let (mut usages, mut unknown) = (Usages::default(), Vec::new());
        for name in names {
            if let Some((_, bit)) = KEY_USAGES.iter().find(|(known, _)| *known == name) {
                usages.bits |= 1 << bit;
            } else if let Some((_, purpose)) = PURPOSES.iter().find(|(known, _)| *known == name) {
                if !usages.purposes.contains(purpose) {
                    usages.purposes.push(purpose);
                }
            } else {
                unknown.push(name.to_owned());
            }
        }
        if unknown.is_empty() { Ok(usages) } else { Err(Error::Usages { names: unknown }) }
    }
}

/// What this crate wants to know of a certificate that it did not just make.
pub struct Facts {
    pub subject: Subject,
    /// The subject in DER.
    pub subject_der: Vec<u8>,
    pub names: Names,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub public_key: Vec<u8>,
    pub key_id: Option<Vec<u8>>,
}

impl Facts {
    pub fn read(der: &CertificateDer<'_>) -> Result<Self> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Error::Certificate)?;
        let moment = |seconds: i64| Timestamp::from_second(seconds).map_err(|_| Error::Certificate);
        let mut facts = Facts {
            subject: Subject::parse(certificate.subject())?,
            subject_der: certificate.subject().as_raw().to_vec(),
            names: Names::default(),
            not_before: moment(certificate.validity().not_before.timestamp())?,
            not_after: moment(certificate.validity().not_after.timestamp())?,
            public_key: certificate.public_key().raw.to_vec(),
            key_id: None,
        };
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    facts.names = Names::parse(&names.general_names).map_err(|_| Error::Certificate)?;
                }
                ParsedExtension::SubjectKeyIdentifier(key_id) => facts.key_id = Some(key_id.0.to_vec()),
                _ => {}
            }
        }
        Ok(facts)
    }

    /// From here on the certificate should be renewed: a third of its life is left.
    pub fn renew_at(&self) -> Timestamp {
        let life = self.not_before.duration_until(self.not_after);
        self.not_after - life / 3
    }
}

/// Whether `certificate` was signed by the key of `authority`.
pub fn is_signed_by(certificate: &CertificateDer<'_>, authority: &CertificateDer<'_>) -> bool {
    let parse = |der| X509Certificate::from_der(der).map(|(_, certificate)| certificate);
    match (parse(certificate), parse(authority)) {
        (Ok(certificate), Ok(authority)) => {
            certificate.issuer().as_raw() == authority.subject().as_raw()
                && certificate.verify_signature(Some(authority.public_key())).is_ok()
        }
        _ => false,
    }
}

pub fn to_pem(der: &CertificateDer<'_>) -> String {
    der::pem("CERTIFICATE", der)
}

/// The first certificate in a PEM text.
pub fn from_pem(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}
