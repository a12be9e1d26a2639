//! The resources that an API server serves, as its discovery documents tell.

use serde::Deserialize;
use xebec_api::ResourceType;
use xebec_client::{Client, Error};

/// One resource in its group's preferred version.
#[derive(Clone, Debug)]
pub struct Discovered {
    pub resource: ResourceType,
    pub verbs: Vec<String>,
}

impl Discovered {
    pub fn has(&self, verb: &str) -> bool {
        self.verbs.iter().any(|one| one == verb)
    }
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    versions: Vec<Version>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    group_version: String,
}

#[derive(Deserialize)]
struct Resources {
    resources: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    kind: String,
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

/// Every resource once, in the first version that lists it; subresources are left out.
pub async fn resources(client: &Client) -> Result<Vec<Discovered>, Error> {
    let mut found = Vec::new();
    collect(client, "/api/v1", "", "v1", &mut found).await?;
    let groups: Groups = client.get_json("/apis").await?;
    for version in groups.groups.iter().flat_map(|group| &group.versions) {
        let (group, name) = version.group_version.split_once('/').unwrap_or(("", &version.group_version));
        collect(client, &format!("/apis/{}", version.group_version), group, name, &mut found).await?;
    }
    Ok(found)
}

async fn collect(
    client: &Client,
    path: &str,
    group: &str,
    version: &str,
    found: &mut Vec<Discovered>,
) -> Result<(), Error> {
    let listed: Resources = client.get_json(path).await?;
    for one in listed.resources.into_iter().filter(|one| !one.name.contains('/')) {
        let known = |other: &Discovered| other.resource.group == group && other.resource.plural == one.name;
        if found.iter().any(known) {
            continue;
        }
        let resource = ResourceType {
            group: group.to_owned().into(),
            version: version.to_owned().into(),
            kind: one.kind.into(),
            plural: one.name.into(),
            namespaced: one.namespaced,
        };
        found.push(Discovered { resource, verbs: one.verbs });
    }
    Ok(())
}
