//! Predicates on RBAC rules: whether one allows a request, and what a set of rules allows that another does not.
//!
//! Behaviour: upstream's `RuleAllows` and its policy comparator, wildcards and `*/subresource` included. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::Attributes;

const ALL: &str = "*";

/// Whether a rule lets a request pass.
pub fn allows(rule: &PolicyRule, request: &Attributes<'_>) -> bool {
    if !has_or_all(&rule.verbs, request.verb) {
        return false;
    }
    if !request.is_resource {
        return list(&rule.non_resource_urls).iter().any(|path| covers_path(path, request.path));
    }
    has_or_all(list(&rule.api_groups), request.group)
        && list(&rule.resources).iter().any(|one| names_resource(one, request.resource, request.subresource))
        && (list(&rule.resource_names).is_empty() || has(list(&rule.resource_names), request.name))
}

/// The smallest rules of `wanted` that no rule of `held` allows, put together again where they differ in their verbs only.
pub fn missing(held: &[&PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let single = wanted.iter().flat_map(break_down);
    compact(single.filter(|one| !held.iter().any(|rule| covers(rule, one))).collect())
}

/// A rule as upstream's messages about escalation show it.
pub fn describe(rule: &PolicyRule) -> String {
    let parts = [
        ("APIGroups", list(&rule.api_groups)),
        ("Resources", list(&rule.resources)),
        ("NonResourceURLs", list(&rule.non_resource_urls)),
        ("ResourceNames", list(&rule.resource_names)),
        ("Verbs", &rule.verbs),
    ];
    let shown: Vec<String> = parts
        .iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(name, values)| format!("{name}:{}", go_list(values)))
        .collect();
    format!("{{{}}}", shown.join(", "))
}

/// `["a" "b"]`, as Go prints a list of strings.
pub fn go_list(values: &[String]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

pub fn list(field: &Option<Vec<String>>) -> &[String] {
    field.as_deref().unwrap_or_default()
}

fn has(values: &[String], wanted: &str) -> bool {
    values.iter().any(|value| value == wanted)
}

fn has_or_all(values: &[String], wanted: &str) -> bool {
    values.iter().any(|value| value == ALL || value == wanted)
}

fn names_resource(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == ALL {
        return true;
    }
    if subresource.is_empty() {
        return rule == resource;
    }
    rule.strip_suffix(subresource)
        .and_then(|rest| rest.strip_suffix('/'))
        .is_some_and(|rest| rest == resource || rest == ALL)
}

fn covers_path(rule: &str, path: &str) -> bool {
    rule == ALL || rule == path || (rule.ends_with('*') && path.starts_with(rule.trim_end_matches('*')))
}

/// One rule for each verb, group, resource and name, or for each verb and path.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut single = Vec::new();
    let one = |value: &String| Some(vec![value.clone()]);
    for group in list(&rule.api_groups) {
        for resource in list(&rule.resources) {
            for verb in &rule.verbs {
                let base = PolicyRule {
                    api_groups: one(group),
                    resources: one(resource),
                    verbs: vec![verb.clone()],
                    ..PolicyRule::default()
                };
                let names = list(&rule.resource_names);
                single.extend(names.iter().map(|name| PolicyRule { resource_names: one(name), ..base.clone() }));
                if names.is_empty() {
                    single.push(base);
                }
            }
        }
    }
    for path in list(&rule.non_resource_urls) {
        let rules = rule.verbs.iter().map(|verb| PolicyRule {
            non_resource_urls: one(path),
            verbs: vec![verb.clone()],
            ..PolicyRule::default()
        });
        single.extend(rules);
    }
    single
}

/// Whether a rule allows all that a broken-down one does.
fn covers(rule: &PolicyRule, single: &PolicyRule) -> bool {
    let all = |values: &[String], wanted: &[String]| wanted.iter().all(|one| has_or_all(values, one));
    let resource = |wanted: &String| {
        let subresource = wanted.split_once('/').map(|(_, subresource)| format!("*/{subresource}"));
        let values = list(&rule.resources);
        has_or_all(values, wanted) || subresource.is_some_and(|wildcard| has(values, &wildcard))
    };
    let path = |wanted: &String| {
        let covered =
            |one: &String| one == wanted || (one.ends_with('*') && wanted.starts_with(one.trim_end_matches('*')));
        list(&rule.non_resource_urls).iter().any(covered)
    };
    let (names, wanted_names) = (list(&rule.resource_names), list(&single.resource_names));
    all(&rule.verbs, &single.verbs)
        && all(list(&rule.api_groups), list(&single.api_groups))
        && list(&single.resources).iter().all(resource)
        && list(&single.non_resource_urls).iter().all(path)
        && (names.is_empty() || (!wanted_names.is_empty() && wanted_names.iter().all(|name| has(names, name))))
}

