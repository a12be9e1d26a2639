//! The IPAddresses of Services: written and taken away in the same transaction as what happens to the Service.
//!
//! So no address is ever without its object or the other way round, and of two servers over one store only one can give an
//! address out.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::IPAddress;
use serde_json::json;
use xebec_api::field::{FieldError, Path};
use xebec_api::status::StatusError;
use xebec_store::{Compare, Op, Revision, Txn};

use super::erased::AnyObject;
use super::{Registry, Served, metadata};
use crate::allocator;

impl Registry {
    /// Adds to the transaction on a Service what becomes of its addresses. Other kinds have none.
    pub(super) fn with_addresses(&self, txn: Txn, new: Option<&dyn AnyObject>, old: Option<&dyn AnyObject>) -> Txn {
        let service =
            |object: Option<&dyn AnyObject>| object.and_then(|one| one.as_any().downcast_ref::<Service>().cloned());
        let (new, old) = (service(new), service(old));
        if new.is_none() && old.is_none() {
            return txn;
        }
        let Some(cache) = self.cache_of::<IPAddress>().cloned() else { return txn };
        let held = |service: &Option<Service>| -> BTreeSet<Ipv4Addr> {
            service.iter().flat_map(allocator::addresses_of).collect()
        };
        let (after, before) = (held(&new), held(&old));
        let key = |address: &Ipv4Addr| cache.store_key("", &address.to_string());
        let gone = before.difference(&after);
        let mut txn = gone.fold(txn, |txn, address| txn.then(Op::Delete { key: key(address).into() }));
        for address in after.difference(&before) {
            let owner = new.as_ref().map(|service| service.metadata.clone()).unwrap_or_default();
            let mut object = allocator::ip_address(*address, &owner);
            metadata::begin(&mut object.metadata, self.clock.now(), false);
            txn = txn.when(Compare::absent(key(address))).then(Op::put(key(address), object.encode()));
        }
        txn
    }

    /// Whether a Service could not be created because another server has given its address out meanwhile.
    pub(super) async fn address_is_taken(
        &self,
        served: &Served,
        object: &dyn AnyObject,
        seen: Revision,
    ) -> Result<(), StatusError> {
        let Some(service) = object.as_any().downcast_ref::<Service>() else { return Ok(()) };
        self.cache.reach(seen).await;
        let (namespace, name) = (service.metadata.namespace.as_deref(), service.metadata.name.as_deref());
        let name = name.unwrap_or("");
        if served.cache.get(namespace.unwrap_or(""), name).is_some() {
            return Ok(());
        }
        let addresses: Vec<String> = allocator::addresses_of(service).map(|address| address.to_string()).collect();
        let why = format!("failed to allocate IP {}: provided IP is already allocated", addresses.join(","));
        let error = FieldError::invalid(&Path::new("spec.clusterIPs"), json!(addresses), why);
        Err(StatusError::invalid(served.resource(), name, vec![error]))
    }
}
