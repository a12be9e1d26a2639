//! The selectors of access reviews: checked, and as a query would state them. Pure.
//!
//! A selector narrows what is asked for. Requirements that cannot be understood are left out: then more is asked for, and
//! what is allowed is allowed without them too.

use k8s_openapi::api::authorization::v1::{FieldSelectorAttributes, LabelSelectorAttributes};
use xebec_api::field::{FieldError, FieldErrors, Path};
use xebec_api::selector::{FieldSelector, LabelSelector};

use crate::resources::validation::{dns, labels, report};

/// A selector as far as it was understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stated {
    pub text: String,
    /// What the review's answer says of requirements that were not.
    pub error: Option<String>,
}

impl Stated {
    fn of(terms: Vec<Option<String>>, name: &str) -> Self {
        let (all, terms) = (terms.len(), terms.into_iter().flatten().collect::<Vec<_>>());
        let error = (terms.len() < all).then(|| {
            let partially = if terms.is_empty() { "" } else { "partially " };
            format!("spec.resourceAttributes.{name} {partially}ignored due to parse error")
        });
        Stated { text: terms.join(","), error }
    }
}

pub fn fields(selector: Option<&FieldSelectorAttributes>) -> Stated {
    let Some(selector) = selector else { return Stated::default() };
    let raw = selector.raw_selector.as_deref().unwrap_or("");
    if !raw.is_empty() {
        let readable = FieldSelector::parse(raw).is_ok().then(|| raw.to_owned());
        return Stated::of(vec![readable], "fieldSelector");
    }
    let terms = selector.requirements.iter().flatten().map(|requirement| {
        let [value] = requirement.values.as_deref()? else { return None };
        // As upstream escapes values in the text of a selector.
        let value = value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
        match requirement.operator.as_str() {
            "In" => Some(format!("{}={value}", requirement.key)),
            "NotIn" => Some(format!("{}!={value}", requirement.key)),
            _ => None,
        }
    });
    Stated::of(terms.collect(), "fieldSelector")
}

pub fn label_terms(selector: Option<&LabelSelectorAttributes>) -> Stated {
    let Some(selector) = selector else { return Stated::default() };
    let readable = |text: String| LabelSelector::parse(&text).is_ok().then_some(text);
    let raw = selector.raw_selector.as_deref().unwrap_or("");
    if !raw.is_empty() {
        return Stated::of(vec![readable(raw.to_owned())], "labelSelector");
    }
    let terms = selector.requirements.iter().flatten().map(|requirement| {
        let (key, values) = (&requirement.key, requirement.values.as_deref().unwrap_or_default());
        let set = || (!values.is_empty()).then(|| values.join(","));
        readable(match requirement.operator.as_str() {
            "In" => format!("{key} in ({})", set()?),
            "NotIn" => format!("{key} notin ({})", set()?),
            "Exists" => key.clone(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        })
    });
    Stated::of(terms.collect(), "labelSelector")
}

pub fn check_fields(selector: Option<&FieldSelectorAttributes>, path: &Path, errors: &mut FieldErrors) {
    let Some(selector) = selector else { return };
    let requirements = selector.requirements.as_deref().unwrap_or_default();
    check_form(selector.raw_selector.as_deref().unwrap_or(""), requirements.is_empty(), path, errors);
    for (index, one) in requirements.iter().enumerate() {
        let at = path.child("requirements").index(index);
        if one.key.is_empty() {
            errors.push(FieldError::required(&at.child("key"), "must be specified"));
        }
        check_values(&one.operator, one.values.as_deref().unwrap_or_default(), &at, errors);
    }
}

pub fn check_labels(selector: Option<&LabelSelectorAttributes>, path: &Path, errors: &mut FieldErrors) {
    let Some(selector) = selector else { return };
    let requirements = selector.requirements.as_deref().unwrap_or_default();
    check_form(selector.raw_selector.as_deref().unwrap_or(""), requirements.is_empty(), path, errors);
    for (index, one) in requirements.iter().enumerate() {
        let at = path.child("requirements").index(index);
        let values = one.values.as_deref().unwrap_or_default();
        check_values(&one.operator, values, &at, errors);
        labels::label_name(errors, &at.child("key"), &one.key);
        for (index, value) in values.iter().enumerate() {
            report(errors, &at.child("values").index(index), value, dns::label_value(value));
        }
    }
}

/// Either a text or requirements, and one of them.
fn check_form(raw: &str, bare: bool, path: &Path, errors: &mut FieldErrors) {
    if !raw.is_empty() && !bare {
        let about = "may not specified at the same time as requirements";
        errors.push(FieldError::invalid(&path.child("rawSelector"), raw, about));
    }
    if raw.is_empty() && bare {
        let about = format!("when {} is specified, requirements or rawSelector is required", path.as_str());
        errors.push(FieldError::required(&path.child("requirements"), about));
    }
}

fn check_values(operator: &str, values: &[String], at: &Path, errors: &mut FieldErrors) {
    let path = at.child("values");
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(FieldError::required(&path, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let about = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(&path, about));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(tree: Value, expected: (&str, Option<&str>)) {
        let found = if tree["label"].is_null() {
            fields(Some(&serde_json::from_value(tree["field"].clone()).unwrap()))
        } else {
            label_terms(Some(&serde_json::from_value(tree["label"].clone()).unwrap()))
        };
        assert_eq!((&*found.text, found.error.as_deref()), expected, "{tree}");
    }

    #[test]
    fn selectors_are_stated_as_far_as_they_are_understood() {
        let one =
            |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
        check(json!({"field": {"rawSelector": "a=b,c!=d"}}), ("a=b,c!=d", None));
        check(
            json!({"field": {"requirements": [one("a", "In", &["b"]), one("c", "NotIn", &["d,e"])]}}),
            ("a=b,c!=d\\,e", None),
        );
        let partly = "spec.resourceAttributes.fieldSelector partially ignored due to parse error";
        let both = json!([one("a", "In", &["b"]), one("c", "In", &["d", "e"])]);
        check(json!({"field": {"requirements": both}}), ("a=b", Some(partly)));
        let wholly = "spec.resourceAttributes.fieldSelector ignored due to parse error";
        check(json!({"field": {"requirements": [one("a", "Exists", &[])]}}), ("", Some(wholly)));
        let all = json!([
            one("a", "In", &["b", "c"]),
            one("d", "NotIn", &["e"]),
            one("f", "Exists", &[]),
            one("g", "DoesNotExist", &[])
        ]);
        check(json!({"label": {"requirements": all}}), ("a in (b,c),d notin (e),f,!g", None));
        let wholly = "spec.resourceAttributes.labelSelector ignored due to parse error";
        check(json!({"label": {"rawSelector": "a in b"}}), ("", Some(wholly)));
    }

    #[test]
    fn requirements_are_checked() {
        let path = Path::new("s");
        let mut errors = FieldErrors::new();
        let tree = json!({"requirements": [{"key": "a b", "operator": "In"}, {"key": "a", "operator": "Exists", "values": ["b"]}]});
        check_labels(Some(&serde_json::from_value(tree).unwrap()), &path, &mut errors);
        let places: Vec<String> =
            errors.iter().map(|error| error.to_string().split(':').next().unwrap().to_owned()).collect();
        assert_eq!(places, ["s.requirements[0].values", "s.requirements[0].key", "s.requirements[1].values"]);
        let mut errors = FieldErrors::new();
        check_fields(Some(&FieldSelectorAttributes::default()), &path, &mut errors);
        assert!(errors[0].to_string().contains("requirements or rawSelector is required"), "{errors:?}");
    }
}
