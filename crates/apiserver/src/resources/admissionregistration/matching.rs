//! Which requests a webhook or a policy is about, as all kinds of the group say it.
//!
//! Expressions are held against the shape of the field only; whether one is sound is for who evaluates it to say.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MatchResources, NamedRuleWithOperations, ParamKind, ParamRef, RuleWithOperations,
};
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::resources::validation::{dns, labels, report, required, shown, text, unsupported};

/// What the server's own manifests are called; nobody makes such an object through the API.
const STATIC: &str = ".static.k8s.io";
const MAX_CONDITIONS: usize = 64;
pub const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
pub const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
/// There is nothing to be changed of what goes away.
const CHANGING_OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];

fn reserved(name: &str) -> Option<String> {
    let about = "are reserved for static manifest-based configurations and cannot be managed via the API";
    name.ends_with(STATIC).then(|| format!("names ending with {STATIC:?} {about}"))
}

pub fn not_reserved(errors: &mut FieldErrors, name: &str) {
    errors.extend(reserved(name).map(|about| FieldError::invalid(&Path::new("metadata.name"), name, about)));
}

pub fn reserved_warnings(name: &str, is_update: bool) -> Vec<String> {
    reserved(name).filter(|_| is_update).map(|about| format!("metadata.name: {about}")).into_iter().collect()
}

/// An optional word of a list.
pub fn optional_one_of(errors: &mut FieldErrors, path: &Path, value: &Option<String>, supported: &[&str]) {
    if let Some(value) = value.as_deref().filter(|value| !supported.contains(value)) {
        errors.push(unsupported(path, value, supported));
    }
}

/// A word of a list that defaults have set.
pub fn set_one_of(errors: &mut FieldErrors, path: &Path, value: &Option<String>, supported: &[&str]) {
    if value.is_none() {
        errors.push(FieldError::required(path, ""));
    }
    optional_one_of(errors, path, value, supported);
}

pub fn default_rule(scope: &mut Option<String>) {
    scope.get_or_insert_with(|| "*".to_owned());
}

pub fn default_match(resources: Option<&mut MatchResources>) {
    let Some(resources) = resources else { return };
    resources.match_policy.get_or_insert_with(|| "Equivalent".to_owned());
    resources.namespace_selector.get_or_insert_default();
    resources.object_selector.get_or_insert_default();
    let rules = resources.resource_rules.iter_mut().chain(resources.exclude_resource_rules.iter_mut());
    rules.flatten().for_each(|rule| default_rule(&mut rule.scope));
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

pub fn rule(errors: &mut FieldErrors, path: &Path, rule: &RuleWithOperations) {
    let list = |values: &Option<Vec<String>>| values.clone().unwrap_or_default();
    let at = path.child("operations");
    let operations = list(&rule.operations);
    if operations.is_empty() {
        errors.push(FieldError::required(&at, ""));
    }
    alone(errors, &at, &operations, "operations");
    for (index, operation) in operations.iter().enumerate().filter(|(_, one)| !OPERATIONS.contains(&one.as_str())) {
        errors.push(unsupported(&at.index(index), operation.as_str(), &OPERATIONS));
    }
    let (at, groups) = (path.child("apiGroups"), list(&rule.api_groups));
    if groups.is_empty() {
        errors.push(FieldError::required(&at, ""));
    }
    alone(errors, &at, &groups, "API groups");
    let (at, versions) = (path.child("apiVersions"), list(&rule.api_versions));
    if versions.is_empty() {
        errors.push(FieldError::required(&at, ""));
    }
    alone(errors, &at, &versions, "API versions");
    for (index, version) in versions.iter().enumerate() {
        required(errors, &at.index(index), version);
    }
    resources(errors, &path.child("resources"), &list(&rule.resources));
    optional_one_of(errors, &path.child("scope"), &rule.scope, &["*", "Cluster", "Namespaced"]);
}

/// Names of resources and subresources, none of which another one covers.
fn resources(errors: &mut FieldErrors, path: &Path, all: &[String]) {
    if all.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    let (mut whole, mut everywhere) = (BTreeSet::new(), BTreeSet::new());
    let mut bare = false;
    for (index, name) in all.iter().enumerate() {
        let path = path.index(index);
        if !required(errors, &path, name) {
            continue;
        }
        let Some((resource, sub)) = name.split_once('/') else {
            // As upstream: the last one without a subresource decides.
            bare = name != "*";
            continue;
        };
        let mut covered = |by: String| {
            let about = format!("if '{by}' is present, must not specify {name}");
            errors.push(FieldError::invalid(&path, name.as_str(), about));
        };
        if whole.contains(resource) {
            covered(format!("{resource}/*"));
        }
        if everywhere.contains(sub) {
            covered(format!("*/{sub}"));
        }
        if sub == "*" {
            whole.insert(resource);
        }
        if resource == "*" {
            everywhere.insert(sub);
        }
    }
    let mut wrong = |is: bool, about: &str| {
        if is {
            errors.push(FieldError::invalid(path, shown(&all), about));
        }
    };
    let everything = all.iter().any(|name| name == "*/*");
    wrong(all.len() > 1 && everything, "if '*/*' is present, must not specify other resources");
    let about = "if '*' is present, must not specify other resources without subresources";
    wrong(is_wild(all) && bare, about);
}

pub fn conditions(errors: &mut FieldErrors, path: &Path, conditions: &[MatchCondition]) {
    if conditions.len() > MAX_CONDITIONS {
        errors.push(FieldError::too_many(path, conditions.len(), MAX_CONDITIONS));
    }
    let mut seen = BTreeSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        required(errors, &path.child("expression"), condition.expression.trim());
        let path = path.child("name");
        if required(errors, &path, &condition.name) {
            report(errors, &path, &condition.name, dns::label_key(&condition.name));
            if !seen.insert(&condition.name) {
                errors.push(FieldError::duplicate(&path, condition.name.as_str()));
            }
        }
    }
}

