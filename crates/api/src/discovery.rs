//! The discovery documents, built from the list of what is served: the legacy ones and the aggregated one.
//!
//! Groups come in upstream's order of priority, groups of custom resources after them by name; the first version of a group
//! is the preferred one. Negotiation is the server's: it answers `application/json;g=apidiscovery.k8s.io;v=v2;
//! as=APIGroupDiscoveryList` (or `v=v2beta1`) with [`Discovery::aggregated`] under that same content type, everything else
//! with the legacy documents, and `Vary: Accept` and [`etag`] on the aggregated one.
//! Source: the API reference's discovery types; KEP-3352 for the aggregated form.

use std::{borrow::Cow, cmp::Ordering};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256, Sha512};

use crate::schema::{ResourceRow, SubresourceRow, table};

type Text = Cow<'static, str>;

/// One resource in one version as it is served.
#[derive(Clone, Debug)]
pub struct Served {
    /// Empty for the core group.
    pub group: Text,
    pub version: Text,
    pub plural: Text,
    pub singular: Text,
    pub kind: Text,
    pub namespaced: bool,
    pub verbs: Vec<Text>,
    pub short_names: Vec<Text>,
    pub categories: Vec<Text>,
    /// See [`storage_version_hash`]; empty for what is not stored.
    pub storage_version_hash: Text,
    pub subresources: Vec<ServedSubresource>,
}

#[derive(Clone, Debug)]
pub struct ServedSubresource {
    pub name: Text,
    pub kind: Text,
    /// Group and version of the kind where they are not the resource's own.
    pub group_version: Option<(Text, Text)>,
    pub verbs: Vec<Text>,
}

impl From<&ResourceRow> for Served {
    fn from(row: &ResourceRow) -> Self {
        Served {
            group: row.group.into(),
            version: row.version.into(),
            plural: row.plural.into(),
            singular: row.singular.into(),
            kind: row.kind.into(),
            namespaced: row.namespaced,
            verbs: texts(&row.verbs),
            short_names: texts(&row.short_names),
            categories: texts(&row.categories),
            storage_version_hash: row.storage_version_hash.into(),
            subresources: row.subresources.iter().map(ServedSubresource::from).collect(),
        }
    }
}

impl From<&SubresourceRow> for ServedSubresource {
    fn from(row: &SubresourceRow) -> Self {
        ServedSubresource {
            name: row.name.into(),
            kind: row.kind.into(),
            group_version: row.group_version.map(|(group, version)| (group.into(), version.into())),
            verbs: texts(&row.verbs),
        }
    }
}

fn texts(texts: &[&'static str]) -> Vec<Text> {
    texts.iter().map(|text| Cow::Borrowed(*text)).collect()
}

/// Which version of `apidiscovery.k8s.io` a client asked for; their JSON differs by name only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AggregatedVersion {
    V2,
    V2Beta1,
}

impl AggregatedVersion {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2Beta1 => "v2beta1",
        }
    }

    /// The parameters of the content type under which the document is sent.
    pub fn parameters(self) -> String {
        format!("g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList", self.as_str())
    }
}

/// What is served, in the order of the documents.
pub struct Discovery {
    groups: Vec<Group>,
}

struct Group {
    name: Text,
    versions: Vec<Version>,
}

struct Version {
    name: Text,
    resources: Vec<Served>,
}

