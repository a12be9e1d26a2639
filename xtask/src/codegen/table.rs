//! Joins what the Go sources, the OpenAPI documents and the discovery documents say into the text of the schema table.
//!
//! Where two sources state the same fact they are compared, and a disagreement is an error: the table is never a guess.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::go::{self, Decl, Expr, Field, Package};

const META: &str = "k8s.io/apimachinery/pkg/apis/meta/v1";
const JSON_SCHEMA: &str = "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1";

/// Go types with JSON methods of their own, and the letter the table has for each.
const SPECIAL: &[(&str, &str, &str)] = &[
    ("k8s.io/apimachinery/pkg/api/resource", "Quantity", "Q"),
    ("k8s.io/apimachinery/pkg/util/intstr", "IntOrString", "O"),
    ("k8s.io/apimachinery/pkg/runtime", "RawExtension", "R"),
    (META, "Time", "t"),
    (META, "MicroTime", "u"),
    (META, "FieldsV1", "F"),
    (JSON_SCHEMA, "JSON", "J"),
    (JSON_SCHEMA, "JSONSchemaPropsOrArray", "|array"),
    (JSON_SCHEMA, "JSONSchemaPropsOrBool", "|bool"),
    (JSON_SCHEMA, "JSONSchemaPropsOrStringArray", "|strings"),
];

/// Go's predeclared types that the API uses.
const SCALARS: &[(&str, &str)] = &[("string", "s"), ("bool", "b"), ("int32", "i"), ("int64", "l"), ("float64", "d")];

struct Sources {
    packages: BTreeMap<String, Package>,
    /// Where the published facts of a type stand that is only embedded: (package, name) -> an OpenAPI name.
    embedded_in: BTreeMap<(String, String), String>,
    /// OpenAPI name -> schema, from the v2 document.
    v2: serde_json::Map<String, Value>,
    /// OpenAPI name -> schema, from the v3 documents, which alone carry defaults.
    v3: BTreeMap<String, Value>,
    /// Kinds that no document publishes, and the structs they are made of: options, internal forms, versions that are no
    /// longer served. Objects in such forms still come over the wire.
    unpublished: BTreeMap<(String, String), Option<String>>,
}

/// Kinds of `meta/v1` that bear a group of their own instead of every group's version.
const META_KINDS: &[&str] = &["PartialObjectMetadata", "PartialObjectMetadataList"];

pub fn render(kube: &Path, version: &str) -> Result<String> {
    let mut sources = Sources::read(kube, version)?;
    let mut names = sources.close_over_embedded()?;
    sources.close_over_unpublished(&mut names)?;
    let mut out = String::new();
    let mut package = "";
    for (path, name) in &names {
        if path != package {
            writeln!(out, "P\t{}", openapi_package(path))?;
            package = path;
        }
        sources.render_type(path, name, &mut out).with_context(|| format!("type {path}.{name}"))?;
    }
    render_resources(kube, &mut out)?;
    Ok(out)
}

impl Sources {
    fn read(kube: &Path, version: &str) -> Result<Self> {
        let mut swagger = read_json(&kube.join("api/openapi-spec/swagger.json"))?;
        let Value::Object(v2) = swagger["definitions"].take() else { bail!("swagger.json has no definitions") };
        let mut v3 = BTreeMap::new();
        for entry in fs::read_dir(kube.join("api/openapi-spec/v3"))? {
            let mut document = read_json(&entry?.path())?;
            if let Some(Value::Object(schemas)) = document.pointer_mut("/components/schemas").map(Value::take) {
                v3.extend(schemas);
            }
        }
        let root = kube.parent().context("the Kubernetes module has no parent directory")?;
        let staging = version.strip_prefix("1.").context("a Kubernetes version starts with 1.")?;
        let mut packages = BTreeMap::new();
        for name in v2.keys() {
            let path = go_package(name);
            if !packages.contains_key(&path) {
                let package = go::read_package(&path, &module_dir(root, &path, staging)?)?;
                packages.insert(path, package);
            }
        }
        let mut unpublished = BTreeMap::new();
        for (path, group) in api_packages(root, staging)? {
            if !packages.contains_key(&path) {
                packages.insert(path.clone(), go::read_package(&path, &module_dir(root, &path, staging)?)?);
            }
            for name in unpublished_kinds(&packages[&path]) {
                let openapi = format!("{}.{name}", openapi_package(&path));
                let group = match path.as_str() {
                    META if META_KINDS.contains(&name) => "meta.k8s.io",
                    _ => &group,
                };
                if !v2.contains_key(&openapi) {
                    let kind = format!("{group}/{}/{name}", go::last_segment(&path));
                    unpublished.insert((path.clone(), name.to_string()), Some(kind));
                }
            }
        }
        Ok(Self { packages, embedded_in: BTreeMap::new(), v2, v3, unpublished })
    }

