//! Since when a device is tainted: taints that come without a time get the time of the request.
//!
//! Upstream's defaults do this. They have a clock, which the strategies of kinds do not.

use async_trait::async_trait;
use k8s_openapi::api::resource::v1::{DeviceTaintRule, ResourceSlice};
use xebec_api::status::StatusError;

use super::{AdmissionRequest, Mutating, Operation};
use crate::registry::Registry;
use crate::registry::metadata::whole_seconds;

pub struct DeviceTaints;

#[async_trait]
impl Mutating for DeviceTaints {
    fn name(&self) -> &'static str {
        "DeviceTaintTimes"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        if !matches!(request.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let now = whole_seconds(registry.clock.now());
        if request.is_of::<DeviceTaintRule>() {
            let old = request.old_as::<DeviceTaintRule>().map(|rule| rule.spec.taint.clone());
            let Some(rule) = request.object_as_mut::<DeviceTaintRule>() else { return Ok(()) };
            let taint = &mut rule.spec.taint;
            // Another effect is another taint.
            if old.is_some_and(|old| old.effect != taint.effect && old.time_added == taint.time_added) {
                taint.time_added = None;
            }
            taint.time_added.get_or_insert(now);
        } else if request.is_of::<ResourceSlice>() {
            let Some(slice) = request.object_as_mut::<ResourceSlice>() else { return Ok(()) };
            let devices = slice.spec.devices.iter_mut().flatten();
            for taint in devices.flat_map(|device| device.taints.iter_mut().flatten()) {
                taint.time_added.get_or_insert_with(|| now.clone());
            }
        }
        Ok(())
    }
}
