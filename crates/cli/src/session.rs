//! One conversation with an API server: the client, the namespace, and what the server serves.

use std::path::PathBuf;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OnceCell;
use xebec_api::ResourceType;
use xebec_client::https::Https;
use xebec_client::transport::checked;
use xebec_client::{Client, Error};

use crate::Global;

/// Where `xebec up` leaves the administrator's kubeconfig.
const OWN_KUBECONFIG: &str = "/var/lib/xebec/admin.kubeconfig";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

pub struct Session {
    pub client: Client,
    pub namespace: String,
    served: OnceCell<Vec<Served>>,
}

/// A resource that the server serves.
#[derive(Clone, Debug)]
pub struct Served {
    pub resource: ResourceType,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub verbs: Vec<String>,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    preferred_version: GroupVersion,
    versions: Vec<GroupVersion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersion {
    group_version: String,
}

#[derive(Deserialize)]
struct Listing {
    resources: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    name: String,
    #[serde(default)]
    singular_name: String,
    kind: String,
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
}

impl Session {
    pub async fn open(global: &Global) -> anyhow::Result<Self> {
        let path = match &global.kubeconfig {
            Some(path) => path.clone(),
            None => default_kubeconfig()?,
        };
        let https = Https::from_file(&path, global.context.as_deref()).await?;
        let namespace = global.namespace.clone().unwrap_or_else(|| https.default_namespace.clone());
        Ok(Session { client: Client::new(https).named("xebec"), namespace, served: OnceCell::new() })
    }

    /// Everything that is served, preferred versions first.
    pub async fn served(&self) -> anyhow::Result<&[Served]> {
        let served = self.served.get_or_try_init(|| self.discover()).await.context("cannot ask what the server serves")?;
        Ok(served)
    }

    async fn discover(&self) -> Result<Vec<Served>, Error> {
        let mut served = Vec::new();
        self.discover_version("v1", "/api/v1", &mut served).await?;
        let groups: Groups = self.client.get_json("/apis").await?;
        for group in &groups.groups {
            let preferred = &group.preferred_version.group_version;
            let others = group.versions.iter().map(|version| &version.group_version).filter(|version| *version != preferred);
            for version in std::iter::once(preferred).chain(others) {
                self.discover_version(version, &format!("/apis/{version}"), &mut served).await?;
            }
        }
        Ok(served)
    }

    async fn discover_version(&self, version: &str, path: &str, served: &mut Vec<Served>) -> Result<(), Error> {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let listing: Listing = self.client.get_json(path).await?;
        for one in listing.resources.into_iter().filter(|one| !one.name.contains('/')) {
            served.push(Served {
                resource: ResourceType {
                    group: group.to_owned().into(),
                    version: version.to_owned().into(),
                    kind: one.kind.into(),
                    plural: one.name.into(),
                    namespaced: one.namespaced,
                },
                singular: one.singular_name,
                short_names: one.short_names,
                categories: one.categories,
                verbs: one.verbs,
            });
        }
        Ok(())
    }

    /// The resource of a manifest's `apiVersion` and `kind`.
    pub async fn resource_of(&self, manifest: &Value) -> anyhow::Result<ResourceType> {
        let (version, kind) = (text(manifest, "apiVersion"), text(manifest, "kind"));
        let found = self.served().await?.iter().find(|one| one.resource.api_version() == version && one.resource.kind == kind);
        match found {
            Some(served) => Ok(served.resource.clone()),
            None => bail!("no matches for kind {kind:?} in version {version:?}\nensure CRDs are installed first"),
        }
    }

    /// A GET whose collections and objects come as a Table.
    pub async fn get_table(&self, path: &str) -> Result<Value, Error> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header(http::header::ACCEPT, TABLE)
            .body(Bytes::new())
            .map_err(|e| Error::transport(format!("ask for {path}"), e))?;
        let body = checked(self.client.transport().call(request).await?)?;
        serde_json::from_slice(&body).map_err(|e| Error::decode("a Table", e))
    }

    /// A watch whose events bear Tables.
    pub fn table_request(path: &str) -> anyhow::Result<Request<Bytes>> {
        Ok(Request::builder().method(Method::GET).uri(path).header(http::header::ACCEPT, TABLE).body(Bytes::new())?)
    }

    pub async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value, Error> {
        self.client.send_json(method, path, body).await
    }
}

/// A string member, or the empty string.
pub fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or("")
}

fn default_kubeconfig() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    let candidates = [home, Some(PathBuf::from(OWN_KUBECONFIG))];
    match candidates.into_iter().flatten().find(|path| path.exists()) {
        Some(path) => Ok(path),
        None => bail!("there is no kubeconfig: start a cluster with 'xebec up', or name a file with --kubeconfig"),
    }
}
