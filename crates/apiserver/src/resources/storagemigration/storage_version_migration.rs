//! StorageVersionMigrations: orders to write all objects of a resource anew.

use jiff::Timestamp;
use k8s_openapi::api::storagemigration::v1::{StorageVersionMigration, StorageVersionMigrationStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::metadata;
use crate::registry::strategy::{Column, Generation, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{IMMUTABLE, conditions, dns, immutable, shown, text};

#[derive(Default)]
pub struct StorageVersionMigrationStrategy;

impl Strategy for StorageVersionMigrationStrategy {
    type Object = StorageVersionMigration;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn prepare_create(&self, migration: &mut StorageVersionMigration) {
        migration.status = Some(StorageVersionMigrationStatus::default());
    }

    fn prepare_status_update(&self, new: &mut StorageVersionMigration, old: &StorageVersionMigration) {
        metadata::keep_for_status(&mut new.metadata, &old.metadata);
    }

    fn validate(&self, migration: &StorageVersionMigration) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let path = Path::new("spec.resource");
        let resource = migration.spec.clone().unwrap_or_default().resource;
        let mut joined = |path: &Path, value: &str, messages: dns::Messages| {
            if !messages.is_empty() {
                errors.push(FieldError::invalid(path, value, messages.join(",")));
            }
        };
        if !resource.resource.is_empty() {
            joined(&path.child("resource"), &resource.resource, dns::label_1035(&resource.resource));
        }
        if !resource.group.is_empty() {
            joined(&path.child("group"), &resource.group, dns::subdomain(&resource.group));
        }
        if resource.resource.is_empty() {
            errors.push(FieldError::required(&path.child("resource"), "resource is required to be set"));
        }
        errors
    }

    fn validate_update(&self, new: &StorageVersionMigration, old: &StorageVersionMigration) -> FieldErrors {
        let mut errors = self.validate(new);
        immutable(&mut errors, &Path::new("spec"), &new.spec, &old.spec);
        errors
    }

    fn validate_status_update(&self, new: &StorageVersionMigration, old: &StorageVersionMigration) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let path = Path::new("status");
        let version = |one: &StorageVersionMigration| {
            one.status.as_ref().and_then(|status| status.resource_version.clone()).unwrap_or_default()
        };
        let (at, now, before) = (path.child("resourceVersion"), version(new), version(old));
        if !now.is_empty() && !is_version(&now) {
            let about = format!("resource version is not well formed: {now}");
            errors.push(FieldError::invalid(&at, now.as_str(), about));
        }
        let at_conditions = path.child("conditions");
        conditions::conditions(&mut errors, &at_conditions, conditions_of(new));
        if !before.is_empty() && before != now {
            errors.push(FieldError::invalid(&at, now, IMMUTABLE));
        }
        let mut wrong = |is: bool, about: &str| {
            if is {
                errors.push(FieldError::invalid(&at_conditions, shown(&conditions_of(new)), about));
            }
        };
        let is = |one: &StorageVersionMigration, kind: &str| holds(conditions_of(one), kind);
        let both = is(new, "Succeeded") && is(new, "Failed");
        wrong(both, "Both success and failed conditions cannot be true at the same time");
        let undone = |kind: &str| is(old, kind) && !is(new, kind);
        wrong(undone("Succeeded"), "Success condition cannot be set to false once it is true");
        wrong(undone("Failed"), "Failed condition cannot be set to false once it is true");
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            column("Name", "string", "Name must be unique within a namespace."),
            column("Resource", "string", "What is to be written anew."),
            column("Status", "string", "How far it is."),
        ];
        COLUMNS
    }

    fn cells(&self, migration: &StorageVersionMigration, _now: Timestamp) -> Vec<Value> {
        let resource = migration.spec.clone().unwrap_or_default().resource;
        let resource = match resource.group.as_str() {
            "" => resource.resource,
            group => format!("{}.{group}", resource.resource),
        };
        let states = ["Running", "Failed", "Succeeded"];
        let state = conditions_of(migration).iter().rfind(|one| one.status == "True" && states.contains(&&*one.type_));
        vec![
            Value::from(text(&migration.metadata.name)),
            Value::from(resource),
            columns::or(state.map(|one| one.type_.as_str()), "Unknown"),
        ]
    }
}

fn conditions_of(migration: &StorageVersionMigration) -> &[Condition] {
    migration.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn holds(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().find(|one| one.type_ == kind).is_some_and(|one| one.status == "True")
}

/// A positive number without leading zeros, of any size.
fn is_version(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0')
}
