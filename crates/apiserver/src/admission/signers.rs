//! Who may approve, sign and attest for a signer: upstream's CertificateApproval, CertificateSigning,
//! CertificateSubjectRestriction and ClusterTrustBundleAttest.

use async_trait::async_trait;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, ClusterTrustBundle, PodCertificateRequest, PodCertificateRequestStatus,
};
use x509_parser::prelude::{FromDer, X509CertificationRequest};
use xebec_api::field::{FieldError, Path};
use xebec_api::status::StatusError;

use super::{AdmissionRequest, Operation, Validating};
use crate::authn::GROUP_MASTERS;
use crate::authz::rbac::Rules;
use crate::authz::{Attributes, Decision};
use crate::registry::Registry;
use crate::resources::validation::semantically_equal;

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// How far a certificate of a Pod may begin from now.
const SKEW_SECONDS: i64 = 5 * 60;

#[derive(Default)]
pub struct Signers {
    rules: Rules,
}

#[async_trait]
impl Validating for Signers {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    async fn validate(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        if request.resource.group != GROUP || request.operation == Operation::Delete {
            return Ok(());
        }
        if request.is_about::<CertificateSigningRequest>() {
            return match request.subresource {
                "approval" => self.approval(request, registry),
                "status" => self.signing(request, registry),
                "" => subject(request),
                _ => Ok(()),
            };
        }
        if request.is_about::<PodCertificateRequest>() && request.subresource == "status" {
            return self.issuing(request, registry);
        }
        if request.is_of::<ClusterTrustBundle>() { self.attesting(request, registry) } else { Ok(()) }
    }
}

impl Signers {
    /// Whether the user may do that for the signer, or for all signers of its domain.
    fn may(&self, request: &AdmissionRequest<'_>, registry: &Registry, verb: &str, signer: &str) -> bool {
        let domain = format!("{}/*", signer.split('/').next().unwrap_or(signer));
        let allowed = |name: &str| {
            let attributes = Attributes {
                verb,
                group: GROUP,
                version: "*",
                resource: "signers",
                name,
                is_resource: true,
                ..Attributes::new(request.user)
            };
            self.rules.verdict(registry, &attributes).decision == Decision::Allow
        };
        request.user.is_in(GROUP_MASTERS) || allowed(signer) || allowed(&domain)
    }

    fn approval(&self, request: &AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        let Some(old) = request.old_as::<CertificateSigningRequest>() else { return Ok(()) };
        let signer = &old.spec.signer_name;
        if self.may(request, registry, "approve", signer) {
            return Ok(());
        }
        Err(request.forbidden(format!("user not permitted to approve requests with signerName {signer:?}")))
    }

    fn signing(&self, request: &AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        let requests =
            (request.object_as::<CertificateSigningRequest>(), request.old_as::<CertificateSigningRequest>());
        let (Some(new), Some(old)) = requests else { return Ok(()) };
        let signer = &old.spec.signer_name;
        if semantically_equal(&new.status, &old.status) || self.may(request, registry, "sign", signer) {
            return Ok(());
        }
        Err(request.forbidden(format!("user not permitted to sign requests with signerName {signer:?}")))
    }

    fn issuing(&self, request: &AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        let requests = (request.object_as::<PodCertificateRequest>(), request.old_as::<PodCertificateRequest>());
        let (Some(new), Some(old)) = requests else { return Ok(()) };
        if semantically_equal(&new.status, &old.status) {
            return Ok(());
        }
        let invalid = |error: FieldError| Err(StatusError::invalid(request.resource, request.name, vec![error]));
        let begins = |status: &Option<PodCertificateRequestStatus>| status.as_ref().and_then(|s| s.not_before.clone());
        if let Some(begins) = begins(&new.status).filter(|_| begins(&old.status).is_none())
            && (begins.0.as_second() - registry.clock.now().as_second()).abs() >= SKEW_SECONDS
        {
            let about = "must be set to within 5 minutes of kube-apiserver's current time";
            return invalid(FieldError::invalid(&Path::new("status.notBefore"), begins.0.to_string(), about));
        }
        let signer = &old.spec.signer_name;
        if self.may(request, registry, "sign", signer) {
            return Ok(());
        }
        let about = format!("User {:?} is not permitted to \"sign\" for signer {signer:?}", request.user.name);
        invalid(FieldError::forbidden(&Path::new("spec.signerName"), about))
    }

    fn attesting(&self, request: &AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        let Some(bundle) = request.object_as::<ClusterTrustBundle>() else { return Ok(()) };
        let Some(signer) = bundle.spec.signer_name.as_ref().filter(|signer| !signer.is_empty()) else {
            return Ok(());
        };
        let unchanged = request.old_as::<ClusterTrustBundle>().is_some_and(|old| {
            old.spec == bundle.spec
                && old.metadata.labels == bundle.metadata.labels
                && old.metadata.annotations == bundle.metadata.annotations
        });
        if unchanged || self.may(request, registry, "attest", signer) {
            return Ok(());
        }
        Err(request.forbidden(format!("user not permitted to attest for signerName {signer:?}")))
    }
}

/// Nobody becomes a master by a certificate that the API made.
fn subject(request: &AdmissionRequest<'_>) -> Result<(), StatusError> {
    let Some(asked) = request.object_as::<CertificateSigningRequest>() else { return Ok(()) };
    if asked.spec.signer_name != CLIENT_SIGNER {
        return Ok(());
    }
    let block = x509_parser::pem::parse_x509_pem(&asked.spec.request.0);
    let Ok((_, block)) = block else {
        return Err(request.forbidden("failed to parse CSR: PEM block type must be CERTIFICATE REQUEST"));
    };
    let Ok((_, parsed)) = X509CertificationRequest::from_der(&block.contents) else {
        return Err(request.forbidden("failed to parse CSR: the request is malformed"));
    };
    let subject = &parsed.certification_request_info.subject;
    if subject.iter_organization().any(|one| one.as_str().is_ok_and(|name| name == GROUP_MASTERS)) {
        let why = format!("use of {CLIENT_SIGNER} signer with {GROUP_MASTERS} group is not allowed");
        return Err(request.forbidden(why));
    }
    Ok(())
}
