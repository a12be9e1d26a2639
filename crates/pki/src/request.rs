//! Certificate signing requests (PKCS #10, RFC 2986): what others ask an authority to sign.

use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, ParsedExtension, X509CertificationRequest};

use crate::subject::{Names, Subject};
use crate::{Error, Result};

/// A request whose signature has been checked: whoever made it holds the key.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    pub subject: Subject,
    pub names: Names,
    subject_der: Vec<u8>,
    public_key: Vec<u8>,
}

impl CertificateRequest {
    pub fn parse(pem: &str) -> Result<Self> {
        let invalid = |reason: &dyn ToString| Error::Request { reason: reason.to_string() };
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|error| invalid(&error))?;
        let (_, request) = X509CertificationRequest::from_der(&der).map_err(|error| invalid(&error))?;
        request.verify_signature().map_err(|_| invalid(&"its signature does not match its key"))?;
        let info = &request.certification_request_info;
        let mut names = Names::default();
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(requested) = extension {
                names = Names::parse(&requested.general_names).map_err(|reason| invalid(&reason))?;
            }
        }
        Ok(CertificateRequest {
            subject: Subject::parse(&info.subject)?,
            names,
            subject_der: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
        })
    }

    pub(crate) fn subject_der(&self) -> &[u8] {
        &self.subject_der
    }

    pub(crate) fn public_key(&self) -> &[u8] {
        &self.public_key
    }
}
