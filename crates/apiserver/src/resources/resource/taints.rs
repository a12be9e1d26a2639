//! Taints of devices and what tolerates them.

use k8s_openapi::api::resource::v1::{DeviceTaint, DeviceToleration};
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::resources::validation::{dns, labels, report, required, text, unsupported};

const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
const OPERATORS: [&str; 2] = ["Equal", "Exists"];

pub fn default<'a>(tolerations: impl Iterator<Item = &'a mut DeviceToleration>) {
    for one in tolerations.filter(|one| text(&one.operator).is_empty()) {
        one.operator = Some("Equal".to_owned());
    }
}

pub fn taint(errors: &mut FieldErrors, path: &Path, taint: &DeviceTaint, old: Option<&DeviceTaint>) {
    labels::label_name(errors, &path.child("key"), &taint.key);
    let value = text(&taint.value);
    if !value.is_empty() {
        report(errors, &path.child("value"), value, dns::label_value(value));
    }
    let at = path.child("effect");
    if old.is_none_or(|old| old.effect != taint.effect)
        && required(errors, &at, &taint.effect)
        && !EFFECTS.contains(&taint.effect.as_str())
    {
        errors.push(unsupported(&at, taint.effect.as_str(), &EFFECTS));
    }
}

pub fn tolerations(errors: &mut FieldErrors, path: &Path, tolerations: &[DeviceToleration]) {
    for (index, one) in tolerations.iter().enumerate() {
        let path = path.index(index);
        let (key, value) = (text(&one.key), text(&one.value));
        if !key.is_empty() {
            labels::label_name(errors, &path.child("key"), key);
        }
        let at = path.child("value");
        match text(&one.operator) {
            "Exists" if !value.is_empty() => {
                errors.push(FieldError::invalid(&at, value, "must be empty for operator `Exists`"));
            }
            "Exists" => {}
            "Equal" => report(errors, &at, value, dns::label_value(value)),
            "" => errors.push(FieldError::required(&path.child("operator"), "")),
            other => errors.push(unsupported(&path.child("operator"), other, &OPERATORS)),
        }
        let effect = text(&one.effect);
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            errors.push(unsupported(&path.child("effect"), effect, &EFFECTS));
        }
    }
}
