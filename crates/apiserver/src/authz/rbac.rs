//! Role-based access control, evaluated on the caches.
//!
//! ClusterRoleBindings, which every request has to be held against, are indexed by subject; the index is rebuilt when one
//! of them has changed. The bindings of a namespace are few and are read as they are. Behaviour: upstream's
//! `DefaultRuleResolver`.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use xebec_api::resource::ResourceType;
use xebec_api::status::StatusError;

use super::{Attributes, Authorizer, Verdict, rules};
use crate::authn::{User, service_account_name};
use crate::registry::Registry;

/// Finds the rules that apply to a user. Shared by whoever asks, for its index.
#[derive(Default)]
pub struct Rules {
    bindings: ArcSwap<ClusterBindings>,
}

/// ClusterRoleBindings by subject, at one revision of their cache.
#[derive(Default)]
struct ClusterBindings {
    /// `None` before the first look.
    revision: Option<u64>,
    all: Vec<Arc<ClusterRoleBinding>>,
    by_user: HashMap<Box<str>, Vec<Grant>>,
    by_group: HashMap<Box<str>, Vec<Grant>>,
}

/// A binding and which of its subjects led to it.
#[derive(Clone, Copy)]
struct Grant {
    binding: usize,
    subject: usize,
}

/// Where a rule comes from, shown in the reason of a verdict.
pub struct Source<'a> {
    kind: &'static str,
    name: &'a str,
    namespace: &'a str,
    role: &'a RoleRef,
    subject: &'a Subject,
}

/// What a visitor of rules wants.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Next {
    More,
    Enough,
}

impl Rules {
    /// Shows the visitor every rule that applies to a user in a namespace, or the error of a role that cannot be found.
    pub fn visit(
        &self,
        registry: &Registry,
        user: &User,
        namespace: &str,
        visitor: &mut dyn FnMut(Result<(&Source<'_>, &PolicyRule), StatusError>) -> Next,
    ) {
        let cluster = self.cluster_bindings(registry);
        for grant in cluster.grants(user) {
            let binding = &cluster.all[grant.binding];
            let Some(subject) = binding.subjects.as_ref().and_then(|subjects| subjects.get(grant.subject)) else {
                continue;
            };
            let name = binding.metadata.name.as_deref().unwrap_or("");
            let source = Source { kind: "ClusterRoleBinding", name, namespace: "", role: &binding.role_ref, subject };
            if visit_role(registry, "", &source, visitor) == Next::Enough {
                return;
            }
        }
        if namespace.is_empty() {
            return;
        }
        for binding in registry.list::<RoleBinding>(namespace) {
            let subjects = binding.subjects.as_deref().unwrap_or_default();
            let Some(subject) = subjects.iter().find(|subject| is_subject(user, subject, namespace)) else { continue };
            let name = binding.metadata.name.as_deref().unwrap_or("");
            let source = Source { kind: "RoleBinding", name, namespace, role: &binding.role_ref, subject };
            if visit_role(registry, namespace, &source, visitor) == Next::Enough {
                return;
            }
        }
    }

    /// All rules of a user in a namespace, and what could not be found.
    pub fn of(&self, registry: &Registry, user: &User, namespace: &str) -> (Vec<PolicyRule>, Vec<StatusError>) {
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        self.visit(registry, user, namespace, &mut |rule| {
            match rule {
                Ok((_, rule)) => found.push(rule.clone()),
                Err(error) => errors.push(error),
            }
            Next::More
        });
        (found, errors)
    }

    /// Whether a rule allows the request.
    pub fn verdict(&self, registry: &Registry, request: &Attributes<'_>) -> Verdict {
        let mut reason = None;
        let mut errors: Vec<String> = Vec::new();
        self.visit(registry, request.user, request.namespace, &mut |rule| match rule {
            Ok((source, rule)) if rules::allows(rule, request) => {
                reason = Some(format!("RBAC: allowed by {source}"));
                Next::Enough
            }
            Ok(_) => Next::More,
            Err(error) => {
                let text = error.to_string();
                if !errors.contains(&text) {
                    errors.push(text);
                }
                Next::More
            }
        });
        if let Some(reason) = reason {
            return Verdict::allow(reason);
        }
        let mut verdict = Verdict::no_opinion();
        verdict.reason = match &errors[..] {
            [] => String::new(),
            [one] => format!("rbac: RBAC: {one}"),
            several => format!("rbac: RBAC: [{}]", several.join(", ")),
        };
        verdict
    }

    fn cluster_bindings(&self, registry: &Registry) -> Arc<ClusterBindings> {
        let Some(cache) = registry.cache_of::<ClusterRoleBinding>() else { return Arc::default() };
        let snapshot = cache.snapshot();
        let known = self.bindings.load();
        if known.revision == Some(snapshot.revision) {
            return known.clone();
        }
        let mut index = ClusterBindings { revision: Some(snapshot.revision), ..ClusterBindings::default() };
        for binding in snapshot.scan("", None).filter_map(|item| item.object.typed::<ClusterRoleBinding>().ok()) {
            index.add(binding);
        }
        let index = Arc::new(index);
        self.bindings.store(index.clone());
        index
    }
}

impl ClusterBindings {
    fn add(&mut self, binding: Arc<ClusterRoleBinding>) {
        let number = self.all.len();
        for (index, subject) in binding.subjects.iter().flatten().enumerate() {
            let grant = Grant { binding: number, subject: index };
            match subject.kind.as_str() {
                "User" => self.by_user.entry(subject.name.as_str().into()).or_default().push(grant),
                "Group" => self.by_group.entry(subject.name.as_str().into()).or_default().push(grant),
                "ServiceAccount" => {
                    let namespace = subject.namespace.as_deref().unwrap_or("");
                    if !namespace.is_empty() {
                        let name = service_account_name(namespace, &subject.name);
                        self.by_user.entry(name.into()).or_default().push(grant);
                    }
                }
                _ => {}
            }
        }
        self.all.push(binding);
    }

    fn grants<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a Grant> {
        let own = self.by_user.get(user.name.as_str());
        let of_groups = user.groups.iter().filter_map(|group| self.by_group.get(group.as_str()));
        own.into_iter().chain(of_groups).flatten()
    }
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binding =
            if self.namespace.is_empty() { self.name.to_owned() } else { format!("{}/{}", self.name, self.namespace) };
        write!(f, "{} {binding:?} of {} {:?} to {} ", self.kind, self.role.kind, self.role.name, self.subject.kind)?;
        if self.subject.kind != "ServiceAccount" {
            return write!(f, "{:?}", self.subject.name);
        }
        let own = self.subject.namespace.as_deref().unwrap_or("");
        let namespace = if own.is_empty() { self.namespace } else { own };
        write!(f, "{:?}", format!("{}/{namespace}", self.subject.name))
    }
}

/// The role that a binding in a namespace (empty: for the whole cluster) names.
pub fn role_rules(registry: &Registry, role: &RoleRef, namespace: &str) -> Result<RoleRules, StatusError> {
    let found = match role.kind.as_str() {
        "Role" => registry.get::<Role>(namespace, &role.name).map(RoleRules::Role),
        "ClusterRole" => registry.get::<ClusterRole>("", &role.name).map(RoleRules::Cluster),
        other => return Err(StatusError::new(500, "", format!("unsupported role reference kind: {other:?}"))),
    };
    found.ok_or_else(|| {
        // Upstream's listers name the kind in the singular here.
        let (kind, plural) = if role.kind == "Role" { ("Role", "role") } else { ("ClusterRole", "clusterrole") };
        StatusError::not_found(&ResourceType::new("rbac.authorization.k8s.io", "v1", kind, plural, false), &role.name)
    })
}

/// A role's rules, which stay in the cached object.
pub enum RoleRules {
    Role(Arc<Role>),
    Cluster(Arc<ClusterRole>),
}

impl std::ops::Deref for RoleRules {
    type Target = [PolicyRule];

