//! The resources that the server serves, looked up by group, version and plural.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use xebec_api::resource::ResourceType;
use xebec_api::schema::{self, Type};

use super::erased::{AnyStrategy, Row};
use crate::cache::ResourceCache;

/// One resource in one version, with what is behind it.
pub struct Served {
    pub row: Row,
    pub strategy: Arc<dyn AnyStrategy>,
    /// Shared with the other forms of the same stored kind.
    pub cache: Arc<ResourceCache>,
    /// The table's description of this form; `None` for kinds that it does not know.
    pub schema: Option<&'static Type>,
}

impl Served {
    pub fn resource(&self) -> &ResourceType {
        &self.row.resource
    }

    /// The resource in whose form shared encodings are: the stored kind's own if this is it, so that they can be told apart
    /// by address.
    pub fn line_form(&self) -> &ResourceType {
        if self.row.conversion.is_none() { &self.cache.resource } else { &self.row.resource }
    }

    /// The name of a field selector's field in the stored form.
    pub fn field_aliases(&self) -> &'static [(&'static str, &'static str)] {
        self.row.conversion.map_or(&[], |conversion| conversion.fields)
    }

    pub fn has_subresource(&self, name: &str) -> bool {
        match name {
            "status" => self.strategy.has_status(),
            "scale" => self.strategy.has_scale(),
            _ => self.row.subresources.contains(&name),
        }
    }
}

type Plurals = HashMap<String, Arc<Served>>;

/// All served resources.
pub struct Index {
    rows: Vec<Arc<Served>>,
    groups: HashMap<String, HashMap<String, Plurals>>,
}

impl Index {
    pub fn new(rows: Vec<Row>) -> Self {
        let mut caches: BTreeMap<ResourceType, Arc<ResourceCache>> = BTreeMap::new();
        let mut index = Index { rows: Vec::with_capacity(rows.len()), groups: HashMap::new() };
        // A view finds the cache of the row that stores its kind, wherever in the table that row is.
        let (owners, views): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.conversion.is_none());
        for row in owners.into_iter().chain(views) {
            let strategy = (row.strategy)();
            let cache = caches
                .entry(row.stored.clone())
                .or_insert_with(|| Arc::new(ResourceCache::new(&row, strategy.clone())))
                .clone();
            let ResourceType { group, version, kind, plural, .. } = row.resource.clone();
            let schema = schema::table().type_of(&group, &version, &kind);
            let served = Arc::new(Served { row, strategy, cache, schema });
            let versions = index.groups.entry(group.into_owned()).or_default();
            versions.entry(version.into_owned()).or_default().insert(plural.into_owned(), served.clone());
            index.rows.push(served);
        }
        index
    }

    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Served>> {
        self.groups.get(group)?.get(version)?.get(plural)
    }

    pub fn has_group_version(&self, group: &str, version: &str) -> bool {
        self.groups.get(group).is_some_and(|versions| versions.contains_key(version))
    }

    /// Another form of the same stored kind in the same group, by its version. Upstream converts between the versions of a
    /// group only, so that core's Events and those of `events.k8s.io` know nothing of each other's owners.
    pub fn form(&self, served: &Served, api_version: &str) -> Option<&Served> {
        let group = &served.resource().group;
        let same = |other: &&Arc<Served>| Arc::ptr_eq(&other.cache, &served.cache) && other.resource().group == *group;
        let forms = self.rows.iter().filter(same).map(|served| &**served);
        forms.into_iter().find(|other| other.resource().api_version() == api_version)
    }

    /// The row of a kind in any of its versions.
    pub fn find_kind(&self, group: &str, kind: &str) -> Option<&Arc<Served>> {
        self.rows.iter().find(|served| served.row.resource.group == group && served.row.resource.kind == kind)
    }

    /// The row of a resource in any of its versions.
    pub fn find_resource(&self, group: &str, plural: &str) -> Option<&Arc<Served>> {
        self.rows.iter().find(|served| served.row.resource.group == group && served.row.resource.plural == plural)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.rows.iter()
    }

    pub(super) fn caches(&self) -> Vec<Arc<ResourceCache>> {
        self.rows.iter().filter(|served| served.row.conversion.is_none()).map(|served| served.cache.clone()).collect()
    }
}
