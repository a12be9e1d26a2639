//! Which FlowSchema a request falls under, and which flow of it. Pure.
//!
//! Behaviour: upstream's `matchesFlowSchema`: a wildcard counts only when it stands alone in its list.

use k8s_openapi::api::flowcontrol::v1::{
    FlowSchemaSpec, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};
use sha2::{Digest, Sha256};

use crate::authn::User;
use crate::request_info::RequestInfo;

pub fn matches(schema: &FlowSchemaSpec, user: &User, info: &RequestInfo<'_>) -> bool {
    schema.rules.iter().flatten().any(|rule| covers(rule, user, info))
}

/// The number of a request's flow, for the dealing of queues.
pub fn flow(name: &str, schema: &FlowSchemaSpec, user: &User, info: &RequestInfo<'_>) -> u64 {
    let distinguisher = match schema.distinguisher_method.as_ref().map(|method| method.type_.as_str()) {
        Some("ByUser") => user.name.as_str(),
        Some("ByNamespace") => info.namespace,
        _ => "",
    };
    let mut hash = Sha256::new();
    hash.update(name);
    hash.update([0]);
    hash.update(distinguisher);
    let digest: [u8; 32] = hash.finalize().into();
    u64::from_le_bytes(digest[..8].try_into().unwrap_or_default())
}

fn covers(rule: &PolicyRulesWithSubjects, user: &User, info: &RequestInfo<'_>) -> bool {
    if !rule.subjects.iter().any(|subject| is_subject(subject, user)) {
        return false;
    }
    if info.is_resource {
        rule.resource_rules.iter().flatten().any(|rule| covers_resource(rule, info))
    } else {
        rule.non_resource_rules.iter().flatten().any(|rule| covers_path(rule, info))
    }
}

fn is_subject(subject: &Subject, user: &User) -> bool {
    match subject.kind.as_str() {
        "User" => subject.user.as_ref().is_some_and(|one| one.name == "*" || one.name == user.name),
        "Group" => subject.group.as_ref().is_some_and(|one| one.name == "*" || user.is_in(&one.name)),
        "ServiceAccount" => {
            let (Some(one), Some((namespace, name))) = (&subject.service_account, user.service_account()) else {
                return false;
            };
            one.namespace == namespace && (one.name == "*" || one.name == name)
        }
        _ => false,
    }
}

fn covers_resource(rule: &ResourcePolicyRule, info: &RequestInfo<'_>) -> bool {
    let resource = |one: &String| {
        one.strip_prefix(info.resource).is_some_and(|rest| match info.subresource {
            "" => rest.is_empty(),
            subresource => rest.strip_prefix('/') == Some(subresource),
        })
    };
    has(&rule.verbs, info.verb)
        && (is_all(&rule.resources) || rule.resources.iter().any(resource))
        && has(&rule.api_groups, info.group)
        && if info.namespace.is_empty() {
            rule.cluster_scope == Some(true)
        } else {
            has(rule.namespaces.as_deref().unwrap_or_default(), info.namespace)
        }
}

fn covers_path(rule: &NonResourcePolicyRule, info: &RequestInfo<'_>) -> bool {
    let covered = |one: &String| {
        // As upstream: a path without a star covers what lies below it too.
        let prefix = one.strip_suffix('*').unwrap_or(one);
        let below = info.path.strip_prefix(prefix.strip_suffix('/').unwrap_or(prefix));
        one == "*" || one == info.path || below.is_some_and(|rest| rest.starts_with('/'))
    };
    has(&rule.verbs, info.verb) && rule.non_resource_urls.iter().any(covered)
}

fn is_all(list: &[String]) -> bool {
    matches!(list, [only] if only == "*")
}

fn has(list: &[String], wanted: &str) -> bool {
    is_all(list) || list.iter().any(|one| one == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow_control::defaults;

    /// Who asks (`name group,group`), what (`verb group resource[/subresource] namespace`, dashes for what is empty, or
    /// `verb /path`), and the schema of the built-in ones that it falls under.
    fn check(who: &str, what: &str, expected: &str) {
        let (name, groups) = who.split_once(' ').unwrap_or((who, ""));
        let user = User::new(name, &groups.split(',').collect::<Vec<_>>());
        let words: Vec<&str> = what.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
        let verbs = ["get", "list", "create", "update", "watch"];
        let verb = *verbs.iter().find(|verb| **verb == words[0]).unwrap();
        let info = match words[..] {
            [_, path] => RequestInfo { verb, path, ..RequestInfo::default() },
            [_, group, resource, namespace] => {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                RequestInfo {
                    is_resource: true,
                    verb,
                    group,
                    resource,
                    subresource,
                    namespace,
                    ..RequestInfo::default()
                }
            }
            _ => panic!("{what}"),
        };
        let mut schemas = defaults::flow_schemas();
        schemas.sort_by_key(|schema| schema.spec.matching_precedence);
        let found = schemas.iter().find(|schema| matches(&schema.spec, &user, &info));
        assert_eq!(found.and_then(|schema| schema.metadata.name.as_deref()), Some(expected), "{who} {what}");
    }

    #[test]
    fn requests_fall_under_upstreams_schemas() {
        check("admin system:masters,system:authenticated", "list - pods -", "exempt");
        check("jane system:authenticated", "get /readyz", "probes");
        check("jane system:authenticated", "get /readyz/ping", "probes");
        check("jane system:authenticated", "get /metrics", "global-default");
        check("jane system:authenticated", "list - pods a", "global-default");
        check("system:anonymous system:unauthenticated", "get /api", "global-default");
        let scheduler = "system:kube-scheduler system:authenticated";
        check(scheduler, "update coordination.k8s.io leases kube-system", "system-leader-election");
        check(scheduler, "create - pods/binding a", "kube-scheduler");
        let node = "system:node:n1 system:nodes,system:authenticated";
        check(node, "update - nodes/status -", "system-node-high");
        check(node, "update coordination.k8s.io leases kube-node-lease", "system-node-high");
        check(node, "list - pods -", "system-nodes");
        let robot = "system:serviceaccount:a:robot system:serviceaccounts,system:authenticated";
        check(robot, "list - pods a", "service-accounts");
        let dns = "system:serviceaccount:kube-system:dns system:serviceaccounts,system:authenticated";
        check(dns, "list - endpoints -", "kube-system-service-accounts");
    }

    #[test]
    fn flows_are_told_apart_by_what_the_schema_says() {
        let schemas = defaults::flow_schemas();
        let spec = |name: &str| {
            let found = schemas.iter().find(|schema| schema.metadata.name.as_deref() == Some(name));
            &found.unwrap().spec
        };
        let (jane, joe) = (User::new("jane", &[]), User::new("joe", &[]));
        let place = |namespace: &'static str| RequestInfo { namespace, ..RequestInfo::default() };
        let by_user = |user: &User, namespace| flow("global-default", spec("global-default"), user, &place(namespace));
        assert_eq!(by_user(&jane, "a"), by_user(&jane, "b"));
        assert_ne!(by_user(&jane, "a"), by_user(&joe, "a"));
        let by_place = |user: &User, namespace| flow("kube-scheduler", spec("kube-scheduler"), user, &place(namespace));
        assert_eq!(by_place(&jane, "a"), by_place(&joe, "a"));
        assert_ne!(by_place(&jane, "a"), by_place(&jane, "b"));
    }
}
