//! One step of a path: a field, an item by its keys, an item of a set by its value, or an index.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;

/// Fields come before keyed items, those before values and indices, each sorted: the order in which sets are written.
#[derive(Clone, Debug)]
pub enum Element {
    Field(Cow<'static, str>),
    /// The key fields of an item with their values, sorted by name.
    Key(Box<[(Cow<'static, str>, Value)]>),
    Value(Value),
    Index(i64),
}

/// A path prints as conflicts name it: `.spec.containers[name="a"].image`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(pub Vec<Element>);

impl Element {
    pub fn field(name: impl Into<Cow<'static, str>>) -> Self {
        Element::Field(name.into())
    }

    /// The step as a key of `fieldsV1`. `None`: a kind of step that is not known, which is skipped.
    pub(super) fn parse(text: &str) -> Result<Option<Element>, String> {
        let Some((kind, rest)) = text.split_at_checked(2) else {
            return Err("key must be 2 characters long:".to_owned());
        };
        if !kind.ends_with(':') {
            return Err(format!("missing colon: {text}"));
        }
        let parse = |rest: &str| serde_json::from_str::<Value>(rest).map_err(|error| error.to_string());
        Ok(Some(match kind {
            "f:" => Element::Field(Cow::Owned(rest.to_owned())),
            "v:" => Element::Value(parse(rest)?),
            "k:" => match parse(rest)? {
                Value::Object(map) => Element::key(map.into_iter().map(|(name, value)| (Cow::Owned(name), value))),
                _ => return Err("a key is an object".to_owned()),
            },
            "i:" => Element::Index(rest.parse().map_err(|_| format!("parsing {rest:?}: invalid syntax"))?),
            _ => return Ok(None),
        }))
    }

    pub(super) fn key(fields: impl IntoIterator<Item = (Cow<'static, str>, Value)>) -> Element {
        let mut fields: Vec<_> = fields.into_iter().collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        Element::Key(fields.into())
    }

    /// The key of `fieldsV1` that [`Element::parse`] reads.
    pub(super) fn write(&self, out: &mut String) {
        match self {
            Element::Field(name) => {
                out.push_str("f:");
                out.push_str(name);
            }
            Element::Key(fields) => {
                out.push_str("k:{");
                for (at, (name, value)) in fields.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    push_json(out, &Value::from(&**name));
                    out.push(':');
                    push_value(out, value);
                }
                out.push('}');
            }
            Element::Value(value) => {
                out.push_str("v:");
                push_value(out, value);
            }
            Element::Index(index) => {
                out.push_str("i:");
                out.push_str(&index.to_string());
            }
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Element::Field(_) => 0,
            Element::Key(_) => 1,
            Element::Value(_) => 2,
            Element::Index(_) => 3,
        }
    }
}

fn push_json(out: &mut String, value: &Value) {
    out.push_str(&value.to_string());
}

/// Go's encoder escapes what could end a script element.
fn push_value(out: &mut String, value: &Value) {
    for c in value.to_string().chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            c => out.push(c),
        }
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Element::Field(a), Element::Field(b)) => a.cmp(b),
            (Element::Key(a), Element::Key(b)) => {
                let each = a.iter().zip(b.iter());
                let mut orders = each.map(|(a, b)| a.0.cmp(&b.0).then_with(|| order(&a.1, &b.1)));
                orders.find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            (Element::Value(a), Element::Value(b)) => order(a, b),
            (Element::Index(a), Element::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Element {}

/// Numbers come before texts, those before truth values, lists, maps and null.
pub(super) fn order(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    };
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => x.cmp(&y),
            _ => x.as_f64().unwrap_or(0.0).total_cmp(&y.as_f64().unwrap_or(0.0)),
        },
        (Value::String(x), Value::String(y)) => x.cmp(y),
        (Value::Bool(x), Value::Bool(y)) => x.cmp(y),
        (Value::Array(x), Value::Array(y)) => {
            let mut orders = x.iter().zip(y).map(|(x, y)| order(x, y));
            orders.find(|order| order.is_ne()).unwrap_or_else(|| x.len().cmp(&y.len()))
        }
        (Value::Object(x), Value::Object(y)) => {
            let sorted = |map: &serde_json::Map<String, Value>| {
                let mut pairs: Vec<_> = map.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
                pairs.sort_by(|a, b| a.0.cmp(&b.0));
                pairs
            };
            let (x, y) = (sorted(x), sorted(y));
            let mut orders = x.iter().zip(&y).map(|(x, y)| x.0.cmp(&y.0).then_with(|| order(&x.1, &y.1)));
            orders.find(|order| order.is_ne()).unwrap_or_else(|| x.len().cmp(&y.len()))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

/// Equal as values: the order of a map's keys does not count, nor whether a number is written with a fraction.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || order(a, b).is_eq(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(key, x)| y.get(key).is_some_and(|y| same(x, y)))
        }
        _ => a == b,
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Key(fields) => {
                let shown: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", shown.join(","))
            }
            Element::Value(value) => write!(f, "[={value}]"),
            Element::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| write!(f, "{element}"))
    }
}
