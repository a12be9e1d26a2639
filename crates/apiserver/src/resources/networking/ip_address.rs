//! IPAddresses: which Service has which address.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ParentReference};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::strategy::{Column, Generation, NAME_COLUMN, NameRule, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{IMMUTABLE, address, dns, report, required, semantically_equal, text};

#[derive(Default)]
pub struct IpAddressStrategy;

impl Strategy for IpAddressStrategy {
    type Object = IPAddress;

    fn name_rule(&self) -> NameRule {
        NameRule::Own
    }

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn has_status(&self) -> bool {
        false
    }

    fn validate(&self, one: &IPAddress) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let name = text(&one.metadata.name);
        if !name.is_empty() {
            address::canonical_ip(&mut errors, &Path::new("metadata.name"), name);
        }
        parent(&mut errors, &Path::new("spec.parentRef"), &one.spec.parent_ref);
        errors
    }

    fn validate_update(&self, new: &IPAddress, old: &IPAddress) -> FieldErrors {
        if semantically_equal(&new.spec, &old.spec) {
            return FieldErrors::new();
        }
        let path = Path::new("spec.parentRef");
        let mut errors = vec![FieldError::invalid(&path, Value::Null, IMMUTABLE)];
        parent(&mut errors, &path, &new.spec.parent_ref);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME_COLUMN, column("ParentRef", "string", "Whose address it is.")];
        COLUMNS
    }

    /// Upstream shows the age without a column for it; a row has one cell a column here.
    fn cells(&self, one: &IPAddress, _now: Timestamp) -> Vec<Value> {
        let of = &one.spec.parent_ref;
        let mut owner = of.resource.to_lowercase();
        for (separator, part) in [(".", text(&of.group)), ("/", text(&of.namespace))] {
            if !part.is_empty() {
                owner.push_str(separator);
                owner.push_str(part);
            }
        }
        let owner = format!("{owner}/{}", of.name);
        let known = *of != ParentReference::default();
        vec![columns::name(&one.metadata), columns::or(known.then_some(owner.as_str()), "<none>")]
    }
}

fn parent(errors: &mut FieldErrors, path: &Path, parent: &ParentReference) {
    if *parent == ParentReference::default() {
        return errors.push(FieldError::required(path, ""));
    }
    let group = text(&parent.group);
    if !group.is_empty() {
        report(errors, &path.child("group"), group, dns::subdomain(group));
    }
    for (field, value) in [("resource", &parent.resource), ("name", &parent.name)] {
        let path = path.child(field);
        if required(errors, &path, value) {
            report(errors, &path, value, dns::path_segment(value));
        }
    }
    let namespace = text(&parent.namespace);
    if !namespace.is_empty() {
        report(errors, &path.child("namespace"), namespace, dns::path_segment(namespace));
    }
}