    /// Adds the unpublished kinds and every unpublished struct that they lead to.
    fn close_over_unpublished(&mut self, names: &mut BTreeSet<(String, String)>) -> Result<()> {
        let mut queue: Vec<_> = self.unpublished.keys().cloned().collect();
        names.extend(queue.iter().cloned());
        while let Some((path, name)) = queue.pop() {
            let fields = self.fields(&path, &name)?;
            let mut found: Vec<_> = fields.iter().filter_map(|field| self.struct_named(&field.expr)).collect();
            found.retain(|key| !names.contains(key));
            for key in found {
                if names.insert(key.clone()) {
                    self.unpublished.insert(key.clone(), None);
                    queue.push(key);
                }
            }
        }
        Ok(())
    }

    /// The struct that a type is or is made of, unless it has JSON methods of its own.
    fn struct_named(&self, expr: &Expr) -> Option<(String, String)> {
        match expr {
            Expr::Pointer(inner) | Expr::Slice(inner) | Expr::Map(_, inner) => self.struct_named(inner),
            Expr::Name { package, name } if SPECIAL.iter().any(|(p, n, _)| p == package && n == name) => None,
            Expr::Name { package, name } => match self.packages.get(package)?.types.get(name)? {
                Decl::Struct(_) => Some((package.clone(), name.clone())),
                Decl::Alias(target) | Decl::Named(target) => self.struct_named(target),
            },
        }
    }

    /// Every published type, and the structs embedded in them, which the documents show only spread out.
    fn close_over_embedded(&mut self) -> Result<BTreeSet<(String, String)>> {
        let mut names = BTreeSet::new();
        let mut queue: Vec<_> = self.v2.keys().map(|name| (go_package(name), type_name(name))).collect();
        while let Some((path, name)) = queue.pop() {
            let special = SPECIAL.iter().any(|(p, n, _)| *p == path && *n == name);
            if special || !names.insert((path.clone(), name.clone())) {
                continue;
            }
            let openapi = self.published_name(&path, &name);
            let mut embedded = Vec::new();
            for field in self.fields(&path, &name)?.iter().filter(|f| f.json.is_empty()) {
                let Expr::Name { package, name } = &field.expr else { bail!("{name} embeds something strange") };
                embedded.push((package.clone(), name.clone()));
            }
            for key in embedded {
                self.embedded_in.entry(key.clone()).or_insert_with(|| openapi.clone());
                queue.push(key);
            }
        }
        Ok(names)
    }

    /// The name under which the documents publish the type's fields: its own, or that of a type that embeds it.
    fn published_name(&self, path: &str, name: &str) -> String {
        let openapi = format!("{}.{name}", openapi_package(path));
        let embedder = self.embedded_in.get(&(path.to_string(), name.to_string()));
        embedder.filter(|_| !self.v2.contains_key(&openapi)).cloned().unwrap_or(openapi)
    }

    fn fields(&self, path: &str, name: &str) -> Result<&[Field]> {
        match self.packages.get(path).and_then(|p| p.types.get(name)) {
            Some(Decl::Struct(fields)) => Ok(fields),
            Some(Decl::Named(Expr::Name { package, name }) | Decl::Alias(Expr::Name { package, name })) => {
                self.fields(package, name)
            }
            _ => bail!("{path}.{name} is not a struct"),
        }
    }

