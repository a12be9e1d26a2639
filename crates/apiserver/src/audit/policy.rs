//! The policy file: which requests are recorded, and how much of them. Upstream's `audit.k8s.io/v1` `Policy`. Pure but for
//! the reading.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::authn::User;
use crate::request_info::RequestInfo;

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is not an audit policy", path.display())]
    Parse { path: PathBuf, source: serde_saphyr::Error },
    #[error("{}: {why}", path.display())]
    Invalid { path: PathBuf, why: String },
}

/// How much of a request is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

/// When a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Stage {
    RequestReceived,
    /// The answer's head has gone out and its body goes on: watches and other streams.
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What the policy says of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

impl Policy {
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| PolicyError::Read { path: path.to_owned(), source })?;
        let policy: Policy =
            serde_saphyr::from_str(&text).map_err(|source| PolicyError::Parse { path: path.to_owned(), source })?;
        policy.check().map_err(|why| PolicyError::Invalid { path: path.to_owned(), why })?;
        Ok(policy)
    }

    /// The first rule that names the request decides; without one it is not recorded.
    pub fn rule(&self, user: &User, info: &RequestInfo<'_>) -> Verdict {
        let found = self.rules.iter().find(|rule| rule.names(user, info));
        let mut omit_stages = self.omit_stages.clone();
        omit_stages.extend(found.iter().flat_map(|rule| &rule.omit_stages));
        let omit = found.and_then(|rule| rule.omit_managed_fields).unwrap_or(self.omit_managed_fields);
        Verdict { level: found.map_or(Level::None, |rule| rule.level), omit_stages, omit_managed_fields: omit }
    }

    fn check(&self) -> Result<(), String> {
        if (&*self.api_version, &*self.kind) != ("audit.k8s.io/v1", "Policy") {
            return Err(format!("no kind {:?} is known in version {:?}", self.kind, self.api_version));
        }
        if self.rules.is_empty() {
            return Err("the policy has no rules".to_owned());
        }
        for (index, rule) in self.rules.iter().enumerate() {
            rule.check().map_err(|why| format!("rules[{index}].{why}"))?;
        }
        Ok(())
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        for (index, url) in self.non_resource_urls.iter().enumerate().filter(|(_, url)| *url != "*") {
            let at = format!("nonResourceURLs[{index}]: Invalid value: {url:?}");
            if !url.starts_with('/') {
                return Err(format!("{at}: non-resource URL rules must begin with a '/' character"));
            }
            if url[..url.len() - 1].contains('*') {
                return Err(format!("{at}: non-resource URL wildcards '*' must be the final character of the rule"));
            }
        }
        if !self.non_resource_urls.is_empty() && !(self.resources.is_empty() && self.namespaces.is_empty()) {
            return Err(
                "nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs".to_owned()
            );
        }
        if self.resources.iter().any(|one| !one.resource_names.is_empty() && one.resources.is_empty()) {
            return Err("resources.resourceNames: using resourceNames requires at least one resource".to_owned());
        }
        Ok(())
    }

    fn names(&self, user: &User, info: &RequestInfo<'_>) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|one| one == wanted);
        let of_user = (self.users.is_empty() || has(&self.users, &user.name))
            && (self.user_groups.is_empty() || user.groups.iter().any(|group| has(&self.user_groups, group)))
            && (self.verbs.is_empty() || has(&self.verbs, info.verb));
        if !of_user {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return info.is_resource
                && (self.namespaces.is_empty() || has(&self.namespaces, info.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|one| one.name(info)));
        }
        if self.non_resource_urls.is_empty() {
            return true;
        }
        let covers = |url: &String| {
            url == "*" || url == info.path || url.strip_suffix('*').is_some_and(|start| info.path.starts_with(start))
        };
        !info.is_resource && self.non_resource_urls.iter().any(covers)
    }
}

