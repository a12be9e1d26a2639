//! FlowSchemas: which requests are of which level.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, FlowSchemaStatus, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::standard;
use crate::registry::metadata;
use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{dns, report, required, semantically_equal, shown, text, unsupported};

const DEFAULT_PRECEDENCE: i32 = 1000;
const MAX_PRECEDENCE: i32 = 10_000;
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

#[derive(Default)]
pub struct FlowSchemaStrategy;

impl Strategy for FlowSchemaStrategy {
    type Object = FlowSchema;

    fn default(&self, schema: &mut FlowSchema) {
        let precedence = schema.spec.matching_precedence.filter(|number| *number != 0);
        schema.spec.matching_precedence = precedence.or(Some(DEFAULT_PRECEDENCE));
    }

    fn prepare_create(&self, schema: &mut FlowSchema) {
        schema.status = Some(FlowSchemaStatus::default());
    }

    fn prepare_status_update(&self, new: &mut FlowSchema, old: &FlowSchema) {
        metadata::keep_for_status(&mut new.metadata, &old.metadata);
    }

    fn validate(&self, schema: &FlowSchema) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, spec, name) = (Path::new("spec"), &schema.spec, text(&schema.metadata.name));
        precedence(&mut errors, &path.child("matchingPrecedence"), spec.matching_precedence.unwrap_or(0), name);
        if let Some(method) = &spec.distinguisher_method
            && !["ByNamespace", "ByUser"].contains(&&*method.type_)
        {
            let path = path.child("distinguisherMethod.type");
            // Upstream shows its internal type here.
            let value = serde_json::json!({ "Type": method.type_ });
            errors.push(unsupported(&path, value, &["ByNamespace", "ByUser"]));
        }
        let (at, level) = (path.child("priorityLevelConfiguration.name"), &spec.priority_level_configuration.name);
        if level.is_empty() {
            errors.push(FieldError::required(&at, "must reference a priority level"));
        } else {
            report(&mut errors, &at, level, dns::subdomain(level));
        }
        for (index, rule) in spec.rules.iter().flatten().enumerate() {
            rules(&mut errors, &path.child("rules").index(index), rule);
        }
        let fixed = standard::schemas()
            .into_iter()
            .find(|one| standard::is_mandatory(name) && one.metadata.name == schema.metadata.name);
        if fixed.is_some_and(|fixed| !semantically_equal(&fixed.spec, spec)) {
            let about = format!("spec of '{name}' must equal the fixed value");
            errors.push(FieldError::invalid(&path, shown(spec), about));
        }
        errors
    }

    fn validate_status_update(&self, new: &FlowSchema, _old: &FlowSchema) -> FieldErrors {
        let conditions = new.status.iter().flat_map(|status| status.conditions.iter().flatten());
        condition_types(conditions.map(|one| one.type_.as_str()))
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("PriorityLevel", "string", "The level of the requests."),
            column("MatchingPrecedence", "string", "The lowest one that matches is taken."),
            column("DistinguisherMethod", "string", "What divides the requests into flows."),
            AGE_COLUMN,
            column("MissingPL", "string", "Whether there is no such level."),
        ];
        COLUMNS
    }

    fn cells(&self, schema: &FlowSchema, now: Timestamp) -> Vec<Value> {
        let spec = &schema.spec;
        let mut conditions = schema.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let dangling = conditions.find(|one| one.type_ == "Dangling");
        vec![
            columns::name(&schema.metadata),
            Value::from(spec.priority_level_configuration.name.as_str()),
            Value::from(spec.matching_precedence.unwrap_or(0)),
            columns::or(spec.distinguisher_method.as_ref().map(|method| method.type_.as_str()), "<none>"),
            columns::age(&schema.metadata, now),
            Value::from(dangling.map_or("?", |one| text(&one.status))),
        ]
    }
}

/// Every type once; shared with the levels.
pub fn condition_types<'a>(types: impl Iterator<Item = &'a str>) -> FieldErrors {
    let (mut errors, mut seen) = (FieldErrors::new(), BTreeSet::new());
    for (index, kind) in types.enumerate() {
        let path = Path::new("status.conditions").index(index).child("type");
        if !seen.insert(kind) {
            errors.push(FieldError::duplicate(&path, kind));
        }
        required(&mut errors, &path, kind);
    }
    errors
}

fn precedence(errors: &mut FieldErrors, path: &Path, value: i32, name: &str) {
    let mut wrong = |is: bool, about: &str| {
        if is {
            errors.push(FieldError::invalid(path, value, about));
        }
    };
    wrong(value <= 0, "must be a positive value");
    wrong(value > MAX_PRECEDENCE, &format!("must not be greater than {MAX_PRECEDENCE}"));
    let about = "only the schema named 'exempt' may have matchingPrecedence 1";
    wrong(value == 1 && name != standard::EXEMPT, about);
}

fn rules(errors: &mut FieldErrors, path: &Path, rules: &PolicyRulesWithSubjects) {
    if rules.subjects.is_empty() {
        errors.push(FieldError::required(&path.child("subjects"), "subjects must contain at least one value"));
    }
    for (index, one) in rules.subjects.iter().enumerate() {
        subject(errors, &path.child("subjects").index(index), one);
    }
    let (resources, others) = (rules.resource_rules.as_deref(), rules.non_resource_rules.as_deref());
    let (resources, others) = (resources.unwrap_or_default(), others.unwrap_or_default());
    if resources.is_empty() && others.is_empty() {
        let about = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(path, about));
    }
    for (index, rule) in resources.iter().enumerate() {
        resource_rule(errors, &path.child("resourceRules").index(index), rule);
    }
    for (index, rule) in others.iter().enumerate() {
        non_resource_rule(errors, &path.child("nonResourceRules").index(index), rule);
    }
}