    fn render_type(&self, path: &str, name: &str, out: &mut String) -> Result<()> {
        let openapi = format!("{}.{name}", openapi_package(path));
        let fields = self.fields(path, name)?;
        write!(out, "T\t{name}")?;
        if let Some(schema) = self.v2.get(&openapi) {
            if let Some(map) = schema["x-kubernetes-map-type"].as_str() {
                write!(out, "\tM:{map}")?;
            }
            if let Some(unions) = schema.get("x-kubernetes-unions") {
                write!(out, "\tU:{unions}")?;
            }
            for gvk in schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
                write!(out, "\tK:{}/{}/{}", text(&gvk["group"]), text(&gvk["version"]), text(&gvk["kind"]))?;
            }
            self.compare_names(path, name, schema)?;
        } else {
            write!(out, "\t-")?;
        }
        if let Some(Some(kind)) = self.unpublished.get(&(path.to_string(), name.to_string())) {
            write!(out, "\tK:{kind}")?;
        }
        writeln!(out)?;
        let openapi = self.published_name(path, name);
        for field in fields {
            self.render_field(path, name, field, &openapi, out).with_context(|| format!("field {}", field.go_name))?;
        }
        Ok(())
    }

    fn compare_names(&self, path: &str, name: &str, schema: &Value) -> Result<()> {
        let mut go = BTreeSet::new();
        self.json_names(path, name, &mut go)?;
        let published: BTreeSet<_> =
            schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        ensure!(go == published, "the Go struct has {go:?}, the OpenAPI document {published:?}");
        Ok(())
    }

    fn json_names<'a>(&'a self, path: &str, name: &str, names: &mut BTreeSet<&'a str>) -> Result<()> {
        for field in self.fields(path, name)? {
            match &field.expr {
                Expr::Name { package, name } if field.json.is_empty() => self.json_names(package, name, names)?,
                _ => drop(names.insert(&field.json)),
            }
        }
        Ok(())
    }

    fn render_field(&self, path: &str, owner: &str, field: &Field, openapi: &str, out: &mut String) -> Result<()> {
        let (pointer, expr) = match &field.expr {
            Expr::Pointer(inner) => (true, &**inner),
            other => (false, other),
        };
        let (token, go) = self.type_token(path, expr)?;
        let lead = if field.json.is_empty() { "+" } else { &field.json };
        self.compare_number(path, owner, field)?;
        write!(out, "{lead}\t{token}\t{}", field.number)?;
        let flags = [(field.omit_empty, "?"), (field.omit_zero, "z"), (pointer, "*")];
        let mut flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect();
        let none = Value::Null;
        let v2 = self.v2.get(openapi).unwrap_or(&none);
        let v3 = self.v3.get(openapi).unwrap_or(&none);
        if v2["required"].as_array().is_some_and(|r| r.iter().any(|n| n == field.json.as_str())) {
            flags.push('!');
        }
        if !flags.is_empty() {
            write!(out, "\t{flags}")?;
        }
        self.render_extensions(field, &v2["properties"][&field.json], out)?;
        if go != self.derived_go(expr)? {
            write!(out, "\tG:{go}")?;
        }
        if let Some(values) = self.enum_values(expr).filter(|values| !values.is_empty()) {
            write!(out, "\tE:{}", values.join("|"))?;
        }
        if let Some(default) = v3["properties"][&field.json].get("default") {
            write!(out, "\t={default}")?;
        }
        writeln!(out)?;
        Ok(())
    }

    fn render_extensions(&self, field: &Field, published: &Value, out: &mut String) -> Result<()> {
        if let Some(list) = published["x-kubernetes-list-type"].as_str() {
            write!(out, "\tL:{list}")?;
            if let Some(keys) = published["x-kubernetes-list-map-keys"].as_array() {
                let keys: Vec<_> = keys.iter().map(text).collect();
                write!(out, ":{}", keys.join(","))?;
            }
        }
        if let Some(map) = published["x-kubernetes-map-type"].as_str() {
            write!(out, "\tM:{map}")?;
        }
        let strategy = text(&published["x-kubernetes-patch-strategy"]);
        let key = text(&published["x-kubernetes-patch-merge-key"]);
        if !published.is_null() {
            ensure!(strategy == field.patch_strategy, "patch strategy {strategy:?} against the struct tag");
            ensure!(key == field.patch_key, "patch merge key {key:?} against the struct tag");
        }
        if !field.patch_strategy.is_empty() {
            write!(out, "\tP:{}:{}", field.patch_strategy, field.patch_key)?;
        }
        Ok(())
    }

    /// The struct tag's number must be the one `generated.proto` publishes, where it publishes one.
    fn compare_number(&self, path: &str, owner: &str, field: &Field) -> Result<()> {
        let message = self.packages.get(path).and_then(|p| p.messages.get(owner));
        let Some(message) = message.filter(|_| field.number != 0) else { return Ok(()) };
        if let Some(number) = message.get(&field.json) {
            ensure!(*number == field.number, "number {number} in generated.proto, {} in the tag", field.number);
        }
        ensure!(message.values().any(|n| *n == field.number), "number {} is not in generated.proto", field.number);
        Ok(())
    }

    /// The table's spelling of a type, and the name Go prints for it in decoding errors.
    fn type_token(&self, path: &str, expr: &Expr) -> Result<(String, String)> {
        match expr {
            // A list of pointers and a list of values look alike in JSON and in protobuf.
            Expr::Pointer(inner) => {
                let (token, go) = self.type_token(path, inner)?;
                Ok((token, format!("*{go}")))
            }
            Expr::Slice(inner) if matches!(&**inner, Expr::Name { package, name } if package.is_empty() && name == "byte") => {
                Ok(("B".into(), "[]uint8".into()))
            }
            Expr::Slice(inner) => {
                let (token, go) = self.type_token(path, inner)?;
                Ok((format!("[]{token}"), format!("[]{go}")))
            }
            Expr::Map(key, value) => {
                let (_, key) = self.type_token(path, key)?;
                let (token, value) = self.type_token(path, value)?;
                Ok((format!("{{}}{token}"), format!("map[{key}]{value}")))
            }
            Expr::Name { package, name } => self.name_token(path, package, name),
        }
    }

    fn name_token(&self, path: &str, package: &str, name: &str) -> Result<(String, String)> {
        if let Some((_, letter)) = SCALARS.iter().find(|(scalar, _)| package.is_empty() && *scalar == name) {
            return Ok((letter.to_string(), name.to_string()));
        }
        let go = format!("{}.{name}", go::last_segment(package));
        if let Some((_, _, letter)) = SPECIAL.iter().find(|(p, n, _)| *p == package && *n == name) {
            return Ok((letter.to_string(), go));
        }
        // The identifiers of k8s.io/apimachinery/pkg/types are all strings and are not published by themselves.
        if package == "k8s.io/apimachinery/pkg/types" {
            return Ok(("s".into(), go));
        }
        match self.packages.get(package).and_then(|p| p.types.get(name)) {
            // A type made from a struct of another package is published under its own name.
            Some(Decl::Struct(_) | Decl::Named(_)) if self.is_struct_of_table(package, name) => {
                let openapi = openapi_package(package);
                Ok((if package == path { format!(".{name}") } else { format!("{openapi}.{name}") }, go))
            }
            Some(Decl::Alias(target)) => self.type_token(path, target),
            Some(Decl::Named(target)) => {
                let (token, _) = self.type_token(path, target)?;
                // Most named lists are messages of their own in protobuf.
                let message = self.packages.get(package).is_some_and(|p| p.messages.contains_key(name));
                let wrapped = message && token.starts_with("[]");
                Ok((if wrapped { token.replacen("[]", "[w]", 1) } else { token }, go))
            }
            Some(Decl::Struct(_)) | None => bail!("unknown Go type {package}.{name}"),
        }
    }

    fn is_struct_of_table(&self, package: &str, name: &str) -> bool {
        let key = (package.to_string(), name.to_string());
        self.embedded_in.contains_key(&key)
            || self.unpublished.contains_key(&key)
            || self.v2.contains_key(&format!("{}.{name}", openapi_package(package)))
    }

    /// What the reader of the table would print for a type that has no `G:`.
    fn derived_go(&self, expr: &Expr) -> Result<String> {
        Ok(match expr {
            Expr::Pointer(inner) => self.derived_go(inner)?,
            Expr::Slice(inner) if matches!(&**inner, Expr::Name { name, .. } if name == "byte") => "[]uint8".into(),
            Expr::Slice(inner) => format!("[]{}", self.derived_go(inner)?),
            Expr::Map(_, value) => format!("map[string]{}", self.derived_go(value)?),
            Expr::Name { package, name } => {
                let declared = self.packages.get(package).and_then(|p| p.types.get(name));
                let special = SPECIAL.iter().any(|(p, n, _)| p == package && n == name);
                match declared {
                    Some(Decl::Named(target)) if !special && !self.is_struct_of_table(package, name) => {
                        self.derived_go(target)?
                    }
                    Some(Decl::Alias(target)) if !special => self.derived_go(target)?,
                    None if package == "k8s.io/apimachinery/pkg/types" => "string".into(),
                    _ if package.is_empty() => name.clone(),
                    _ => format!("{}.{name}", go::last_segment(package)),
                }
            }
        })
    }

    fn enum_values(&self, expr: &Expr) -> Option<&[String]> {
        match expr {
            Expr::Pointer(inner) | Expr::Slice(inner) | Expr::Map(_, inner) => self.enum_values(inner),
            Expr::Name { package, name } => {
                let package = self.packages.get(package)?;
                match (package.enums.get(name), package.types.get(name)) {
                    (Some(values), _) => Some(values),
                    (None, Some(Decl::Alias(target))) => self.enum_values(target),
                    _ => None,
                }
            }
        }
    }
}

