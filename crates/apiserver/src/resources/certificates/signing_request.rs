//! CertificateSigningRequests.

use std::borrow::Cow;
use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use serde_json::Value;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};
use xebec_api::field::{FieldError, FieldErrors, Path};
use xebec_api::fields::Filter;

use super::signer::signer_name;
use crate::registry::strategy::{Column, Generation, NAME_COLUMN, NameRule, Strategy, column};
use crate::registry::table::human_duration;
use crate::resources::columns;
use crate::resources::validation::{one_of, semantically_equal, shown};

const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const DECISIONS: [&str; 3] = ["Approved", "Denied", "Failed"];
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

#[derive(Default)]
pub struct SigningRequestStrategy;

impl Strategy for SigningRequestStrategy {
    type Object = CertificateSigningRequest;

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn default(&self, request: &mut CertificateSigningRequest) {
        request.status.get_or_insert_default();
    }

    fn prepare_create(&self, request: &mut CertificateSigningRequest) {
        // Who asks is set from the request's own identity, by admission.
        request.status = Some(CertificateSigningRequestStatus::default());
    }

    fn prepare_update(&self, new: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
        // What was asked for is fixed; only metadata may change here.
        new.spec = old.spec.clone();
    }

    /// What was decided may not be altered here; whether a decision came or went is left for validation to say.
    fn prepare_status_update(&self, new: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
        for kind in ["Approved", "Denied"] {
            let before = found(old, kind);
            if before.len() == found(new, kind).len() {
                let now = conditions_mut(new).filter(|condition| condition.type_ == kind);
                now.zip(before).for_each(|(now, before)| *now = before);
            }
        }
        keep_transition_times(new, old);
    }

    /// `/approval` changes the conditions alone.
    fn prepare_part_update(
        &self,
        _subresource: &str,
        new: &mut CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) {
        keep_transition_times(new, old);
        let conditions = new.status.take().and_then(|status| status.conditions);
        new.spec = old.spec.clone();
        new.status = Some(CertificateSigningRequestStatus { conditions, ..old.status.clone().unwrap_or_default() });
    }

    fn ownable(&self, subresource: &str) -> Filter {
        Filter::Without(match subresource {
            "" => &[&["spec"], &["status"]],
            "status" => &[&["spec"], &["status", "conditions"]],
            "approval" => &[&["spec"], &["status", "certificate"]],
            _ => &[],
        })
    }

    fn validate(&self, request: &CertificateSigningRequest) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, spec) = (Path::new("spec"), &request.spec);
        if let Err(why) = check_request(&spec.request.0) {
            errors.push(FieldError::invalid(&path.child("request"), shown(&spec.request), why));
        }
        let usages = spec.usages.as_deref().unwrap_or_default();
        if usages.is_empty() {
            errors.push(FieldError::required(&path.child("usages"), ""));
        }
        let mut seen = BTreeSet::new();
        for (index, usage) in usages.iter().enumerate() {
            let at = path.child("usages").index(index);
            one_of(&mut errors, &at, usage, &USAGES);
            if !seen.insert(usage) {
                errors.push(FieldError::duplicate(&at, usage.as_str()));
            }
        }
        let at = path.child("signerName");
        if spec.signer_name == LEGACY_SIGNER {
            let about = "the legacy signerName is not allowed via this API version";
            errors.push(FieldError::invalid(&at, spec.signer_name.as_str(), about));
        } else {
            signer_name(&mut errors, &at, &spec.signer_name);
        }
        if let Some(seconds) = spec.expiration_seconds.filter(|seconds| *seconds < 600) {
            let about = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.push(FieldError::invalid(&path.child("expirationSeconds"), seconds, about));
        }
        conditions(&mut errors, request);
        errors
    }

    fn validate_status_update(&self, new: &CertificateSigningRequest, old: &CertificateSigningRequest) -> FieldErrors {
        let mut errors = self.validate(new);
        let path = Path::new("status");
        for kind in DECISIONS {
            let (now, before) = (found(new, kind), found(old, kind));
            let at = path.child("conditions");
            if now.len() < before.len() {
                let about = format!("updates may not remove a condition of type {kind:?}");
                errors.push(FieldError::forbidden(&at, about));
            } else if kind != "Failed" && now.len() > before.len() {
                let about = format!("updates may not add a condition of type {kind:?}");
                errors.push(FieldError::forbidden(&at, about));
            } else if kind != "Failed" && !semantically_equal(&now, &before) {
                let about = format!("updates may not modify a condition of type {kind:?}\n");
                errors.push(FieldError::forbidden(&at, about));
            }
        }
        let certificate = |one: &CertificateSigningRequest| one.status.as_ref().and_then(|s| s.certificate.clone());
        let before = certificate(old);
        if before.as_ref().is_some_and(|bytes| !bytes.0.is_empty()) && certificate(new) != before {
            let about = "updates may not modify existing certificate content";
            errors.push(FieldError::forbidden(&path.child("certificate"), about));
        }
        if let Some(bytes) = certificate(new).filter(|bytes| !bytes.0.is_empty())
            && let Err(why) = check_certificate(&bytes.0)
        {
            errors.push(FieldError::invalid(&path.child("certificate"), "<certificate data>", why));
        }
        errors
    }

    fn validate_update(&self, new: &CertificateSigningRequest, old: &CertificateSigningRequest) -> FieldErrors {
        // Metadata is all that can have changed, and the signer of an old request may be one that is refused today.
        if new.spec == old.spec { FieldErrors::new() } else { self.validate(new) }
    }

    fn validate_part_update(
        &self,
        _subresource: &str,
        new: &CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) -> FieldErrors {
        validate_approval(new, old)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }

    fn field<'a>(&self, request: &'a CertificateSigningRequest, _field: &str) -> Cow<'a, str> {
        Cow::Borrowed(&request.spec.signer_name)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            crate::registry::strategy::AGE_COLUMN,
            column("SignerName", "string", "Who is asked to sign."),
            column("Requestor", "string", "Who asks."),
            column("RequestedDuration", "string", "For how long it is to be valid."),
            column("Condition", "string", "What was decided."),
        ];
        COLUMNS
    }

    fn cells(&self, request: &CertificateSigningRequest, now: Timestamp) -> Vec<Value> {
        let spec = &request.spec;
        let duration = spec.expiration_seconds.map(|seconds| human_duration(i64::from(seconds)));
        vec![
            columns::name(&request.metadata),
            columns::age(&request.metadata, now),
            columns::or(Some(&spec.signer_name), "<none>"),
            Value::from(spec.username.as_deref().unwrap_or("")),
            columns::or(duration.as_deref(), "<none>"),
            Value::from(state(request)),
        ]
    }
}

