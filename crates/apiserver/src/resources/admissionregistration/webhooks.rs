//! ValidatingWebhookConfigurations and MutatingWebhookConfigurations: who else is asked about requests.
//!
//! A mutating webhook is a validating one that may also be asked again, so one set of rules serves both.

use std::collections::BTreeSet;

use http::Uri;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, ServiceReference, ValidatingWebhook, ValidatingWebhookConfiguration,
    WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::matching;
use super::mutating_policy::REINVOCATION_POLICIES;
use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{dns, labels, report, required, shown, text, unsupported};

const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const TIMEOUT: i32 = 10;
const MAX_TIMEOUT: i32 = 30;
const HTTPS: i32 = 443;
const COLUMNS: &[Column] = &[NAME_COLUMN, column("Webhooks", "integer", "How many webhooks are asked."), AGE_COLUMN];

#[derive(Default)]
pub struct ValidatingWebhooksStrategy;

impl Strategy for ValidatingWebhooksStrategy {
    type Object = ValidatingWebhookConfiguration;

    fn has_status(&self) -> bool {
        false
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, configuration: &mut ValidatingWebhookConfiguration) {
        configuration.webhooks.iter_mut().flatten().for_each(default);
    }

    fn validate(&self, configuration: &ValidatingWebhookConfiguration) -> FieldErrors {
        let mut errors = hooks(configuration.webhooks.as_deref().unwrap_or_default());
        matching::not_reserved(&mut errors, text(&configuration.metadata.name));
        errors
    }

    fn validate_update(
        &self,
        new: &ValidatingWebhookConfiguration,
        _old: &ValidatingWebhookConfiguration,
    ) -> FieldErrors {
        hooks(new.webhooks.as_deref().unwrap_or_default())
    }

    fn warnings(
        &self,
        new: &ValidatingWebhookConfiguration,
        old: Option<&ValidatingWebhookConfiguration>,
    ) -> Vec<String> {
        matching::reserved_warnings(text(&new.metadata.name), old.is_some())
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, configuration: &ValidatingWebhookConfiguration, now: Timestamp) -> Vec<Value> {
        cells(&configuration.metadata, configuration.webhooks.as_ref().map_or(0, Vec::len), now)
    }
}

#[derive(Default)]
pub struct MutatingWebhooksStrategy;

impl Strategy for MutatingWebhooksStrategy {
    type Object = MutatingWebhookConfiguration;

    fn has_status(&self) -> bool {
        false
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, configuration: &mut MutatingWebhookConfiguration) {
        for hook in configuration.webhooks.iter_mut().flatten() {
            let again = hook.reinvocation_policy.take().unwrap_or_else(|| "Never".to_owned());
            let mut plain = validating(std::mem::take(hook));
            default(&mut plain);
            *hook = MutatingWebhook { reinvocation_policy: Some(again), ..mutating(plain) };
        }
    }

    fn validate(&self, configuration: &MutatingWebhookConfiguration) -> FieldErrors {
        let mut errors = self.validate_update(configuration, configuration);
        matching::not_reserved(&mut errors, text(&configuration.metadata.name));
        errors
    }

    fn validate_update(&self, new: &MutatingWebhookConfiguration, _old: &MutatingWebhookConfiguration) -> FieldErrors {
        let all = new.webhooks.as_deref().unwrap_or_default();
        let plain: Vec<ValidatingWebhook> = all.iter().cloned().map(validating).collect();
        let mut errors = hooks(&plain);
        for (index, hook) in all.iter().enumerate() {
            let path = Path::new("webhooks").index(index).child("reinvocationPolicy");
            matching::optional_one_of(&mut errors, &path, &hook.reinvocation_policy, &REINVOCATION_POLICIES);
        }
        errors
    }

    fn warnings(&self, new: &MutatingWebhookConfiguration, old: Option<&MutatingWebhookConfiguration>) -> Vec<String> {
        matching::reserved_warnings(text(&new.metadata.name), old.is_some())
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, configuration: &MutatingWebhookConfiguration, now: Timestamp) -> Vec<Value> {
        cells(&configuration.metadata, configuration.webhooks.as_ref().map_or(0, Vec::len), now)
    }
}

