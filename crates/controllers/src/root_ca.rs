//! Every active namespace has the cluster's root certificate in the ConfigMap `kube-root-ca.crt`, for Pods to check the API
//! server by.

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use xebec_api::ObjectKey;
use xebec_runtime::{Context, Controller, Informer, Plan, ReconcileError, Wiring};

use crate::service_accounts::is_active;

const NAME: &str = "root-ca-certificate-publisher-controller";
const CONFIG_MAP: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
/// Read by people in `kubectl describe`.
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

pub struct RootCaPublisher {
    context: Context,
    certificate: String,
    namespaces: Informer<Namespace>,
    maps: Informer<ConfigMap>,
}

#[derive(Debug)]
pub enum Action {
    Create,
    Update,
}

impl RootCaPublisher {
    pub fn new(context: &Context, certificate: String) -> Self {
        RootCaPublisher {
            context: Context { client: context.client.named(NAME), ..context.clone() },
            certificate,
            namespaces: context.informers.of(),
            maps: context.informers.of(),
        }
    }

    fn wanted(&self) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(CONFIG_MAP.to_owned()),
                annotations: Some([(DESCRIPTION.to_owned(), DESCRIPTION_TEXT.to_owned())].into()),
                ..ObjectMeta::default()
            },
            data: Some([("ca.crt".to_owned(), self.certificate.clone())].into()),
            ..ConfigMap::default()
        }
    }
}

#[async_trait]
impl Controller for RootCaPublisher {
    type Observed = Option<std::sync::Arc<ConfigMap>>;
    type Action = Action;

    fn name(&self) -> &'static str {
        NAME
    }

    fn wire(&self, wiring: &Wiring) {
        wiring.own::<Namespace>();
        wiring.mapped::<ConfigMap>(|map, wake| {
            if map.metadata.name.as_deref() == Some(CONFIG_MAP) {
                wake(ObjectKey::new("", map.metadata.namespace.as_deref().unwrap_or("")));
            }
        });
    }

    fn observe(&self, key: &ObjectKey) -> Option<Self::Observed> {
        self.namespaces.get(key).filter(|namespace| is_active(namespace))?;
        Some(self.maps.get(&ObjectKey::new(key.name.clone(), CONFIG_MAP)))
    }

    fn plan(&self, _: &ObjectKey, observed: &Self::Observed, _: Timestamp) -> Plan<Action> {
        match observed {
            None => Plan::of(vec![Action::Create]),
            Some(map) if map.data != self.wanted().data => Plan::of(vec![Action::Update]),
            Some(_) => Plan::nothing(),
        }
    }

    async fn apply(&self, key: &ObjectKey, observed: &Self::Observed, action: Action) -> Result<(), ReconcileError> {
        let maps = self.context.client.namespaced::<ConfigMap>(&key.name);
        match (action, observed) {
            (Action::Update, Some(standing)) => {
                let mut changed = (**standing).clone();
                changed.data = self.wanted().data;
                maps.replace(&changed).await.map(|_| ())?;
            }
            _ => match maps.create(&self.wanted()).await {
                Err(error) if !error.is_already_exists() => return Err(error.into()),
                _ => {}
            },
        }
        Ok(())
    }
}