/// What is wrong with an update of `/approval`: decisions may come there, but not go.
fn validate_approval(new: &CertificateSigningRequest, old: &CertificateSigningRequest) -> FieldErrors {
    let mut errors = FieldErrors::new();
    conditions(&mut errors, new);
    for kind in DECISIONS.iter().filter(|kind| found(new, kind).len() < found(old, kind).len()) {
        let about = format!("updates may not remove a condition of type {kind:?}");
        errors.push(FieldError::forbidden(&Path::new("status.conditions"), about));
    }
    errors
}

fn conditions_mut(
    request: &mut CertificateSigningRequest,
) -> impl Iterator<Item = &mut CertificateSigningRequestCondition> {
    request.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten())
}

/// A condition that stands as it stood is not in transition, and one that is new is since its update.
fn keep_transition_times(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
    let before: Vec<_> = old.status.iter().flat_map(|status| status.conditions.iter().flatten()).collect();
    for condition in conditions_mut(new).filter(|condition| condition.last_transition_time.is_none()) {
        let same = before.iter().find(|one| one.type_ == condition.type_ && one.status == condition.status);
        let kept = same.and_then(|one| one.last_transition_time.clone());
        condition.last_transition_time = kept.or_else(|| condition.last_update_time.clone());
    }
}

fn found(request: &CertificateSigningRequest, kind: &str) -> Vec<CertificateSigningRequestCondition> {
    let conditions = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| condition.type_ == kind).cloned().collect()
}

fn state(request: &CertificateSigningRequest) -> String {
    let has = |kind: &str| !found(request, kind).is_empty();
    let mut state = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    let certificate = request.status.as_ref().and_then(|status| status.certificate.as_ref());
    if certificate.is_some_and(|bytes| !bytes.0.is_empty()) {
        state.push_str(",Issued");
    }
    state
}

fn conditions(errors: &mut FieldErrors, request: &CertificateSigningRequest) {
    let path = Path::new("status.conditions");
    let mut seen = BTreeSet::new();
    for (index, one) in request.status.iter().flat_map(|status| status.conditions.iter().flatten()).enumerate() {
        let (path_one, kind) = (path.index(index), one.type_.as_str());
        if kind.is_empty() {
            errors.push(FieldError::required(&path_one.child("type"), ""));
        }
        let states: &[&str] = if DECISIONS.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        if one.status.is_empty() {
            errors.push(FieldError::required(&path_one.child("status"), ""));
        } else {
            one_of(errors, &path_one.child("status"), &one.status, states);
        }
        if !seen.insert(kind) {
            errors.push(FieldError::duplicate(&path_one.child("type"), kind));
        }
    }
    if seen.contains("Approved") && seen.contains("Denied") {
        let [approved, denied] = ["Approved", "Denied"].map(|kind| format!("conditions[{{\"type\": \"{kind}\"}}]"));
        let about = format!("must specify at most one of: `{approved}`, `{denied}`");
        errors.push(FieldError::invalid(&path, format!("{{{approved}, {denied}}}"), about));
    }
}

/// One or more certificates in PEM form and nothing else.
fn check_certificate(pem: &[u8]) -> Result<(), String> {
    let mut found = 0;
    for block in Pem::iter_from_buffer(pem) {
        let Ok(block) = block else { break };
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        X509Certificate::from_der(&block.contents).map_err(|error| error.to_string())?;
        found += 1;
    }
    if found == 0 { Err("must contain at least one CERTIFICATE PEM block".to_owned()) } else { Ok(()) }
}

/// A PEM block with a request that its own key signed.
fn check_request(pem: &[u8]) -> Result<(), String> {
    let no_pem = || "PEM block type must be CERTIFICATE REQUEST".to_owned();
    let (_, block) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| no_pem())?;
    if block.label != "CERTIFICATE REQUEST" {
        return Err(no_pem());
    }
    let (_, request) = X509CertificationRequest::from_der(&block.contents).map_err(|error| error.to_string())?;
    request.verify_signature().map_err(|_| "its signature does not match its key".to_owned())
}
