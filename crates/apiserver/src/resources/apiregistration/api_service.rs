//! APIServices: who answers for a version of a group.

use jiff::Timestamp;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceCondition, APIServiceSpec, APIServiceStatus,
};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::metadata;
use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, NameRule, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{dns, report, required, text, unsupported};

const MAX_GROUP_PRIORITY: i32 = 20_000;
const MAX_VERSION_PRIORITY: i32 = 1000;
const HTTPS: i32 = 443;

#[derive(Default)]
pub struct ApiServiceStrategy;

impl Strategy for ApiServiceStrategy {
    type Object = APIService;

    fn name_rule(&self) -> NameRule {
        NameRule::Own
    }

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, service: &mut APIService) {
        if let Some(reference) = service.spec.get_or_insert_default().service.as_mut() {
            reference.port.get_or_insert(HTTPS);
        }
    }

    /// What the server itself answers for is available at once.
    fn prepare_create(&self, service: &mut APIService) {
        let local = service.spec.as_ref().is_none_or(|spec| spec.service.is_none());
        let available = APIServiceCondition {
            last_transition_time: service.metadata.creation_timestamp.clone(),
            message: Some("Local APIServices are always available".to_owned()),
            reason: Some("Local".to_owned()),
            status: "True".to_owned(),
            type_: "Available".to_owned(),
        };
        service.status = Some(APIServiceStatus { conditions: local.then(|| vec![available]) });
    }

    fn prepare_status_update(&self, new: &mut APIService, old: &APIService) {
        metadata::keep_for_status(&mut new.metadata, &old.metadata);
    }

    fn validate(&self, service: &APIService) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let spec = service.spec.clone().unwrap_or_default();
        name(&mut errors, text(&service.metadata.name), &spec);
        let (path, group, version) = (Path::new("spec"), text(&spec.group), text(&spec.version));
        if group.is_empty() && version != "v1" {
            let about = "only v1 may have an empty group and it better be legacy kube";
            errors.push(FieldError::required(&path.child("group"), about));
        }
        if !group.is_empty() {
            report(&mut errors, &path.child("group"), group, dns::subdomain(group));
        }
        report(&mut errors, &path.child("version"), version, dns::label_1035(version));
        let mut priority = |field: &str, value: i32, most: i32| {
            if value <= 0 || value > most {
                let about = format!("must be positive and less than {most}");
                errors.push(FieldError::invalid(&path.child(field), value, about));
            }
        };
        priority("groupPriorityMinimum", spec.group_priority_minimum, MAX_GROUP_PRIORITY);
        priority("versionPriority", spec.version_priority, MAX_VERSION_PRIORITY);
        back_end(&mut errors, &path, &spec);
        errors
    }

    fn validate_status_update(&self, new: &APIService, _old: &APIService) -> FieldErrors {
        let conditions = new.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let wrong = conditions.enumerate().filter(|(_, one)| !["True", "False", "Unknown"].contains(&&*one.status));
        let refused = |(index, one): (usize, &APIServiceCondition)| {
            let path = Path::new("status.conditions").index(index).child("status");
            unsupported(&path, one.status.as_str(), &["True", "False", "Unknown"])
        };
        wrong.map(refused).collect()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Service", "string", "Which Service answers."),
            column("Available", "string", "Whether it answers."),
            AGE_COLUMN,
        ];
        COLUMNS
    }

    fn cells(&self, service: &APIService, now: Timestamp) -> Vec<Value> {
        let reference = service.spec.as_ref().and_then(|spec| spec.service.as_ref());
        let back_end = reference.map(|one| format!("{}/{}", text(&one.namespace), text(&one.name)));
        let mut conditions = service.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let available = conditions.find(|one| one.type_ == "Available").map(|one| match text(&one.reason) {
            reason if one.status != "True" && !reason.is_empty() => format!("{} ({reason})", one.status),
            _ => one.status.clone(),
        });
        vec![
            columns::name(&service.metadata),
            columns::or(back_end.as_deref(), "Local"),
            columns::or(available.as_deref(), "Unknown"),
            columns::age(&service.metadata, now),
        ]
    }
}

/// The name follows from what is registered.
fn name(errors: &mut FieldErrors, name: &str, spec: &APIServiceSpec) {
    if name.is_empty() {
        return;
    }
    let wanted = format!("{}.{}", text(&spec.version), text(&spec.group));
    let mut messages = dns::path_segment(name);
    if messages.is_empty() && name != wanted {
        messages.push(format!("must be `spec.version+\".\"+spec.group`: {wanted:?}"));
    }
    report(errors, &Path::new("metadata.name"), name, messages);
}

fn back_end(errors: &mut FieldErrors, path: &Path, spec: &APIServiceSpec) {
    let bundle = spec.ca_bundle.as_ref().map_or(0, |bytes| bytes.0.len());
    let unverified = spec.insecure_skip_tls_verify == Some(true);
    let at = path.child("insecureSkipTLSVerify");
    let Some(service) = &spec.service else {
        if bundle > 0 {
            let about = "local APIServices may not have a caBundle";
            errors.push(FieldError::invalid(&path.child("caBundle"), format!("{bundle} bytes"), about));
        }
        if unverified {
            errors.push(FieldError::invalid(&at, true, "local APIServices may not have insecureSkipTLSVerify"));
        }
        return;
    };
    let path = path.child("service");
    required(errors, &path.child("namespace"), text(&service.namespace));
    required(errors, &path.child("name"), text(&service.name));
    let port = service.port.unwrap_or(HTTPS);
    if !(1..=65535).contains(&port) {
        let about = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid(&path.child("port"), port, about));
    }
    if unverified && bundle > 0 {
        errors.push(FieldError::invalid(&at, true, "may not be true if caBundle is present"));
    }
}
