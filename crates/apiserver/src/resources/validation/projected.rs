//! Projected volumes: files from several sources in one directory, and files of the downward API.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, DownwardAPIVolumeFile, PodCertificateProjection, ProjectedVolumeSource,
    ServiceAccountTokenProjection, VolumeProjection,
};
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::volumes::{key_path, local_path};
use super::{environment, labels, numbers, one_of, report, required, shown, text};
use crate::resources::certificates::signer;

const VOLUME_FIELDS: [&str; 5] =
    ["metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid"];
const KEY_TYPES: [&str; 6] = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
/// 91 days, and 24 hours for signers of the project itself.
const MAX_CERTIFICATE_SECONDS: (i32, i32) = (91 * 86400, 86400);

pub fn projected(errors: &mut FieldErrors, path: &Path, volume: &ProjectedVolumeSource) {
    numbers::file_mode(errors, &path.child("defaultMode"), volume.default_mode);
    let mut files = Files { seen: BTreeSet::new(), path };
    for (index, source) in volume.sources.iter().flatten().enumerate() {
        let item = path.child("sources").index(index);
        one_source(errors, &item, source, &mut files);
        let count = [
            source.secret.is_some(),
            source.config_map.is_some(),
            source.downward_api.is_some(),
            source.service_account_token.is_some(),
            source.cluster_trust_bundle.is_some(),
            source.pod_certificate.is_some(),
        ];
        if count.iter().filter(|present| **present).count() > 1 {
            errors.push(FieldError::forbidden(&item, "may not specify more than 1 volume type per source"));
        }
    }
}

/// Paths that are taken; a second taker is reported on the volume.
struct Files<'a> {
    seen: BTreeSet<&'a str>,
    path: &'a Path,
}

impl<'a> Files<'a> {
    fn take(&mut self, errors: &mut FieldErrors, file: &'a str, reported: &str) {
        if !file.is_empty() && !self.seen.insert(file) {
            errors.push(FieldError::invalid(self.path, reported, "conflicting duplicate paths"));
        }
    }
}

fn one_source<'a>(errors: &mut FieldErrors, item: &Path, source: &'a VolumeProjection, files: &mut Files<'a>) {
    if let Some(secret) = &source.secret {
        let path = item.child("secret");
        required(errors, &path.child("name"), &secret.name);
        for (index, file) in secret.items.iter().flatten().enumerate() {
            key_path(errors, &path.child("items").index(index), file);
            files.take(errors, &file.path, &secret.name);
        }
    }
    if let Some(map) = &source.config_map {
        let path = item.child("configMap");
        required(errors, &path.child("name"), &map.name);
        for (index, file) in map.items.iter().flatten().enumerate() {
            key_path(errors, &path.child("items").index(index), file);
            files.take(errors, &file.path, &map.name);
        }
    }
    if let Some(downward) = &source.downward_api {
        for file in downward.items.iter().flatten() {
            downward_file(errors, &item.child("downwardAPI"), file);
            files.take(errors, &file.path, &file.path);
        }
    }
    if let Some(token) = &source.service_account_token {
        service_account_token(errors, &item.child("serviceAccountToken"), files.path, token);
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        trust_bundle(errors, &item.child("clusterTrustBundle"), bundle);
        files.take(errors, &bundle.path, &bundle.path);
    }
    if let Some(certificate) = &source.pod_certificate {
        pod_certificate(errors, &item.child("podCertificate"), certificate, files);
    }
}

