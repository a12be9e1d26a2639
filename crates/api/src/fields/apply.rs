//! Server-side apply: a configuration merged into the live object, what its manager gave up taken away, and who owns what then.

use std::borrow::Cow;

use serde_json::Value;

use super::check::check;
use super::compare::compare;
use super::conflict::Conflicts;
use super::element::same;
use super::extract::extract;
use super::managed::{Entry, Managed, ManagerId, Operation};
use super::merge::merge;
use super::node::Node;
use super::remove::remove;
use super::set::Set;
use super::update::{FieldsError, Owners, conflicts, settle, stripped};

/// Who owned the fields of an object that was never applied and has no owners on record.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The one manager that takes over from client-side apply without conflicts.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// All annotations of an object together.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// What an apply makes of an object.
pub struct Applied {
    /// In the version of the request. A null stands where all that was below has gone.
    pub object: Value,
    pub managed: Managed,
}

impl Owners<'_> {
    /// Applies `config` to the live object, both in the version of the request; the live object may be that of a kind's zero
    /// value. What others own is only taken with `force`.
    pub fn apply(&self, managed: Managed, live: &Value, config: &Value, force: bool) -> Result<Applied, FieldsError> {
        let node = self.node(self.version)?;
        check(node, config).map_err(FieldsError::Configuration)?;
        let managed = if managed.is_empty() { self.before_first_apply(live)? } else { managed };
        let applied = match self.try_apply(managed.clone(), live, config, force) {
            Err(FieldsError::Conflicts(found)) if self.manager == KUBECTL => {
                self.without_own_conflicts(node, found, live)?;
                self.try_apply(managed, live, config, true)
            }
            result => result,
        };
        let mut applied = applied?;
        if self.manager == KUBECTL {
            follow_last_applied(&mut applied.object, config);
        }
        Ok(applied)
    }

    fn node(&self, version: &str) -> Result<Node, FieldsError> {
        let unknown = || FieldsError::Trees(format!("no corresponding type for {version}"));
        self.versions.node(version).ok_or_else(unknown)
    }

    fn before_first_apply(&self, live: &Value) -> Result<Managed, FieldsError> {
        let ty = self.node(self.version)?.shape().object();
        let mut nothing = Value::Object(Default::default());
        if let Some(ty) = ty {
            crate::schema::canonical(&mut nothing, ty);
        }
        Owners { manager: BEFORE_FIRST_APPLY, ..*self }.update(Managed::default(), &nothing, live)
    }

    fn try_apply(&self, managed: Managed, live: &Value, config: &Value, force: bool) -> Result<Applied, FieldsError> {
        let node = self.node(self.version)?;
        let id = self.id(Operation::Apply);
        let mut managed = self.reconciled(managed);
        let merged = merge(node, live, config)
            .map_err(|error| FieldsError::Trees(format!("failed to merge config: {error}")))?;
        let last = managed.take(&id);
        let fields = self.filter.of(extract(node, config));
        let time = last.as_ref().and_then(|last| last.time.clone());
        managed.put(Entry { id: id.clone(), api_version: self.version.to_owned(), time, fields });
        let object = self.pruned(merged, &managed, last.as_ref())?;
        let diffs = self.diffs(&managed, Some(&id), live, &object)?;
        let found = conflicts(&managed, &id, &diffs);
        if !force && !found.is_empty() {
            return Err(FieldsError::Conflicts(Conflicts(found)));
        }
        settle(&mut managed, Some(&id), &diffs);
        let unchanged = same(live, &object);
        self.finish(&mut managed, &id, unchanged);
        Ok(Applied { object: if unchanged { live.clone() } else { object }, managed })
    }

    /// Takes from the manager's own entry what nobody owns, and dates it if the object changed.
    fn finish(&self, managed: &mut Managed, id: &ManagerId, unchanged: bool) {
        let Some(mut entry) = managed.take(id) else { return };
        entry.fields = stripped(entry.fields);
        if !unchanged {
            entry.time = Some(self.now.to_owned());
        }
        if !entry.fields.is_empty() {
            managed.put(entry);
        }
    }

    /// Without the fields that the manager applied last time, does not apply now, and nobody else owns.
    fn pruned(&self, merged: Value, managed: &Managed, last: Option<&Entry>) -> Result<Value, FieldsError> {
        let Some(last) = last.filter(|last| !last.fields.is_empty()) else { return Ok(merged) };
        let version = &last.api_version;
        let Some(merged_then) = self.converted(&merged, self.version, version) else { return Ok(merged) };
        let node = self.node(version)?;
        let pruned = taken(node, &merged_then, &last.fields.with_named_fields(Some(node)));
        let pruned = self.with_owned(&merged_then, pruned, version, managed)?;
        let pruned = with_dangling(node, &merged_then, &pruned, last);
        let back = self.converted(&pruned, version, self.version).map(Cow::into_owned);
        back.ok_or_else(|| FieldsError::Trees(format!("failed to convert from {version} to {}", self.version)))
    }

    fn converted<'o>(&self, object: &'o Value, from: &str, to: &str) -> Option<Cow<'o, Value>> {
        if from == to { Some(Cow::Borrowed(object)) } else { self.versions.convert(object, from, to).map(Cow::Owned) }
    }

    /// With what was taken though somebody owns it now; returned in `version`.
    fn with_owned(
        &self,
        merged: &Value,
        pruned: Value,
        version: &str,
        managed: &Managed,
    ) -> Result<Value, FieldsError> {
        let mut owned: Vec<(&str, Set)> = vec![(version, Set::new())];
        for entry in &managed.0 {
            match owned.iter_mut().find(|(own, _)| *own == entry.api_version) {
                Some((_, set)) => *set = set.union(&entry.fields),
                None => owned.push((&entry.api_version, entry.fields.clone())),
            }
        }
        let mut pruned = pruned;
        for (other, owned) in owned {
            let node = self.node(other)?;
            let merged = self.converted(merged, version, other);
            let left = self.converted(&pruned, version, other);
            let (Some(merged), Some(left)) = (merged, left) else { continue };
            let named = |value: &Value| extract(node, value).with_named_fields(Some(node));
            let stays = named(&left).union(&owned.with_named_fields(Some(node)));
            let back = taken(node, &merged, &named(&merged).difference(&stays));
            let back = self.converted(&back, other, version).map(Cow::into_owned);
            if let Some(back) = back {
                pruned = back;
            }
        }
        Ok(pruned)
    }

    /// Conflicts over what client-side apply set last do not count; the error names those that are left.
    fn without_own_conflicts(&self, node: Node, found: Conflicts, live: &Value) -> Result<(), FieldsError> {
        let Some(allowed) = self.last_applied(node, live) else { return Err(FieldsError::Conflicts(found)) };
        let left: Vec<_> = found.0.into_iter().filter(|conflict| !allowed.has(&conflict.path.0)).collect();
        if left.is_empty() { Ok(()) } else { Err(FieldsError::Conflicts(Conflicts(left))) }
    }

    /// The fields that client-side apply set and that still have its values.
    fn last_applied(&self, node: Node, live: &Value) -> Option<Set> {
        let text = live.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()?;
        let last: Value = serde_json::from_str(text).ok()?;
        if last.get("apiVersion").and_then(Value::as_str) != Some(self.version) || check(node, &last).is_err() {
            return None;
        }
        let diff = compare(node, &last, live).ok()?;
        Some(extract(node, &last).difference(&diff.modified).difference(&diff.added).difference(&diff.removed))
    }
}

