//! ClusterRoles that hold the rules of others: `admin`, `edit` and `view`, and whichever have an aggregation rule.
//!
//! One task follows the ClusterRoles and writes the rules of the aggregated ones. Behaviour: upstream's
//! clusterrole-aggregation controller.

use std::sync::{Arc, Weak};

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use xebec_api::selector::LabelSelector;
use xebec_api::status::StatusError;

use crate::cache::{Selection, Watcher};
use crate::registry::{Call, Edit, Part, Registry};

/// Roles may gather from roles that gather; a circle of them comes to rest sooner.
const ROUNDS: usize = 8;

pub struct Aggregation {
    registry: Weak<Registry>,
    watcher: Watcher,
}

impl Aggregation {
    /// Follows ClusterRoles from now on; `None` if they are not served.
    pub fn of(registry: &Arc<Registry>) -> Option<Aggregation> {
        let cache = registry.cache_of::<ClusterRole>()?;
        let (_, revision) = registry.cache.current(cache);
        let watcher = cache.watch(revision, Selection::default()).ok()?;
        Some(Aggregation { registry: Arc::downgrade(registry), watcher })
    }

    pub async fn run(mut self) {
        let mut seen = Vec::new();
        loop {
            {
                let Some(registry) = self.registry.upgrade() else { return };
                if let Err(error) = reconcile(&registry).await {
                    tracing::warn!(%error, "aggregated ClusterRoles could not be written; the next change tries again");
                }
            }
            if self.watcher.seen(&mut seen).await.is_err() {
                return;
            }
            seen.clear();
        }
    }
}

async fn reconcile(registry: &Registry) -> Result<(), StatusError> {
    let stored = registry.list::<ClusterRole>("");
    let mut roles: Vec<ClusterRole> = stored.iter().map(|role| (**role).clone()).collect();
    settle(&mut roles);
    let Some(served) = registry.index.find("rbac.authorization.k8s.io", "v1", "clusterroles").cloned() else {
        return Ok(());
    };
    let user = super::server_user();
    for (role, _) in roles.iter().zip(&stored).filter(|(role, stored)| role.rules != stored.rules) {
        let name = role.metadata.name.as_deref().unwrap_or("");
        let edit = |object: &mut dyn crate::registry::erased::AnyObject| {
            if let Some(object) = object.as_any_mut().downcast_mut::<ClusterRole>() {
                object.rules = role.rules.clone();
            }
            Ok(())
        };
        let written = registry.update(&served, ("", name), Part::Main, Edit::Typed(&edit), &mut Call::new(&user)).await;
        if let Err(error) = written
            && !error.is_not_found()
        {
            return Err(error);
        }
    }
    Ok(())
}

/// Gives every aggregated role the rules of those that its selectors match.
pub fn settle(roles: &mut [ClusterRole]) {
    let mut order: Vec<usize> = (0..roles.len()).collect();
    order.sort_by(|a, b| roles[*a].metadata.name.cmp(&roles[*b].metadata.name));
    for _ in 0..ROUNDS {
        let mut changed = false;
        for index in 0..roles.len() {
            let Some(rules) = gathered(roles, &order, index) else { continue };
            if roles[index].rules.as_deref().unwrap_or_default() != rules {
                roles[index].rules = Some(rules);
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}

/// `None` for a role that gathers nothing.
fn gathered(roles: &[ClusterRole], order: &[usize], index: usize) -> Option<Vec<PolicyRule>> {
    let selectors = roles[index].aggregation_rule.as_ref()?.cluster_role_selectors.as_ref()?;
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors.iter().filter_map(|selector| LabelSelector::from_object(Some(selector)).ok()) {
        let others = order.iter().filter(|other| **other != index).map(|other| &roles[*other]);
        for role in others.filter(|role| selector.matches_map(role.metadata.labels.as_ref())) {
            for rule in role.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(rules)
}
