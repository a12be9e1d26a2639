//! Label and field selectors: parsing the query forms and matching.
//!
//! Grammar and behaviour: "Labels and Selectors" and "Field Selectors" of the reference. Matching never allocates.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use crate::object::Meta;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: Vec<String>,
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
        let limit = || self.values.first().and_then(|text| text.parse::<i64>().ok());
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.iter().any(|one| one == value)),
            Operator::NotIn => value.is_none_or(|value| self.values.iter().all(|one| one != value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => matches!((number(value), limit()), (Some(a), Some(b)) if a > b),
            Operator::LessThan => matches!((number(value), limit()), (Some(a), Some(b)) if a < b),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = || self.values.first().map_or("", String::as_str);
        match self.operator {
            Operator::In if self.values.len() == 1 => write!(f, "{}={}", self.key, first()),
            Operator::NotIn if self.values.len() == 1 => write!(f, "{}!={}", self.key, first()),
            Operator::In => write!(f, "{} in ({})", self.key, self.values.join(",")),
            Operator::NotIn => write!(f, "{} notin ({})", self.key, self.values.join(",")),
            Operator::Exists => write!(f, "{}", self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
            Operator::GreaterThan => write!(f, "{}>{}", self.key, first()),
            Operator::LessThan => write!(f, "{}<{}", self.key, first()),
        }
    }
}

/// All requirements must hold. An empty one selects everything; [`LabelSelector::nothing`] selects nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    pub fn everything() -> Self {
        Self::default()
    }

    pub fn nothing() -> Self {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// A plain map, as `Service.spec.selector` and `ReplicationController.spec.selector`: an empty one selects everything.
    pub fn from_map(labels: &BTreeMap<String, String>) -> Self {
        let requirements = labels
            .iter()
            .map(|(key, value)| Requirement { key: key.clone(), operator: Operator::In, values: vec![value.clone()] })
            .collect();
        LabelSelector { requirements, nothing: false }
    }

    /// The object form. Absent selects nothing, empty selects everything, as upstream reads it.
    pub fn from_object(selector: Option<&meta::LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut result = selector.match_labels.as_ref().map(Self::from_map).unwrap_or_default();
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError(format!("{other:?} is not a valid label selector operator"))),
            };
            let values = expression.values.clone().unwrap_or_default();
            result.requirements.push(Requirement { key: expression.key.clone(), operator, values });
        }
        Ok(result)
    }

    /// The query form: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                if text.trim().is_empty() {
                    continue;
                }
                return Err(SelectorError("found ',', expected: identifier after ','".to_owned()));
            }
            requirements.push(parse_requirement(part)?);
        }
        Ok(LabelSelector { requirements, nothing: false })
    }

    pub fn matches(&self, meta: &Meta) -> bool {
        !self.nothing && self.requirements.iter().all(|one| one.matches(meta.label(&one.key)))
    }

    pub fn matches_map(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let value = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
        !self.nothing && self.requirements.iter().all(|one| one.matches(value(&one.key)))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0usize, 0usize);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_requirement(part: &str) -> Result<Requirement, SelectorError> {
    let one = |key: &str, operator, value: &str| {
        let (key, value) = (label_key(key.trim())?, value.trim());
        check_value(value)?;
        Ok(Requirement { key, operator, values: vec![value.to_owned()] })
    };
    if let Some(key) = part.strip_prefix('!') {
        return Ok(Requirement { key: label_key(key.trim())?, operator: Operator::DoesNotExist, values: Vec::new() });
    }
    if let Some(found) = parse_set(part)? {
        return Ok(found);
    }
    if let Some((key, value)) = part.split_once("!=") {
        return one(key, Operator::NotIn, value);
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return one(key, Operator::In, value);
    }
    for (sign, operator) in [('>', Operator::GreaterThan), ('<', Operator::LessThan)] {
        if let Some((key, value)) = part.split_once(sign) {
            if value.trim().parse::<i64>().is_err() {
                return Err(SelectorError(format!("for 'Gt', 'Lt' operators, the value must be an integer: {part:?}")));
            }
            return one(key, operator, value);
        }
    }
    Ok(Requirement { key: label_key(part)?, operator: Operator::Exists, values: Vec::new() })
}

