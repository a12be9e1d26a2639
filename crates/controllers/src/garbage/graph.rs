//! Who owns whom, by uid, kept from watches. Pure: every change says which objects have to be looked at.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use xebec_api::object::Owner;
use xebec_api::{Object, ObjectKey, ResourceType};

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// Where an object lies.
#[derive(Clone, Debug)]
pub struct Place {
    pub resource: Arc<ResourceType>,
    pub key: ObjectKey,
    pub uid: String,
}

impl Place {
    pub fn path(&self) -> String {
        self.resource.object_path(Some(&self.key.namespace), &self.key.name)
    }
}

#[derive(Debug)]
struct Vertex {
    place: Place,
    owners: Box<[Owner]>,
    deleting: bool,
    foreground: bool,
    orphan: bool,
}

#[derive(Default)]
pub struct Graph {
    vertices: HashMap<String, Vertex>,
    /// By owner's uid, also of owners that are not (yet) known.
    dependents: HashMap<String, BTreeSet<String>>,
    kinds: HashMap<(String, String), ResourceType>,
    followed: HashSet<(String, String)>,
}

impl Graph {
    /// Whether the kind was not known before.
    pub fn add_kind(&mut self, resource: &ResourceType) -> bool {
        self.kinds.insert((resource.api_version(), resource.kind.to_string()), resource.clone());
        self.followed.insert((resource.group.to_string(), resource.plural.to_string()))
    }

    pub fn kind(&self, api_version: &str, kind: &str) -> Option<ResourceType> {
        self.kinds.get(&(api_version.to_owned(), kind.to_owned())).cloned()
    }

    /// Notes an object's present state; returns the uids to look at.
    pub fn put(&mut self, resource: &Arc<ResourceType>, object: &Object) -> Vec<String> {
        let (meta, uid) = (object.meta(), object.meta().uid.to_string());
        let has = |finalizer: &str| meta.finalizers.iter().any(|one| &**one == finalizer);
        let vertex = Vertex {
            place: Place { resource: resource.clone(), key: meta.key.clone(), uid: uid.clone() },
            owners: meta.owners.clone(),
            deleting: meta.deleting,
            foreground: meta.deleting && has(FOREGROUND),
            orphan: meta.deleting && has(ORPHAN),
        };
        if let Some(old) = self.vertices.remove(&uid) {
            self.unlink(&uid, &old.owners);
        }
        for owner in vertex.owners.iter() {
            self.dependents.entry(owner.uid.to_string()).or_default().insert(uid.clone());
        }
        let mut woken = Vec::new();
        if vertex.foreground || vertex.orphan {
            woken.push(uid.clone());
        }
        if vertex.foreground {
            woken.extend(self.dependents.get(&uid).into_iter().flatten().cloned());
        }
        if !vertex.owners.is_empty() && !vertex.deleting {
            let suspect = |owner: &Owner| self.vertices.get(&*owner.uid).is_none_or(|owner| owner.foreground);
            let strange = |owner: &Owner| {
                self.vertices.get(&*owner.uid).is_some_and(|owner| owner.place.key.namespace != meta.key.namespace)
            };
            if vertex.owners.iter().any(|owner| suspect(owner) || strange(owner)) {
                woken.push(uid.clone());
            }
        }
        self.vertices.insert(uid, vertex);
        woken
    }

    /// The object is gone: its dependents, and owners that waited for it, are to be looked at.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let mut woken: Vec<String> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        if let Some(vertex) = self.vertices.remove(uid) {
            self.unlink(uid, &vertex.owners);
            let waiting = |owner: &&Owner| self.vertices.get(&*owner.uid).is_some_and(|owner| owner.foreground);
            woken.extend(vertex.owners.iter().filter(waiting).map(|owner| owner.uid.to_string()));
        }
        woken
    }

    fn unlink(&mut self, uid: &str, owners: &[Owner]) {
        for owner in owners {
            if let Some(dependents) = self.dependents.get_mut(&*owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&*owner.uid);
                }
            }
        }
    }

    pub fn place(&self, uid: &str) -> Option<Place> {
        self.vertices.get(uid).map(|vertex| vertex.place.clone())
    }

    /// Whether a known object is being deleted in the foreground, and its namespace.
    pub fn state(&self, uid: &str) -> Option<(bool, String)> {
        self.vertices.get(uid).map(|vertex| (vertex.foreground, vertex.place.key.namespace.to_string()))
    }

    pub fn is_deleting_in_foreground(&self, uid: &str) -> bool {
        self.vertices.get(uid).is_some_and(|vertex| vertex.foreground)
    }

    pub fn dependents(&self, uid: &str) -> Vec<Place> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|uid| self.place(uid)).collect()
    }

    /// Whether a dependent is left that its owner has to wait for.
    pub fn has_blocking_dependents(&self, uid: &str) -> bool {
        let mut dependents = self.dependents.get(uid).into_iter().flatten().filter_map(|uid| self.vertices.get(uid));
        dependents.any(|vertex| vertex.owners.iter().any(|owner| &*owner.uid == uid && owner.block_owner_deletion))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;

    fn put(graph: &mut Graph, uid: &str, owner: Option<&str>, more: Value) -> Vec<String> {
        let mut meta = json!({"name": uid, "namespace": "n", "uid": uid});
        if let Some(owner) = owner {
            meta["ownerReferences"] =
                json!([{"apiVersion": "v1", "kind": "K", "name": owner, "uid": owner, "blockOwnerDeletion": true}]);
        }
        json_patch::merge(&mut meta, &more);
        let raw = serde_json::to_vec(&json!({"metadata": meta})).unwrap();
        let object = Object::from_wire(Bytes::from(raw)).unwrap();
        graph.put(&Arc::new(ResourceType::new("", "v1", "K", "ks", true)), &object)
    }

    #[test]
    fn the_right_objects_are_looked_at() {
        let mut graph = Graph::default();
        assert!(put(&mut graph, "a", None, json!({})).is_empty());
        assert!(put(&mut graph, "b", Some("a"), json!({})).is_empty(), "its owner is there");
        assert_eq!(put(&mut graph, "c", Some("missing"), json!({})), ["c"]);
        let foreground = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FOREGROUND]});
        assert_eq!(put(&mut graph, "a", None, foreground), ["a", "b"]);
        assert!(graph.has_blocking_dependents("a"));
        assert_eq!(graph.remove("b"), ["a"], "the owner waited for it");
        assert!(!graph.has_blocking_dependents("a"));
    }

    #[test]
    fn a_gone_owner_wakes_its_dependents() {
        let mut graph = Graph::default();
        put(&mut graph, "a", None, json!({}));
        put(&mut graph, "b", Some("a"), json!({}));
        assert_eq!(graph.remove("a"), ["b"]);
    }
}
