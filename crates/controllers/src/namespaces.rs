//! Namespaces that are being deleted: everything in them goes, Pods first, then the namespace itself is let go.
//!
//! What there is to delete is asked of discovery each time, so kinds that came later are not forgotten. Behaviour: upstream's
//! `pkg/controller/namespace/deletion`, with Pods deleted before the rest (KEP-5080).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use xebec_api::{Object, ObjectKey, ResourceType};
use xebec_client::{DeleteOptions, Error, ListOptions, Propagation};
use xebec_runtime::{Context, Controller, Informer, Plan, ReconcileError, Wiring};

use crate::discovered::{self, Discovered};

const NAME: &str = "namespace-controller";
const FINALIZER: &str = "kubernetes";
/// Between looks at what is left, while Pods and finalizers take their time.
const AGAIN: Duration = Duration::from_millis(500);

pub struct Namespaces {
    context: Context,
    namespaces: Informer<Namespace>,
}

#[derive(Debug)]
pub struct Empty;

impl Namespaces {
    pub fn new(context: &Context) -> Self {
        let context = Context { client: context.client.named(NAME), ..context.clone() };
        Namespaces { namespaces: context.informers.of(), context }
    }

    /// Deletes everything of one kind and says what is left of it.
    async fn clear(&self, resource: &Discovered, namespace: &str) -> Result<Vec<Arc<Object>>, Error> {
        let everything = ListOptions::default();
        let list = || self.context.client.transport().list(&resource.resource, Some(namespace), &everything);
        let items = list().await?.items;
        if items.is_empty() {
            return Ok(items);
        }
        let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
        if resource.has("deletecollection") {
            let path = resource.resource.collection_path(Some(namespace));
            let body = serde_json::to_vec(&options.body()).unwrap_or_default();
            self.context.client.call(http::Method::DELETE, &path, "application/json", body.into()).await?;
        } else {
            for item in items.iter().filter(|item| !item.meta().deleting) {
                let path = resource.resource.object_path(Some(namespace), item.name());
                let body = serde_json::to_vec(&options.body()).unwrap_or_default();
                match self.context.client.call(http::Method::DELETE, &path, "application/json", body.into()).await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(list().await?.items)
    }

    /// Clears every kind, Pods before all others; what is left is counted by kind and by finalizer.
    async fn clear_all(&self, namespace: &str) -> Result<Left, Error> {
        let mut resources: Vec<Discovered> = discovered::resources(&self.context.client).await?;
        resources.retain(|one| one.resource.namespaced && one.has("list") && one.has("delete"));
        let (pods, others): (Vec<_>, Vec<_>) = resources.into_iter().partition(|one| is_pods(&one.resource));
        let mut left = Left::default();
        for resource in &pods {
            left.count(&resource.resource, self.clear(resource, namespace).await?);
        }
        if !left.by_kind.is_empty() {
            return Ok(left);
        }
        for resource in &others {
            match self.clear(resource, namespace).await {
                Ok(items) => left.count(&resource.resource, items),
                Err(error) if error.is_not_found() => {}
                Err(error) => left.failures.push(error.to_string()),
            }
        }
        Ok(left)
    }

    async fn finalize(&self, namespace: &Namespace) -> Result<(), Error> {
        let mut changed = namespace.clone();
        if let Some(finalizers) = changed.spec.get_or_insert_default().finalizers.as_mut() {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        let name = namespace.metadata.name.as_deref().unwrap_or("");
        let api = self.context.client.all::<Namespace>();
        api.replace_subresource::<Value>(name, "finalize", &changed).await.map(|_| ())
    }

    async fn tell(&self, namespace: &Namespace, left: &Left) -> Result<(), Error> {
        let mut changed = namespace.clone();
        let conditions = changed.status.get_or_insert_default().conditions.get_or_insert_default();
        for wanted in left.conditions(self.context.clock.now()) {
            match conditions.iter_mut().find(|standing| standing.type_ == wanted.type_) {
                Some(standing) if standing.status == wanted.status && standing.message == wanted.message => {}
                Some(standing) => *standing = wanted,
                None => conditions.push(wanted),
            }
        }
        if changed == *namespace {
            return Ok(());
        }
        self.context.client.all::<Namespace>().replace_status(&changed).await.map(|_| ())
    }
}

fn is_pods(resource: &ResourceType) -> bool {
    resource.group.is_empty() && resource.plural == "pods"
}

/// What a namespace still holds.
#[derive(Default)]
struct Left {
    by_kind: BTreeMap<String, usize>,
    by_finalizer: BTreeMap<String, usize>,
    failures: Vec<String>,
}

impl Left {
    fn is_empty(&self) -> bool {
        self.by_kind.is_empty() && self.failures.is_empty()
    }

    fn count(&mut self, resource: &ResourceType, items: Vec<Arc<Object>>) {
        if items.is_empty() {
            return;
        }
        let name = match resource.group.as_ref() {
            "" => format!("{}.", resource.plural),
            group => format!("{}.{group}", resource.plural),
        };
        self.by_kind.insert(name, items.len());
        for finalizer in items.iter().flat_map(|item| item.meta().finalizers.iter()) {
            *self.by_finalizer.entry(finalizer.to_string()).or_default() += 1;
        }
    }

    fn conditions(&self, now: Timestamp) -> Vec<NamespaceCondition> {
        let condition = |kind: &str, bad: bool, reason: (&str, &str), message: String| NamespaceCondition {
            type_: kind.to_owned(),
            status: if bad { "True" } else { "False" }.to_owned(),
            reason: Some(if bad { reason.0 } else { reason.1 }.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        };
        let listed = |prefix: &str, counts: &BTreeMap<String, usize>, verb: &str| {
            let parts: Vec<String> =
                counts.iter().map(|(name, count)| format!("{name} {verb} {count} resource instances")).collect();
            format!("{prefix}{}", parts.join(", "))
        };
        let (content, finalizers, failed) =
            (!self.by_kind.is_empty(), !self.by_finalizer.is_empty(), !self.failures.is_empty());
        let content_message = if content {
            listed("Some resources are remaining: ", &self.by_kind, "has")
        } else {
            "All content successfully removed".to_owned()
        };
        let finalizer_message = if finalizers {
            listed("Some content in the namespace has finalizers remaining: ", &self.by_finalizer, "in")
        } else {
            "All content-preserving finalizers finished".to_owned()
        };
        let failure_message = if failed {
            format!(
                "Failed to delete all resource types, {} remaining: {}",
                self.failures.len(),
                self.failures.join(", ")
            )
        } else {
            "All content successfully deleted, may be waiting on finalization".to_owned()
        };
        vec![
            condition(
                "NamespaceDeletionDiscoveryFailure",
                false,
                ("DiscoveryFailed", "ResourcesDiscovered"),
                "All resources successfully discovered".to_owned(),
            ),
            condition(
                "NamespaceDeletionGroupVersionParsingFailure",
                false,
                ("GroupVersionParsingFailed", "ParsedGroupVersions"),
                "All legacy kube types successfully parsed".to_owned(),
            ),
            condition(
                "NamespaceDeletionContentFailure",
                failed,
                ("ContentDeletionFailed", "ContentDeleted"),
                failure_message,
            ),
            condition("NamespaceContentRemaining", content, ("SomeResourcesRemain", "ContentRemoved"), content_message),
            condition(
                "NamespaceFinalizersRemaining",
                finalizers,
                ("SomeFinalizersRemain", "ContentHasNoFinalizers"),
                finalizer_message,
            ),
        ]
    }
}

#[async_trait]
impl Controller for Namespaces {
    type Observed = Arc<Namespace>;
    type Action = Empty;

    fn name(&self) -> &'static str {
        NAME
    }

    fn workers(&self) -> usize {
        10
    }

    fn wire(&self, wiring: &Wiring) {
        wiring.own::<Namespace>();
    }

    fn observe(&self, key: &ObjectKey) -> Option<Arc<Namespace>> {
        let namespace = self.namespaces.get(key)?;
        let held = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
        let held = held.is_some_and(|finalizers| finalizers.iter().any(|finalizer| finalizer == FINALIZER));
        (namespace.metadata.deletion_timestamp.is_some() && held).then_some(namespace)
    }

    fn plan(&self, _: &ObjectKey, _: &Arc<Namespace>, _: Timestamp) -> Plan<Empty> {
        Plan::of(vec![Empty]).again_after(AGAIN)
    }

    async fn apply(&self, key: &ObjectKey, namespace: &Arc<Namespace>, _: Empty) -> Result<(), ReconcileError> {
        let left = self.clear_all(&key.name).await?;
        if !left.is_empty() {
            return Ok(self.tell(namespace, &left).await?);
        }
        match self.finalize(namespace).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }
}
