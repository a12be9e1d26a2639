//! ControllerRevisions: the templates that an owner had, each under the hash that its Pods bear. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};
use xebec_api::Kind;

use crate::replicas::controller_reference;

/// The label of revisions and Pods that says which template they are of.
pub const HASH: &str = "controller-revision-hash";

/// What a revision remembers: a patch that brings the template back.
pub fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).expect("API types encode to JSON");
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// An owner's revisions: the one of the present template, if there is one, and the others, the oldest first.
pub struct History {
    pub current: Option<Arc<ControllerRevision>>,
    pub old: Vec<Arc<ControllerRevision>>,
}

impl History {
    pub fn of(revisions: &[Arc<ControllerRevision>], template: &PodTemplateSpec) -> Self {
        let data = data(template);
        let mut old = revisions.to_vec();
        old.sort_by_key(|one| (one.revision, one.metadata.name.clone()));
        let at = old.iter().rposition(|one| one.data.0 == data);
        let current = at.map(|at| old.remove(at));
        History { current, old }
    }

    /// The number that the present template's revision has to have.
    pub fn number(&self) -> i64 {
        self.old.iter().map(|one| one.revision.unwrap_or(0)).max().unwrap_or(0) + 1
    }

    /// Revisions beyond the limit that no Pod bears the hash of.
    pub fn surplus(&self, limit: Option<i32>, live: &BTreeSet<&str>) -> Vec<Arc<ControllerRevision>> {
        let keep = limit.unwrap_or(10).max(0) as usize;
        let count = self.old.len().saturating_sub(keep);
        self.old.iter().filter(|one| !live.contains(hash(one))).take(count).cloned().collect()
    }
}

pub fn hash(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(HASH)).or(revision.metadata.name.as_ref()).map_or("", String::as_str)
}

/// A new revision of an owner's template.
pub fn revision<K: Kind>(
    owner: &K,
    template: &PodTemplateSpec,
    collisions: Option<i32>,
    number: i64,
) -> ControllerRevision {
    let meta = owner.metadata();
    let data = data(template);
    let hash = short(&data, collisions);
    let mut labels: BTreeMap<String, String> =
        template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(HASH.to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", meta.name.as_deref().unwrap_or(""))),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: meta.annotations.clone(),
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: RawExtension(data),
        revision: Some(number),
    }
}

/// FNV-1a over the JSON, in the alphabet that upstream uses because it spells no words.
fn short(data: &Value, collisions: Option<i32>) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut text = data.to_string().into_bytes();
    text.extend(collisions.into_iter().flat_map(i32::to_le_bytes));
    let hash = text.iter().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::DaemonSet;

    use super::*;

    #[test]
    fn templates_are_found_again() {
        let template = |name: &str| -> PodTemplateSpec {
            serde_json::from_value(json!({"spec": {"containers": [{"name": name}]}})).unwrap()
        };
        let owner = DaemonSet::default();
        let made: Vec<_> = ["a", "b", "c"]
            .iter()
            .zip(1..)
            .map(|(name, number)| Arc::new(revision(&owner, &template(name), None, number)))
            .collect();
        let history = History::of(&made, &template("a"));
        assert_eq!((history.current.as_ref().unwrap().revision, history.number()), (Some(1), 4));
        assert_eq!(history.surplus(Some(1), &BTreeSet::new()).len(), 1);
        assert_eq!(history.surplus(Some(0), &[hash(&made[1])].into()).len(), 1);
        assert_eq!(History::of(&made, &template("d")).current, None);
        assert_ne!(hash(&made[0]), hash(&made[1]));
    }
}