/// Joins the verbs of broken-down rules on the same thing.
fn compact(single: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut joined: Vec<PolicyRule> = Vec::new();
    for rule in single {
        let same = |one: &&mut PolicyRule| {
            one.api_groups == rule.api_groups
                && one.resources == rule.resources
                && one.resource_names == rule.resource_names
                && one.non_resource_urls.is_none()
                && rule.non_resource_urls.is_none()
        };
        match joined.iter_mut().find(same) {
            Some(known) => known.verbs.extend(rule.verbs),
            None => joined.push(rule),
        }
    }
    joined
}

/// The message about rules that someone wants to give away without having them.
pub fn escalation(user: &crate::authn::User, missing: &[PolicyRule]) -> String {
    let lines: BTreeSet<String> = missing.iter().map(describe).collect();
    let lines: Vec<String> = lines.into_iter().collect();
    format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        go_list(&user.groups),
        lines.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::authn::User;

    fn rule(rule: &Value) -> PolicyRule {
        serde_json::from_value(rule.clone()).unwrap()
    }

    /// `verb group resource[/subresource] name`, or `verb /path`.
    fn check_allows(given: Value, request: &str, expected: bool) {
        let words: Vec<&str> = request.split(' ').collect();
        let user = User::default();
        let (resource, subresource) = words.get(2).map_or(("", ""), |word| word.split_once('/').unwrap_or((word, "")));
        let attributes = Attributes {
            verb: words[0],
            group: words[1].trim_start_matches('-'),
            resource,
            subresource,
            name: words.get(3).unwrap_or(&""),
            is_resource: words.len() > 2,
            path: words[1],
            ..Attributes::new(&user)
        };
        assert_eq!(allows(&rule(&given), &attributes), expected, "{given} {request}");
    }

    #[test]
    fn a_rule_allows_what_it_names() {
        let pods = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]});
        check_allows(pods.clone(), "get - pods a", true);
        check_allows(pods.clone(), "get - pods/log a", true);
        check_allows(pods.clone(), "get - pods/exec a", false);
        check_allows(pods.clone(), "delete - pods a", false);
        check_allows(pods.clone(), "get apps pods a", false);
        check_allows(pods, "get /healthz", false);
        let scale = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale"]});
        check_allows(scale.clone(), "update apps deployments/scale a", true);
        check_allows(scale.clone(), "update apps deployments a", false);
        check_allows(scale, "update apps deployments/autoscale a", false);
        let named = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["*"], "resourceNames": ["a"]});
        check_allows(named.clone(), "get - secrets a", true);
        check_allows(named.clone(), "get - secrets b", false);
        check_allows(named, "get - secrets", false);
        let paths = json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]});
        check_allows(paths.clone(), "get /healthz", true);
        check_allows(paths.clone(), "get /healthz/etcd", false);
        check_allows(paths.clone(), "get /api/v1", true);
        check_allows(paths.clone(), "get /api", false);
        check_allows(paths, "get - pods a", false);
        check_allows(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}), "post /anything", true);
    }

    fn check_missing(held: Value, wanted: Value, expected: &[&str]) {
        let held: Vec<PolicyRule> = serde_json::from_value(held).unwrap();
        let held: Vec<&PolicyRule> = held.iter().collect();
        let wanted: Vec<PolicyRule> = serde_json::from_value(wanted).unwrap();
        let found: Vec<String> = missing(&held, &wanted).iter().map(describe).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_missing_is_found_and_joined() {
        let pods = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]});
        check_missing(
            json!([]),
            json!([pods]),
            &[
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}"#,
                r#"{APIGroups:[""], Resources:["pods/log"], Verbs:["get" "list"]}"#,
            ],
        );
        let get = json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["pods", "*/log"]});
        check_missing(
            json!([get]),
            json!([pods]),
            &[
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["list"]}"#,
                r#"{APIGroups:[""], Resources:["pods/log"], Verbs:["list"]}"#,
            ],
        );
        let all = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
        check_missing(all.clone(), json!([pods]), &[]);
        let path = json!([{"verbs": ["get"], "nonResourceURLs": ["/a"]}]);
        check_missing(all, path.clone(), &[r#"{NonResourceURLs:["/a"], Verbs:["get"]}"#]);
        check_missing(json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]), path, &[]);
        let named = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]});
        let any = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]});
        check_missing(json!([named]), json!([any]), &[r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#]);
        check_missing(json!([any]), json!([named]), &[]);
    }
}
