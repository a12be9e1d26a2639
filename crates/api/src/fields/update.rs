//! Who owns what after a write that was not an apply.

use std::collections::BTreeMap;

use serde_json::Value;

use super::compare::{Diff, compare};
use super::conflict::{Conflict, Conflicts};
use super::managed::{Entry, Managed, ManagerId, Operation};
use super::node::Node;
use super::set::{Pattern, Set};

/// So many managers of updates are kept apart, as upstream; the oldest become one.
const MAX_UPDATERS: usize = 10;
const OLDEST: &str = "ancient-changes";

/// What the server alone sets, or what says which object it is: nobody owns that.
const NOBODYS: &[&[&str]] = &[
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// The versions in which a kind is served.
pub trait Versions {
    /// The type in a version such as `apps/v1`; `None` if it is not served.
    fn node(&self, version: &str) -> Option<Node>;

    /// The object in another version, as upstream's encoder would write it.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value>;
}

/// Which fields a write can change at all, so that nobody comes to own what the server puts back.
#[derive(Clone, Copy, Debug)]
pub enum Filter {
    /// Everything but these and what is below them.
    Without(&'static [&'static Pattern]),
    /// Only these; `*` stands for any step.
    Only(&'static [&'static Pattern]),
}

#[derive(Debug, thiserror::Error)]
pub enum FieldsError {
    /// What is applied is no object of the kind.
    #[error("{0}")]
    Configuration(String),
    #[error("{0}")]
    Conflicts(Conflicts),
    /// The trees cannot be compared or merged.
    #[error("{0}")]
    Trees(String),
}

/// One write by one manager.
pub struct Owners<'a> {
    pub versions: &'a dyn Versions,
    /// The version of the request.
    pub version: &'a str,
    pub subresource: &'a str,
    pub manager: &'a str,
    pub filter: Filter,
    /// RFC 3339 in UTC, whole seconds.
    pub now: &'a str,
}

impl Filter {
    pub(super) fn of(self, set: Set) -> Set {
        match self {
            Filter::Without([]) => set,
            Filter::Without(paths) => set.recursive_difference(&Set::of(paths)),
            Filter::Only(patterns) => set.matching(patterns),
        }
    }
}

impl Owners<'_> {
    /// The owners after `old` became `new`; both are in the version of the request. What did not change may be left out of
    /// both, as long as all owners speak that version.
    pub fn update(&self, managed: Managed, old: &Value, new: &Value) -> Result<Managed, FieldsError> {
        let id = self.id(Operation::Update);
        let mut managed = self.reconciled(managed);
        let diffs = self.diffs(&managed, None, old, new)?;
        let diff = &diffs[self.version];
        let changed = stripped(self.filter.of(diff.modified.union(&diff.added)));
        settle(&mut managed, None, &diffs);
        if !changed.is_empty() {
            let fields = managed.get(&id).map_or_else(|| changed.clone(), |entry| changed.union(&entry.fields));
            let (api_version, time) = (self.version.to_owned(), Some(self.now.to_owned()));
            managed.put(Entry { id, api_version, time, fields });
        }
        cap(&mut managed);
        Ok(managed)
    }

    pub(super) fn id(&self, operation: Operation) -> ManagerId {
        let manager = if self.manager.is_empty() { "unknown" } else { self.manager };
        ManagerId::new(manager, operation, self.version, self.subresource)
    }

    /// Without the owners in versions that are gone, and with atoms owned as atoms.
    pub(super) fn reconciled(&self, mut managed: Managed) -> Managed {
        managed.0.retain_mut(|entry| {
            let Some(node) = self.versions.node(&entry.api_version) else { return false };
            if let Some(fields) = entry.fields.with_atoms(node) {
                entry.fields = fields;
            }
            true
        });
        managed
    }

    /// What changed, in the version of the request and in that of every owner but `itself`.
    pub(super) fn diffs(
        &self,
        managed: &Managed,
        itself: Option<&ManagerId>,
        old: &Value,
        new: &Value,
    ) -> Result<BTreeMap<String, Diff>, FieldsError> {
        let mut diffs = BTreeMap::from([(self.version.to_owned(), self.diff(self.version, old, new)?)]);
        for entry in managed.0.iter().filter(|entry| Some(&entry.id) != itself) {
            if diffs.contains_key(&entry.api_version) {
                continue;
            }
            let to = &entry.api_version;
            let convert = |object| self.versions.convert(object, self.version, to);
            if let (Some(old), Some(new)) = (convert(old), convert(new)) {
                diffs.insert(to.clone(), self.diff(to, &old, &new)?);
            }
        }
        Ok(diffs)
    }

    fn diff(&self, version: &str, old: &Value, new: &Value) -> Result<Diff, FieldsError> {
        let unknown = || FieldsError::Trees(format!("no corresponding type for {version}"));
        let node = self.versions.node(version).ok_or_else(unknown)?;
        let diff = compare(node, old, new)
            .map_err(|error| FieldsError::Trees(format!("failed to compare objects: {error}")))?;
        let filter = |set| self.filter.of(set);
        Ok(Diff { removed: filter(diff.removed), modified: filter(diff.modified), added: filter(diff.added) })
    }
}

