//! Deletion of one object and of a selection.

use std::sync::Arc;

use futures::stream::{self, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use xebec_api::object::{Object, with_managed_fields};
use xebec_api::status::StatusError;
use xebec_store::Txn;

use super::deletion::{self, Plan};
use super::{Call, Registry, Served, broken, durability, store, store_error};
use crate::admission::Operation;
use crate::cache::{Item, Selection};

/// How often a deletion is tried again when another write comes between.
const ATTEMPTS: usize = 16;
/// How many objects of a collection are deleted at the same time; upstream uses as many workers.
const AT_ONCE: usize = 16;

/// What is to be deleted, and how.
pub struct DeleteRequest<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub options: &'a DeleteOptions,
}

/// What a deletion left behind.
pub struct Deleted {
    /// The last state; for one that waits, the state it waits in.
    pub object: Arc<Object>,
    /// Whether it is gone, and does not wait for finalizers or its grace period.
    pub gone: bool,
}

impl Registry {
    pub async fn delete(
        &self,
        served: &Served,
        request: &DeleteRequest<'_>,
        call: &mut Call<'_>,
    ) -> Result<Deleted, StatusError> {
        let errors = deletion::validate(request.options);
        if !errors.is_empty() {
            return Err(invalid_options(errors));
        }
        for attempt in 0..ATTEMPTS {
            let item = self.fresh(served, request.namespace, request.name).await?;
            let old = served.strategy.typed(&item.object).map_err(|error| broken(served.resource(), &error))?;
            check_preconditions(served, &item, request.options)?;
            if attempt == 0 {
                let key = (request.namespace, request.name);
                let mut admission = call.operation(Operation::Delete, served, None, Some(&*old), key);
                self.plugins.admit(&mut admission, self).await?;
                self.plugins.validate(&mut admission, self).await?;
            }
            let now = self.clock.now();
            let plan = deletion::plan(&*old, &*served.strategy, served.resource(), request.options, now);
            if let Some(deleted) = self.carry_out(served, &item, plan, call.dry_run).await? {
                return Ok(deleted);
            }
        }
        Err(StatusError::stale(served.resource(), request.name))
    }

    /// `None` when another write came between.
    async fn carry_out(
        &self,
        served: &Served,
        item: &Item,
        plan: Plan,
        dry_run: bool,
    ) -> Result<Option<Deleted>, StatusError> {
        let (object, revision) = (&item.object, item.object.revision());
        let key = served.cache.store_key(object.namespace(), object.name());
        let (txn, bytes) = match plan {
            Plan::Pending => return Ok(Some(Deleted { object: object.clone(), gone: false })),
            Plan::Remove => {
                let old = served.strategy.typed(object).map_err(|error| broken(served.resource(), &error))?;
                (self.with_addresses(Txn::delete(key, revision), None, Some(&*old)), None)
            }
            Plan::Mark(mut marked) => {
                let bytes = with_managed_fields(store::encode(&mut *marked), object.managed_fields().unwrap_or(""));
                (Txn::update(key, revision, bytes.clone()), Some(bytes))
            }
        };
        let gone = bytes.is_none();
        let bytes = bytes.unwrap_or_else(|| object.raw().clone());
        if dry_run {
            return Ok(Some(Deleted { object: self.stored(served, bytes, revision)?, gone }));
        }
        let result = self.store.txn(txn.durability(durability(served))).await.map_err(store_error)?;
        if !result.succeeded {
            self.cache.reach(result.revision).await;
            return Ok(None);
        }
        Ok(Some(Deleted { object: self.stored(served, bytes, result.revision)?, gone }))
    }

    /// Deletes what a selection matches now; returns the objects in their last state.
    pub async fn delete_collection(
        &self,
        served: &Served,
        selection: &Selection,
        options: &DeleteOptions,
        call: &mut Call<'_>,
    ) -> Result<Vec<Arc<Object>>, StatusError> {
        self.catch_up().await?;
        let snapshot = served.cache.snapshot();
        let found: Vec<Arc<Item>> = snapshot
            .scan(&selection.namespace, None)
            .filter(|item| selection.matches(item, &*served.strategy))
            .cloned()
            .collect();
        let (user, dry_run, subresource) = (call.user, call.dry_run, call.subresource);
        let results: Vec<Result<Option<Arc<Object>>, StatusError>> = stream::iter(found)
            .map(|item| async move {
                let mut call = Call { dry_run, subresource, ..Call::new(user) };
                let (namespace, name) = (item.object.namespace(), item.object.name());
                match self.delete(served, &DeleteRequest { namespace, name, options }, &mut call).await {
                    Ok(deleted) => Ok(Some(deleted.object)),
                    Err(error) if error.is_not_found() => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        results.into_iter().filter_map(Result::transpose).collect()
    }
}

fn check_preconditions(served: &Served, item: &Item, options: &DeleteOptions) -> Result<(), StatusError> {
    let Some(wanted) = &options.preconditions else { return Ok(()) };
    // Upstream names the kind here where it else names the resource.
    let mut resource = served.resource().clone();
    resource.plural = resource.kind.clone();
    let (resource, name) = (&resource, item.object.name());
    let uid = &*item.object.meta().uid;
    if let Some(wanted) = wanted.uid.as_deref().filter(|wanted| *wanted != uid) {
        let why = format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been \
             deleted and then recreated"
        );
        return Err(StatusError::conflict(resource, name, why));
    }
    let revision = item.object.revision().to_string();
    if let Some(wanted) = wanted.resource_version.as_deref().filter(|wanted| *wanted != revision) {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({revision}). \
             The object might have been modified"
        );
        return Err(StatusError::conflict(resource, name, why));
    }
    Ok(())
}

fn invalid_options(errors: xebec_api::field::FieldErrors) -> StatusError {
    let options = xebec_api::resource::ResourceType::new("meta.k8s.io", "v1", "DeleteOptions", "deleteoptions", false);
    StatusError::invalid(&options, "", errors)
}
