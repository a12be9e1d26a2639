//! `fieldsV1`: the stored form of a set, written byte for byte as upstream writes it.
//!
//! A key is a step of a path; its value holds what lies below. `.` says that the path itself is a member where something
//! lies below it, too; a key with nothing in it is a member.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::element::Element;
use super::set::Set;

impl Set {
    /// Reads `fieldsV1`; unknown kinds of steps are skipped.
    pub fn parse(text: &str) -> Result<Set, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let (_, set) = Level.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(set)
    }

    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out);
        out
    }

    pub(super) fn write_json(&self, out: &mut String) {
        out.push('{');
        self.write_content(false, out, &mut String::new());
        out.push('}');
    }

    fn write_content(&self, itself: bool, out: &mut String, key: &mut String) {
        let start = out.len();
        if itself {
            out.push_str("\".\":{}");
        }
        let mut write = |element: &Element, below: Option<(&Set, bool)>, out: &mut String| {
            if out.len() > start {
                out.push(',');
            }
            key.clear();
            element.write(key);
            push_text(out, key);
            out.push_str(":{");
            if let Some((set, itself)) = below {
                set.write_content(itself, out, key);
            }
            out.push('}');
        };
        let (mut members, mut children) = (self.members.iter().peekable(), self.children.iter().peekable());
        loop {
            let (member, child) = match (members.peek(), children.peek()) {
                (None, None) => return,
                (Some(member), Some((element, _))) => (*member <= element, element <= *member),
                (member, child) => (member.is_some(), child.is_some()),
            };
            let member = if member { members.next() } else { None };
            match (member, if child { children.next() } else { None }) {
                (_, Some((element, below))) => write(element, Some((below, member.is_some())), out),
                (Some(element), None) => write(element, None, out),
                (None, None) => return,
            }
        }
    }
}

/// A JSON string as jsoniter writes the name of a field.
fn push_text(out: &mut String, text: &str) {
    use std::fmt::Write;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// What one key holds: whether it is a member, and the set below it.
struct Level;

impl<'de> DeserializeSeed<'de> for Level {
    type Value = (bool, Set);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = (bool, Set);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let (mut itself, mut set) = (false, Set::new());
        while let Some(key) = access.next_key::<Key>()? {
            match key {
                Key::Itself => {
                    itself = true;
                    access.next_value::<IgnoredAny>()?;
                }
                Key::Unknown => drop(access.next_value::<IgnoredAny>()?),
                Key::Element(element) => {
                    let (member, below) = access.next_value_seed(Level)?;
                    if member {
                        set.insert_member(element.clone());
                    }
                    if !(below.members.is_empty() && below.children.is_empty()) {
                        *set.descend(&element) = below;
                    }
                }
            }
        }
        let nothing_below = set.members.is_empty() && set.children.is_empty();
        Ok((itself || nothing_below, set))
    }
}

enum Key {
    Itself,
    Unknown,
    Element(Element),
}

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a step of a path")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Key, E> {
                if text == "." {
                    return Ok(Key::Itself);
                }
                Ok(Element::parse(text).map_err(E::custom)?.map_or(Key::Unknown, Key::Element))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_written_as_upstream_writes_them() {
        let check = |text: &str, expected: &str| assert_eq!(Set::parse(text).unwrap().to_json(), expected, "{text}");
        let same = |text: &str| check(text, text);
        same("{}");
        same(r#"{"f:metadata":{"f:labels":{".":{},"f:a":{},"f:b/c":{}}},"f:spec":{"f:replicas":{}}}"#);
        same(r#"{"f:ports":{".":{},"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{}}}}"#);
        check(r#"{"v:1":{},"i:0":{},"f:z":{},"k:{\"b\":1,\"a\":2}":{},"f:a":{}}"#, {
            r#"{"f:a":{},"f:z":{},"k:{\"a\":2,\"b\":1}":{},"v:1":{},"i:0":{}}"#
        });
        check(r#"{"v:\"<b>\"":{},"x:later":{"f:a":{}}}"#, r#"{"v:\"\\u003cb\\u003e\"":{}}"#);
        check(r#"{"v:\"b\"":{},"v:\"a\"":{},"v:10":{},"v:9":{}}"#, r#"{"v:9":{},"v:10":{},"v:\"a\"":{},"v:\"b\"":{}}"#);
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for text in ["", "[]", "{\"f\":{}}", "{\"ff:a\":{}}", "{\"k:1\":{}}", "{\"i:x\":{}}", "{\"f:a\":1}", "{} {}"] {
            assert!(Set::parse(text).is_err(), "{text}");
        }
    }
}
