//! The devices that a slice offers: attributes, capacities, counters.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{Counter, CounterSet, Device, DeviceAttribute, DeviceCounterConsumption};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{allocation, capacity, names, taints};
use crate::resources::validation::{affinity, dns, report, required, semantically_equal};

const MAX_ATTRIBUTES: usize = 32;
const MAX_VALUES: usize = 48;
const MAX_VALUE: usize = 64;
const MAX_TAINTS: usize = 16;
const MAX_CONSUMPTIONS: usize = 2;
const MAX_COUNTERS: usize = 32;
const ATTRIBUTE_TYPES: &str = "`int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`";

/// Leaves out what is behind gates that are off.
pub fn drop_gated(device: &mut Device) {
    device.node_allocatable_resources = None;
    for attribute in device.attributes.iter_mut().flat_map(BTreeMap::values_mut) {
        *attribute =
            DeviceAttribute { bools: None, ints: None, strings: None, versions: None, ..std::mem::take(attribute) };
    }
    device.consumes_counters.iter_mut().flatten().for_each(|one| one.compatibility_groups = None);
}

/// A device, with its form before the change if it had one; `placed` where each device says for itself on which node it is.
pub fn device(errors: &mut FieldErrors, path: &Path, device: &Device, old: Option<&Device>, placed: bool) {
    names::label(errors, &path.child("name"), &device.name);
    let attributes = device.attributes.clone().unwrap_or_default();
    let capacities = device.capacity.clone().unwrap_or_default();
    let mut too_many = |count: usize, what: &str, most: usize| {
        if count > most {
            let about = format!("the total number of {what} must not exceed {most}");
            errors.push(FieldError::invalid(path, count, about));
        }
    };
    too_many(attributes.len() + capacities.len(), "attributes and capacities", MAX_ATTRIBUTES);
    too_many(attributes.len(), "attribute values", MAX_VALUES);
    let at = path.child("attributes");
    for (name, value) in &attributes {
        names::qualified(errors, &at, name);
        attribute(errors, &at.key(&names::shortened(name, names::MAX_QUALIFIED)), value);
    }
    let changed = |same: fn(&Device, &Device) -> bool| old.is_none_or(|old| !same(old, device));
    if changed(|old, new| semantically_equal(&old.capacity, &new.capacity)) {
        let at = path.child("capacity");
        for (name, value) in &capacities {
            names::qualified(errors, &at, name);
            let path = at.key(&names::shortened(name, names::MAX_QUALIFIED));
            capacity::capacity(errors, &path, value, device.allow_multiple_allocations == Some(true));
        }
    }
    let (at, list) = (path.child("taints"), device.taints.as_deref().unwrap_or_default());
    if changed(|old, new| old.taints == new.taints) && names::fits(errors, &at, list.len(), MAX_TAINTS) {
        list.iter().enumerate().for_each(|(index, one)| taints::taint(errors, &at.index(index), one, None));
    }
    let (at, list) = (path.child("consumesCounters"), device.consumes_counters.as_deref().unwrap_or_default());
    if names::fits(errors, &at, list.len(), MAX_CONSUMPTIONS) {
        list.iter().enumerate().for_each(|(index, one)| consumption(errors, &at.index(index), one));
        names::keyed(errors, &at, list, |one| &one.counter_set);
    }
    place(errors, path, device, placed);
    let failures = device.binding_failure_conditions.as_deref().unwrap_or_default();
    let wanted = device.binding_conditions.as_deref().unwrap_or_default();
    allocation::binding_conditions(errors, path, wanted, failures);
}

/// On which nodes the device is, where it is the device that says so.
fn place(errors: &mut FieldErrors, path: &Path, device: &Device, placed: bool) {
    if !placed {
        if device.node_name.is_some() || device.node_selector.is_some() || device.all_nodes.is_some() {
            let about = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to \
                         true in the ResourceSlice spec";
            errors.push(FieldError::invalid(path, Value::Null, about));
        }
        return;
    }
    let mut given = Vec::new();
    if let Some(name) = &device.node_name {
        let path = path.child("nodeName");
        if name.is_empty() {
            errors.push(FieldError::invalid(&path, "", "must not be empty"));
        } else {
            given.push("`nodeName`");
            report(errors, &path, name, dns::subdomain(name));
        }
    }
    if let Some(selector) = &device.node_selector {
        given.push("`nodeSelector`");
        affinity::node_selector(errors, &path.child("nodeSelector"), selector);
    }
    match device.all_nodes {
        Some(true) => given.push("`allNodes`"),
        Some(false) => {
            let about = "must be either unset or set to true";
            errors.push(FieldError::invalid(&path.child("allNodes"), false, about));
        }
        None => {}
    }
    let about = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set \
                 to true in the ResourceSlice spec";
    match given.len() {
        0 => errors.push(FieldError::required(path, about)),
        1 => {}
        _ => errors.push(FieldError::invalid(path, format!("{{{}}}", given.join(", ")), about)),
    }
}

fn attribute(errors: &mut FieldErrors, path: &Path, one: &DeviceAttribute) {
    for (field, value) in [("string", &one.string), ("version", &one.version)] {
        let Some(value) = value else { continue };
        let path = path.child(field);
        if field == "version" && !is_semantic_version(value) {
            let about = "must be a string compatible with semver.org spec 2.0.0";
            errors.push(FieldError::invalid(&path, value.as_str(), about));
        }
        if value.len() > MAX_VALUE {
            errors.push(FieldError::too_long(&path, MAX_VALUE));
        }
    }
    let types = [
        ("int", one.int.is_some()),
        ("bool", one.bool.is_some()),
        ("string", one.string.is_some()),
        ("version", one.version.is_some()),
    ];
    let given: Vec<&str> = types.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    match given.len() {
        0 => errors.push(FieldError::invalid(path, "", format!("must specify one of: {ATTRIBUTE_TYPES}"))),
        1 => {}
        _ => {
            let about = format!("must specify exactly one of: {ATTRIBUTE_TYPES}");
            errors.push(FieldError::invalid(path, format!("{{{}}}", given.join(", ")), about));
        }
    }
}

/// Three numbers, and what may follow them after `-` and `+`.
fn is_semantic_version(value: &str) -> bool {
    let (value, build) = value.split_once('+').map_or((value, None), |(value, build)| (value, Some(build)));
    let (core, release) = value.split_once('-').map_or((value, None), |(value, release)| (value, Some(release)));
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let number = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && release.is_none_or(|text| text.split('.').all(|part| word(part) && (!digits(part) || number(part))))
        && build.is_none_or(|text| text.split('.').all(word))
}

pub fn counter_set(errors: &mut FieldErrors, path: &Path, set: &CounterSet) {
    let at = path.child("name");
    if required(errors, &at, &set.name) {
        names::label(errors, &at, &set.name);
    }
    counters(errors, &path.child("counters"), &set.counters);
}

fn consumption(errors: &mut FieldErrors, path: &Path, one: &DeviceCounterConsumption) {
    let at = path.child("counterSet");
    if required(errors, &at, &one.counter_set) {
        names::label(errors, &at, &one.counter_set);
    }
    counters(errors, &path.child("counters"), &one.counters);
}

fn counters(errors: &mut FieldErrors, path: &Path, counters: &BTreeMap<String, Counter>) {
    if counters.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    if names::fits(errors, path, counters.len(), MAX_COUNTERS) {
        counters.keys().for_each(|name| names::label(errors, path, name));
    }
}