    fn deref(&self) -> &[PolicyRule] {
        match self {
            RoleRules::Role(role) => role.rules.as_deref().unwrap_or_default(),
            RoleRules::Cluster(role) => role.rules.as_deref().unwrap_or_default(),
        }
    }
}

fn visit_role(
    registry: &Registry,
    namespace: &str,
    source: &Source<'_>,
    visitor: &mut dyn FnMut(Result<(&Source<'_>, &PolicyRule), StatusError>) -> Next,
) -> Next {
    match role_rules(registry, source.role, namespace) {
        Ok(rules) if rules.iter().all(|rule| visitor(Ok((source, rule))) == Next::More) => Next::More,
        Ok(_) => Next::Enough,
        Err(error) => visitor(Err(error)),
    }
}

fn is_subject(user: &User, subject: &Subject, namespace: &str) -> bool {
    match subject.kind.as_str() {
        "User" => user.name == subject.name,
        "Group" => user.is_in(&subject.name),
        "ServiceAccount" => {
            let own = subject.namespace.as_deref().filter(|own| !own.is_empty()).unwrap_or(namespace);
            user.service_account() == Some((own, &subject.name))
        }
        _ => false,
    }
}

/// The policy of the cluster's own roles and bindings.
pub struct Rbac {
    registry: Arc<Registry>,
    rules: Arc<Rules>,
}

impl Rbac {
    pub fn new(registry: Arc<Registry>) -> Self {
        Rbac { registry, rules: Arc::default() }
    }
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, request: &Attributes<'_>) -> Verdict {
        self.rules.verdict(&self.registry, request)
    }

    fn rules(&self, user: &User, namespace: &str) -> super::UserRules {
        let (rules, errors) = self.rules.of(&self.registry, user, namespace);
        super::UserRules { rules, incomplete: false, errors: errors.iter().map(ToString::to_string).collect() }
    }
}

#[cfg(test)]
mod tests;
