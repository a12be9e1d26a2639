//! Names of signers, and of the trust bundles that belong to them.

use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::resources::validation::{dns, required};

const MAX_DOMAIN: usize = 253;
const MAX_NAME: usize = MAX_DOMAIN + 1 + (253 + 63 + 1);

/// `example.com/signer-name`.
pub fn signer_name(errors: &mut FieldErrors, path: &Path, name: &str) {
    if !required(errors, path, name) {
        return;
    }
    let [domain, rest] = name.split('/').collect::<Vec<_>>()[..] else {
        let about = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.push(FieldError::invalid(path, name, about));
    };
    if domain.len() > MAX_DOMAIN {
        errors.push(FieldError::too_long(path, MAX_DOMAIN));
    }
    first_wrong(errors, path, domain, dns::label);
    if !domain.contains('.') {
        let about = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, domain, about));
    }
    first_wrong(errors, path, rest, dns::subdomain);
    if name.len() > MAX_NAME {
        errors.push(FieldError::too_long(path, MAX_NAME));
    }
}

/// Further wrong segments would be reported in the same words.
fn first_wrong(errors: &mut FieldErrors, path: &Path, value: &str, check: fn(&str) -> dns::Messages) {
    let wrong = value.split('.').map(|part| (part, check(part))).find(|(_, messages)| !messages.is_empty());
    for (part, message) in wrong.into_iter().flat_map(|(part, messages)| messages.into_iter().map(move |m| (part, m))) {
        errors.push(FieldError::invalid(path, value, format!("validating label {part:?}: {message}")));
    }
}

/// A bundle's name is a subdomain, after the signer's name and colons if it belongs to one.
pub fn trust_bundle_name(name: &str) -> dns::Messages {
    dns::subdomain(name.rsplit_once(':').map_or(name, |(_, last)| last))
}
