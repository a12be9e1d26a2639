//! Nobody gives away by a role or a binding what they do not have themselves, unless they may `escalate` or `bind`.
//!
//! Behaviour: upstream's policy-based storage of the RBAC kinds.

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use xebec_api::status::StatusError;

use super::{AdmissionRequest, Mutating, Operation};
use crate::authn::{GROUP_MASTERS, User};
use crate::authz::rbac::{Rules, role_rules};
use crate::authz::{Attributes, Decision, rules};
use crate::registry::Registry;

const GROUP: &str = "rbac.authorization.k8s.io";

#[derive(Default)]
pub struct Escalation {
    rules: Rules,
}

#[async_trait]
impl Mutating for Escalation {
    fn name(&self) -> &'static str {
        "EscalationCheck"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        if request.resource.group != GROUP || !writes || request.user.is_in(GROUP_MASTERS) {
            return Ok(());
        }
        if request.is_of::<Role>() || request.is_of::<ClusterRole>() {
            return self.check_role(request, registry);
        }
        if request.is_of::<RoleBinding>() || request.is_of::<ClusterRoleBinding>() {
            return self.check_binding(request, registry);
        }
        Ok(())
    }
}

impl Escalation {
    fn check_role(&self, request: &AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        let escalate = Attributes {
            verb: "escalate",
            group: GROUP,
            version: "*",
            resource: &request.resource.plural,
            // The name of an object to be created is not part of the request's path.
            name: if request.operation == Operation::Create { "" } else { request.name },
            namespace: request.namespace,
            is_resource: true,
            ..Attributes::new(request.user)
        };
        if self.allows(registry, &escalate) {
            return Ok(());
        }
        if let Some(role) = request.object_as::<Role>() {
            let old = request.old_as::<Role>();
            let unchanged =
                old.is_some_and(|old| old.rules == role.rules && same_but_collection(&old.metadata, &role.metadata));
            if unchanged {
                return Ok(());
            }
            return self.confirm(request, registry, role.rules.as_deref().unwrap_or_default());
        }
        let Some(role) = request.object_as::<ClusterRole>() else { return Ok(()) };
        let old = request.old_as::<ClusterRole>();
        let unchanged = old.is_some_and(|old| {
            old.rules == role.rules
                && old.aggregation_rule == role.aggregation_rule
                && same_but_collection(&old.metadata, &role.metadata)
        });
        if unchanged {
            return Ok(());
        }
        self.confirm(request, registry, role.rules.as_deref().unwrap_or_default())?;
        let gathers = |role: &ClusterRole| {
            let selectors = role.aggregation_rule.as_ref().and_then(|rule| rule.cluster_role_selectors.as_ref());
            selectors.is_some_and(|selectors| !selectors.is_empty())
        };
        if (gathers(role) || old.is_some_and(gathers)) && self.confirm(request, registry, &everything()).is_err() {
            return Err(request.forbidden("must have cluster-admin privileges to use the aggregationRule"));
        }
        Ok(())
    }

    fn check_binding(&self, request: &AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        let (role, unchanged) = if let Some(binding) = request.object_as::<RoleBinding>() {
            let same = |old: &RoleBinding| {
                old.subjects == binding.subjects
                    && old.role_ref == binding.role_ref
                    && same_but_collection(&old.metadata, &binding.metadata)
            };
            (&binding.role_ref, request.old_as::<RoleBinding>().is_some_and(same))
        } else if let Some(binding) = request.object_as::<ClusterRoleBinding>() {
            let same = |old: &ClusterRoleBinding| {
                old.subjects == binding.subjects
                    && old.role_ref == binding.role_ref
                    && same_but_collection(&old.metadata, &binding.metadata)
            };
            (&binding.role_ref, request.old_as::<ClusterRoleBinding>().is_some_and(same))
        } else {
            return Ok(());
        };
        if unchanged || self.may_bind(request, registry, role) {
            return Ok(());
        }
        let rules = role_rules(registry, role, request.namespace).map_err(|error| match error.is_not_found() {
            // The missing role bears the binding's kind in upstream's answer.
            true => StatusError::not_found(request.resource, &role.name),
            false => error,
        })?;
        self.confirm(request, registry, &rules)
    }

    fn may_bind(&self, request: &AdmissionRequest<'_>, registry: &Registry, role: &RoleRef) -> bool {
        let resource = match role.kind.as_str() {
            "ClusterRole" => "clusterroles",
            "Role" => "roles",
            _ => return false,
        };
        let bind = Attributes {
            verb: "bind",
            group: role.api_group.as_deref().unwrap_or(GROUP),
            version: "*",
            resource,
            name: &role.name,
            namespace: request.namespace,
            is_resource: true,
            ..Attributes::new(request.user)
        };
        self.allows(registry, &bind)
    }

    fn allows(&self, registry: &Registry, attributes: &Attributes<'_>) -> bool {
        self.rules.verdict(registry, attributes).decision == Decision::Allow
    }

    /// Refuses what the user does not have.
    fn confirm(
        &self,
        request: &AdmissionRequest<'_>,
        registry: &Registry,
        wanted: &[PolicyRule],
    ) -> Result<(), StatusError> {
        let user: &User = request.user;
        let (held, errors) = self.rules.of(registry, user, request.namespace);
        let missing = rules::missing(&held.iter().collect::<Vec<_>>(), wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let mut why = rules::escalation(user, &missing);
        if !errors.is_empty() {
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            why = format!("{why}; resolution errors: [{}]", texts.join(", "));
        }
        Err(request.forbidden(why))
    }
}

fn everything() -> Vec<PolicyRule> {
    let all = || Some(vec!["*".to_owned()]);
    let verbs = vec!["*".to_owned()];
    vec![
        PolicyRule { verbs: verbs.clone(), api_groups: all(), resources: all(), ..PolicyRule::default() },
        PolicyRule { verbs, non_resource_urls: all(), ..PolicyRule::default() },
    ]
}

/// Whether two states differ in nothing but what garbage collection changes.
fn same_but_collection(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    a.labels == b.labels && a.annotations == b.annotations
}
