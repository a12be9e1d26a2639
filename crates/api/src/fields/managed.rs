//! `metadata.managedFields`: one entry for each manager, its operation, and for updates the version it spoke.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::set::Set;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn text(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// What tells entries apart. Whoever applies has one entry, whatever version it applied in last: its `api_version` is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagerId {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    pub subresource: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: ManagerId,
    /// The version in which `fields` are.
    pub api_version: String,
    /// RFC 3339 in UTC, whole seconds, so that texts order as times do.
    pub time: Option<String>,
    pub fields: Set,
}

/// All entries of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managed(pub Vec<Entry>);

#[derive(Debug, thiserror::Error)]
pub enum ManagedError {
    #[error("managed fields cannot be read")]
    Json(#[from] serde_json::Error),
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    #[error("apiVersion must not be empty")]
    Version,
    #[error("invalid fieldsType {0:?} in managed fields entry")]
    FieldsType(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Encoded<'a> {
    #[serde(default, borrow)]
    manager: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    operation: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    api_version: Option<Cow<'a, str>>,
    #[serde(default)]
    time: Option<String>,
    #[serde(default, borrow)]
    fields_type: Option<Cow<'a, str>>,
    #[serde(default, borrow, rename = "fieldsV1")]
    fields: Option<&'a RawValue>,
    #[serde(default, borrow)]
    subresource: Option<Cow<'a, str>>,
}

impl Entry {
    fn decode(encoded: Encoded<'_>) -> Result<Entry, ManagedError> {
        let operation = match encoded.operation.as_deref() {
            Some("Apply") => Operation::Apply,
            Some("Update") => Operation::Update,
            _ => return Err(ManagedError::Operation),
        };
        let text = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned).unwrap_or_default();
        let api_version = text(encoded.api_version);
        if api_version.is_empty() {
            return Err(ManagedError::Version);
        }
        let fields_type = text(encoded.fields_type);
        if fields_type != "FieldsV1" {
            return Err(ManagedError::FieldsType(fields_type));
        }
        let fields = encoded.fields.map(|fields| Set::parse(fields.get())).transpose()?.unwrap_or_default();
        let id = ManagerId::new(&text(encoded.manager), operation, &api_version, &text(encoded.subresource));
        Ok(Entry { id, api_version, time: encoded.time, fields })
    }

    fn encode(&self, out: &mut String) {
        let mut field = |name: &str, value: &str| {
            if !value.is_empty() {
                let comma = if out.ends_with('{') { "" } else { "," };
                out.push_str(&format!("{comma}\"{name}\":{}", Value::from(value)));
            }
        };
        field("manager", &self.id.manager);
        field("operation", self.id.operation.text());
        field("apiVersion", &self.api_version);
        field("time", self.time.as_deref().unwrap_or(""));
        field("fieldsType", "FieldsV1");
        out.push_str(",\"fieldsV1\":");
        self.fields.write_json(out);
        if !self.id.subresource.is_empty() {
            out.push_str(&format!(",\"subresource\":{}", Value::from(self.id.subresource.as_str())));
        }
    }

    pub fn is_applied(&self) -> bool {
        self.id.operation == Operation::Apply
    }

    fn sort_key(&self) -> impl Ord + '_ {
        let (id, time) = (&self.id, self.time.as_deref().unwrap_or(""));
        (id.operation, time, &id.manager, &self.api_version, &id.subresource)
    }
}

impl ManagerId {
    pub fn new(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        let api_version = if operation == Operation::Apply { "" } else { api_version };
        ManagerId {
            manager: manager.to_owned(),
            operation,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    /// Managers are ordered as the JSON texts are by which upstream knows them.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let text = |id: &Self| {
            let version =
                |text: &str| if text.is_empty() { String::new() } else { format!(",\"apiVersion\":{text:?}") };
            let part = |text: &str| if text.is_empty() { String::new() } else { format!(",\"subresource\":{text:?}") };
            let operation = id.operation.text();
            format!("{:?},{operation:?}{}{}", id.manager, version(&id.api_version), part(&id.subresource))
        };
        text(self).cmp(&text(other))
    }
}

