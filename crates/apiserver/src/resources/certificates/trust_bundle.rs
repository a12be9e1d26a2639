//! ClusterTrustBundles: certificates that Pods may trust.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use serde_json::Value;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::signer::signer_name;
use crate::registry::strategy::{Column, Generation, NAME_COLUMN, NameRule, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{dns, immutable, report, text};

const MAX_BUNDLE: usize = 1024 * 1024;
const OMITTED: &str = "<value omitted>";

#[derive(Default)]
pub struct TrustBundleStrategy;

impl Strategy for TrustBundleStrategy {
    type Object = ClusterTrustBundle;

    fn name_rule(&self) -> NameRule {
        NameRule::Own
    }

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn has_status(&self) -> bool {
        false
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, bundle: &ClusterTrustBundle) -> FieldErrors {
        let mut errors = names(bundle);
        anchors(&mut errors, &Path::new("spec.trustBundle"), &bundle.spec.trust_bundle);
        errors
    }

    fn validate_update(&self, new: &ClusterTrustBundle, old: &ClusterTrustBundle) -> FieldErrors {
        let mut errors = if new.spec.trust_bundle == old.spec.trust_bundle { names(new) } else { self.validate(new) };
        let (path, now, before) = (Path::new("spec.signerName"), &new.spec.signer_name, &old.spec.signer_name);
        immutable(&mut errors, &path, now, before);
        errors
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }

    fn field<'a>(&self, bundle: &'a ClusterTrustBundle, _field: &str) -> Cow<'a, str> {
        Cow::Borrowed(text(&bundle.spec.signer_name))
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME_COLUMN, column("SignerName", "string", "Whose certificates it vouches for.")];
        COLUMNS
    }

    fn cells(&self, bundle: &ClusterTrustBundle, _now: Timestamp) -> Vec<Value> {
        vec![columns::name(&bundle.metadata), columns::or(bundle.spec.signer_name.as_deref(), "<none>")]
    }
}

/// A bundle that belongs to a signer carries the signer's name before its own.
fn names(bundle: &ClusterTrustBundle) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let (path, name) = (Path::new("metadata.name"), text(&bundle.metadata.name));
    let signer = text(&bundle.spec.signer_name);
    let prefix = format!("{}:", signer.replace('/', ":"));
    let messages = match name {
        "" => Vec::new(),
        name if signer.is_empty() && name.contains(':') => {
            vec!["ClusterTrustBundle without signer name must not have \":\" in its name".to_owned()]
        }
        name if signer.is_empty() => dns::subdomain(name),
        name => match name.strip_prefix(&prefix) {
            Some(rest) => dns::subdomain(rest),
            None => vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}")],
        },
    };
    report(&mut errors, &path, name, messages);
    if !signer.is_empty() {
        signer_name(&mut errors, &Path::new("spec.signerName"), signer);
    }
    errors
}

/// Certificates of authorities in PEM form, none of them twice.
fn anchors(errors: &mut FieldErrors, path: &Path, bundle: &str) {
    if bundle.len() > MAX_BUNDLE {
        return errors.push(FieldError::too_long(path, MAX_BUNDLE));
    }
    let before = errors.len();
    let mut seen: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    for (index, block) in Pem::iter_from_buffer(bundle.as_bytes()).map_while(Result::ok).enumerate() {
        match anchor(&block) {
            Ok(()) => seen.entry(block.contents).or_default().push(index),
            Err(why) => errors.push(FieldError::invalid(path, OMITTED, format!("entry {index} {why}"))),
        }
    }
    if errors.len() > before {
        return;
    }
    if seen.is_empty() {
        errors.push(FieldError::invalid(path, OMITTED, "at least one trust anchor must be provided"));
    }
    for places in seen.values().filter(|places| places.len() > 1) {
        let places: Vec<String> = places.iter().map(usize::to_string).collect();
        let about = format!("duplicate trust anchor (indices [{}])", places.join(" "));
        errors.push(FieldError::invalid(path, OMITTED, about));
    }
}

fn anchor(block: &Pem) -> Result<(), String> {
    if block.label != "CERTIFICATE" {
        return Err(format!("has bad block type: {}", block.label));
    }
    let unreadable = |_| "does not parse as X.509".to_owned();
    let (_, certificate) = X509Certificate::from_der(&block.contents).map_err(unreadable)?;
    match certificate.basic_constraints() {
        Ok(Some(constraints)) if constraints.value.ca => Ok(()),
        Ok(_) => Err("does not have the CA bit set".to_owned()),
        Err(_) => Err("has invalid basic constraints".to_owned()),
    }
}
