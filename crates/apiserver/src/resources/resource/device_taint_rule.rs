//! DeviceTaintRules: taints that an administrator puts on devices. When one was put on is admission's to say.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{DeviceTaintRule, DeviceTaintRuleStatus};
use serde_json::Value;
use xebec_api::field::{FieldErrors, Path};

use super::{names, taints};
use crate::registry::metadata;
use crate::registry::strategy::{AGE_COLUMN, Column, NAME_COLUMN, Strategy, column};
use crate::registry::table;
use crate::resources::columns;
use crate::resources::validation::{conditions, text};

const MAX_CONDITIONS: usize = 8;

#[derive(Default)]
pub struct DeviceTaintRuleStrategy;

impl Strategy for DeviceTaintRuleStrategy {
    type Object = DeviceTaintRule;

    fn prepare_create(&self, rule: &mut DeviceTaintRule) {
        rule.status = Some(DeviceTaintRuleStatus::default());
    }

    fn prepare_status_update(&self, new: &mut DeviceTaintRule, old: &DeviceTaintRule) {
        metadata::keep_for_status(&mut new.metadata, &old.metadata);
    }

    fn validate(&self, rule: &DeviceTaintRule) -> FieldErrors {
        let mut errors = selector(rule);
        taints::taint(&mut errors, &Path::new("spec.taint"), &rule.spec.taint, None);
        errors
    }

    fn validate_update(&self, new: &DeviceTaintRule, old: &DeviceTaintRule) -> FieldErrors {
        let mut errors = selector(new);
        taints::taint(&mut errors, &Path::new("spec.taint"), &new.spec.taint, Some(&old.spec.taint));
        errors
    }

    fn validate_status_update(&self, new: &DeviceTaintRule, _old: &DeviceTaintRule) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let list = new.status.clone().and_then(|status| status.conditions).unwrap_or_default();
        let path = Path::new("status.conditions");
        conditions::conditions(&mut errors, &path, &list);
        names::fits(&mut errors, &path, list.len(), MAX_CONDITIONS);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Key", "string", "The key of the taint."),
            column("Value", "string", "The value of the taint."),
            column("Effect", "string", "What becomes of Pods that do not tolerate it."),
            column("TimeAdded", "string", "For how long it has been there."),
            AGE_COLUMN,
        ];
        COLUMNS
    }

    fn cells(&self, rule: &DeviceTaintRule, now: Timestamp) -> Vec<Value> {
        let taint = &rule.spec.taint;
        vec![
            columns::name(&rule.metadata),
            Value::from(taint.key.as_str()),
            Value::from(text(&taint.value)),
            Value::from(taint.effect.as_str()),
            taint.time_added.as_ref().map_or_else(|| Value::from(""), |since| table::age(Some(since), now)),
            columns::age(&rule.metadata, now),
        ]
    }
}

fn selector(rule: &DeviceTaintRule) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let Some(selector) = &rule.spec.device_selector else { return errors };
    let path = Path::new("spec.deviceSelector");
    if let Some(driver) = &selector.driver {
        names::driver(&mut errors, &path.child("driver"), driver);
    }
    if let Some(pool) = &selector.pool {
        names::pool(&mut errors, &path.child("pool"), pool);
    }
    if let Some(device) = &selector.device {
        names::label(&mut errors, &path.child("device"), device);
    }
    errors
}
