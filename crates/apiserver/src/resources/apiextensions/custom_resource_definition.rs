//! CustomResourceDefinitions: kinds that are defined at run time.
//!
//! What a definition says is checked here; the kinds that follow from it are served elsewhere. Expressions and defaults in
//! schemas are not evaluated.

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition, CustomResourceDefinitionNames, CustomResourceDefinitionSpec,
    CustomResourceDefinitionStatus, CustomResourceDefinitionVersion,
};
use serde_json::{Value, json};
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{conversion, version};
use crate::registry::strategy::{Column, NAME_COLUMN, NameRule, Strategy, column, wide};
use crate::resources::validation::{dns, immutable, report, required, required_one_of, shown, text};

const APPROVED: &str = "api-approved.kubernetes.io";

#[derive(Default)]
pub struct DefinitionStrategy;

impl Strategy for DefinitionStrategy {
    type Object = CustomResourceDefinition;

    fn name_rule(&self) -> NameRule {
        NameRule::Own
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, definition: &mut CustomResourceDefinition) {
        let spec = &mut definition.spec;
        let names = &mut spec.names;
        if text(&names.singular).is_empty() {
            names.singular = Some(names.kind.to_lowercase());
        }
        if text(&names.list_kind).is_empty() && !names.kind.is_empty() {
            names.list_kind = Some(format!("{}List", names.kind));
        }
        let none = || CustomResourceConversion { strategy: "None".to_owned(), webhook: None };
        let webhook = spec.conversion.get_or_insert_with(none).webhook.as_mut();
        let service =
            webhook.and_then(|webhook| webhook.client_config.as_mut()).and_then(|client| client.service.as_mut());
        if let Some(service) = service {
            service.port.get_or_insert(443);
        }
        spec.preserve_unknown_fields.take_if(|preserve| !*preserve);
        definition.status.get_or_insert_default().accepted_names.get_or_insert_default();
        remember_storage_version(definition);
    }

    fn prepare_create(&self, definition: &mut CustomResourceDefinition) {
        let accepted_names = Some(CustomResourceDefinitionNames::default());
        definition.status = Some(CustomResourceDefinitionStatus { accepted_names, ..Default::default() });
        remember_storage_version(definition);
    }

    fn prepare_update(&self, new: &mut CustomResourceDefinition, _old: &CustomResourceDefinition) {
        remember_storage_version(new);
    }

    fn validate(&self, definition: &CustomResourceDefinition) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (spec, name) = (&definition.spec, text(&definition.metadata.name));
        if !name.is_empty() {
            let mut messages = dns::subdomain(name);
            if name != format!("{}.{}", spec.names.plural, spec.group) {
                messages.push("must be spec.names.plural+\".\"+spec.group".to_owned());
            }
            report(&mut errors, &Path::new("metadata.name"), name, messages);
        }
        specification(&mut errors, spec);
        stored_versions(&mut errors, definition);
        approval(&mut errors, definition, None);
        errors
    }

    fn validate_update(&self, new: &CustomResourceDefinition, old: &CustomResourceDefinition) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, now, before) = (Path::new("spec"), &new.spec, &old.spec);
        specification(&mut errors, now);
        if is_established(old) {
            immutable(&mut errors, &path.child("scope"), &now.scope, &before.scope);
            immutable(&mut errors, &path.child("names.kind"), &now.names.kind, &before.names.kind);
        }
        immutable(&mut errors, &path.child("group"), &now.group, &before.group);
        immutable(&mut errors, &path.child("names.plural"), &now.names.plural, &before.names.plural);
        stored_versions(&mut errors, new);
        approval(&mut errors, new, Some(old));
        errors
    }

    fn validate_status_update(&self, new: &CustomResourceDefinition, _old: &CustomResourceDefinition) -> FieldErrors {
        let mut errors = FieldErrors::new();
        if let Some(accepted) = new.status.as_ref().and_then(|status| status.accepted_names.as_ref()) {
            names(&mut errors, &Path::new("status.acceptedNames"), accepted);
        }
        errors
    }

    fn warnings(&self, new: &CustomResourceDefinition, old: Option<&CustomResourceDefinition>) -> Vec<String> {
        let before = old.map(version::warnings).unwrap_or_default();
        version::warnings(new).into_iter().filter(|text| !before.contains(text)).collect()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Scope", "string", "Whether its objects are in namespaces."),
            column("Versions", "string", "The versions that are served, and which of them is stored."),
            column("Created At", "date", "When it was defined."),
            wide("Group", "string", "The group of the kind."),
            wide("Kind", "string", "What is defined."),
            wide("ShortNames", "string", "What it is called for short."),
            wide("Established", "boolean", "Whether it is served."),
        ];
        COLUMNS
    }

    fn cells(&self, definition: &CustomResourceDefinition, _now: Timestamp) -> Vec<Value> {
        let (meta, spec) = (&definition.metadata, &definition.spec);
        let label = |version: &CustomResourceDefinitionVersion| {
            format!("{}{}", version.name, if version.storage { "(storage)" } else { "" })
        };
        let mut versions: Vec<String> = spec.versions.iter().filter(|version| version.served).map(label).collect();
        versions.sort();
        vec![
            Value::from(text(&meta.name)),
            json!(spec.scope),
            json!(versions.join(",")),
            shown(&meta.creation_timestamp),
            json!(spec.group),
            json!(spec.names.kind),
            json!(spec.names.short_names.as_deref().unwrap_or_default().join(",")),
            json!(is_established(definition)),
        ]
    }
}

