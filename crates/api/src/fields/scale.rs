//! The owners of a kind as those of its `scale` subresource, which has one field, and back.

use super::managed::{Entry, Managed, ManagerId};
use super::set::Set;

const SCALE: &str = "autoscaling/v1";
const REPLICAS: &[&str] = &["spec", "replicas"];

/// The owners of `spec.replicas` alone, in the scale's version; those in versions not listed are left out.
pub fn to_scale(parent: &Managed, versions: &[&str]) -> Managed {
    let replicas = Set::of(&[REPLICAS]);
    let owning = parent.0.iter().filter(|entry| knows(versions, entry) && owns(entry, &replicas));
    Managed(owning.map(|entry| in_version(entry, SCALE, replicas.clone(), entry.time.clone())).collect())
}

/// The owners of the whole after those of the scale changed; `version` is the kind's in the request.
///
/// As upstream, owners by update are not recognised again: they come back as entries of their own, without a time.
pub fn from_scale(parent: &Managed, mut scale: Managed, version: &str, versions: &[&str]) -> Managed {
    let replicas = Set::of(&[REPLICAS]);
    let mut out = Managed::default();
    for entry in parent.0.iter().filter(|entry| knows(versions, entry)) {
        if !owns(entry, &replicas) || scale.take(&entry.id).is_some() {
            out.0.push(entry.clone());
            continue;
        }
        let fields = entry.fields.difference(&replicas);
        if !fields.is_empty() {
            out.0.push(Entry { fields, ..entry.clone() });
        }
    }
    for entry in scale.0.iter().filter(|entry| owns(entry, &replicas)) {
        let time = parent.get(&entry.id).and_then(|own| own.time.clone());
        out.0.push(in_version(entry, version, replicas.clone(), time));
    }
    out
}

fn in_version(entry: &Entry, version: &str, fields: Set, time: Option<String>) -> Entry {
    let id = ManagerId::new(&entry.id.manager, entry.id.operation, version, &entry.id.subresource);
    Entry { id, api_version: version.to_owned(), time, fields }
}

fn knows(versions: &[&str], entry: &Entry) -> bool {
    versions.contains(&entry.api_version.as_str())
}

fn owns(entry: &Entry, replicas: &Set) -> bool {
    !entry.fields.intersection(replicas).is_empty()
}
