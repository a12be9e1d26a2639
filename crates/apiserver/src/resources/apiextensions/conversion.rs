//! How objects of a defined kind get from one version to another.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceConversion, WebhookConversion};
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::resources::admissionregistration::webhooks;
use crate::resources::validation::{dns, report, required, required_one_of, shown};

const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

pub fn conversion(errors: &mut FieldErrors, path: &Path, conversion: &CustomResourceConversion) {
    required_one_of(errors, &path.child("strategy"), &conversion.strategy, &["None", "Webhook"]);
    // Upstream's internal type has the parts of the webhook side by side with the strategy.
    let (client, versions) = (path.child("webhookClientConfig"), path.child("conversionReviewVersions"));
    let WebhookConversion { client_config, conversion_review_versions } =
        conversion.webhook.clone().unwrap_or_default();
    if conversion.strategy != "Webhook" {
        let about = "should not be set when strategy is not set to Webhook";
        if client_config.is_some() {
            errors.push(FieldError::forbidden(&client, about));
        }
        if !conversion_review_versions.is_empty() {
            errors.push(FieldError::forbidden(&versions, about));
        }
        return;
    }
    match client_config {
        None => errors.push(FieldError::required(&client, "required when strategy is set to Webhook")),
        Some(config) => match (&config.url, &config.service) {
            (Some(url), None) => webhooks::address(errors, &client.child("url"), url),
            (None, Some(service)) => {
                let path = client.child("service");
                required(errors, &path.child("name"), &service.namespace);
                required(errors, &path.child("namespace"), &service.name);
                webhooks::place(errors, &path, service.port.unwrap_or(443), service.path.as_deref());
            }
            _ => errors.push(FieldError::required(&client, "exactly one of url or service is required")),
        },
    }
    review_versions(errors, &versions, &conversion_review_versions);
}

fn review_versions(errors: &mut FieldErrors, path: &Path, versions: &[String]) {
    if versions.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    let mut seen = BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        if !seen.insert(version.as_str()) {
            errors.push(FieldError::invalid(&path.index(index), version.as_str(), "duplicate version"));
            continue;
        }
        report(errors, &path.index(index), version, dns::label_1035(version));
    }
    if !REVIEW_VERSIONS.iter().any(|version| seen.contains(version)) {
        let about = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(FieldError::invalid(path, shown(&versions), about));
    }
}