/// The version in which new objects are stored is one of those that stored objects may have.
fn remember_storage_version(definition: &mut CustomResourceDefinition) {
    let storage = definition.spec.versions.iter().find(|version| version.storage).map(|version| version.name.clone());
    let stored = definition.status.get_or_insert_default().stored_versions.get_or_insert_default();
    if let Some(name) = storage.filter(|name| !stored.contains(name)) {
        stored.push(name);
    }
}

fn is_established(definition: &CustomResourceDefinition) -> bool {
    let mut conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|one| one.type_ == "Established" && one.status == "True")
}

fn specification(errors: &mut FieldErrors, spec: &CustomResourceDefinitionSpec) {
    let path = Path::new("spec");
    let at = path.child("group");
    if required(errors, &at, &spec.group) {
        let messages = dns::subdomain(&spec.group);
        if !messages.is_empty() {
            errors.push(FieldError::invalid(&at, spec.group.as_str(), messages.join(",")));
        } else if !spec.group.contains('.') {
            errors.push(FieldError::invalid(&at, spec.group.as_str(), "should be a domain with at least one dot"));
        }
    }
    required_one_of(errors, &path.child("scope"), &spec.scope, &["Cluster", "Namespaced"]);
    versions(errors, &path, &spec.versions);
    version::parts(errors, &path, &spec.versions);
    let at = path.child("names");
    required(errors, &at.child("plural"), &spec.names.plural);
    required(errors, &at.child("singular"), text(&spec.names.singular));
    required(errors, &at.child("kind"), &spec.names.kind);
    required(errors, &at.child("listKind"), text(&spec.names.list_kind));
    names(errors, &at, &spec.names);
    if let Some(conversion) = &spec.conversion {
        conversion::conversion(errors, &path.child("conversion"), conversion);
    }
    if spec.preserve_unknown_fields == Some(true) {
        let about =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(FieldError::invalid(&path.child("preserveUnknownFields"), true, about));
    }
}

fn versions(errors: &mut FieldErrors, path: &Path, versions: &[CustomResourceDefinitionVersion]) {
    let (at_first, path) = (path.child("version"), &path.child("versions"));
    for (index, one) in versions.iter().enumerate() {
        let path = path.index(index);
        let messages = dns::label_1035(&one.name);
        if !messages.is_empty() {
            let about = messages.join(",");
            errors.push(FieldError::invalid(&path.child("name"), one.name.as_str(), about.as_str()));
            // Upstream's internal type has the first one's name a second time.
            if index == 0 && !one.name.is_empty() {
                errors.push(FieldError::invalid(&at_first, one.name.as_str(), about));
            }
        }
        if one.schema.as_ref().is_none_or(|schema| schema.open_api_v3_schema.is_none()) {
            errors.push(FieldError::required(&path.child("schema.openAPIV3Schema"), ""));
        }
        version::deprecation(errors, &path.child("deprecationWarning"), one);
    }
    let unique: std::collections::BTreeSet<&str> = versions.iter().map(|one| one.name.as_str()).collect();
    if unique.len() < versions.len() {
        errors.push(FieldError::invalid(path, shown(&versions), "must contain unique version names"));
    }
    if versions.iter().filter(|one| one.storage).count() != 1 {
        let about = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(path, shown(&versions), about));
    }
}

