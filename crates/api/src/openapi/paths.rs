//! The paths of a resource and the operations on them, as upstream's installer derives them from the verbs.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::{Dialect, schemas::Schemas};
use crate::{
    discovery::{Served, ServedSubresource},
    schema::table,
};

const OBJECT_TYPES: &[&str] = &["application/json", "application/yaml"];
const STREAM_TYPES: &[&str] = &["application/json", "application/yaml", "application/json;stream=watch"];
const LOG_TYPES: &[&str] = &["text/plain", "application/json", "application/yaml"];
const ANY_TYPE: &[&str] = &["*/*"];
const PATCH_TYPES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
    "watch",
];
const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];
const DELETE: &[&str] = &[
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
];
const DELETE_COLLECTION: &[&str] = &[
    "continue",
    "dryRun",
    "fieldSelector",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "labelSelector",
    "limit",
    "orphanDependents",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
];
const LOG: &[&str] = &[
    "container",
    "follow",
    "insecureSkipTLSVerifyBackend",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "stream",
    "tailLines",
    "timestamps",
];
const ATTACH: &[&str] = &["container", "stderr", "stdin", "stdout", "tty"];
const EXEC: &[&str] = &["command", "container", "stderr", "stdin", "stdout", "tty"];

/// Everything that is not text.
const BOOLEANS: &[&str] = &[
    "allowWatchBookmarks",
    "follow",
    "force",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "insecureSkipTLSVerifyBackend",
    "orphanDependents",
    "previous",
    "sendInitialEvents",
    "stderr",
    "stdin",
    "stdout",
    "timestamps",
    "tty",
    "watch",
];
const INTEGERS: &[&str] =
    &["gracePeriodSeconds", "limit", "limitBytes", "ports", "sinceSeconds", "tailLines", "timeoutSeconds"];

pub(super) struct Path {
    pub(super) path: String,
    operations: Vec<Operation>,
}

struct Operation {
    method: &'static str,
    id: String,
    action: &'static str,
    tag: String,
    kind: Kind,
    query: Vec<&'static str>,
    pretty: bool,
    body: Body,
    answer: Answer,
    codes: &'static [(&'static str, &'static str)],
    produces: &'static [&'static str],
}

#[derive(Clone)]
struct Kind {
    group: String,
    version: String,
    kind: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Body {
    None,
    /// An object of the operation's kind.
    Object,
    DeleteOptions,
    Patch,
}

enum Answer {
    Object,
    List,
    Status,
    WatchEvent,
    Text,
}

const OK: &[(&str, &str)] = &[("200", "OK")];
const OK_CREATED: &[(&str, &str)] = &[("200", "OK"), ("201", "Created")];
const OK_CREATED_ACCEPTED: &[(&str, &str)] = &[("200", "OK"), ("201", "Created"), ("202", "Accepted")];
const OK_ACCEPTED: &[(&str, &str)] = &[("200", "OK"), ("202", "Accepted")];

/// Every path of a resource whose kind the table knows.
pub(super) fn of_resource(resource: &Served) -> Vec<Path> {
    if table().type_of(&resource.group, &resource.version, &resource.kind).is_none() {
        return Vec::new();
    }
    let maker = Maker::new(resource);
    let mut paths = maker.own_paths();
    for sub in &resource.subresources {
        paths.extend(maker.subresource_paths(sub));
    }
    paths.retain(|path| !path.operations.is_empty());
    paths
}

struct Maker<'a> {
    resource: &'a Served,
    root: String,
    /// `AppsV1`, which follows the verb in an operation's id.
    prefix: String,
    tag: String,
    kind: Kind,
}