/// The fields that a change takes from others.
pub(super) fn conflicts(managed: &Managed, itself: &ManagerId, diffs: &BTreeMap<String, Diff>) -> Vec<Conflict> {
    let mut others: Vec<&Entry> = managed.0.iter().filter(|entry| entry.id != *itself).collect();
    others.sort_by(|a, b| a.id.order(&b.id));
    let taken = others.into_iter().filter_map(|entry| {
        let diff = diffs.get(&entry.api_version)?;
        Some((entry, entry.fields.intersection(&diff.modified.union(&diff.added))))
    });
    let each = |(entry, fields): (&Entry, Set)| {
        let manager = entry.id.clone();
        fields.paths().into_iter().map(move |path| Conflict { manager: manager.clone(), path })
    };
    taken.flat_map(each).collect()
}

/// Takes from every owner but `itself` what changed or is gone; who owns nothing is gone, too.
pub(super) fn settle(managed: &mut Managed, itself: Option<&ManagerId>, diffs: &BTreeMap<String, Diff>) {
    managed.0.retain_mut(|entry| {
        if Some(&entry.id) == itself {
            return !entry.fields.is_empty();
        }
        let Some(diff) = diffs.get(&entry.api_version) else { return false };
        for lost in [&diff.modified, &diff.added, &diff.removed] {
            if !lost.is_empty() {
                entry.fields = entry.fields.difference(lost);
            }
        }
        !entry.fields.is_empty()
    });
}

pub(super) fn stripped(set: Set) -> Set {
    set.difference(&Set::of(NOBODYS))
}

/// Merges the oldest updates, each version by itself, until there are no more than [`MAX_UPDATERS`].
fn cap(managed: &mut Managed) {
    let mut updaters: Vec<(String, ManagerId)> = managed
        .0
        .iter()
        .filter(|entry| !entry.is_applied())
        .map(|entry| (entry.time.clone().unwrap_or_default(), entry.id.clone()))
        .collect();
    if updaters.len() <= MAX_UPDATERS {
        return;
    }
    updaters.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.order(&b.1)));
    let mut left = updaters.len();
    let mut first_of: BTreeMap<String, ManagerId> = BTreeMap::new();
    for (time, id) in updaters {
        if left <= MAX_UPDATERS {
            break;
        }
        let version = id.api_version.clone();
        let Some(first) = first_of.get(&version) else {
            first_of.insert(version, id);
            continue;
        };
        let bucket = ManagerId::new(OLDEST, Operation::Update, &version, "");
        if managed.get(&bucket).is_none()
            && let Some(entry) = managed.take(first)
        {
            managed.put(Entry { id: bucket.clone(), ..entry });
        }
        let (Some(merged), Some(entry)) = (managed.take(&bucket), managed.take(&id)) else { continue };
        let (api_version, fields) = (entry.api_version, entry.fields.union(&merged.fields));
        managed.put(Entry { id: bucket, api_version, time: Some(time).filter(|time| !time.is_empty()), fields });
        left -= 1;
    }
}
