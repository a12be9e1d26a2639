//! What a claim asks for: requests, constraints between them, and configuration.
//!
//! Expressions are held against their length only; whether one is sound is for who evaluates it to say.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceClaimConfiguration, DeviceConstraint, DeviceRequest, DeviceSelector, DeviceSubRequest,
    ExactDeviceRequest, OpaqueDeviceConfiguration, ResourceClaimSpec,
};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{names, taints};
use crate::resources::validation::{dns, report, required, text, unsupported};

pub const MAX_REQUESTS: usize = 32;
pub const MAX_CONFIGURATIONS: usize = 32;
const MAX_CONSTRAINTS: usize = 32;
const MAX_SELECTORS: usize = 32;
const MAX_ALTERNATIVES: usize = 8;
const MAX_EXPRESSION: usize = 10 * 1024;
pub const MAX_PARAMETERS: usize = 10 * 1024;
const EXACT: &str = "ExactCount";

/// The names of a claim's requests, each with those of its alternatives.
pub type Requests<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

pub fn default(spec: &mut ResourceClaimSpec) {
    let devices = spec.devices.get_or_insert_default();
    for request in devices.requests.iter_mut().flatten() {
        if let Some(exactly) = &mut request.exactly {
            default_count(&mut exactly.allocation_mode, &mut exactly.count);
            taints::default(exactly.tolerations.iter_mut().flatten());
        }
        for one in request.first_available.iter_mut().flatten() {
            default_count(&mut one.allocation_mode, &mut one.count);
            taints::default(one.tolerations.iter_mut().flatten());
        }
    }
}

fn default_count(mode: &mut Option<String>, count: &mut Option<i64>) {
    if text(mode).is_empty() {
        *mode = Some(EXACT.to_owned());
    }
    if mode.as_deref() == Some(EXACT) && count.unwrap_or(0) == 0 {
        *count = Some(1);
    }
}

/// Leaves out what is behind a gate that is off.
pub fn drop_gated(spec: &mut ResourceClaimSpec) {
    for request in spec.devices.iter_mut().flat_map(|devices| devices.requests.iter_mut().flatten()) {
        if let Some(exactly) = &mut request.exactly {
            exactly.derived_attributes = None;
        }
        for one in request.first_available.iter_mut().flatten() {
            one.derived_attributes = None;
        }
    }
}

pub fn requests(spec: &ResourceClaimSpec) -> Requests<'_> {
    let all = spec.devices.iter().flat_map(|devices| devices.requests.iter().flatten());
    all.map(|request| {
        let alternatives = request.first_available.iter().flatten().map(|one| one.name.as_str());
        (request.name.as_str(), alternatives.collect())
    })
    .collect()
}

pub fn spec(errors: &mut FieldErrors, path: &Path, spec: &ResourceClaimSpec) {
    let known = requests(spec);
    let path = path.child("devices");
    let DeviceClaim { config, constraints, requests } = spec.devices.clone().unwrap_or_default();
    let (at, list) = (path.child("requests"), requests.unwrap_or_default());
    if names::fits(errors, &at, list.len(), MAX_REQUESTS) {
        for (index, one) in list.iter().enumerate() {
            request(errors, &at.index(index), one);
        }
        names::keyed(errors, &at, &list, |one| &one.name);
    }
    let (at, list) = (path.child("constraints"), constraints.unwrap_or_default());
    if names::fits(errors, &at, list.len(), MAX_CONSTRAINTS) {
        for (index, one) in list.iter().enumerate() {
            constraint(errors, &at.index(index), one, &known);
        }
    }
    let (at, list) = (path.child("config"), config.unwrap_or_default());
    if names::fits(errors, &at, list.len(), MAX_CONFIGURATIONS) {
        for (index, DeviceClaimConfiguration { opaque, requests }) in list.iter().enumerate() {
            let path = at.index(index);
            references(errors, &path.child("requests"), requests.as_deref().unwrap_or_default(), &known);
            configuration(errors, &path, opaque.as_ref());
        }
    }
}

fn request(errors: &mut FieldErrors, path: &Path, request: &DeviceRequest) {
    names::label(errors, &path.child("name"), &request.name);
    let alternatives = request.first_available.as_deref().unwrap_or_default();
    let about = "exactly one of `exactly` or `firstAvailable` is required";
    match &request.exactly {
        None if alternatives.is_empty() => errors.push(FieldError::required(path, about)),
        Some(_) if !alternatives.is_empty() => {
            let about = format!("{about}, but multiple fields are set");
            errors.push(FieldError::invalid(path, Value::Null, about));
        }
        Some(one) => exactly(errors, &path.child("exactly"), one),
        None => {
            let path = path.child("firstAvailable");
            if names::fits(errors, &path, alternatives.len(), MAX_ALTERNATIVES) {
                for (index, one) in alternatives.iter().enumerate() {
                    alternative(errors, &path.index(index), one);
                }
                names::keyed(errors, &path, alternatives, |one| &one.name);
            }
        }
    }
}

