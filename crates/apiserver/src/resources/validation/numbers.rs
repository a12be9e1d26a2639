//! Numbers: ranges, ports, ids, modes, and the "number or percentage" of rolling updates.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::{NOT_NEGATIVE, dns, report, shown};

pub const PORTS: (i64, i64) = (1, 65535);
const IDS: (i64, i64) = (0, i32::MAX as i64);

pub fn not_negative(errors: &mut FieldErrors, path: &Path, value: impl Into<i64>) {
    let value = value.into();
    if value < 0 {
        errors.push(FieldError::invalid(path, value, NOT_NEGATIVE));
    }
}

pub fn positive(errors: &mut FieldErrors, path: &Path, value: impl Into<i64>) {
    let value = value.into();
    if value <= 0 {
        errors.push(FieldError::invalid(path, value, "must be greater than zero"));
    }
}

pub fn in_range(errors: &mut FieldErrors, path: &Path, value: impl Into<i64>, (low, high): (i64, i64)) {
    let value = value.into();
    if value < low || value > high {
        errors.push(FieldError::invalid(path, value, format!("must be between {low} and {high}, inclusive")));
    }
}

pub fn port(errors: &mut FieldErrors, path: &Path, value: i32) {
    in_range(errors, path, value, PORTS);
}

pub fn port_or_name(errors: &mut FieldErrors, path: &Path, value: &IntOrString) {
    match value {
        IntOrString::Int(number) => port(errors, path, *number),
        IntOrString::String(name) => report(errors, path, name, dns::port_name(name)),
    }
}

/// A user or group id, where there is one.
pub fn id(errors: &mut FieldErrors, path: &Path, value: Option<i64>) {
    if let Some(value) = value {
        in_range(errors, path, value, IDS);
    }
}

/// Permission bits of a projected file.
pub fn file_mode(errors: &mut FieldErrors, path: &Path, value: Option<i32>) {
    if let Some(value) = value.filter(|value| !(0..=0o777).contains(value)) {
        let about = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(path, value, about));
    }
}

/// `3` or `25%`, not negative.
pub fn count_or_percent(errors: &mut FieldErrors, path: &Path, value: &IntOrString) {
    match value {
        IntOrString::Int(number) => not_negative(errors, path, *number),
        IntOrString::String(text) => {
            for message in dns::percent(text) {
                errors.push(FieldError::invalid(path, text.as_str(), message));
            }
        }
    }
}

/// Not more than 100 of 100.
pub fn at_most_all(errors: &mut FieldErrors, path: &Path, value: &IntOrString) {
    if percent_of(value).is_some_and(|percent| percent > 100) {
        errors.push(FieldError::invalid(path, shown(value), "must not be greater than 100%"));
    }
}

/// The number of a well-formed percentage.
pub fn percent_of(value: &IntOrString) -> Option<i64> {
    match value {
        IntOrString::String(text) if dns::percent(text).is_empty() => text.trim_end_matches('%').parse().ok(),
        _ => None,
    }
}

/// Zero, be it a count or a percentage.
pub fn is_zero(value: Option<&IntOrString>) -> bool {
    match value {
        None => true,
        Some(IntOrString::Int(number)) => *number == 0,
        Some(text) => percent_of(text) == Some(0),
    }
}