impl<'a> Maker<'a> {
    fn new(resource: &'a Served) -> Self {
        let group = if resource.group.is_empty() { "core" } else { resource.group.trim_end_matches(".k8s.io") };
        let title: String = group.split('.').map(capitalized).collect();
        let root = if resource.group.is_empty() {
            format!("/api/{}", resource.version)
        } else {
            format!("/apis/{}/{}", resource.group, resource.version)
        };
        Self {
            resource,
            root,
            prefix: format!("{title}{}", capitalized(&resource.version)),
            tag: format!("{}{}_{}", title[..1].to_lowercase(), &title[1..], resource.version),
            kind: Kind {
                group: resource.group.to_string(),
                version: resource.version.to_string(),
                kind: resource.kind.to_string(),
            },
        }
    }

    fn scope(&self) -> (&'static str, &'static str) {
        if self.resource.namespaced { ("/namespaces/{namespace}", "Namespaced") } else { ("", "") }
    }

    fn operation(&self, action: &'static str, name: String) -> Operation {
        let (method, verb) = match action {
            "get" => ("get", "read"),
            "list" => ("get", "list"),
            "watch" | "watchlist" => ("get", "watch"),
            "post" => ("post", "create"),
            "put" => ("put", "replace"),
            "delete" | "deletecollection" => ("delete", "delete"),
            same => (same, same),
        };
        Operation {
            method,
            id: format!("{verb}{}{name}", self.prefix),
            action,
            tag: self.tag.clone(),
            kind: self.kind.clone(),
            query: Vec::new(),
            pretty: true,
            body: Body::None,
            answer: Answer::Object,
            codes: OK,
            produces: OBJECT_TYPES,
        }
    }

    fn own_paths(&self) -> Vec<Path> {
        let (scope, scoped) = self.scope();
        let (plural, kind) = (&self.resource.plural, &self.resource.kind);
        let has = |verb: &str| self.resource.verbs.iter().any(|v| v == verb);
        let name = format!("{scoped}{kind}");
        let mut collection = Vec::new();
        if has("list") {
            collection.push(self.list(name.clone()));
        }
        if has("create") {
            collection.push(self.create(name.clone()));
        }
        if has("deletecollection") {
            let operation = self.operation("deletecollection", format!("Collection{name}"));
            let query = DELETE_COLLECTION.to_vec();
            collection.push(Operation { query, body: Body::DeleteOptions, answer: Answer::Status, ..operation });
        }
        let mut single = self.read_and_write(&name, &self.resource.verbs);
        if has("delete") {
            let operation = self.operation("delete", name.clone());
            let query = DELETE.to_vec();
            single.push(Operation {
                query,
                body: Body::DeleteOptions,
                answer: Answer::Status,
                codes: OK_ACCEPTED,
                ..operation
            });
        }
        let root = &self.root;
        let mut paths = vec![
            Path { path: format!("{root}{scope}/{plural}"), operations: collection },
            Path { path: format!("{root}{scope}/{plural}/{{name}}"), operations: single },
        ];
        if has("list") && self.resource.namespaced {
            let operations = vec![self.list(format!("{kind}ForAllNamespaces"))];
            paths.push(Path { path: format!("{root}/{plural}"), operations });
        }
        if has("watch") {
            let watch = |name: String, action| {
                let operation = self.operation(action, name);
                vec![Operation {
                    query: LIST.to_vec(),
                    answer: Answer::WatchEvent,
                    produces: STREAM_TYPES,
                    ..operation
                }]
            };
            let path = |tail: String, operations| Path { path: format!("{root}/watch{tail}"), operations };
            paths.push(path(format!("{scope}/{plural}"), watch(format!("{name}List"), "watchlist")));
            paths.push(path(format!("{scope}/{plural}/{{name}}"), watch(name, "watch")));
            if self.resource.namespaced {
                paths.push(path(format!("/{plural}"), watch(format!("{kind}ListForAllNamespaces"), "watchlist")));
            }
        }
        paths
    }

    fn list(&self, name: String) -> Operation {
        let operation = self.operation("list", name);
        Operation { query: LIST.to_vec(), answer: Answer::List, produces: STREAM_TYPES, ..operation }
    }

    fn create(&self, name: String) -> Operation {
        let operation = self.operation("post", name);
        Operation { query: WRITE.to_vec(), body: Body::Object, codes: OK_CREATED_ACCEPTED, ..operation }
    }