/// One subject of the kind it says, and none of the others.
fn subject(errors: &mut FieldErrors, path: &Path, one: &Subject) {
    let members = [
        ("ServiceAccount", "serviceAccount", one.service_account.is_some()),
        ("User", "user", one.user.is_some()),
        ("Group", "group", one.group.is_some()),
    ];
    let Some((_, own, given)) = members.iter().find(|(kind, ..)| *kind == one.kind) else {
        let kinds = ["Group", "ServiceAccount", "User"];
        return errors.push(unsupported(&path.child("kind"), one.kind.as_str(), &kinds));
    };
    let at = path.child(own);
    if !given {
        let about = format!("{own} is required when subject kind is '{}'", one.kind);
        errors.push(FieldError::required(&at, about));
    }
    if let Some(account) = one.service_account.as_ref().filter(|_| *own == "serviceAccount") {
        let path = at.child("name");
        if required(errors, &path, &account.name) && account.name != "*" {
            report(errors, &path, &account.name, dns::subdomain(&account.name));
        }
        let path = at.child("namespace");
        if account.namespace.is_empty() {
            errors.push(FieldError::required(&path, "must specify namespace for service account"));
        } else {
            report(errors, &path, &account.namespace, dns::label(&account.namespace));
        }
    }
    let name = match *own {
        "user" => one.user.as_ref().map(|user| &user.name),
        "group" => one.group.as_ref().map(|group| &group.name),
        _ => None,
    };
    if let Some(name) = name {
        required(errors, &at.child("name"), name);
    }
    for (kind, field, _) in members.iter().filter(|(_, field, given)| field != own && *given) {
        let about = format!("{field} is forbidden when subject kind is not '{kind}'");
        errors.push(FieldError::forbidden(&path.child(field), about));
    }
}

fn verbs(errors: &mut FieldErrors, path: &Path, verbs: &[String]) {
    let path = path.child("verbs");
    if verbs.is_empty() {
        errors.push(FieldError::required(&path, "verbs must contain at least one value"));
    } else if is_wild(verbs) {
        alone(errors, &path, verbs, "verbs");
    } else if verbs.iter().any(|verb| !VERBS.contains(&verb.as_str())) {
        errors.push(unsupported(&path, shown(&verbs), &VERBS));
    }
}

fn is_wild(list: &[String]) -> bool {
    list.iter().any(|one| one == "*")
}

/// `*` stands for all and so stands alone.
fn alone(errors: &mut FieldErrors, path: &Path, list: &[String], what: &str) {
    if list.len() > 1 && is_wild(list) {
        let about = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(path, shown(&list), about));
    }
}

fn resource_rule(errors: &mut FieldErrors, path: &Path, rule: &ResourcePolicyRule) {
    verbs(errors, path, &rule.verbs);
    let mut list = |field: &str, list: &[String], one: &str, others: &str| {
        let path = path.child(field);
        if list.is_empty() {
            errors.push(FieldError::required(&path, format!("resource rules must supply at least one {one}")));
        }
        alone(errors, &path, list, others);
    };
    list("apiGroups", &rule.api_groups, "api group", "api groups");
    list("resources", &rule.resources, "resource", "resources");
    let (path, namespaces) = (path.child("namespaces"), rule.namespaces.as_deref().unwrap_or_default());
    if namespaces.is_empty() && rule.cluster_scope != Some(true) {
        let about = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.push(FieldError::required(&path, about));
    }
    if is_wild(namespaces) {
        return alone(errors, &path, namespaces, "namespaces");
    }
    for (index, namespace) in namespaces.iter().enumerate() {
        let intro = "each member of this list must be '*' or a DNS-1123 label; ";
        let messages = dns::label(namespace).iter().map(|message| format!("{intro}{message}")).collect();
        report(errors, &path.index(index), namespace, messages);
    }
}

fn non_resource_rule(errors: &mut FieldErrors, path: &Path, rule: &NonResourcePolicyRule) {
    verbs(errors, path, &rule.verbs);
    let (path, urls) = (path.child("nonResourceURLs"), &rule.non_resource_urls);
    if urls.is_empty() {
        errors.push(FieldError::required(&path, "nonResourceURLs must contain at least one value"));
    }
    if is_wild(urls) {
        return alone(errors, &path, urls, "non-resource URLs");
    }
    for (index, url) in urls.iter().enumerate() {
        if let Err(why) = url_path(url) {
            errors.push(FieldError::invalid(&path.index(index), url.as_str(), why));
        }
    }
}

fn url_path(url: &str) -> Result<(), &'static str> {
    match url {
        "" => Err("must not be empty"),
        "/" => Ok(()),
        url if !url.starts_with('/') => Err("must start with slash"),
        url if url.contains(' ') => Err("must not contain white-space"),
        url if url.contains("//") => Err("must not contain double slash"),
        url => match url.matches('*').count() {
            0 => Ok(()),
            1 if url.ends_with("/*") => Ok(()),
            _ => Err("wildcard can only do suffix matching"),
        },
    }
}
