//! Creating and deleting the Pods of an owner: with slow start, Events, and notes of what has not been seen yet.

use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use xebec_api::{ObjectKey, pod};
use xebec_client::{DeleteOptions, Error};
use xebec_runtime::{Change, Context, Expectations};

pub struct PodWriter {
    context: Context,
    expectations: Arc<Expectations>,
}

impl PodWriter {
    pub fn new(context: &Context) -> Self {
        let expectations = Arc::new(Expectations::new(context.clock.clone()));
        PodWriter { context: context.clone(), expectations }
    }

    pub fn expectations(&self) -> Arc<Expectations> {
        self.expectations.clone()
    }

    pub async fn create(&self, about: &ObjectReference, key: &ObjectKey, wanted: &[Pod]) -> Result<(), Error> {
        let pods = self.context.client.namespaced::<Pod>(&key.namespace);
        let (mut batch, mut left) = (1, wanted);
        // Slow start: if the first creation is refused, the others are not tried.
        while !left.is_empty() {
            let (now, later) = left.split_at(batch.min(left.len()));
            self.expectations.expect_creations(key, now.len());
            let mut failure = None;
            for result in join_all(now.iter().map(|pod| pods.create(pod))).await {
                match result {
                    Ok(created) => {
                        let name = created.metadata.name.unwrap_or_default();
                        self.context.events.normal(about, "SuccessfulCreate", format!("Created pod: {name}"));
                    }
                    Err(error) => {
                        self.expectations.creation_observed(key);
                        self.context.events.warning(about, "FailedCreate", format!("Error creating: {error}"));
                        failure = Some(error);
                    }
                }
            }
            if let Some(error) = failure {
                return Err(error);
            }
            (left, batch) = (later, batch * 2);
        }
        Ok(())
    }

    /// One that is gone already is no failure.
    pub async fn delete(&self, about: &ObjectReference, key: &ObjectKey, pod: &Pod) -> Result<(), Error> {
        let (name, uid) = (pod.metadata.name.as_deref().unwrap_or(""), pod.metadata.uid.as_deref().unwrap_or(""));
        self.expectations.expect_deletion(key, uid);
        let pods = self.context.client.namespaced::<Pod>(&key.namespace);
        match pods.delete(name, &DeleteOptions::default().only(uid)).await {
            Ok(_) => {
                self.context.events.normal(about, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Err(error) => {
                self.expectations.deletion_observed(key, uid);
                if error.is_not_found() { Ok(()) } else { Err(error) }
            }
        }
    }
}

/// Notes that a change of an owner's Pod was seen.
pub fn observe(expectations: &Expectations, owner: &ObjectKey, change: &Change<'_, Pod>) {
    let pod = change.object();
    match change {
        Change::Applied { old: None, .. } => expectations.creation_observed(owner),
        Change::Applied { .. } if !pod::is_deleting(pod) => {}
        _ => expectations.deletion_observed(owner, pod.metadata.uid.as_deref().unwrap_or("")),
    }
}
