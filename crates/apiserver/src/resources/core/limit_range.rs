//! LimitRanges.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use serde_json::Value;
use xebec_api::Quantity;
use xebec_api::field::{FieldError, FieldErrors, Path};

use super::pod_defaults;
use super::pod_resources::Amounts;
use crate::registry::strategy::{Column, Generation, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::quantities::{container_resource, may_overcommit, resource_name};
use crate::resources::validation::{dns, report, shown};

const TYPES: [&str; 3] = ["Container", "PersistentVolumeClaim", "Pod"];

#[derive(Default)]
pub struct LimitRangeStrategy;

impl Strategy for LimitRangeStrategy {
    type Object = LimitRange;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn has_status(&self) -> bool {
        false
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn default(&self, range: &mut LimitRange) {
        for item in &mut range.spec.get_or_insert_default().limits {
            default_item(item);
        }
    }

    fn validate(&self, range: &LimitRange) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let mut seen = BTreeSet::new();
        for (index, item) in range.spec.iter().flat_map(|spec| &spec.limits).enumerate() {
            let path = Path::new("spec.limits").index(index);
            let (at, kind) = (path.child("type"), item.type_.as_str());
            let messages = dns::label_key(kind);
            if messages.is_empty() && !kind.contains('/') && !TYPES.contains(&kind) {
                errors.push(FieldError::invalid(&at, kind, "must be a standard limit type or fully qualified"));
            }
            report(&mut errors, &at, kind, messages);
            if !seen.insert(kind) {
                errors.push(FieldError::duplicate(&at, kind));
            }
            validate_item(&mut errors, &path, item);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME_COLUMN, column("Created At", "date", "When the object was created.")];
        COLUMNS
    }

    fn cells(&self, range: &LimitRange, _now: Timestamp) -> Vec<Value> {
        vec![columns::name(&range.metadata), shown(&range.metadata.creation_timestamp)]
    }
}

/// What is said of one bound is taken for those that are not given.
fn default_item(item: &mut LimitRangeItem) {
    for list in
        [&mut item.max, &mut item.min, &mut item.default, &mut item.default_request, &mut item.max_limit_request_ratio]
    {
        pod_defaults::amounts(list.as_mut());
    }
    if item.type_ != "Container" {
        return;
    }
    let fill = |into: &mut Amounts, from: &Amounts| {
        for (name, value) in from {
            into.entry(name.clone()).or_insert_with(|| value.clone());
        }
    };
    let limits = item.default.get_or_insert_default();
    fill(limits, item.max.as_ref().unwrap_or(&Amounts::new()));
    let requests = item.default_request.get_or_insert_default();
    fill(requests, limits);
    fill(requests, item.min.as_ref().unwrap_or(&Amounts::new()));
}

fn validate_item(errors: &mut FieldErrors, path: &Path, item: &LimitRangeItem) {
    let of_pod = item.type_ == "Pod";
    let name_rule = if of_pod || item.type_ == "Container" { container_resource } else { resource_name };
    let lists = [
        ("max", &item.max),
        ("min", &item.min),
        ("default", &item.default),
        ("defaultRequest", &item.default_request),
        ("maxLimitRequestRatio", &item.max_limit_request_ratio),
    ];
    let mut names = BTreeSet::new();
    for (field, list) in lists {
        let path = path.child(field);
        if of_pod && field.starts_with("default") {
            if list.as_ref().is_some_and(|list| !list.is_empty()) {
                errors.push(FieldError::forbidden(&path, "may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        for name in list.iter().flatten().map(|(name, _)| name) {
            name_rule(errors, &path.key(name), name);
            names.insert(name.as_str());
        }
    }
    let has = |list: &Option<Amounts>| list.as_ref().is_some_and(|list| list.contains_key("storage"));
    if item.type_ == "PersistentVolumeClaim" && !has(&item.min) && !has(&item.max) {
        let about = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(&path.child("limits"), about));
    }
    for name in names {
        relations(errors, path, item, name);
    }
}

/// min ≤ default request ≤ default limit ≤ max, as far as they are given.
fn relations(errors: &mut FieldErrors, path: &Path, item: &LimitRangeItem, name: &str) {
    let of =
        |list: &Option<Amounts>| list.as_ref().and_then(|list| list.get(name)).map(|value| Quantity::of(Some(value)));
    let (min, max) = (of(&item.min), of(&item.max));
    let (limit, request) = (of(&item.default), of(&item.default_request));
    let mut rises =
        |low: Option<Quantity>, low_name: &str, high: Option<Quantity>, high_name: &str, at: (&str, bool)| {
            let (Some(low), Some(high)) = (low, high) else { return };
            if low > high {
                let (field, shows_high) = at;
                let value = if shows_high { high } else { low };
                let about = format!("{low_name} value {low} is greater than {high_name} value {high}");
                errors.push(FieldError::invalid(&path.child(field).key(name), value.to_string(), about));
            }
        };
    rises(min, "min", max, "max", ("min", false));
    rises(min, "min", request, "default request", ("defaultRequest", true));
    rises(request, "default request", max, "max", ("defaultRequest", false));
    rises(request, "default request", limit, "default limit", ("defaultRequest", false));
    rises(min, "min", limit, "default", ("default", false));
    rises(limit, "default", max, "max", ("default", true));
    if let Some(ratio) = of(&item.max_limit_request_ratio) {
        let at = path.child("maxLimitRequestRatio").key(name);
        if ratio < Quantity::from_integer(1) {
            errors.push(FieldError::invalid(&at, ratio.to_string(), format!("ratio {ratio} is less than 1")));
        }
        if let (Some(min), Some(max)) = (min, max) {
            let bound = max.as_f64() / min.as_f64();
            if ratio.as_f64() > bound {
                let about = format!("ratio {ratio} is greater than max/min = {bound:.6}");
                errors.push(FieldError::invalid(&at, ratio.to_string(), about));
            }
        }
    }
    if let (Some(limit), Some(request)) = (limit, request)
        && !may_overcommit(name)
        && limit != request
    {
        let about = format!("default value {limit} must equal to defaultRequest value {request} in {name}");
        errors.push(FieldError::invalid(&path.child("defaultRequest").key(name), request.to_string(), about));
    }
}