fn exactly(errors: &mut FieldErrors, path: &Path, one: &ExactDeviceRequest) {
    class(errors, &path.child("deviceClassName"), &one.device_class_name);
    selectors(errors, &path.child("selectors"), one.selectors.as_deref().unwrap_or_default());
    count(errors, path, text(&one.allocation_mode), one.count.unwrap_or(0));
    taints::tolerations(errors, &path.child("tolerations"), one.tolerations.as_deref().unwrap_or_default());
}

fn alternative(errors: &mut FieldErrors, path: &Path, one: &DeviceSubRequest) {
    names::label(errors, &path.child("name"), &one.name);
    class(errors, &path.child("deviceClassName"), &one.device_class_name);
    selectors(errors, &path.child("selectors"), one.selectors.as_deref().unwrap_or_default());
    count(errors, path, text(&one.allocation_mode), one.count.unwrap_or(0));
    taints::tolerations(errors, &path.child("tolerations"), one.tolerations.as_deref().unwrap_or_default());
}

fn class(errors: &mut FieldErrors, path: &Path, name: &str) {
    if required(errors, path, name) {
        report(errors, path, name, dns::subdomain(name));
    }
}

fn count(errors: &mut FieldErrors, path: &Path, mode: &str, count: i64) {
    let at = path.child("count");
    match mode {
        "All" if count != 0 => {
            errors.push(FieldError::invalid(&at, count, "must not be specified when allocationMode is 'All'"));
        }
        EXACT if count <= 0 => errors.push(FieldError::invalid(&at, count, "must be greater than zero")),
        "All" | EXACT => {}
        other => errors.push(unsupported(&path.child("allocationMode"), other, &["All", EXACT])),
    }
}

pub fn selectors(errors: &mut FieldErrors, path: &Path, selectors: &[DeviceSelector]) {
    if !names::fits(errors, path, selectors.len(), MAX_SELECTORS) {
        return;
    }
    for (index, selector) in selectors.iter().enumerate() {
        let path = path.index(index).child("cel");
        match &selector.cel {
            None => errors.push(FieldError::required(&path, "")),
            Some(cel) if cel.expression.len() > MAX_EXPRESSION => {
                errors.push(FieldError::too_long(&path.child("expression"), MAX_EXPRESSION));
            }
            Some(_) => {}
        }
    }
}

fn constraint(errors: &mut FieldErrors, path: &Path, one: &DeviceConstraint, known: &Requests<'_>) {
    references(errors, &path.child("requests"), one.requests.as_deref().unwrap_or_default(), known);
    match (&one.match_attribute, &one.distinct_attribute) {
        (None, None) => {
            let about =
                "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
            errors.push(FieldError::required(path, about));
        }
        (matching, distinct) => {
            for (field, name) in [("matchAttribute", matching), ("distinctAttribute", distinct)] {
                if let Some(name) = name {
                    names::fully_qualified(errors, &path.child(field), name);
                }
            }
        }
    }
}

/// Names of requests, or of a request and an alternative of it.
pub fn references(errors: &mut FieldErrors, path: &Path, list: &[String], known: &Requests<'_>) {
    if !names::fits(errors, path, list.len(), MAX_REQUESTS) {
        return;
    }
    for (index, name) in list.iter().enumerate() {
        reference(errors, &path.index(index), name, known);
    }
    names::unique(errors, path, list.iter().map(String::as_str));
}

pub fn reference(errors: &mut FieldErrors, path: &Path, name: &str, known: &Requests<'_>) {
    let parts: Vec<&str> = name.split('/').collect();
    let found = match parts[..] {
        [request] => known.contains_key(request),
        [request, alternative] => known.get(request).is_some_and(|all| all.contains(alternative)),
        _ => false,
    };
    if parts.len() <= 2 {
        parts.iter().for_each(|part| names::label(errors, path, part));
    }
    if !found {
        let about =
            "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        errors.push(FieldError::invalid(path, name, about));
    }
}

pub fn configuration(errors: &mut FieldErrors, path: &Path, opaque: Option<&OpaqueDeviceConfiguration>) {
    let path = path.child("opaque");
    match opaque {
        None => errors.push(FieldError::required(&path, "")),
        Some(opaque) => {
            names::declared_driver(errors, &path.child("driver"), &opaque.driver);
            raw(errors, &path.child("parameters"), &opaque.parameters, MAX_PARAMETERS);
        }
    }
}

/// An object of somebody else's making.
pub fn raw(errors: &mut FieldErrors, path: &Path, value: &RawExtension, most: usize) {
    match &value.0 {
        Value::Null => errors.push(FieldError::required(path, "")),
        value if value.to_string().len() > most => errors.push(FieldError::too_long(path, most)),
        Value::Object(_) => {}
        _ => errors.push(FieldError::invalid(path, "<value omitted>", "must be a valid JSON object")),
    }
}