fn names(errors: &mut FieldErrors, path: &Path, names: &CustomResourceDefinitionNames) {
    let mut joined = |path: &Path, value: &str, intro: &str, messages: dns::Messages| {
        if !value.is_empty() && !messages.is_empty() {
            errors.push(FieldError::invalid(path, value, format!("{intro}{}", messages.join(","))));
        }
    };
    let (singular, list_kind) = (text(&names.singular), text(&names.list_kind));
    for (field, value) in [("plural", names.plural.as_str()), ("singular", singular)] {
        joined(&path.child(field), value, "", dns::label_1035(value));
    }
    let mixed = "may have mixed case, but should otherwise match: ";
    for (field, value) in [("kind", names.kind.as_str()), ("listKind", list_kind)] {
        joined(&path.child(field), value, mixed, dns::label_1035(&value.to_lowercase()));
    }
    for (field, list) in [("shortNames", &names.short_names), ("categories", &names.categories)] {
        for (index, value) in list.iter().flatten().enumerate() {
            joined(&path.child(field).index(index), value, "", dns::label_1035(value));
        }
    }
    if !names.kind.is_empty() && names.kind == list_kind {
        let about = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(&path.child("listKind"), list_kind, about));
    }
}

/// A version in which objects are stored must stay until they are not any more.
fn stored_versions(errors: &mut FieldErrors, definition: &CustomResourceDefinition) {
    let path = Path::new("status.storedVersions");
    let stored = definition.status.as_ref().and_then(|status| status.stored_versions.clone()).unwrap_or_default();
    if stored.is_empty() {
        return errors.push(FieldError::invalid(&path, Value::Null, "must have at least one stored version"));
    }
    let versions = &definition.spec.versions;
    let mut unseen = stored.clone();
    for one in versions {
        let known = unseen.contains(&one.name);
        if one.storage && !known {
            let about = format!("must have the storage version {}", one.name);
            errors.push(FieldError::invalid(&path, json!(stored), about));
        }
        unseen.retain(|name| *name != one.name);
    }
    for (index, name) in stored.iter().enumerate().filter(|(_, name)| versions.iter().all(|one| one.name != **name)) {
        let about = format!(
            "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until \
             a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
        );
        errors.push(FieldError::invalid(&path.index(index), name.as_str(), about));
    }
}

#[derive(PartialEq)]
enum Approval {
    Missing,
    Given,
    Unreadable,
}

fn approval_of(definition: &CustomResourceDefinition) -> (Approval, &str) {
    let value = definition.metadata.annotations.as_ref().and_then(|all| all.get(APPROVED)).map_or("", String::as_str);
    let is_url = value.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
    match value {
        "" => (Approval::Missing, value),
        value if value.starts_with("unapproved") || is_url => (Approval::Given, value),
        value => (Approval::Unreadable, value),
    }
}

/// Groups of the community's are not for everyone to define kinds in.
fn approval(errors: &mut FieldErrors, new: &CustomResourceDefinition, old: Option<&CustomResourceDefinition>) {
    let group = new.spec.group.as_str();
    let is_protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group == *domain || group.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')));
    let (state, value) = approval_of(new);
    if !is_protected || old.is_some_and(|old| approval_of(old).0 == state) {
        return;
    }
    let path = Path::new("metadata.annotations").key(APPROVED);
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    match state {
        Approval::Given => {}
        Approval::Missing => {
            errors.push(FieldError::required(
                &path,
                format!("protected groups must have approval annotation {APPROVED:?}, {see}"),
            ));
        }
        Approval::Unreadable => {
            let about = format!(
                "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \
                 \"unapproved\", {see}"
            );
            errors.push(FieldError::invalid(&path, value, about));
        }
    }
}
