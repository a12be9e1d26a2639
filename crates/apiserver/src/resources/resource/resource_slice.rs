//! ResourceSlices: the devices that a driver offers on a node, or on some nodes.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{ResourceSlice, ResourceSliceSpec};
use serde_json::Value;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{devices, names};
use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::{affinity, dns, immutable, report, shown, text};

const MAX_DEVICES: usize = 128;
/// Of devices with taints or shared counters there may be fewer.
const MAX_ADVANCED_DEVICES: usize = 64;
const MAX_COUNTER_SETS: usize = 8;

#[derive(Default)]
pub struct ResourceSliceStrategy;

impl Strategy for ResourceSliceStrategy {
    type Object = ResourceSlice;

    fn has_status(&self) -> bool {
        false
    }

    fn prepare_create(&self, slice: &mut ResourceSlice) {
        slice.spec.partition_type_attribute = None;
        slice.spec.skip_node_operations = None;
        slice.spec.devices.iter_mut().flatten().for_each(devices::drop_gated);
    }

    fn prepare_update(&self, new: &mut ResourceSlice, _old: &ResourceSlice) {
        self.prepare_create(new);
    }

    fn validate(&self, slice: &ResourceSlice) -> FieldErrors {
        specification(&slice.spec, None)
    }

    fn validate_update(&self, new: &ResourceSlice, old: &ResourceSlice) -> FieldErrors {
        let mut errors = specification(&new.spec, Some(&old.spec));
        let (path, now, before) = (Path::new("spec"), &new.spec, &old.spec);
        immutable(&mut errors, &path.child("pool.name"), &now.pool.name, &before.pool.name);
        immutable(&mut errors, &path.child("driver"), &now.driver, &before.driver);
        immutable(&mut errors, &path.child("nodeName"), &now.node_name, &before.node_name);
        errors
    }

    fn warnings(&self, slice: &ResourceSlice, _old: Option<&ResourceSlice>) -> Vec<String> {
        names::driver_warnings("spec.driver", &slice.spec.driver)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.nodeName", "spec.driver", "spec.pool.name"]
    }

    fn field<'a>(&self, slice: &'a ResourceSlice, field: &str) -> Cow<'a, str> {
        Cow::Borrowed(match field {
            "spec.nodeName" => text(&slice.spec.node_name),
            "spec.driver" => &slice.spec.driver,
            _ => &slice.spec.pool.name,
        })
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Node", "string", "On which node the devices are."),
            column("Driver", "string", "Whose devices they are."),
            column("Pool", "string", "Which devices belong together."),
            AGE_COLUMN,
        ];
        COLUMNS
    }

    fn cells(&self, slice: &ResourceSlice, now: Timestamp) -> Vec<Value> {
        vec![
            columns::name(&slice.metadata),
            Value::from(text(&slice.spec.node_name)),
            Value::from(slice.spec.driver.as_str()),
            Value::from(slice.spec.pool.name.as_str()),
            columns::age(&slice.metadata, now),
        ]
    }
}

fn specification(spec: &ResourceSliceSpec, old: Option<&ResourceSliceSpec>) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let path = Path::new("spec");
    names::driver(&mut errors, &path.child("driver"), &spec.driver);
    let at = path.child("pool");
    names::pool(&mut errors, &at.child("name"), &spec.pool.name);
    if spec.pool.resource_slice_count <= 0 {
        let (at, count) = (at.child("resourceSliceCount"), spec.pool.resource_slice_count);
        errors.push(FieldError::invalid(&at, count, "must be greater than zero"));
    }
    if spec.pool.generation < 0 {
        let about = "must be greater than or equal to zero";
        errors.push(FieldError::invalid(&at.child("generation"), spec.pool.generation, about));
    }
    place(&mut errors, &path, spec);
    if spec.shared_counters.is_some() && spec.devices.is_some() {
        errors.push(FieldError::invalid(&path, "", "only one of `sharedCounters` or `devices` is allowed"));
    }
    let (at, list) = (path.child("devices"), spec.devices.as_deref().unwrap_or_default());
    let given = |some: Option<usize>| some.is_some_and(|count| count > 0);
    let advanced = list.iter().any(|device| {
        given(device.taints.as_ref().map(Vec::len)) || given(device.consumes_counters.as_ref().map(Vec::len))
    });
    if names::fits(&mut errors, &at, list.len(), if advanced { MAX_ADVANCED_DEVICES } else { MAX_DEVICES }) {
        let before = old.and_then(|old| old.devices.as_deref()).unwrap_or_default();
        for (index, device) in list.iter().enumerate() {
            let old = before.iter().find(|one| one.name == device.name);
            let placed = spec.per_device_node_selection == Some(true);
            devices::device(&mut errors, &at.index(index), device, old, placed);
        }
        names::unique(&mut errors, &at, list.iter().map(|device| device.name.as_str()));
    }
    let (at, sets) = (path.child("sharedCounters"), spec.shared_counters.as_deref().unwrap_or_default());
    if names::fits(&mut errors, &at, sets.len(), MAX_COUNTER_SETS) {
        sets.iter().enumerate().for_each(|(index, set)| devices::counter_set(&mut errors, &at.index(index), set));
        names::keyed(&mut errors, &at, sets, |set| &set.name);
    }
    errors
}

/// On which nodes the devices are.
fn place(errors: &mut FieldErrors, path: &Path, spec: &ResourceSliceSpec) {
    let mut given = Vec::new();
    if let Some(name) = &spec.node_name {
        let path = path.child("nodeName");
        if name.is_empty() {
            errors.push(FieldError::invalid(&path, "", "must be either unset or set to a non-empty string"));
        } else {
            given.push("`nodeName`");
            report(errors, &path, name, dns::subdomain(name));
        }
    }
    if let Some(selector) = &spec.node_selector {
        given.push("`nodeSelector`");
        let path = path.child("nodeSelector");
        affinity::node_selector(errors, &path, selector);
        let terms = &selector.node_selector_terms;
        if terms.len() != 1 {
            let about = "must have exactly one node selector term";
            errors.push(FieldError::invalid(&path.child("nodeSelectorTerms"), shown(terms), about));
        }
    }
    for (field, value) in [("allNodes", spec.all_nodes), ("perDeviceNodeSelection", spec.per_device_node_selection)] {
        match value {
            Some(true) => given.push(if field == "allNodes" { "`allNodes`" } else { "`perDeviceNodeSelection`" }),
            Some(false) => {
                let about = "must be either unset or set to true";
                errors.push(FieldError::invalid(&path.child(field), false, about));
            }
            None => {}
        }
    }
    let about = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match given.len() {
        0 => errors.push(FieldError::required(path, about)),
        1 => {}
        _ => {
            let value = format!("{{{}}}", given.join(", "));
            errors.push(FieldError::invalid(path, value, format!("{about}, but multiple fields are set")));
        }
    }
}
