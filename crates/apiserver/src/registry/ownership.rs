//! Who owns which field of an object after a write: `metadata.managedFields`, once for all kinds.
//!
//! Objects in memory do not carry their owners: the list is text beside the stored object, read when a write changes something
//! and put back when the object is encoded. An update is compared only where its encoding differs from the stored one. What
//! ownership means is `xebec_api::fields`; here is where it meets requests, versions and the clock. Kinds that the schema
//! table does not know have no owners.

use std::borrow::Cow;

use serde_json::{Map, Value};
use xebec_api::field::{FieldError, FieldErrors, Path};
use xebec_api::fields::{Entry, FieldsError, Filter, Managed, Node, Owners, Versions, is_reset};
use xebec_api::schema;

use super::erased::AnyObject;
use super::store::parts;
use super::{Call, Index, Registry, Served, metadata};
use crate::cache::Item;
use crate::options;

/// As upstream bounds the name of a subresource.
const MAX_SUBRESOURCE: usize = 256;

/// What a request says of owners itself.
pub enum Asked {
    Nothing,
    /// Forget them all.
    Reset,
    These(Managed),
}

impl Asked {
    /// Takes `metadata.managedFields` out of a tree. Through a subresource nobody changes owners, and what cannot be read
    /// counts as not sent.
    pub fn take(tree: &mut Value, subresource: &str) -> Asked {
        let metadata = tree.get_mut("metadata").and_then(Value::as_object_mut);
        let sent = metadata.and_then(|metadata| metadata.shift_remove("managedFields"));
        match sent {
            Some(sent) if subresource.is_empty() => {
                if is_reset(&sent) {
                    return Asked::Reset;
                }
                match Managed::from_value(&sent) {
                    Ok(managed) if !managed.is_empty() => Asked::These(managed),
                    _ => Asked::Nothing,
                }
            }
            _ => Asked::Nothing,
        }
    }

    /// What is wrong with the owners that a client sent.
    pub(super) fn validate(&self) -> FieldErrors {
        let Asked::These(managed) = self else { return FieldErrors::new() };
        let path = Path::new("metadata").child("managedFields");
        let mut errors = FieldErrors::new();
        for (at, entry) in managed.0.iter().enumerate() {
            let path = path.index(at);
            options::field_manager(&mut errors, &path.child("manager"), &entry.id.manager);
            if entry.id.subresource.len() > MAX_SUBRESOURCE {
                errors.push(FieldError::too_long(&path.child("subresource"), MAX_SUBRESOURCE));
            }
        }
        errors
    }
}

/// The owners after a write.
pub(super) struct Ownership {
    /// The JSON text of the list; empty for none.
    pub text: String,
    /// They are others than before, whenever that was.
    pub changed: bool,
}

/// One manager's write of one kind in the version of its request.
pub struct Writer<'a> {
    index: &'a Index,
    served: &'a Served,
    version: String,
    subresource: &'a str,
    manager: &'a str,
    now: String,
}

impl<'a> Writer<'a> {
    pub fn owners(&'a self) -> Owners<'a> {
        Owners {
            versions: self,
            version: &self.version,
            subresource: self.subresource,
            manager: self.manager,
            filter: self.filter(),
            now: &self.now,
        }
    }

    fn filter(&self) -> Filter {
        self.served.strategy.ownable(self.subresource)
    }

    /// A tree in the stored form as upstream writes it in a version.
    fn shown(&self, tree: Value, served: &Served) -> Value {
        let mut tree = match served.row.conversion {
            Some(conversion) => (conversion.from_stored)(tree),
            None => tree,
        };
        if let Some(ty) = served.schema {
            schema::canonical(&mut tree, ty);
        }
        tree
    }

    fn form(&self, version: &str) -> Option<&Served> {
        if version == self.version { Some(self.served) } else { self.index.form(self.served, version) }
    }

    /// The object of a kind that sets nothing, and the object as it is, both in the version of the request.
    pub fn live(&self, item: Option<&Item>) -> Result<Value, serde_json::Error> {
        let tree = match item {
            Some(item) => serde_json::from_slice(&item.object.plain())?,
            None => Value::Object(Map::new()),
        };
        Ok(self.shown(tree, self.served))
    }

    /// The object before and after, in the version of the request, without parts that are the same. `None`: all are.
    fn change(&self, before: &Item, new: &dyn AnyObject, managed: &Managed) -> Option<(Value, Value)> {
        let (old, new) = (before.object.plain(), Cow::Owned(new.encode()));
        if old == new {
            return None;
        }
        let foreign = |entry: &Entry| entry.api_version != self.version;
        let pair = if self.served.row.conversion.is_some() || managed.0.iter().any(foreign) {
            (serde_json::from_slice(&old).ok()?, serde_json::from_slice(&new).ok()?)
        } else {
            differing(&old, &new)?
        };
        Some((self.shown(pair.0, self.served), self.shown(pair.1, self.served)))
    }
}

/// The top-level fields whose texts differ.
fn differing(old: &[u8], new: &[u8]) -> Option<(Value, Value)> {
    let (a, b) = (parts(old)?, parts(new)?);
    let (mut old, mut new) = (Map::new(), Map::new());
    for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
        let (before, after) = (a.get(key).map(|text| text.get()), b.get(key).map(|text| text.get()));
        if before == after {
            continue;
        }
        for (text, fields) in [(before, &mut old), (after, &mut new)] {
            if let Some(text) = text {
                fields.insert((*key).to_owned(), serde_json::from_str(text).ok()?);
            }
        }
    }
    Some((Value::Object(old), Value::Object(new)))
}