pub fn match_resources(errors: &mut FieldErrors, path: &Path, resources: &MatchResources) {
    set_one_of(errors, &path.child("matchPolicy"), &resources.match_policy, &MATCH_POLICIES);
    let selectors =
        [("namespaceSelector", &resources.namespace_selector), ("objectSelector", &resources.object_selector)];
    for (field, selector) in selectors {
        if selector.is_none() {
            errors.push(FieldError::required(&path.child(field), ""));
        }
        labels::selector(errors, &path.child(field), selector.as_ref());
    }
    let lists =
        [("resourceRules", &resources.resource_rules), ("excludeResourceRules", &resources.exclude_resource_rules)];
    for (field, rules) in lists {
        for (index, rule) in rules.iter().flatten().enumerate() {
            named_rule(errors, &path.child(field).index(index), rule);
        }
    }
}

/// What a policy is about; without a rule there would be no types.
pub fn constraints(errors: &mut FieldErrors, path: &Path, constraints: Option<&MatchResources>) {
    let Some(constraints) = constraints else { return errors.push(FieldError::required(path, "")) };
    match_resources(errors, path, constraints);
    if constraints.resource_rules.as_ref().is_none_or(Vec::is_empty) {
        errors.push(FieldError::required(&path.child("resourceRules"), ""));
    }
}

/// No deletions, where what is matched is to be changed.
pub fn changing(errors: &mut FieldErrors, path: &Path, resources: Option<&MatchResources>) {
    let path = path.child("resourceRules.operations");
    let rules = resources.iter().flat_map(|resources| resources.resource_rules.iter().flatten());
    for operation in rules.flat_map(|rule| rule.operations.iter().flatten()) {
        if !CHANGING_OPERATIONS.contains(&operation.as_str()) {
            errors.push(unsupported(&path, operation.as_str(), &CHANGING_OPERATIONS));
        }
    }
}

fn named_rule(errors: &mut FieldErrors, path: &Path, named: &NamedRuleWithOperations) {
    let mut seen = BTreeSet::new();
    for (index, name) in named.resource_names.iter().flatten().enumerate() {
        let path = path.child("resourceNames").index(index);
        report(errors, &path, name, dns::path_segment(name));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&path, name.as_str()));
        }
    }
    let NamedRuleWithOperations { api_groups, api_versions, operations, resources, scope, .. } = named.clone();
    rule(errors, path, &RuleWithOperations { api_groups, api_versions, operations, resources, scope });
}

pub fn param_kind(errors: &mut FieldErrors, path: &Path, kind: &ParamKind) {
    let (at, version) = (path.child("apiVersion"), text(&kind.api_version));
    let mut joined = |path: &Path, value: &str, intro: &str, messages: dns::Messages| {
        if !messages.is_empty() {
            errors.push(FieldError::invalid(path, value, format!("{intro}{}", messages.join(","))));
        }
    };
    let about = "may have mixed case, but should otherwise match: ";
    let name = text(&kind.kind);
    if !name.is_empty() {
        joined(&path.child("kind"), name, about, dns::label_1035(&name.to_lowercase()));
    }
    match version.split('/').collect::<Vec<_>>()[..] {
        [version] if !version.is_empty() => joined(&at, version, "", dns::label_1035(version)),
        [group, part] if !version.is_empty() => {
            if !group.is_empty() {
                joined(&at, group, "", dns::subdomain(group));
            }
            if part.is_empty() {
                joined(&at, version, "", vec!["version must be specified".to_owned()]);
            } else {
                joined(&at, part, "", dns::label_1035(part));
            }
        }
        [_, _, ..] => joined(&at, version, "", vec![format!("unexpected GroupVersion string: {version}")]),
        _ => {}
    }
    required(errors, &at, version);
    required(errors, &path.child("kind"), name);
}

pub fn param_ref(errors: &mut FieldErrors, path: &Path, reference: Option<&ParamRef>) {
    let Some(reference) = reference else { return };
    let name = text(&reference.name);
    let exclusive = "name and selector are mutually exclusive";
    if !name.is_empty() {
        report(errors, &path.child("name"), name, dns::path_segment(name));
    }
    if let Some(selector) = &reference.selector {
        labels::selector(errors, &path.child("selector"), Some(selector));
        if !name.is_empty() {
            errors.push(FieldError::forbidden(&path.child("name"), exclusive));
            errors.push(FieldError::forbidden(&path.child("selector"), exclusive));
        }
    } else if name.is_empty() {
        errors.push(FieldError::required(path, "one of name or selector must be specified"));
    }
    let (at, action) = (path.child("parameterNotFoundAction"), text(&reference.parameter_not_found_action));
    if required(errors, &at, action) && !["Deny", "Allow"].contains(&action) {
        errors.push(unsupported(&at, action, &["Deny", "Allow"]));
    }
}
