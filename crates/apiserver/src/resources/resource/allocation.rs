//! What a claim got: the devices, who uses them, and what their drivers say of them.

use std::collections::BTreeSet;

use k8s_openapi::api::resource::v1::{
    AllocatedDeviceStatus, AllocationResult, DeviceAllocationConfiguration, DeviceRequestAllocationResult,
    NetworkDeviceData, ResourceClaimConsumerReference, ResourceClaimStatus,
};
use serde_json::{Value, json};
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::claim::{self, Requests};
use super::{names, taints};
use crate::resources::validation::{
    IMMUTABLE, address, affinity, conditions, labels, required, semantically_equal, text, unsupported,
};

const MAX_CONSUMERS: usize = 256;
const MAX_RESULTS: usize = 32;
const MAX_CONDITIONS: usize = 8;
const MAX_BINDING_CONDITIONS: usize = 4;
const MAX_ADDRESSES: usize = 16;
const MAX_INTERFACE: usize = 256;
const MAX_HARDWARE_ADDRESS: usize = 128;

/// Driver, pool, device and share.
type DeviceId<'a> = (&'a str, &'a str, &'a str, &'a str);

fn allocated(allocation: Option<&AllocationResult>) -> BTreeSet<DeviceId<'_>> {
    let results = allocation.and_then(|allocation| allocation.devices.as_ref()).and_then(|all| all.results.as_ref());
    results.into_iter().flatten().map(result_id).collect()
}

fn result_id(one: &DeviceRequestAllocationResult) -> DeviceId<'_> {
    (&one.driver, &one.pool, &one.device, text(&one.share_id))
}

fn status_id(one: &AllocatedDeviceStatus) -> DeviceId<'_> {
    (&one.driver, &one.pool, &one.device, text(&one.share_id))
}

/// What was said of devices that are given back goes with them.
pub fn drop_deallocated(status: &mut ResourceClaimStatus, old: &ResourceClaimStatus) {
    for result in
        status.allocation.iter_mut().flat_map(|all| &mut all.devices).flat_map(|all| &mut all.results).flatten()
    {
        // Behind a gate that is off.
        result.skip_node_operations = None;
    }
    let kept = allocated(status.allocation.as_ref());
    let gone: BTreeSet<_> = allocated(old.allocation.as_ref()).difference(&kept).copied().collect();
    if let Some(devices) = &mut status.devices {
        devices.retain(|device| !gone.contains(&status_id(device)));
    }
    status.devices.take_if(|devices| devices.is_empty());
}

/// A change of a claim's status.
pub struct Change<'a> {
    pub new: ResourceClaimStatus,
    pub old: ResourceClaimStatus,
    pub requests: Requests<'a>,
    pub is_deleted: bool,
}

impl Change<'_> {
    pub fn validate(&self, path: &Path) -> FieldErrors {
        let mut errors = FieldErrors::new();
        self.consumers(&mut errors, &path.child("reservedFor"));
        let known = allocated(self.new.allocation.as_ref());
        let (at, devices) = (path.child("devices"), self.new.devices.as_deref().unwrap_or_default());
        let mut seen = BTreeSet::new();
        for (index, device) in devices.iter().enumerate() {
            let path = at.index(index);
            device_status(&mut errors, &path, device, &known);
            if !seen.insert(status_id(device)) {
                errors.push(FieldError::duplicate(&path, shown_id(device)));
            }
        }
        let at = path.child("allocation");
        match (&self.new.allocation, &self.old.allocation) {
            (Some(new), Some(old)) if !semantically_equal(new, old) => {
                errors.push(FieldError::invalid(&at, Value::Null, IMMUTABLE));
            }
            (Some(new), None) => self.allocation(&mut errors, &at, new),
            _ => {}
        }
        errors
    }

    fn consumers(&self, errors: &mut FieldErrors, path: &Path) {
        let list = self.new.reserved_for.as_deref().unwrap_or_default();
        if names::fits(errors, path, list.len(), MAX_CONSUMERS) {
            for (index, one) in list.iter().enumerate() {
                consumer(errors, &path.index(index), one);
            }
            let mut seen = BTreeSet::new();
            for (index, one) in list.iter().enumerate().filter(|(_, one)| !seen.insert(&one.uid)).collect::<Vec<_>>() {
                errors.push(FieldError::duplicate(&path.index(index), one.uid.as_str()));
            }
        }
        if list.is_empty() {
            return;
        }
        let before = self.old.reserved_for.as_deref().unwrap_or_default();
        if self.new.allocation.is_none() {
            errors.push(FieldError::forbidden(path, "may not be specified when `allocated` is not set"));
        } else if self.is_deleted && list.iter().any(|one| !before.contains(one)) {
            let about = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.push(FieldError::forbidden(path, about));
        }
    }

    fn allocation(&self, errors: &mut FieldErrors, path: &Path, allocation: &AllocationResult) {
        let devices = allocation.devices.clone().unwrap_or_default();
        let at = path.child("devices");
        let (at_results, results) = (at.child("results"), devices.results.unwrap_or_default());
        if names::fits(errors, &at_results, results.len(), MAX_RESULTS) {
            for (index, one) in results.iter().enumerate() {
                self.result(errors, &at_results.index(index), one);
            }
        }
        let (at, list) = (at.child("config"), devices.config.unwrap_or_default());
        // As many as the classes and the claim may have.
        if names::fits(errors, &at, list.len(), 2 * claim::MAX_CONFIGURATIONS) {
            for (index, DeviceAllocationConfiguration { opaque, requests, source }) in list.iter().enumerate() {
                let path = at.index(index);
                let kind = path.child("source");
                if required(errors, &kind, source) && !["FromClaim", "FromClass"].contains(&source.as_str()) {
                    errors.push(unsupported(&kind, source.as_str(), &["FromClaim", "FromClass"]));
                }
                let requests = requests.as_deref().unwrap_or_default();
                claim::references(errors, &path.child("requests"), requests, &self.requests);
                claim::configuration(errors, &path, opaque.as_ref());
            }
        }
        if let Some(selector) = &allocation.node_selector {
            affinity::node_selector(errors, &path.child("nodeSelector"), selector);
        }
    }

    fn result(&self, errors: &mut FieldErrors, path: &Path, one: &DeviceRequestAllocationResult) {
        claim::reference(errors, &path.child("request"), &one.request, &self.requests);
        names::declared_driver(errors, &path.child("driver"), &one.driver);
        names::declared_pool(errors, &path.child("pool"), &one.pool);
        names::label(errors, &path.child("device"), &one.device);
        let failures = one.binding_failure_conditions.as_deref().unwrap_or_default();
        binding_conditions(errors, path, one.binding_conditions.as_deref().unwrap_or_default(), failures);
        taints::tolerations(errors, &path.child("tolerations"), one.tolerations.as_deref().unwrap_or_default());
        if let Some(share) = &one.share_id {
            names::uuid(errors, &path.child("shareID"), share);
        }
    }
}