impl Versions for Writer<'_> {
    fn node(&self, version: &str) -> Option<Node> {
        self.form(version)?.schema.map(Node::of)
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        let (from, to) = (self.form(from)?, self.form(to)?);
        let object = object.clone();
        let stored =
            from.row.conversion.map_or_else(|| object.clone(), |conversion| (conversion.to_stored)(object.clone()));
        Some(self.shown(stored, to))
    }
}

impl Registry {
    pub fn writer<'a>(&'a self, served: &'a Served, subresource: &'a str, manager: &'a str) -> Writer<'a> {
        let now = metadata::whole_seconds(self.clock.now()).0.to_string();
        let version = served.resource().api_version();
        Writer { index: &self.index, served, version, subresource, manager, now }
    }

    /// The owners of a new object.
    pub(super) fn first_owners(&self, served: &Served, new: &dyn AnyObject, asked: Asked, manager: &str) -> Ownership {
        let sent = match asked {
            Asked::These(sent) => sent,
            Asked::Nothing | Asked::Reset => Managed::default(),
        };
        let writer = self.writer(served, "", manager);
        let after = || -> Result<Managed, FieldsError> {
            let unreadable = |error: serde_json::Error| FieldsError::Trees(error.to_string());
            let nothing = writer.live(None).map_err(unreadable)?;
            writer.owners().update(sent, &nothing, &writer.shown(new.tree(), served))
        };
        let text = if served.schema.is_some() {
            after().map_or_else(|_| String::new(), |after| after.to_json())
        } else {
            String::new()
        };
        Ownership { text, changed: true }
    }

    /// The owners after a change that was no apply. Where they cannot be found, they stay as they are.
    pub(super) fn next_owners(
        &self,
        served: &Served,
        before: &Item,
        new: &dyn AnyObject,
        asked: Asked,
        call: &Call<'_>,
    ) -> Ownership {
        let text = before.object.managed_fields().unwrap_or("");
        let stay = || Ownership { text: text.to_owned(), changed: false };
        let live = || if text.is_empty() { Managed::default() } else { Managed::parse(text).unwrap_or_default() };
        let (live, managed) = match asked {
            Asked::Nothing => {
                let live = live();
                (None, live)
            }
            Asked::Reset => (Some(live()), Managed::default()),
            Asked::These(sent) => (Some(live()), sent),
        };
        // An object that nobody is known to own is not followed before it is applied for the first time.
        if managed.is_empty() {
            return Ownership { text: String::new(), changed: !text.is_empty() };
        }
        let writer = self.writer(served, call.subresource, &call.manager);
        if served.schema.is_none() {
            return stay();
        }
        let change = writer.change(before, new, &managed);
        let before = live.unwrap_or_else(|| managed.clone());
        // Even where nothing changed, owners in versions that are gone go.
        let nothing =
            || (writer.shown(Value::Object(Map::new()), served), writer.shown(Value::Object(Map::new()), served));
        let (old, new) = change.unwrap_or_else(nothing);
        match writer.owners().update(managed, &old, &new) {
            Ok(after) if after.same_owners(&before) => stay(),
            Ok(after) => Ownership { text: after.to_json(), changed: true },
            Err(error) => {
                tracing::debug!(%error, "the owners of an object's fields were left as they were");
                stay()
            }
        }
    }
}
