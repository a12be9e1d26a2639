//! PodCertificateRequests: what a node asks for a Pod, and what the signer made of it.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{
    PodCertificateRequest, PodCertificateRequestSpec, PodCertificateRequestStatus,
};
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509CertificationRequest};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::issued;
use super::signer::signer_name;
use crate::registry::metadata;
use crate::registry::strategy::{Column, Generation, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{conditions, dns, immutable, report, semantically_equal, unsupported};

const OUTCOMES: [&str; 3] = ["Issued", "Denied", "Failed"];
const MAX_UID: usize = 128;
const MAX_REQUEST: usize = 10 * 1024;
const MAX_ANNOTATIONS: usize = 256 * 1024;
const MIN_SECONDS: i32 = 60 * 60;
const MAX_SECONDS: i32 = 91 * 24 * 60 * 60;
/// For the cluster's own signers.
const MAX_OWN_SECONDS: i32 = 24 * 60 * 60;

#[derive(Default)]
pub struct PodRequestStrategy;

impl Strategy for PodRequestStrategy {
    type Object = PodCertificateRequest;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, request: &mut PodCertificateRequest) {
        request.spec.max_expiration_seconds.get_or_insert(MAX_OWN_SECONDS);
        request.status.get_or_insert_default();
    }

    fn prepare_create(&self, request: &mut PodCertificateRequest) {
        request.status = Some(PodCertificateRequestStatus::default());
    }

    fn prepare_status_update(&self, new: &mut PodCertificateRequest, old: &PodCertificateRequest) {
        metadata::keep_for_status(&mut new.metadata, &old.metadata);
    }

    fn validate(&self, request: &PodCertificateRequest) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, spec) = (Path::new("spec"), &request.spec);
        signer_name(&mut errors, &path.child("signerName"), &spec.signer_name);
        annotations(&mut errors, &path.child("unverifiedUserAnnotations"), spec);
        for (field, name, uid) in [
            ("pod", &spec.pod_name, &spec.pod_uid),
            ("serviceAccount", &spec.service_account_name, &spec.service_account_uid),
            ("node", &spec.node_name, &spec.node_uid),
        ] {
            report(&mut errors, &path.child(&format!("{field}Name")), name, dns::subdomain(name));
            let at = path.child(&format!("{field}UID"));
            if uid.is_empty() {
                errors.push(FieldError::invalid(&at, "", "must not be empty"));
            }
            if uid.len() > MAX_UID {
                errors.push(FieldError::too_long(&at, MAX_UID));
            }
        }
        let most = if is_own(&spec.signer_name) { MAX_OWN_SECONDS } else { MAX_SECONDS };
        let seconds = spec.max_expiration_seconds.unwrap_or(MAX_OWN_SECONDS);
        if !(MIN_SECONDS..=most).contains(&seconds) {
            let about = format!("must be in the range [{MIN_SECONDS}, {most}]");
            errors.push(FieldError::invalid(&path.child("maxExpirationSeconds"), seconds, about));
        }
        if spec.stub_pkc_s10_request.0.is_empty() {
            let about = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
            errors.push(FieldError::invalid_unshown(&path, about));
        } else {
            errors.extend(proof(&path.child("stubPKCS10Request"), &spec.stub_pkc_s10_request.0).err());
        }
        errors
    }

    fn validate_update(&self, new: &PodCertificateRequest, old: &PodCertificateRequest) -> FieldErrors {
        let mut errors = FieldErrors::new();
        immutable(&mut errors, &Path::new("spec"), &new.spec, &old.spec);
        errors
    }

    /// A request is decided once. What its signer issued must fit what was asked for.
    fn validate_status_update(&self, new: &PodCertificateRequest, old: &PodCertificateRequest) -> FieldErrors {
        let [status, before] = [new, old].map(|request| request.status.clone().unwrap_or_default());
        let errors = outcomes(&status);
        if !errors.is_empty() {
            return errors;
        }
        let path = Path::new("status");
        let unless = |same: bool, about: &str| {
            if same { FieldErrors::new() } else { vec![FieldError::invalid_unshown(&path, about)] }
        };
        if outcome(&before).is_some() {
            let about = "immutable after PodCertificateRequest is issued, denied, or failed";
            return unless(semantically_equal(&status, &before), about);
        }
        match outcome(&status) {
            Some("Issued") => issued::certificate(&status, &new.spec).err().unwrap_or_default(),
            Some(_) => {
                let bare = PodCertificateRequestStatus { conditions: status.conditions.clone(), ..Default::default() };
                let about =
                    "non-condition status fields must be empty when denying or failing the PodCertificateRequest";
                unless(semantically_equal(&status, &bare), about)
            }
            None => {
                let about = r#"status is immutable unless transitioning to "Issued", "Denied", or "Failed""#;
                unless(semantically_equal(&status, &before), about)
            }
        }
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.signerName", "spec.podName", "spec.nodeName"]
    }

    fn field<'a>(&self, request: &'a PodCertificateRequest, field: &str) -> Cow<'a, str> {
        let spec = &request.spec;
        Cow::Borrowed(match field {
            "spec.podName" => &spec.pod_name,
            "spec.nodeName" => &spec.node_name,
            _ => &spec.signer_name,
        })
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("PodName", "string", "For which Pod."),
            column("ServiceAccountName", "string", "As whom the Pod runs."),
            column("NodeName", "string", "Where the Pod runs."),
            column("SignerName", "string", "Who is asked to sign."),
            column("State", "string", "What was decided."),
            column("UnverifiedUserAnnotations", "string", "What the Pod's author tells the signer."),
        ];
        COLUMNS
    }

    fn cells(&self, request: &PodCertificateRequest, _now: Timestamp) -> Vec<Value> {
        let spec = &request.spec;
        let state = request.status.as_ref().and_then(outcome);
        vec![
            columns::name(&request.metadata),
            Value::from(spec.pod_name.as_str()),
            Value::from(spec.service_account_name.as_str()),
            Value::from(spec.node_name.as_str()),
            Value::from(spec.signer_name.as_str()),
            columns::or(state, "Pending"),
            columns::labels(spec.unverified_user_annotations.as_ref()),
        ]
    }
}