impl GroupResources {
    fn name(&self, info: &RequestInfo<'_>) -> bool {
        if self.group != info.group && self.group != "*" {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !self.resource_names.iter().any(|name| name == info.name) {
            return false;
        }
        self.resources.iter().any(|one| match one.split_once('/') {
            None => one == "*" || (one == info.resource && info.subresource.is_empty()),
            Some(("*", subresource)) => !info.subresource.is_empty() && subresource == info.subresource,
            Some((resource, "*")) => resource == info.resource,
            Some((resource, subresource)) => resource == info.resource && subresource == info.subresource,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [system:kube-proxy]
  verbs: [watch]
- level: None
  nonResourceURLs: [/healthz*, /version]
- level: Metadata
  resources:
  - resources: [secrets, configmaps, pods/log]
  - group: '*'
    resources: ['*/scale']
- level: Request
  namespaces: [kube-system]
  omitStages: [ResponseStarted]
  omitManagedFields: true
- level: RequestResponse
  userGroups: [ops]
  resources:
  - group: apps
  - group: ''
    resources: [pods/*]
    resourceNames: [a]
- level: Metadata
  verbs: [delete]
";

    fn check(who: (&str, &[&str]), what: (&'static str, &str), expected: Level) {
        let policy: Policy = serde_saphyr::from_str(POLICY).unwrap();
        policy.check().unwrap();
        let (verb, path) = what;
        let hints = crate::request_info::QueryHints::default();
        let method = match verb {
            "delete" => http::Method::DELETE,
            _ => http::Method::GET,
        };
        let mut info = RequestInfo::parse(&method, path, hints).unwrap();
        info.verb = verb;
        let found = policy.rule(&User::new(who.0, who.1), &info);
        assert_eq!(found.level, expected, "{who:?} {what:?}");
        assert!(found.omit_stages.contains(&Stage::RequestReceived));
        assert_eq!(found.omit_managed_fields, found.level == Level::Request);
    }

    #[test]
    fn the_first_rule_that_names_a_request_decides() {
        let jane: (&str, &[&str]) = ("jane", &["ops"]);
        check(("system:kube-proxy", &[]), ("watch", "/api/v1/services"), Level::None);
        check(jane, ("get", "/healthz/etcd"), Level::None);
        check(jane, ("get", "/api/v1/namespaces/a/secrets/b"), Level::Metadata);
        check(jane, ("get", "/api/v1/namespaces/a/pods/b/log"), Level::Metadata);
        check(jane, ("get", "/apis/apps/v1/namespaces/a/deployments/b/scale"), Level::Metadata);
        check(jane, ("get", "/api/v1/namespaces/kube-system/pods/b"), Level::Request);
        check(jane, ("get", "/apis/apps/v1/namespaces/a/deployments/b"), Level::RequestResponse);
        check(jane, ("get", "/api/v1/namespaces/x/pods/a/exec"), Level::RequestResponse);
        check(jane, ("get", "/api/v1/namespaces/x/pods/b/exec"), Level::None);
        check(("joe", &[]), ("delete", "/apis/apps/v1/namespaces/a/deployments/b"), Level::Metadata);
        check(("joe", &[]), ("get", "/apis/apps/v1/namespaces/a/deployments/b"), Level::None);
        check(("joe", &[]), ("get", "/metrics"), Level::None);
    }

    fn check_refused(rules: &str, expected: &str) {
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}");
        let policy: Policy = serde_saphyr::from_str(&text).unwrap();
        let error = policy.check().unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn policies_that_contradict_themselves_are_refused() {
        check_refused(" []", "no rules");
        check_refused("- level: None\n  nonResourceURLs: [a]", "rules[0].nonResourceURLs[0]");
        check_refused("- level: None\n  nonResourceURLs: [/a*b]", "final character");
        check_refused("- level: None\n  nonResourceURLs: [/a]\n  namespaces: [b]", "both regular resources");
        check_refused("- level: None\n  resources: [{resourceNames: [b]}]", "at least one resource");
        assert!(serde_saphyr::from_str::<Policy>("rules: [{level: Some}]").is_err());
    }
}