/// The served resources, in the order of the group list; the published documents hold what is on by default.
fn render_resources(kube: &Path, out: &mut String) -> Result<()> {
    let dir = kube.join("api/discovery");
    let groups = read_json(&dir.join("apis.json"))?;
    let mut versions = vec![(String::new(), "v1".to_string(), dir.join("api__v1.json"))];
    for group in groups["groups"].as_array().context("apis.json has no groups")? {
        let name = text(&group["name"]);
        let listed = group["versions"].as_array().context("a group without versions")?;
        ensure!(group["preferredVersion"] == listed[0], "the preferred version of {name} is not its first");
        for version in listed.iter().map(|v| text(&v["version"])) {
            versions.push((name.into(), version.into(), dir.join(format!("apis__{name}__{version}.json"))));
        }
    }
    for (group, version, path) in versions {
        writeln!(out, "G\t{group}/{version}")?;
        let document = read_json(&path)?;
        for resource in document["resources"].as_array().context("a version without resources")? {
            render_resource(resource, out)?;
        }
    }
    Ok(())
}

fn render_resource(resource: &Value, out: &mut String) -> Result<()> {
    let name = text(&resource["name"]);
    let list = |key: &str| {
        let items: Vec<_> = resource[key].as_array().into_iter().flatten().map(text).collect();
        items.join(",")
    };
    if name.contains('/') {
        write!(out, "S\t{name}")?;
    } else {
        write!(out, "R\t{name}")?;
    }
    let scope = if resource["namespaced"] == true { "n" } else { "c" };
    write!(out, "\t{}\t{scope}\t{}", text(&resource["kind"]), list("verbs"))?;
    let singular = text(&resource["singularName"]);
    if !singular.is_empty() {
        write!(out, "\t1:{singular}")?;
    }
    for (key, label) in [("shortNames", "s"), ("categories", "c")] {
        if !list(key).is_empty() {
            write!(out, "\t{label}:{}", list(key))?;
        }
    }
    if resource.get("version").is_some() {
        write!(out, "\tg:{}/{}", text(&resource["group"]), text(&resource["version"]))?;
    }
    if let Some(hash) = resource["storageVersionHash"].as_str() {
        write!(out, "\th:{hash}")?;
    }
    writeln!(out)?;
    Ok(())
}