fn service_account_token(errors: &mut FieldErrors, path: &Path, volume: &Path, token: &ServiceAccountTokenProjection) {
    let at = path.child("expirationSeconds");
    match token.expiration_seconds {
        None => errors.push(FieldError::required(&at, "")),
        Some(seconds) if seconds < 600 => {
            errors.push(FieldError::invalid(&at, seconds, "may not specify a duration less than 10 minutes"));
        }
        Some(seconds) if seconds > 1 << 32 => {
            errors.push(FieldError::invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds"));
        }
        Some(_) => {}
    }
    // Upstream reports the token's path on the volume.
    if required(errors, &volume.child("path"), &token.path) {
        local_path(errors, &volume.child("path"), &token.path);
    }
}

fn trust_bundle(errors: &mut FieldErrors, path: &Path, bundle: &ClusterTrustBundleProjection) {
    match (&bundle.name, &bundle.signer_name) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::invalid(path, shown(bundle), "only one of name and signerName may be used"));
        }
        (Some(name), None) => {
            let at = path.child("name");
            if name.is_empty() {
                errors.push(FieldError::required(&at, "must be a valid object name"));
            }
            for message in signer::trust_bundle_name(name) {
                let about = format!("not a valid clustertrustbundlename: {message}");
                errors.push(FieldError::invalid(&at, name.as_str(), about));
            }
            if let Some(selector) = &bundle.label_selector {
                let about = "labelSelector must be unset if name is specified";
                errors.push(FieldError::invalid(&path.child("labelSelector"), shown(selector), about));
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors.push(FieldError::required(&path.child("signerName"), "must be a valid signer name"));
            }
            signer::signer_name(errors, &path.child("signerName"), signer);
            labels::selector(errors, &path.child("labelSelector"), bundle.label_selector.as_ref());
        }
        (None, None) => errors.push(FieldError::required(path, "either name or signerName must be specified")),
    }
    required(errors, &path.child("path"), &bundle.path);
    local_path(errors, &path.child("path"), &bundle.path);
}

fn pod_certificate<'a>(
    errors: &mut FieldErrors,
    path: &Path,
    certificate: &'a PodCertificateProjection,
    files: &mut Files<'a>,
) {
    signer::signer_name(errors, &path.child("signerName"), &certificate.signer_name);
    for key in certificate.user_annotations.iter().flatten().map(|(key, _)| key.to_lowercase()) {
        report(errors, &path.child("userAnnotations"), &key, super::dns::label_key(&key));
    }
    one_of(errors, &path.child("keyType"), &certificate.key_type, &KEY_TYPES);
    if let Some(seconds) = certificate.max_expiration_seconds {
        let at = path.child("maxExpirationSeconds");
        if seconds < 3600 {
            errors.push(FieldError::invalid(&at, seconds, "if provided, maxExpirationSeconds must be >= 3600"));
        }
        let (others, own) = MAX_CERTIFICATE_SECONDS;
        let max = if certificate.signer_name.starts_with("kubernetes.io/") { own } else { others };
        if seconds > max {
            let about = format!("if provided, maxExpirationSeconds must be <= {max}");
            errors.push(FieldError::invalid(&at, seconds, about));
        }
    }
    let named = [
        ("credentialBundlePath", &certificate.credential_bundle_path),
        ("keyPath", &certificate.key_path),
        ("certificateChainPath", &certificate.certificate_chain_path),
    ];
    let mut none = true;
    for (field, file) in named {
        let file = text(file);
        if !file.is_empty() {
            none = false;
            local_path(errors, &path.child(field), file);
            files.take(errors, file, file);
        }
    }
    if none {
        let about = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(FieldError::required(path, about));
    }
}

pub fn downward_file(errors: &mut FieldErrors, path: &Path, file: &DownwardAPIVolumeFile) {
    required(errors, &path.child("path"), &file.path);
    local_path(errors, &path.child("path"), &file.path);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), other) => {
            environment::field_ref(errors, &path.child("fieldRef"), field, &VOLUME_FIELDS);
            if other.is_some() {
                let about = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(path, "resource", about));
            }
        }
        (None, Some(field)) => {
            environment::resource_field_ref(errors, &path.child("resourceFieldRef"), field, true);
        }
        (None, None) => errors.push(FieldError::required(path, "one of fieldRef and resourceFieldRef is required")),
    }
    numbers::file_mode(errors, &path.child("mode"), file.mode);
}
