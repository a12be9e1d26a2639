//! The OpenAPI documents, versions 2 and 3, built from the schema table for what is served. They hold no prose.
//!
//! kubectl reads the index at `/openapi/v3` and one document a group and version, as JSON: for `apply` (merge keys, and whether a
//! kind takes strategic merge patches), for validation (whether PATCH knows `fieldValidation`) and for `explain`. Older clients
//! and client-go's `OpenAPISchema()` read `/openapi/v2` as protobuf, under [`V2_PROTOBUF`]; without an `Accept` it is JSON.
//! Building a document takes milliseconds and it is seldom asked for, so nothing is kept here: the server may cache the bytes
//! under [`crate::discovery::etag`]. Kinds that the table does not know (custom resources) have no schema here yet.

mod gnostic;
mod paths;
mod schemas;

use serde_json::{Map, Value, json};

use crate::discovery::{Discovery, etag};
use schemas::Schemas;

/// The content type of [`OpenApi::v2_protobuf`].
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The two dialects that the documents are written in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dialect {
    V2,
    V3,
}

impl Dialect {
    fn reference(self, name: &str) -> Value {
        match self {
            Dialect::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Dialect::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }
}

/// Builds the documents for what `discovery` lists.
pub struct OpenApi<'a> {
    pub discovery: &'a Discovery,
    /// `v1.37.2`
    pub version: &'a str,
}

impl OpenApi<'_> {
    /// `/openapi/v3`: where each document is; the hash lets clients keep it until it changes.
    pub fn v3_index(&self) -> Value {
        let mut paths: Vec<_> =
            self.discovery.group_versions().map(|(g, v)| (document_path(g, v), self.hash(g, v))).collect();
        paths.sort();
        let paths: Map<_, _> = paths
            .into_iter()
            .map(|(path, hash)| {
                let url = format!("/openapi/v3/{path}?hash={hash}");
                (path, json!({"serverRelativeURL": url}))
            })
            .collect();
        json!({"paths": paths})
    }

    /// The hash that the index gives: of what the document is made from, so that the index needs no document.
    pub fn hash(&self, group: &str, version: &str) -> String {
        let source = json!([self.version, self.discovery.resource_list(group, version)]);
        etag(source.to_string().as_bytes()).trim_matches('"').to_owned()
    }

    /// `/openapi/v3/api/VERSION` and `/openapi/v3/apis/GROUP/VERSION`
    pub fn v3(&self, group: &str, version: &str) -> Option<Value> {
        if !self.discovery.group_versions().any(|(g, v)| g == group && v == version) {
            return None;
        }
        let mut schemas = Schemas::new(Dialect::V3);
        let paths = self.paths(&mut schemas, group, version);
        Some(json!({
            "openapi": "3.0.0",
            "info": self.info(),
            "paths": paths,
            "components": {
                "schemas": schemas.finish(),
                "securitySchemes": {"BearerToken": bearer_token()},
            },
        }))
    }

    /// `/openapi/v2`
    pub fn v2(&self) -> Value {
        let mut schemas = Schemas::new(Dialect::V2);
        let mut paths = Map::new();
        for (group, version) in self.discovery.group_versions() {
            paths.extend(self.paths(&mut schemas, group, version));
        }
        json!({
            "swagger": "2.0",
            "info": self.info(),
            "paths": paths,
            "definitions": schemas.finish(),
            "securityDefinitions": {"BearerToken": bearer_token()},
            "security": [{"BearerToken": []}],
        })
    }

    /// `/openapi/v2` under [`V2_PROTOBUF`]
    pub fn v2_protobuf(&self) -> Vec<u8> {
        gnostic::document(&self.v2())
    }

    fn paths(&self, schemas: &mut Schemas, group: &str, version: &str) -> Map<String, Value> {
        let mut paths: Vec<_> = Vec::new();
        for resource in self.discovery.resources(group, version) {
            paths.extend(paths::of_resource(resource));
        }
        paths.sort_by(|a, b| a.path.cmp(&b.path));
        paths.iter().map(|path| (path.path.clone(), path.render(schemas))).collect()
    }

    fn info(&self) -> Value {
        json!({"title": "Kubernetes", "version": self.version})
    }
}

fn document_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn bearer_token() -> Value {
    json!({"description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey"})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{discovery::Served, schema::table};

    fn everything() -> Discovery {
        Discovery::new(table().resources().iter().map(Served::from))
    }

    #[test]
    fn what_kubectl_looks_for_is_there() {
        let discovery = everything();
        let openapi = OpenApi { discovery: &discovery, version: "v1.37.2" };
        let apps = openapi.v3("apps", "v1").unwrap();
        let patch = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        let kind = json!({"group": "apps", "kind": "Deployment", "version": "v1"});
        assert_eq!(patch["x-kubernetes-group-version-kind"], kind);
        assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
        assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation"));
        let schemas = &apps["components"]["schemas"];
        assert_eq!(schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"][0], kind);
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        let index = openapi.v3_index();
        let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
        assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
        assert!(openapi.v3("apps", "v2").is_none());
    }

    #[test]
    fn every_reference_is_defined() {
        let discovery = everything();
        let openapi = OpenApi { discovery: &discovery, version: "v1.37.2" };
        let check = |document: &Value, prefix: &str, defined: &Value| {
            let text = document.to_string();
            for reference in text.split("\"$ref\":\"").skip(1).filter_map(|rest| rest.split('"').next()) {
                let name = reference.strip_prefix(prefix).expect(reference);
                assert!(defined[name].is_object(), "{name}");
            }
        };
        let v2 = openapi.v2();
        check(&v2, "#/definitions/", &v2["definitions"]);
        for (group, version) in discovery.group_versions() {
            let v3 = openapi.v3(group, version).unwrap();
            check(&v3, "#/components/schemas/", &v3["components"]["schemas"]);
        }
    }
}
