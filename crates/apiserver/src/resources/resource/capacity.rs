//! How much of a device one claim may take of it.

use std::collections::BTreeSet;

use k8s_openapi::api::resource::v1::{CapacityRequestPolicy, CapacityRequestPolicyRange, DeviceCapacity};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Raw;
use xebec_api::Quantity;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::names;

const MAX_VALUES: usize = 10;

pub fn capacity(errors: &mut FieldErrors, path: &Path, capacity: &DeviceCapacity, is_shared: bool) {
    let Some(policy) = &capacity.request_policy else { return };
    let path = path.child("requestPolicy");
    if !is_shared {
        return errors.push(FieldError::forbidden(&path, "allowMultipleAllocations must be true"));
    }
    self::policy(errors, &path, policy, Quantity::of(Some(&capacity.value)));
}

fn policy(errors: &mut FieldErrors, path: &Path, policy: &CapacityRequestPolicy, most: Quantity) {
    let values = policy.valid_values.as_deref().unwrap_or_default();
    let default = policy.default.as_ref().map(|default| Quantity::of(Some(default)));
    let missing = |errors: &mut FieldErrors, with: &str| {
        errors.push(FieldError::required(&path.child("default"), format!("required when {with} is defined")));
    };
    match (&policy.valid_range, values.is_empty()) {
        (Some(_), false) => {
            let about = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
            errors.push(FieldError::forbidden(path, about));
        }
        (None, false) => match default {
            None => missing(errors, "validValues"),
            Some(default) => self::values(errors, &path.child("validValues"), values, default, most),
        },
        (Some(range), true) => match default {
            None => missing(errors, "validRange"),
            Some(default) => self::range(errors, &path.child("validRange"), range, default, most),
        },
        (None, true) => {}
    }
}

fn values(errors: &mut FieldErrors, path: &Path, values: &[Raw], default: Quantity, most: Quantity) {
    let values: Vec<Quantity> = values.iter().map(|value| Quantity::of(Some(value))).collect();
    for (index, pair) in values.windows(2).enumerate().filter(|(_, pair)| pair[0] > pair[1]) {
        let about = "values must be sorted in ascending order";
        errors.push(FieldError::invalid(&path.index(index + 1), pair[1].to_string(), about));
    }
    if names::fits(errors, path, values.len(), MAX_VALUES) {
        let mut seen = BTreeSet::new();
        for (index, value) in values.iter().enumerate() {
            if *value > most {
                let about = format!("option is larger than capacity value: {most}");
                errors.push(FieldError::invalid(&path.index(index), value.to_string(), about));
            }
            if !seen.insert(*value) {
                errors.push(FieldError::duplicate(&path.index(index), value.to_string()));
            }
        }
    }
    if !values.contains(&default) {
        let about = "default value is not valid according to the requestPolicy";
        errors.push(FieldError::invalid(path, default.to_string(), about));
    }
}

fn range(errors: &mut FieldErrors, path: &Path, range: &CapacityRequestPolicyRange, default: Quantity, most: Quantity) {
    let min = Quantity::of(Some(&range.min));
    let max = range.max.as_ref().map(|max| Quantity::of(Some(max)));
    let mut wrong = |is: bool, field: &str, value: Quantity, about: String| {
        if is {
            errors.push(FieldError::invalid(&path.child(field), value.to_string(), about));
        }
    };
    wrong(min > most, "min", min, format!("min is larger than capacity value: {most}"));
    wrong(default < min, "default", default, format!("default is less than min: {min}"));
    if let Some(max) = max {
        wrong(min > max, "max", min, format!("min is larger than max: {max}"));
        wrong(max > most, "max", max, format!("max is larger than capacity value: {most}"));
        wrong(default > max, "default", default, format!("default is more than max: {max}"));
    }
    let Some(step) = range.step.as_ref().map(|step| Quantity::of(Some(step))) else { return };
    if step.is_zero() || step.is_negative() {
        return wrong(true, "step", step, "must be greater than zero".to_owned());
    }
    let one_step = min.plus(step);
    let about = format!("one step {one_step} is larger than capacity value: {most}");
    wrong(one_step > most, "step", step, about);
    for value in [Some(default), max].into_iter().flatten() {
        let uneven = value.minus(min).milli_value() % step.milli_value() != 0;
        let about = format!("value is not a multiple of a given step ({step}) from ({min})");
        wrong(uneven, "step", value, about);
    }
}