fn cells(meta: &ObjectMeta, count: usize, now: Timestamp) -> Vec<Value> {
    vec![columns::name(meta), Value::from(count), columns::age(meta, now)]
}

fn validating(hook: MutatingWebhook) -> ValidatingWebhook {
    ValidatingWebhook {
        admission_review_versions: hook.admission_review_versions,
        client_config: hook.client_config,
        failure_policy: hook.failure_policy,
        match_conditions: hook.match_conditions,
        match_policy: hook.match_policy,
        name: hook.name,
        namespace_selector: hook.namespace_selector,
        object_selector: hook.object_selector,
        rules: hook.rules,
        side_effects: hook.side_effects,
        timeout_seconds: hook.timeout_seconds,
    }
}

fn mutating(hook: ValidatingWebhook) -> MutatingWebhook {
    MutatingWebhook {
        admission_review_versions: hook.admission_review_versions,
        client_config: hook.client_config,
        failure_policy: hook.failure_policy,
        match_conditions: hook.match_conditions,
        match_policy: hook.match_policy,
        name: hook.name,
        namespace_selector: hook.namespace_selector,
        object_selector: hook.object_selector,
        reinvocation_policy: None,
        rules: hook.rules,
        side_effects: hook.side_effects,
        timeout_seconds: hook.timeout_seconds,
    }
}

fn default(hook: &mut ValidatingWebhook) {
    hook.failure_policy.get_or_insert_with(|| "Fail".to_owned());
    hook.match_policy.get_or_insert_with(|| "Equivalent".to_owned());
    hook.namespace_selector.get_or_insert_default();
    hook.object_selector.get_or_insert_default();
    hook.timeout_seconds.get_or_insert(TIMEOUT);
    hook.rules.iter_mut().flatten().for_each(|rule| matching::default_rule(&mut rule.scope));
    if let Some(service) = &mut hook.client_config.service {
        service.port.get_or_insert(HTTPS);
    }
}

fn hooks(hooks: &[ValidatingWebhook]) -> FieldErrors {
    let (mut errors, mut seen) = (FieldErrors::new(), BTreeSet::new());
    for (index, one) in hooks.iter().enumerate() {
        let path = Path::new("webhooks").index(index);
        hook(&mut errors, &path, one);
        review_versions(&mut errors, &path.child("admissionReviewVersions"), &one.admission_review_versions);
        if !one.name.is_empty() && !seen.insert(&one.name) {
            errors.push(FieldError::duplicate(&path.child("name"), one.name.as_str()));
        }
    }
    errors
}

fn hook(errors: &mut FieldErrors, path: &Path, hook: &ValidatingWebhook) {
    name(errors, &path.child("name"), &hook.name);
    for (index, rule) in hook.rules.iter().flatten().enumerate() {
        matching::rule(errors, &path.child("rules").index(index), rule);
    }
    let at = path.child("failurePolicy");
    matching::optional_one_of(errors, &at, &hook.failure_policy, &matching::FAILURE_POLICIES);
    matching::optional_one_of(errors, &path.child("matchPolicy"), &hook.match_policy, &matching::MATCH_POLICIES);
    let at = path.child("sideEffects");
    if hook.side_effects.is_empty() {
        errors.push(FieldError::required(&at, format!("must specify one of {}", SIDE_EFFECTS.join(", "))));
    } else if !SIDE_EFFECTS.contains(&hook.side_effects.as_str()) {
        errors.push(unsupported(&at, hook.side_effects.as_str(), &SIDE_EFFECTS));
    }
    if let Some(seconds) = hook.timeout_seconds.filter(|seconds| !(1..=MAX_TIMEOUT).contains(seconds)) {
        let about = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(&path.child("timeoutSeconds"), seconds, about));
    }
    labels::selector(errors, &path.child("namespaceSelector"), hook.namespace_selector.as_ref());
    labels::selector(errors, &path.child("objectSelector"), hook.object_selector.as_ref());
    client(errors, &path.child("clientConfig"), &hook.client_config);
    let conditions = hook.match_conditions.as_deref().unwrap_or_default();
    matching::conditions(errors, &path.child("matchConditions"), conditions);
}