/// `key in (a,b)` and `key notin (a,b)`.
fn parse_set(part: &str) -> Result<Option<Requirement>, SelectorError> {
    let Some(open) = part.find('(') else { return Ok(None) };
    let Some(inner) = part[open + 1..].trim_end().strip_suffix(')') else {
        return Err(SelectorError(format!("unable to parse requirement: found '{part}', expected: ')'")));
    };
    let mut head = part[..open].split_whitespace();
    let (key, operator) = (head.next().unwrap_or(""), head.next().unwrap_or(""));
    let operator = match operator {
        "in" => Operator::In,
        "notin" => Operator::NotIn,
        other => {
            return Err(SelectorError(format!(
                "unable to parse requirement: found '{other}', expected: in, notin, =, ==, !=, gt, lt"
            )));
        }
    };
    let values: Vec<String> = inner.split(',').map(|value| value.trim().to_owned()).collect();
    for value in &values {
        check_value(value)?;
    }
    Ok(Some(Requirement { key: label_key(key)?, operator, values }))
}

fn label_key(key: &str) -> Result<String, SelectorError> {
    let name = key.rsplit('/').next().unwrap_or("");
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 63 || !name.chars().all(fits) || key.chars().any(char::is_whitespace) {
        return Err(SelectorError(format!("unable to parse requirement: key: Invalid value: {key:?}")));
    }
    Ok(key.to_owned())
}

fn check_value(value: &str) -> Result<(), SelectorError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    let right =
        value.len() <= 63 && value.chars().all(fits) && edge(value.chars().next()) && edge(value.chars().last());
    if right {
        return Ok(());
    }
    Err(SelectorError(format!(
        "unable to parse requirement: values[0]: Invalid value: {value:?}: a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
    )))
}

/// `metadata.name=a,status.phase!=Running`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// Field, value, whether it must be equal.
    pub terms: Vec<(String, String, bool)>,
}

impl FieldSelector {
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (field, value, equal) = if let Some((field, value)) = part.split_once("!=") {
                (field, value, false)
            } else if let Some((field, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (field, value, true)
            } else {
                return Err(SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            terms.push((field.to_owned(), value.replace("\\,", ",").replace("\\=", "=").replace("\\\\", "\\"), equal));
        }
        Ok(FieldSelector { terms })
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that a field must equal, if the selector says so.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|(name, _, equal)| name == field && *equal).map(|(_, value, _)| value.as_str())
    }

    /// `value` gives a field's text; a field that the kind does not select on is refused before this is called.
    pub fn matches<'a>(&self, mut value: impl FnMut(&str) -> std::borrow::Cow<'a, str>) -> bool {
        self.terms.iter().all(|(field, wanted, equal)| (value(field) == wanted.as_str()) == *equal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(selector: &str, labels: &str, expected: bool) {
        let labels: BTreeMap<String, String> = labels
            .split_whitespace()
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(k, v)| (k.into(), v.into()))
            .collect();
        let parsed = LabelSelector::parse(selector).unwrap();
        assert_eq!(parsed.matches_map(Some(&labels)), expected, "{selector}");
    }

    #[test]
    fn selectors_match() {
        check("", "a=b", true);
        check("a=b", "a=b", true);
        check("a==b,c", "a=b", false);
        check("a in (b, c),!d", "a=c", true);
        check("a notin (b)", "", true);
        check("a!=b", "a=b", false);
        check("n>5", "n=6", true);
        check("n<5", "n=6", false);
    }

    #[test]
    fn bad_selectors_are_refused() {
        for bad in ["a in b)", "a x (b)", "a=b,,c", "a b=c", "a=b c"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
        assert!(FieldSelector::parse("metadata.name").is_err());
    }
}
