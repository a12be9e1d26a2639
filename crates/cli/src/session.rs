//! One conversation with an API server: the client, the namespace, and what the server serves.

use std::path::PathBuf;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OnceCell;
use xebec_api::ResourceType;
use xebec_client::https::Https;
use xebec_client::transport::{checked, collect};
use xebec_client::{Body, Client, Error, Patch};

use crate::Global;

/// Where `xebec up` leaves the administrator's kubeconfig.
const OWN_KUBECONFIG: &str = "/var/lib/xebec/admin.kubeconfig";
const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
/// One answer for each of the two roots names everything that is served (KEP-3352, in every release since 1.30).
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

pub struct Session {
    pub client: Client,
    pub namespace: String,
    /// Asked for on the command line, not just the context's.
    pub namespace_is_explicit: bool,
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
struct Discovery {
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Named,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    resource: String,
    response_kind: ResponseKind,
    scope: String,
    #[serde(default)]
    singular_resource: String,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
}

#[derive(Deserialize)]
struct ResponseKind {
    kind: String,
}

impl Session {
    pub async fn open(global: &Global) -> anyhow::Result<Self> {
        let path = match &global.kubeconfig {
            Some(path) => path.clone(),
            None => default_kubeconfig()?,
        };
        let https = Https::from_file(&path, global.context.as_deref()).await?;
        let namespace = global.namespace.clone().unwrap_or_else(|| https.default_namespace.clone());
        Ok(Session {
            client: Client::new(https).named("xebec"),
            namespace,
            namespace_is_explicit: global.namespace.is_some(),
            served: OnceCell::new(),
        })
    }

    /// Everything that is served, each group's preferred version first.
    pub async fn served(&self) -> anyhow::Result<&[Served]> {
        let served =
            self.served.get_or_try_init(|| self.discover()).await.context("cannot ask what the server serves")?;
        Ok(served)
    }

    async fn discover(&self) -> Result<Vec<Served>, Error> {
        let (core, groups) = tokio::try_join!(self.get_as("/api", DISCOVERY), self.get_as("/apis", DISCOVERY))?;
        let mut served = Vec::new();
        for answer in [core, groups] {
            let discovery: Discovery =
                serde_json::from_value(answer).map_err(|e| Error::decode("what is served", e))?;
            for group in discovery.items {
                for version in group.versions {
                    let named = |listed| of_discovery(&group.metadata.name, &version.version, listed);
                    served.extend(version.resources.into_iter().map(named));
                }
            }
        }
        Ok(served)
    }

    /// The resource of a manifest's `apiVersion` and `kind`.
    pub async fn resource_of(&self, manifest: &Value, origin: &str) -> anyhow::Result<ResourceType> {
        let (version, kind) = (text(manifest, "apiVersion"), text(manifest, "kind"));
        let is = |one: &&Served| one.resource.api_version() == version && one.resource.kind == kind;
        match self.served().await?.iter().find(is) {
            Some(served) => Ok(served.resource.clone()),
            None => {
                let meta = &manifest["metadata"];
                let (name, namespace) = (text(meta, "name"), text(meta, "namespace"));
                bail!(
                    "resource mapping not found for name: {name:?} namespace: {namespace:?} from {origin:?}: no matches for \
                     kind {kind:?} in version {version:?}\nensure CRDs are installed first"
                )
            }
        }
    }

    /// A GET whose collections and objects come as a Table.
    pub async fn get_table(&self, path: &str) -> Result<Value, Error> {
        self.get_as(path, TABLE).await
    }

    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        self.get_as(path, JSON).await
    }

    /// A GET whose answer is read as it comes; with `tables` each event of a watch bears one.
    pub async fn open_stream(&self, path: &str, tables: bool) -> Result<Body, Error> {
        let request = request(Method::GET, path, if tables { TABLE } else { JSON }, Bytes::new())?;
        let response = self.client.transport().open(request).await?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        let (parts, body) = response.into_parts();
        checked(Response::from_parts(parts, collect(body).await?))?;
        Err(Error::decode(path, "an answer that is no success has no body"))
    }

    async fn get_as(&self, path: &str, accept: &str) -> Result<Value, Error> {
        self.answer(request(Method::GET, path, accept, Bytes::new())?).await
    }

    /// Sends a JSON body and shows the warnings that come back with the answer.
    pub async fn send(&self, method: Method, path: &str, body: &Value) -> Result<Value, Error> {
        self.answer(with_type(request(method, path, JSON, body.to_string().into())?, JSON)).await
    }

    pub async fn patch(&self, path: &str, patch: &Patch) -> Result<Value, Error> {
        let request = request(Method::PATCH, path, JSON, patch.body().to_string().into())?;
        self.answer(with_type(request, patch.content_type())).await
    }

    async fn answer(&self, request: Request<Bytes>) -> Result<Value, Error> {
        let path = request.uri().path().to_owned();
        let response = self.client.transport().call(request).await?;
        for warning in response.headers().get_all(header::WARNING).iter().filter_map(|value| value.to_str().ok()) {
            eprintln!("Warning: {}", warning_text(warning));
        }
        serde_json::from_slice(&checked(response)?).map_err(|e| Error::decode(format!("the answer of {path}"), e))
    }
}

fn of_discovery(group: &str, version: &str, listed: Listed) -> Served {
    Served {
        resource: ResourceType {
            group: group.to_owned().into(),
            version: version.to_owned().into(),
            kind: listed.response_kind.kind.into(),
            plural: listed.resource.into(),
            namespaced: listed.scope == "Namespaced",
        },
        singular: listed.singular_resource,
        short_names: listed.short_names,
        categories: listed.categories,
        verbs: listed.verbs,
    }
}

fn request(method: Method, path: &str, accept: &str, body: Bytes) -> Result<Request<Bytes>, Error> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::ACCEPT, accept)
        .header(header::USER_AGENT, concat!("xebec/", env!("CARGO_PKG_VERSION")))
        .body(body)
        .map_err(|e| Error::transport(format!("ask for {path}"), e))
}

fn with_type(mut request: Request<Bytes>, content_type: &'static str) -> Request<Bytes> {
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    request
}

/// The text of `299 - "text"` (RFC 7234, section 5.5).
fn warning_text(header: &str) -> String {
    let quoted = header.splitn(3, ' ').nth(2).unwrap_or(header);
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(quoted);
    let (mut text, mut escaped) = (String::new(), false);
    for c in inner.chars() {
        escaped = c == '\\' && !escaped;
        if !escaped {
            text.push(c);
        }
    }
    text
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

#[cfg(test)]
mod tests {
    #[test]
    fn warnings() {
        assert_eq!(super::warning_text(r#"299 - "unknown field \"a\"""#), r#"unknown field "a""#);
    }
}