fn consumer(errors: &mut FieldErrors, path: &Path, one: &ResourceClaimConsumerReference) {
    for (field, value) in [("resource", &one.resource), ("name", &one.name), ("uid", &one.uid)] {
        required(errors, &path.child(field), value);
    }
}

/// As upstream's internal type has it.
fn shown_id(device: &AllocatedDeviceStatus) -> Value {
    json!({ "Driver": device.driver, "Pool": device.pool, "Device": device.device, "ShareID": text(&device.share_id) })
}

fn device_status(
    errors: &mut FieldErrors,
    path: &Path,
    device: &AllocatedDeviceStatus,
    known: &BTreeSet<DeviceId<'_>>,
) {
    names::driver(errors, &path.child("driver"), &device.driver);
    names::pool(errors, &path.child("pool"), &device.pool);
    names::label(errors, &path.child("device"), &device.device);
    if let Some(share) = &device.share_id {
        names::uuid(errors, &path.child("shareID"), share);
    }
    if !known.contains(&status_id(device)) {
        errors.push(FieldError::invalid(path, shown_id(device), "must be an allocated device in the claim"));
    }
    let (at, list) = (path.child("conditions"), device.conditions.as_deref().unwrap_or_default());
    names::fits(errors, &at, list.len(), MAX_CONDITIONS);
    conditions::conditions(errors, &at, list);
    if let Some(data) = &device.data {
        claim::raw(errors, &path.child("data"), data, claim::MAX_PARAMETERS);
    }
    if let Some(data) = &device.network_data {
        network(errors, &path.child("networkData"), data);
    }
}

fn network(errors: &mut FieldErrors, path: &Path, data: &NetworkDeviceData) {
    let texts = [
        ("interfaceName", &data.interface_name, MAX_INTERFACE),
        ("hardwareAddress", &data.hardware_address, MAX_HARDWARE_ADDRESS),
    ];
    for (field, value, most) in texts {
        if text(value).len() > most {
            errors.push(FieldError::too_long(&path.child(field), most));
        }
    }
    let (at, list) = (path.child("ips"), data.ips.as_deref().unwrap_or_default());
    if names::fits(errors, &at, list.len(), MAX_ADDRESSES) {
        for (index, one) in list.iter().enumerate() {
            address::interface(errors, &at.index(index), one);
        }
        names::unique(errors, &at, list.iter().map(String::as_str));
    }
}

/// What must become true before a Pod is bound, and what must not.
pub fn binding_conditions(errors: &mut FieldErrors, path: &Path, wanted: &[String], failures: &[String]) {
    let (at_wanted, at_failures) = (path.child("bindingConditions"), path.child("bindingFailureConditions"));
    for (path, list) in [(&at_wanted, wanted), (&at_failures, failures)] {
        if names::fits(errors, path, list.len(), MAX_BINDING_CONDITIONS) {
            list.iter().enumerate().for_each(|(index, one)| labels::label_name(errors, &path.index(index), one));
        }
        names::unique(errors, path, list.iter().map(String::as_str));
    }
    for (index, one) in failures.iter().enumerate().filter(|(_, one)| wanted.contains(one)) {
        let about = "bindingFailureConditions must not overlap with bindingConditions";
        errors.push(FieldError::invalid(&at_failures.index(index), one.as_str(), about));
    }
    if wanted.is_empty() && !failures.is_empty() {
        let about = "bindingConditions are required to use bindingFailureConditions";
        errors.push(FieldError::invalid(&at_wanted, Value::Null, about));
    }
    if failures.is_empty() && !wanted.is_empty() {
        let about = "bindingFailureConditions are required to use bindingConditions";
        errors.push(FieldError::invalid(&at_failures, Value::Null, about));
    }
}
