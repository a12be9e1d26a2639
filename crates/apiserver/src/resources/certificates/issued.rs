//! The certificate that answers a PodCertificateRequest, held against what was asked for.
//!
//! Upstream also wants it to begin within five minutes of the server's own time. A strategy has no clock, so that is
//! admission's to say.

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{PodCertificateRequestSpec, PodCertificateRequestStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509CertificationRequest};
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::resources::validation::text;

const MAX_CHAIN: usize = 100 * 1024;
const MIN_LIFE: i64 = 60 * 60;
const REFRESH_MARGIN: i64 = 10 * 60;

/// What is wrong with an issued certificate and with what the status says of it. Upstream stops at the first.
pub fn certificate(status: &PodCertificateRequestStatus, spec: &PodCertificateRequestSpec) -> Result<(), FieldErrors> {
    let path = Path::new("status.certificateChain");
    let chain = text(&status.certificate_chain);
    if chain.len() > MAX_CHAIN {
        return Err(vec![FieldError::too_long(&path, MAX_CHAIN)]);
    }
    let wrong = |about: &str| vec![FieldError::invalid(&path, chain, about)];
    let blocks: Vec<Pem> = Pem::iter_from_buffer(chain.as_bytes()).map_while(Result::ok).collect();
    let Some((leaf, rest)) = blocks.split_first() else {
        return Err(wrong("issued certificate chain must contain at least one certificate"));
    };
    if leaf.label != "CERTIFICATE" {
        return Err(wrong("issued certificate chain must consist entirely of CERTIFICATE PEM blocks"));
    }
    let unreadable = |_| wrong("leaf certificate does not parse as valid X.509");
    let (_, leaf) = X509Certificate::from_der(&leaf.contents).map_err(unreadable)?;
    let mut errors = names(&path, &leaf);
    let asked = X509CertificationRequest::from_der(&spec.stub_pkc_s10_request.0);
    if asked.is_ok_and(|(_, asked)| asked.certification_request_info.subject_pki.raw != leaf.public_key().raw) {
        errors.extend(wrong("leaf certificate was not issued to the requested public key"));
        return Err(errors);
    }
    errors.extend(times(status, spec, &leaf));
    if !errors.is_empty() {
        return Err(errors);
    }
    for block in rest {
        if block.label != "CERTIFICATE" {
            return Err(wrong("issued certificate chain must consist entirely of CERTFICATE PEM blocks"));
        }
        let unreadable = |_| wrong("intermediate certificate does not parse as valid X.509");
        X509Certificate::from_der(&block.contents).map_err(unreadable)?;
    }
    Ok(())
}

fn names(path: &Path, leaf: &X509Certificate<'_>) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let alternatives = leaf.subject_alternative_name().ok().flatten();
    for name in alternatives.iter().flat_map(|names| &names.value.general_names) {
        let mut wrong = |is: bool, value: &str, about: &str| {
            if is {
                errors.push(FieldError::invalid(path, value, about));
            }
        };
        match name {
            GeneralName::DNSName(name) => {
                wrong(name.is_empty(), name, "leaf certificate should not contain empty DNSName");
                wrong(name.contains(".."), name, "leaf certificate's DNSName should not contain '..'");
                let edge = name.starts_with('.') || name.ends_with('.');
                wrong(edge, name, "leaf certificate's DNSName should not start or end with '.'");
            }
            GeneralName::RFC822Name(address) => {
                let sound = address.split_once('@').is_some_and(|(who, at)| !who.is_empty() && !at.is_empty());
                wrong(!sound, address, "leaf certificate should not contain invalid EmailAddress");
            }
            _ => {}
        }
    }
    errors
}

/// The first wrong time, or all that are missing.
fn times(
    status: &PodCertificateRequestStatus,
    spec: &PodCertificateRequestSpec,
    leaf: &X509Certificate<'_>,
) -> FieldErrors {
    let path = Path::new("status");
    let fields = [
        ("notBefore", &status.not_before, "must be present and consistent with the issued certificate"),
        ("notAfter", &status.not_after, "must be present and consistent with the issued certificate"),
        (
            "beginRefreshAt",
            &status.begin_refresh_at,
            "must be present and in the range [notbefore+10min, notafter-10min]",
        ),
    ];
    let missing = fields.iter().filter(|(_, value, _)| value.is_none());
    let missing: FieldErrors =
        missing.map(|(field, _, about)| FieldError::required(&path.child(field), *about)).collect();
    if !missing.is_empty() {
        return missing;
    }
    let second = |time: &Option<Time>| time.as_ref().map_or(0, |time| time.0.as_second());
    let [begins, ends, refresh] = [&status.not_before, &status.not_after, &status.begin_refresh_at].map(second);
    let (valid_from, valid_to) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    let wrong = |field: &str, at: i64, about: &str| {
        let value = Timestamp::from_second(at).map_or_else(|_| json!(at), |at| json!(at.to_string()));
        vec![FieldError::invalid(&path.child(field), value, about)]
    };
    let (life, most) = (valid_to - valid_from, i64::from(spec.max_expiration_seconds.unwrap_or(0)));
    let life_wrong = |about: String| {
        vec![FieldError::invalid(&path.child("certificateChain"), life.saturating_mul(1_000_000_000), about)]
    };
    if begins != valid_from {
        wrong("notBefore", begins, "must be set to the NotBefore time encoded in the leaf certificate")
    } else if ends != valid_to {
        wrong("notAfter", ends, "must be set to the NotAfter time encoded in the leaf certificate")
    } else if life < MIN_LIFE {
        life_wrong("leaf certificate lifetime must be >= 1 hour".to_owned())
    } else if life > most {
        life_wrong(format!("leaf certificate lifetime must be <= spec.maxExpirationSeconds ({most})"))
    } else if refresh < begins + REFRESH_MARGIN {
        wrong("beginRefreshAt", refresh, "must be at least 10 minutes after status.notBefore")
    } else if refresh > ends - REFRESH_MARGIN {
        wrong("beginRefreshAt", refresh, "must be at least 10 minutes before status.notAfter")
    } else {
        FieldErrors::new()
    }
}