impl Discovery {
    pub fn new(served: impl IntoIterator<Item = Served>) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for resource in served {
            let group = find_or_push(
                &mut groups,
                |g| g.name == resource.group,
                || Group { name: resource.group.clone(), versions: Vec::new() },
            );
            let version = find_or_push(
                &mut group.versions,
                |v| v.name == resource.version,
                || Version { name: resource.version.clone(), resources: Vec::new() },
            );
            version.resources.push(resource);
        }
        let rank = |group: &str, version: Option<&str>| {
            let known = table().group_versions();
            known
                .iter()
                .position(|(g, v)| *g == group && version.is_none_or(|version| version == *v))
                .unwrap_or(usize::MAX)
        };
        groups.sort_by(|a, b| rank(&a.name, None).cmp(&rank(&b.name, None)).then_with(|| a.name.cmp(&b.name)));
        for Group { name, versions } in &mut groups {
            versions.sort_by(|a, b| {
                let by_rank = rank(name, Some(&a.name)).cmp(&rank(name, Some(&b.name)));
                by_rank.then_with(|| compare_versions(&a.name, &b.name))
            });
            for version in versions {
                version.resources.sort_by(|a, b| a.plural.cmp(&b.plural));
            }
        }
        Self { groups }
    }

    /// `/api`; `server_address` is `host:port`.
    pub fn api_versions(&self, server_address: &str) -> Value {
        let core = self.groups.iter().find(|group| group.name.is_empty());
        let versions: Vec<_> = core.iter().flat_map(|group| &group.versions).map(|version| &version.name).collect();
        json!({
            "kind": "APIVersions",
            "versions": versions,
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
        })
    }

    /// `/apis`
    pub fn group_list(&self) -> Value {
        let groups: Vec<_> = self.groups.iter().filter(|group| !group.name.is_empty()).map(Group::document).collect();
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
    }

    /// `/apis/GROUP`
    pub fn group(&self, name: &str) -> Option<Value> {
        let group = self.groups.iter().find(|group| group.name == name && !name.is_empty())?;
        let Value::Object(document) = group.document() else { return None };
        let mut out = type_meta("APIGroup", Some("v1"));
        out.extend(document);
        Some(Value::Object(out))
    }

    /// `/api/VERSION` and `/apis/GROUP/VERSION`
    pub fn resource_list(&self, group: &str, version: &str) -> Option<Value> {
        let found = self.groups.iter().find(|g| g.name == group)?.versions.iter().find(|v| v.name == version)?;
        let mut rows: Vec<_> = found.resources.iter().flat_map(legacy_rows).collect();
        rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        // The core group's list is older than the rule that a document names its own version.
        let mut out = type_meta("APIResourceList", (!group.is_empty()).then_some("v1"));
        out.insert("groupVersion".into(), group_version(group, version).into());
        out.insert("resources".into(), rows.into_iter().map(|(_, row)| row).collect());
        Some(Value::Object(out))
    }

    /// The aggregated form of `/api` (`core`) or of `/apis`.
    pub fn aggregated(&self, core: bool, version: AggregatedVersion) -> Value {
        let groups = self.groups.iter().filter(|group| group.name.is_empty() == core);
        let items: Vec<_> = groups.map(Group::aggregated).collect();
        json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": format!("apidiscovery.k8s.io/{}", version.as_str()),
            "metadata": {},
            "items": items,
        })
    }

    /// Every version of every group, in the order of the documents.
    pub fn group_versions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.groups.iter().flat_map(|g| g.versions.iter().map(|v| (g.name.as_ref(), v.name.as_ref())))
    }

    /// The resources of one version, sorted by name.
    pub fn resources(&self, group: &str, version: &str) -> &[Served] {
        let found = self.groups.iter().find(|g| g.name == group);
        found.and_then(|g| g.versions.iter().find(|v| v.name == version)).map_or(&[], |v| &v.resources)
    }
}

fn find_or_push<T>(items: &mut Vec<T>, matches: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> &mut T {
    let at = items.iter().position(matches).unwrap_or_else(|| {
        items.push(make());
        items.len() - 1
    });
    &mut items[at]
}

impl Group {
    fn document(&self) -> Value {
        let entry = |version: &Version| json!({"groupVersion": group_version(&self.name, &version.name), "version": version.name});
        let versions: Vec<_> = self.versions.iter().map(entry).collect();
        json!({"name": self.name, "versions": versions, "preferredVersion": versions.first()})
    }

    fn aggregated(&self) -> Value {
        let version = |version: &Version| {
            let resources: Vec<_> = version.resources.iter().map(aggregated_row).collect();
            json!({"version": version.name, "resources": resources, "freshness": "Current"})
        };
        let versions: Vec<_> = self.versions.iter().map(version).collect();
        let metadata = if self.name.is_empty() { json!({}) } else { json!({"name": self.name}) };
        json!({"metadata": metadata, "versions": versions})
    }
}

fn type_meta(kind: &str, api_version: Option<&str>) -> Map<String, Value> {
    let mut out = Map::new();
    out.insert("kind".into(), kind.into());
    if let Some(api_version) = api_version {
        out.insert("apiVersion".into(), api_version.into());
    }
    out
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// The resource and its subresources with the names by which the list is sorted.
fn legacy_rows(resource: &Served) -> Vec<(String, Value)> {
    let mut row = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verbs,
    });
    insert_names(&mut row, resource);
    if !resource.storage_version_hash.is_empty() {
        row["storageVersionHash"] = resource.storage_version_hash.as_ref().into();
    }
    let mut rows = vec![(resource.plural.to_string(), row)];
    for sub in &resource.subresources {
        let name = format!("{}/{}", resource.plural, sub.name);
        let mut row = Map::new();
        row.insert("name".into(), name.clone().into());
        row.insert("singularName".into(), "".into());
        row.insert("namespaced".into(), resource.namespaced.into());
        if let Some((group, version)) = &sub.group_version {
            row.insert("group".into(), group.as_ref().into());
            row.insert("version".into(), version.as_ref().into());
        }
        row.insert("kind".into(), sub.kind.as_ref().into());
        row.insert("verbs".into(), json!(sub.verbs));
        rows.push((name, Value::Object(row)));
    }
    rows
}

