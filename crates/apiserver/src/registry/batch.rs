//! Creation of many objects in few transactions: what a server makes at its first start.

use std::sync::Arc;

use serde_json::Value;
use xebec_api::object::with_managed_fields;
use xebec_api::status::StatusError;
use xebec_store::{Compare, Op, Txn};

use super::erased::AnyObject;
use super::ownership::Asked;
use super::store::{SERVER, encode};
use super::strategy::Generation;
use super::{Registry, Served, metadata, store_error};

/// etcd takes 128 operations in one transaction unless told otherwise.
const OPERATIONS: usize = 100;

/// An object to be created, with its name and namespace in its metadata.
pub struct NewObject {
    pub served: Arc<Served>,
    pub object: Box<dyn AnyObject>,
    /// What the server itself says of it from the start, where the kind's rules leave that to a later write.
    pub status: Option<Value>,
}

impl Registry {
    /// Creates objects as the server's own, without admission: the plugins may rest on what is created here. `false` if
    /// one of them exists by now; others may have been created then.
    pub async fn create_all(&self, objects: Vec<NewObject>) -> Result<bool, StatusError> {
        let mut pairs = Vec::with_capacity(objects.len());
        for new in objects {
            pairs.push(self.prepared(new)?);
        }
        let mut revision = 0;
        for chunk in pairs.chunks(OPERATIONS) {
            let txn = chunk.iter().fold(Txn::new(), |txn, (key, bytes)| {
                txn.when(Compare::absent(key.clone())).then(Op::put(key.clone(), bytes.clone()))
            });
            let result = self.store.txn(txn).await.map_err(store_error)?;
            revision = result.revision;
            if !result.succeeded {
                self.cache.reach(revision).await;
                return Ok(false);
            }
        }
        self.cache.reach(revision).await;
        Ok(true)
    }

    /// The key and the bytes of an object.
    fn prepared(&self, new: NewObject) -> Result<(String, bytes::Bytes), StatusError> {
        let NewObject { served, mut object, status } = new;
        let strategy = &*served.strategy;
        strategy.default(&mut *object);
        metadata::begin(object.meta_mut(), self.clock.now(), strategy.generation() == Generation::Spec);
        let owners = self.first_owners(&served, &*object, Asked::Nothing, SERVER);
        strategy.prepare_create(&mut *object);
        if let Some(status) = status {
            let mut tree: Value = serde_json::from_slice(&object.encode()).map_err(StatusError::internal)?;
            tree["status"] = status;
            object = strategy.decode(tree).map_err(StatusError::internal)?;
        }
        let (name, namespace) = (object.meta().name.clone(), object.meta().namespace.clone());
        let (name, namespace) = (name.unwrap_or_default(), namespace.unwrap_or_default());
        let mut errors = metadata::validate(object.meta(), strategy.name_rule(), served.resource().namespaced);
        errors.extend(strategy.validate(&*object));
        if !errors.is_empty() {
            return Err(StatusError::invalid(served.resource(), &name, errors));
        }
        let bytes = with_managed_fields(encode(&mut *object), &owners.text);
        Ok((served.cache.store_key(&namespace, &name), bytes))
    }
}
