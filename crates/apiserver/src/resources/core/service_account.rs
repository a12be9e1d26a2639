//! ServiceAccounts.

use k8s_openapi::api::core::v1::{ObjectReference, ServiceAccount};
use xebec_api::field::FieldErrors;

use crate::registry::strategy::{Generation, Strategy};

const MOUNTABLE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";

#[derive(Default)]
pub struct ServiceAccountStrategy;

impl Strategy for ServiceAccountStrategy {
    type Object = ServiceAccount;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn has_status(&self) -> bool {
        false
    }

    fn prepare_create(&self, account: &mut ServiceAccount) {
        only_names(account);
    }

    fn prepare_update(&self, new: &mut ServiceAccount, _old: &ServiceAccount) {
        only_names(new);
    }

    fn validate(&self, _account: &ServiceAccount) -> FieldErrors {
        FieldErrors::new()
    }

    fn warnings(&self, account: &ServiceAccount, old: Option<&ServiceAccount>) -> Vec<String> {
        let has = |account: &ServiceAccount| {
            account.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MOUNTABLE_SECRETS))
        };
        if !has(account) || old.is_some_and(has) {
            return Vec::new();
        }
        let about = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
        vec![format!("metadata.annotations[{MOUNTABLE_SECRETS}]: {about}")]
    }
}

/// Of a reference to a Secret only its name means anything.
fn only_names(account: &mut ServiceAccount) {
    for secret in account.secrets.iter_mut().flatten() {
        *secret = ObjectReference { name: secret.name.take(), ..ObjectReference::default() };
    }
}