fn read_json(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("parsing {}", path.display()))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The packages of `k8s.io/api` with their groups, and that of the types which all groups share.
fn api_packages(root: &Path, staging: &str) -> Result<Vec<(String, String)>> {
    let mut packages = vec![(META.to_string(), String::new())];
    let api = module_dir(root, "k8s.io/api/", staging)?;
    for group in sorted_directories(&api)? {
        for version in sorted_directories(&api.join(&group))? {
            let Ok(source) = fs::read_to_string(api.join(&group).join(&version).join("register.go")) else { continue };
            let name = source.lines().find_map(|line| line.strip_prefix("const GroupName = \""));
            let name = name.and_then(|rest| rest.split('"').next()).context("register.go names no group")?;
            packages.push((format!("k8s.io/api/{group}/{version}"), name.to_string()));
        }
    }
    Ok(packages)
}

fn sorted_directories(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The structs of a package that name their kind and have a protobuf form.
fn unpublished_kinds(package: &Package) -> impl Iterator<Item = &str> {
    let names_kind = |field: &Field| {
        field.json.is_empty()
            && matches!(&field.expr, Expr::Name { package, name } if package == META && name == "TypeMeta")
    };
    package.types.iter().filter_map(move |(name, declared)| match declared {
        Decl::Struct(fields) if package.messages.contains_key(name) && fields.iter().any(names_kind) => {
            Some(name.as_str())
        }
        _ => None,
    })
}

fn type_name(openapi: &str) -> String {
    openapi.rsplit('.').next().unwrap_or_default().to_string()
}

/// `io.k8s.api.core.v1.Pod` -> `k8s.io/api/core/v1`.
fn go_package(openapi: &str) -> String {
    let package = openapi.rsplit_once('.').map_or(openapi, |(package, _)| package);
    format!("k8s.io/{}", package.strip_prefix("io.k8s.").unwrap_or(package).replace('.', "/"))
}

fn openapi_package(path: &str) -> String {
    format!("io.k8s.{}", path.strip_prefix("k8s.io/").unwrap_or(path).replace('/', "."))
}

fn module_dir(root: &Path, path: &str, staging: &str) -> Result<PathBuf> {
    let inside = path.strip_prefix("k8s.io/").context("only k8s.io modules are read")?;
    let (module, rest) = inside.split_once('/').context("a package without a module")?;
    Ok(root.join(format!("{module}@v0.{staging}")).join(rest))
}