impl Managed {
    /// Reads the JSON text of `metadata.managedFields`.
    pub fn parse(text: &str) -> Result<Managed, ManagedError> {
        let encoded: Vec<Encoded<'_>> = serde_json::from_str(text)?;
        let mut managed = Managed::default();
        for entry in encoded {
            managed.put(Entry::decode(entry)?);
        }
        Ok(managed)
    }

    /// Reads the value of `metadata.managedFields` that a client sent.
    pub fn from_value(value: &Value) -> Result<Managed, ManagedError> {
        Managed::parse(&value.to_string())
    }

    /// The JSON text, applied entries first, each kind by time and name; empty for no entries.
    pub fn to_json(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let mut sorted: Vec<&Entry> = self.0.iter().collect();
        sorted.sort_by(|a, b| a.sort_key().cmp(&b.sort_key()));
        let mut out = String::from("[");
        for (at, entry) in sorted.into_iter().enumerate() {
            out.push_str(if at > 0 { ",{" } else { "{" });
            entry.encode(&mut out);
            out.push('}');
        }
        out.push(']');
        out
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, id: &ManagerId) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.id == *id)
    }

    pub(super) fn take(&mut self, id: &ManagerId) -> Option<Entry> {
        let at = self.0.iter().position(|entry| entry.id == *id)?;
        Some(self.0.swap_remove(at))
    }

    pub(super) fn put(&mut self, entry: Entry) {
        match self.0.iter_mut().find(|own| own.id == entry.id) {
            Some(own) => *own = entry,
            None => self.0.push(entry),
        }
    }

    /// Whether the two say the same of who owns what, whenever it was.
    pub fn same_owners(&self, other: &Managed) -> bool {
        let same = |a: &Entry, b: &Entry| a.api_version == b.api_version && a.fields == b.fields;
        self.0.len() == other.0.len()
            && self.0.iter().all(|entry| other.get(&entry.id).is_some_and(|own| same(entry, own)))
    }
}

/// Whether a client asks to forget all owners: an empty list, or one empty entry.
pub fn is_reset(sent: &Value) -> bool {
    let empty = |entry: &Value| entry.as_object().is_some_and(|entry| entry.is_empty());
    sent.as_array().is_some_and(|entries| entries.is_empty() || (entries.len() == 1 && empty(&entries[0])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_sorted_and_written_as_upstream_does() {
        let text = concat!(
            r#"[{"manager":"a","operation":"Apply","apiVersion":"v1","time":"2024-01-02T00:00:00Z","fieldsType":"FieldsV1","#,
            r#""fieldsV1":{"f:data":{"f:x":{}}}},"#,
            r#"{"manager":"z","operation":"Update","apiVersion":"v1","time":"2024-01-01T00:00:00Z","fieldsType":"FieldsV1","#,
            r#""fieldsV1":{},"subresource":"status"},"#,
            r#"{"manager":"b","operation":"Update","apiVersion":"v1","time":"2024-01-02T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{}}]"#,
        );
        let mut managed = Managed::parse(text).unwrap();
        managed.0.reverse();
        assert_eq!(managed.to_json(), text);
        assert_eq!(Managed::default().to_json(), "");
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let check = |entry: &str| assert!(Managed::parse(&format!("[{entry}]")).is_err(), "{entry}");
        check("{}");
        check(r#"{"operation":"Delete","apiVersion":"v1","fieldsType":"FieldsV1"}"#);
        check(r#"{"operation":"Apply","fieldsType":"FieldsV1"}"#);
        check(r#"{"operation":"Apply","apiVersion":"v1"}"#);
        check(r#"{"operation":"Apply","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"q":{}}}"#);
    }

    #[test]
    fn an_empty_list_or_entry_resets() {
        let check = |text: &str| is_reset(&serde_json::from_str(text).unwrap());
        assert!(check("[]") && check("[{}]"));
        assert!(!check("null") && !check("[{},{}]") && !check(r#"[{"manager":"a"}]"#));
    }
}
