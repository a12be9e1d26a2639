//! Every active namespace has a `default` ServiceAccount.

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use xebec_api::ObjectKey;
use xebec_runtime::{Context, Controller, Informer, Plan, ReconcileError, Wiring};

const NAME: &str = "serviceaccount-controller";
const DEFAULT: &str = "default";

pub struct DefaultServiceAccounts {
    context: Context,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

#[derive(Debug)]
pub struct CreateDefault;

impl DefaultServiceAccounts {
    pub fn new(context: &Context) -> Self {
        DefaultServiceAccounts {
            context: Context { client: context.client.named(NAME), ..context.clone() },
            namespaces: context.informers.of(),
            accounts: context.informers.of(),
        }
    }
}

/// Whether a namespace still takes new objects.
pub fn is_active(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
        && namespace.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Terminating")
}

#[async_trait]
impl Controller for DefaultServiceAccounts {
    type Observed = ();
    type Action = CreateDefault;

    fn name(&self) -> &'static str {
        NAME
    }

    fn wire(&self, wiring: &Wiring) {
        wiring.own::<Namespace>();
        wiring.mapped::<ServiceAccount>(|account, wake| {
            if account.metadata.name.as_deref() == Some(DEFAULT) {
                wake(ObjectKey::new("", account.metadata.namespace.as_deref().unwrap_or("")));
            }
        });
    }

    fn observe(&self, key: &ObjectKey) -> Option<()> {
        let active = self.namespaces.get(key).is_some_and(|namespace| is_active(&namespace));
        let there = self.accounts.object(&ObjectKey::new(key.name.clone(), DEFAULT)).is_some();
        (active && !there).then_some(())
    }

    fn plan(&self, _: &ObjectKey, _: &(), _: Timestamp) -> Plan<CreateDefault> {
        Plan::of(vec![CreateDefault])
    }

    async fn apply(&self, key: &ObjectKey, _: &(), _: CreateDefault) -> Result<(), ReconcileError> {
        let account = ServiceAccount {
            metadata: ObjectMeta { name: Some(DEFAULT.to_owned()), ..ObjectMeta::default() },
            ..ServiceAccount::default()
        };
        match self.context.client.namespaced::<ServiceAccount>(&key.name).create(&account).await {
            Err(error) if !error.is_already_exists() => Err(error.into()),
            _ => Ok(()),
        }
    }
}