/// At least three segments.
fn name(errors: &mut FieldErrors, path: &Path, name: &str) {
    if !required(errors, path, name) {
        return;
    }
    let messages = dns::subdomain(name);
    if !messages.is_empty() {
        errors.push(FieldError::invalid(path, name, messages.join(",")));
    } else if name.split('.').count() < 3 {
        let about = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(path, name, about));
    }
}

fn client(errors: &mut FieldErrors, path: &Path, config: &WebhookClientConfig) {
    match (&config.url, &config.service) {
        (Some(url), None) => address(errors, &path.child("url"), url),
        (None, Some(reference)) => service(errors, &path.child("service"), reference),
        _ => errors.push(FieldError::required(path, "exactly one of url or service is required")),
    }
}

pub fn address(errors: &mut FieldErrors, path: &Path, url: &str) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (before, fragment) = url.split_once('#').unwrap_or((url, ""));
    if before == "https://" {
        return errors.push(FieldError::invalid(path, "", format!("host must be specified{FORM}")));
    }
    let parts = match before.parse::<Uri>() {
        Ok(uri) => uri.into_parts(),
        Err(why) => {
            return errors.push(FieldError::required(path, format!("url must be a valid URL: {why}{FORM}")));
        }
    };
    let scheme = parts.scheme.as_ref().map_or("", http::uri::Scheme::as_str);
    let authority = parts.authority.as_ref().filter(|_| !scheme.is_empty()).map_or("", http::uri::Authority::as_str);
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let query = parts.path_and_query.as_ref().and_then(|path| path.query()).unwrap_or("");
    let mut wrong = |is: bool, value: &str, about: String| {
        if is {
            errors.push(FieldError::invalid(path, value, about));
        }
    };
    wrong(scheme != "https", scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    wrong(host.is_empty(), host, format!("host must be specified{FORM}"));
    wrong(!user.is_empty(), user, "user information is not permitted in the URL".to_owned());
    wrong(!fragment.is_empty(), fragment, "fragments are not permitted in the URL".to_owned());
    wrong(!query.is_empty(), query, "query parameters are not permitted in the URL".to_owned());
}

fn service(errors: &mut FieldErrors, path: &Path, service: &ServiceReference) {
    // Upstream hands the two over in the wrong order, so each is missed under the other's name.
    required(errors, &path.child("name"), &service.namespace);
    required(errors, &path.child("namespace"), &service.name);
    place(errors, path, service.port.unwrap_or(HTTPS), service.path.as_deref());
}

/// The port and path of a Service that is called.
pub fn place(errors: &mut FieldErrors, path: &Path, port: i32, url: Option<&str>) {
    if !(1..=65535).contains(&port) {
        let about = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid(&path.child("port"), port, about));
    }
    let path = path.child("path");
    let Some(url) = url.filter(|url| !matches!(*url, "" | "/")) else { return };
    let mut wrong = |about: String| errors.push(FieldError::invalid(&path, url, about));
    if url == "//" {
        return wrong("segment[0] may not be empty".to_owned());
    }
    if !url.starts_with('/') {
        wrong("must start with a '/'".to_owned());
    }
    let steps: String = url.chars().skip(1).collect();
    for (index, step) in steps.strip_suffix('/').unwrap_or(&steps).split('/').enumerate() {
        if step.is_empty() {
            wrong(format!("segment[{index}] may not be empty"));
            continue;
        }
        for message in dns::subdomain(step) {
            wrong(format!("segment[{index}]: {message}"));
        }
    }
}

fn review_versions(errors: &mut FieldErrors, path: &Path, versions: &[String]) {
    let known = REVIEW_VERSIONS.join(", ");
    if versions.is_empty() {
        return errors.push(FieldError::required(path, format!("must specify one of {known}")));
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
        let about = format!("must include at least one of {known}");
        errors.push(FieldError::invalid(path, shown(&versions), about));
    }
}
