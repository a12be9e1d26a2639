//! PodDisruptionBudgets.

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::numbers::{at_most_all, count_or_percent, not_negative};
use crate::resources::validation::{conditions, labels, one_of};

#[derive(Default)]
pub struct PodDisruptionBudgetStrategy;

impl Strategy for PodDisruptionBudgetStrategy {
    type Object = PodDisruptionBudget;

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, budget: &mut PodDisruptionBudget) {
        budget.spec.get_or_insert_default();
        let status = budget.status.get_or_insert_default();
        let counts = [
            &mut status.current_healthy,
            &mut status.desired_healthy,
            &mut status.disruptions_allowed,
            &mut status.expected_pods,
        ];
        for count in counts {
            count.get_or_insert(0);
        }
    }

    fn prepare_create(&self, budget: &mut PodDisruptionBudget) {
        budget.status = None;
        self.default(budget);
    }

    fn validate(&self, budget: &PodDisruptionBudget) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, spec) = (Path::new("spec"), budget.spec.clone().unwrap_or_default());
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            // Upstream shows its internal form of the whole specification.
            let value = json!({
                "MinAvailable": spec.min_available, "Selector": spec.selector, "MaxUnavailable": spec.max_unavailable,
                "UnhealthyPodEvictionPolicy": spec.unhealthy_pod_eviction_policy
            });
            let about = "minAvailable and maxUnavailable cannot be both set";
            errors.push(FieldError::invalid(&path, value, about));
        }
        for (name, value) in [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)] {
            if let Some(value) = value {
                count_or_percent(&mut errors, &path.child(name), value);
                at_most_all(&mut errors, &path.child(name), value);
            }
        }
        labels::selector(&mut errors, &path.child("selector"), spec.selector.as_ref());
        if let Some(policy) = &spec.unhealthy_pod_eviction_policy {
            let policies = ["AlwaysAllow", "IfHealthyBudget"];
            one_of(&mut errors, &path.child("unhealthyPodEvictionPolicy"), policy, &policies);
        }
        errors
    }

    fn validate_status_update(&self, new: &PodDisruptionBudget, _old: &PodDisruptionBudget) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, status) = (Path::new("status"), new.status.clone().unwrap_or_default());
        let counts = [
            ("disruptionsAllowed", status.disruptions_allowed),
            ("currentHealthy", status.current_healthy),
            ("desiredHealthy", status.desired_healthy),
            ("expectedPods", status.expected_pods),
        ];
        for (name, value) in counts {
            not_negative(&mut errors, &path.child(name), value.unwrap_or(0));
        }
        conditions::conditions(
            &mut errors,
            &path.child("conditions"),
            status.conditions.as_deref().unwrap_or_default(),
        );
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Min Available", "string", "How many Pods must stay available."),
            column("Max Unavailable", "string", "How many Pods may be unavailable."),
            column("Allowed Disruptions", "integer", "How many Pods may be evicted now."),
            AGE_COLUMN,
        ];
        COLUMNS
    }

    fn cells(&self, budget: &PodDisruptionBudget, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (budget.spec.clone().unwrap_or_default(), budget.status.clone().unwrap_or_default());
        let number = |value: Option<String>| columns::or(value.as_deref(), "N/A");
        vec![
            columns::name(&budget.metadata),
            number(spec.min_available.as_ref().map(columns::count_or_percent)),
            number(spec.max_unavailable.as_ref().map(columns::count_or_percent)),
            Value::from(status.disruptions_allowed.unwrap_or(0)),
            columns::age(&budget.metadata, now),
        ]
    }
}