fn is_own(signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or(signer);
    domain == "kubernetes.io" || domain.ends_with(".kubernetes.io")
}

fn annotations(errors: &mut FieldErrors, path: &Path, spec: &PodCertificateRequestSpec) {
    let mut size = 0;
    for (key, value) in spec.unverified_user_annotations.iter().flatten() {
        size += key.len() + value.len();
        let key = key.to_lowercase();
        let messages = dns::label_key(&key);
        if key.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else if messages.is_empty() && !key.contains('/') {
            let about = "must be a domain-prefixed key (such as \"acme.io/foo\")";
            errors.push(FieldError::invalid(path, key, about));
        } else {
            report(errors, path, &key, messages);
        }
    }
    if size > MAX_ANNOTATIONS {
        errors.push(FieldError::too_long(path, MAX_ANNOTATIONS));
    }
}

/// A request that its own key signed, of a kind of key that is strong enough.
fn proof(path: &Path, der: &[u8]) -> Result<(), FieldError> {
    if der.len() > MAX_REQUEST {
        return Err(FieldError::too_long(path, MAX_REQUEST));
    }
    let unreadable = |_| FieldError::invalid_unshown(path, "must be a valid PKCS#10 CSR");
    let (_, request) = X509CertificationRequest::from_der(der).map_err(unreadable)?;
    key(path, &request.certification_request_info.subject_pki)?;
    request.verify_signature().map_err(|_| FieldError::invalid_unshown(path, "invalid signature"))
}

fn key(path: &Path, info: &SubjectPublicKeyInfo<'_>) -> Result<(), FieldError> {
    const ED25519: &str = "1.3.101.112";
    match info.parsed() {
        Ok(PublicKey::RSA(rsa)) if matches!(rsa.key_size(), 3072 | 4096) => Ok(()),
        Ok(PublicKey::RSA(rsa)) => {
            let (shown, about) =
                (format!("{}-bit modulus", rsa.key_size()), "RSA keys must have modulus size 3072 or 4096");
            Err(FieldError::invalid(path, shown, about))
        }
        Ok(PublicKey::EC(point)) if matches!(point.key_size(), 256 | 384 | 521 | 528) => Ok(()),
        Ok(PublicKey::EC(_)) => {
            let about = "elliptic public keys must use curve P256, P384, or P521";
            Err(FieldError::invalid(path, "curve P-224", about))
        }
        _ if info.algorithm.algorithm.to_id_string() == ED25519 => Ok(()),
        _ => {
            let about = "unknown public key type; supported types are Ed25519, ECDSA, and RSA";
            Err(FieldError::invalid_unshown(path, about))
        }
    }
}

/// What is wrong with the conditions: only outcomes, at most one of them, and that one true.
fn outcomes(status: &PodCertificateRequestStatus) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let (path, mut known) = (Path::new("status.conditions"), 0);
    let list = status.conditions.as_deref().unwrap_or_default();
    for (index, one) in list.iter().enumerate() {
        // Upstream writes the index as a name of its own.
        let at = path.child(&format!("[{index}]"));
        if !OUTCOMES.contains(&one.type_.as_str()) {
            errors.push(unsupported(&at.child("type"), one.type_.as_str(), &OUTCOMES));
            continue;
        }
        known += 1;
        if known > 1 {
            let about = r#"There may be at most one condition with type "Issued", "Denied", or "Failed""#;
            errors.push(FieldError::invalid(&at.child("type"), one.type_.as_str(), about));
        }
        if one.status != "True" {
            errors.push(unsupported(&at.child("status"), one.status.as_str(), &["True"]));
        }
    }
    conditions::conditions(&mut errors, &path, list);
    errors
}

fn outcome(status: &PodCertificateRequestStatus) -> Option<&'static str> {
    let list = status.conditions.as_deref().unwrap_or_default();
    OUTCOMES.into_iter().find(|kind| list.iter().any(|one| one.type_ == *kind && one.status == "True"))
}