    fn read_and_write(&self, name: &str, verbs: &[Cow<'static, str>]) -> Vec<Operation> {
        let has = |verb: &str| verbs.iter().any(|v| v == verb);
        let mut out = Vec::new();
        if has("get") {
            out.push(self.operation("get", name.into()));
        }
        if has("update") {
            let operation = self.operation("put", name.into());
            out.push(Operation { query: WRITE.to_vec(), body: Body::Object, codes: OK_CREATED, ..operation });
        }
        if has("patch") {
            let operation = self.operation("patch", name.into());
            out.push(Operation { query: PATCH.to_vec(), body: Body::Patch, codes: OK_CREATED, ..operation });
        }
        out
    }

    fn subresource_paths(&self, sub: &ServedSubresource) -> Vec<Path> {
        let (scope, scoped) = self.scope();
        let name = format!("{scoped}{}{}", self.resource.kind, capitalized(&sub.name));
        let path = format!("{}{scope}/{}/{{name}}/{}", self.root, self.resource.plural, sub.name);
        let (group, version) = match &sub.group_version {
            Some((group, version)) => (group.to_string(), version.to_string()),
            None => (self.kind.group.clone(), self.kind.version.clone()),
        };
        let kind = Kind { group, version, kind: sub.kind.to_string() };
        let query = match &*sub.name {
            "attach" => ATTACH,
            "exec" => EXEC,
            "portforward" => &["ports"],
            "proxy" => &["path"],
            _ => return vec![Path { path, operations: self.object_operations(sub, name, &kind) }],
        };
        let methods: &[&'static str] = if &*sub.name == "proxy" {
            &["get", "put", "post", "delete", "options", "head", "patch"]
        } else {
            &["get", "post"]
        };
        let connect = |suffix: &str| -> Vec<Operation> {
            let operation = |method: &&'static str| Operation {
                method,
                kind: kind.clone(),
                query: query.to_vec(),
                pretty: false,
                answer: Answer::Text,
                produces: ANY_TYPE,
                ..self.operation("connect", format!("{}{name}{suffix}", capitalized(method)))
            };
            methods.iter().map(operation).collect()
        };
        let mut paths = vec![Path { path: path.clone(), operations: connect("") }];
        if &*sub.name == "proxy" {
            paths.push(Path { path: format!("{path}/{{path}}"), operations: connect("WithPath") });
        }
        paths
    }