fn taken(node: Node, value: &Value, fields: &Set) -> Value {
    remove(node, value, fields).unwrap_or(Value::Null)
}

/// With what was taken though the manager did not own it: things below a field that it gave up.
fn with_dangling(node: Node, merged: &Value, pruned: &Value, last: &Entry) -> Value {
    let named = |set: Set| set.with_named_fields(Some(node));
    let gone = named(extract(node, merged)).difference(&named(extract(node, pruned)));
    taken(node, merged, &gone.intersection(&last.fields.with_named_fields(Some(node))))
}

/// Keeps the annotation of client-side apply in step, so that it can be returned to.
fn follow_last_applied(object: &mut Value, config: &Value) {
    let annotations =
        object.get_mut("metadata").and_then(|meta| meta.get_mut("annotations")).and_then(Value::as_object_mut);
    let Some(annotations) =
        annotations.filter(|all| all.get(LAST_APPLIED).and_then(Value::as_str).is_some_and(|text| !text.is_empty()))
    else {
        return;
    };
    let mut config = config.clone();
    if let Some(own) =
        config.get_mut("metadata").and_then(|meta| meta.get_mut("annotations")).and_then(Value::as_object_mut)
    {
        own.shift_remove(LAST_APPLIED);
    }
    config.sort_all_objects();
    let text = config.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    annotations.insert(LAST_APPLIED.to_owned(), Value::String(text + "\n"));
    let size = |(key, value): (&String, &Value)| key.len() + value.as_str().map_or(0, str::len);
    if annotations.iter().map(size).sum::<usize>() > MAX_ANNOTATIONS {
        annotations.shift_remove(LAST_APPLIED);
    }
}