fn insert_names(row: &mut Value, resource: &Served) {
    if !resource.short_names.is_empty() {
        row["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        row["categories"] = json!(resource.categories);
    }
}

fn aggregated_row(resource: &Served) -> Value {
    let mut row = json!({
        "resource": resource.plural,
        "responseKind": {"group": "", "version": "", "kind": resource.kind},
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    insert_names(&mut row, resource);
    if !resource.subresources.is_empty() {
        let mut subresources: Vec<_> = resource.subresources.iter().collect();
        subresources.sort_by(|a, b| a.name.cmp(&b.name));
        row["subresources"] = subresources.into_iter().map(aggregated_subresource).collect();
    }
    row
}

fn aggregated_subresource(sub: &ServedSubresource) -> Value {
    // Empty group and version stand for those of the list.
    let (group, version) = sub.group_version.as_ref().map_or(("", ""), |(group, version)| (group, version));
    json!({
        "subresource": sub.name,
        "responseKind": {"group": group, "version": version, "kind": sub.kind},
        "verbs": sub.verbs,
    })
}

/// Stable versions before beta before alpha, higher before lower, other names last by name.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (parse_version(a), parse_version(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Stability, major and minor of `v1`, `v2beta3`, `v1alpha1`.
fn parse_version(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..end].parse().ok()?;
    let (stability, minor) = match &rest[end..] {
        "" => return Some((2, major, 0)),
        rest => match rest.strip_prefix("beta") {
            Some(minor) => (1, minor),
            None => (0, rest.strip_prefix("alpha")?),
        },
    };
    Some((stability, major, minor.parse().ok()?))
}

/// The hash by which clients notice that a resource is stored in another version.
pub fn storage_version_hash(group: &str, version: &str, kind: &str) -> String {
    let digest = Sha256::digest(format!("{group}/{version}/{kind}"));
    STANDARD.encode(&digest[..8])
}

/// The quoted entity tag of a discovery or OpenAPI document.
pub fn etag(document: &[u8]) -> String {
    format!("\"{:X}\"", Sha512::digest(document))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discovery() -> Discovery {
        let mut custom = Served::from(table().resource("", "v1", "pods").unwrap());
        custom.group = "example.com".into();
        let mut beta = custom.clone();
        beta.version = "v1beta1".into();
        let rows = table().resources().iter().map(Served::from);
        Discovery::new([beta, custom].into_iter().chain(rows))
    }

    #[test]
    fn groups_and_versions_are_in_upstreams_order() {
        let list = discovery().group_list();
        let names: Vec<_> = list["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
        assert_eq!(&names[..3], ["apiregistration.k8s.io", "apps", "events.k8s.io"]);
        assert_eq!(names.last(), Some(&"example.com"));
        let autoscaling = discovery().group("autoscaling").unwrap();
        assert_eq!(autoscaling["preferredVersion"]["version"], "v2");
        assert_eq!(discovery().group("example.com").unwrap()["preferredVersion"]["version"], "v1");
        let check = |before: &str, after: &str| assert_eq!(compare_versions(before, after), Ordering::Less, "{before}");
        check("v10", "v2");
        check("v1", "v2beta1");
        check("v2beta2", "v2beta1");
        check("v1beta1", "v1alpha9");
        check("v1alpha1", "foo");
    }

    #[test]
    fn documents_have_upstreams_rows() {
        let apps = discovery().resource_list("apps", "v1").unwrap();
        assert_eq!(
            apps["resources"][3].to_string(),
            concat!(
                r#"{"name":"deployments","singularName":"deployment","namespaced":true,"kind":"Deployment","#,
                r#""verbs":["create","delete","deletecollection","get","list","patch","update","watch"],"#,
                r#""shortNames":["deploy"],"categories":["all"],"storageVersionHash":"8aSe+NMegvE="}"#
            )
        );
        assert_eq!(
            apps["resources"][4].to_string(),
            concat!(
                r#"{"name":"deployments/scale","singularName":"","namespaced":true,"group":"autoscaling","version":"v1","#,
                r#""kind":"Scale","verbs":["get","patch","update"]}"#
            )
        );
        assert_eq!(storage_version_hash("apps", "v1", "Deployment"), "8aSe+NMegvE=");
        let core = discovery().aggregated(true, AggregatedVersion::V2);
        assert_eq!(core["items"][0]["metadata"], json!({}));
        let pods = core["items"][0]["versions"][0]["resources"].as_array().unwrap();
        let pods = pods.iter().find(|row| row["resource"] == "pods").unwrap();
        assert_eq!(pods["subresources"][0]["subresource"], "attach");
    }
}