    fn object_operations(&self, sub: &ServedSubresource, name: String, kind: &Kind) -> Vec<Operation> {
        let mut operations = self.read_and_write(&name, &sub.verbs);
        if sub.verbs.iter().any(|verb| verb == "create") {
            operations.push(self.create(name));
        }
        for operation in &mut operations {
            operation.kind = kind.clone();
            if &*sub.name == "log" {
                operation.query = LOG.to_vec();
                operation.answer = Answer::Text;
                operation.produces = LOG_TYPES;
            }
        }
        operations
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

impl Path {
    /// Parameters that every operation has are the path's.
    pub(super) fn render(&self, schemas: &mut Schemas) -> Value {
        let shared = |name: &&&'static str| self.operations.iter().all(|operation| operation.query.contains(*name));
        let shared: Vec<_> =
            self.operations.iter().take(1).flat_map(|operation| &operation.query).filter(shared).collect();
        let in_path = self.path.split(['{', '}']).skip(1).step_by(2);
        let mut parameters: Vec<_> = in_path.map(|name| (name, "path")).collect();
        parameters.extend(shared.iter().map(|name| (**name, "query")));
        if self.operations.iter().all(|operation| operation.pretty) {
            parameters.push(("pretty", "query"));
        }
        parameters.sort_unstable();
        let mut out = Map::new();
        for operation in &self.operations {
            let own = operation.query.iter().filter(|name| !shared.contains(name));
            let rendered =
                operation.render(schemas, own.map(|name| parameter(schemas.dialect, name, "query")).collect());
            out.insert(operation.method.to_owned(), rendered);
        }
        let parameters = parameters.into_iter().map(|(name, place)| parameter(schemas.dialect, name, place));
        out.insert("parameters".into(), parameters.collect());
        Value::Object(out)
    }
}

fn parameter(dialect: Dialect, name: &str, place: &str) -> Value {
    let kind = match name {
        _ if BOOLEANS.contains(&name) => "boolean",
        _ if INTEGERS.contains(&name) => "integer",
        _ => "string",
    };
    let mut out = json!({"in": place, "name": name});
    match dialect {
        Dialect::V2 => {
            out["type"] = kind.into();
            out["uniqueItems"] = true.into();
        }
        Dialect::V3 => out["schema"] = json!({"type": kind, "uniqueItems": true}),
    }
    if place == "path" {
        out["required"] = true.into();
    }
    out
}

impl Operation {
    fn render(&self, schemas: &mut Schemas, mut parameters: Vec<Value>) -> Value {
        let dialect = schemas.dialect;
        let mut out = Map::new();
        out.insert("operationId".into(), self.id.clone().into());
        out.insert("tags".into(), json!([self.tag]));
        out.insert("x-kubernetes-action".into(), self.action.into());
        let Kind { group, version, kind } = &self.kind;
        out.insert("x-kubernetes-group-version-kind".into(), json!({"group": group, "kind": kind, "version": version}));
        let consumes = if self.body == Body::Patch { PATCH_TYPES } else { ANY_TYPE };
        let body = match self.body {
            Body::None => None,
            Body::Object => self.object(schemas, ""),
            Body::DeleteOptions => Some(schemas.meta("DeleteOptions")),
            Body::Patch => Some(schemas.meta("Patch")),
        };
        let required = self.body != Body::DeleteOptions;
        match (body, dialect) {
            (Some(schema), Dialect::V2) => {
                let mut body = json!({"in": "body", "name": "body", "schema": schema});
                if required {
                    body["required"] = true.into();
                }
                parameters.insert(0, body);
            }
            (Some(schema), Dialect::V3) => {
                let mut body = json!({"content": content(consumes, &schema)});
                if required {
                    body["required"] = true.into();
                }
                out.insert("requestBody".into(), body);
            }
            (None, _) => {}
        }
        if !parameters.is_empty() {
            out.insert("parameters".into(), parameters.into());
        }
        out.insert("responses".into(), self.responses(schemas));
        if dialect == Dialect::V2 {
            out.insert("consumes".into(), json!(consumes));
            out.insert("produces".into(), json!(self.produces));
            out.insert("schemes".into(), json!(["https"]));
        }
        Value::Object(out)
    }

    fn responses(&self, schemas: &mut Schemas) -> Value {
        let schema = match self.answer {
            Answer::Object => self.object(schemas, "").unwrap_or_default(),
            Answer::List => self.object(schemas, "List").unwrap_or_default(),
            Answer::Status => schemas.meta("Status"),
            Answer::WatchEvent => schemas.meta("WatchEvent"),
            Answer::Text => json!({"type": "string"}),
        };
        let mut out = Map::new();
        for (code, description) in self.codes {
            let response = match schemas.dialect {
                Dialect::V2 => json!({"description": description, "schema": schema}),
                Dialect::V3 => json!({"description": description, "content": content(self.produces, &schema)}),
            };
            out.insert((*code).to_owned(), response);
        }
        out.insert("401".into(), json!({"description": "Unauthorized"}));
        Value::Object(out)
    }

    fn object(&self, schemas: &mut Schemas, suffix: &str) -> Option<Value> {
        let Kind { group, version, kind } = &self.kind;
        let ty = table().type_of(group, version, &format!("{kind}{suffix}"))?;
        Some(schemas.reference(ty))
    }
}

fn content(types: &[&str], schema: &Value) -> Value {
    let content: Map<_, _> = types.iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect();
    Value::Object(content)
}
