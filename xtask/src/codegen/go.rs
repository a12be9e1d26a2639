//! Reads type declarations out of gofmt-formatted Go sources, and field numbers out of `generated.proto` files.
//!
//! It relies on gofmt's layout (one field a line, a closing brace in column 0) instead of a Go grammar. It deliberately
//! reads no functions, so a type's hand-written JSON methods are not seen: such types are named in `table.rs`.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::LazyLock,
};

use anyhow::{Context, Result, bail};
use regex::Regex;

/// What one Go package declares.
#[derive(Default)]
pub struct Package {
    pub types: HashMap<String, Decl>,
    /// Values of each type marked `+enum`, sorted.
    pub enums: BTreeMap<String, Vec<String>>,
    /// Protobuf message name -> JSON field name -> number, as `generated.proto` has it.
    pub messages: HashMap<String, HashMap<String, u32>>,
}

pub enum Decl {
    Struct(Vec<Field>),
    /// `type A B`: a type of its own, `type A = B`: another spelling of B.
    Named(Expr),
    Alias(Expr),
}

pub struct Field {
    pub go_name: String,
    /// Empty for an embedded struct whose fields appear in place of it.
    pub json: String,
    pub expr: Expr,
    pub omit_empty: bool,
    pub omit_zero: bool,
    /// Zero where the field has no protobuf form.
    pub number: u32,
    pub patch_strategy: String,
    pub patch_key: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A predeclared type has an empty package.
    Name {
        package: String,
        name: String,
    },
    Pointer(Box<Expr>),
    Slice(Box<Expr>),
    Map(Box<Expr>, Box<Expr>),
}

/// Reads every declaration of the package `path` whose sources lie in `dir`.
pub fn read_package(path: &str, dir: &Path) -> Result<Package> {
    let mut package = Package::default();
    let mut constants = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(dir)
        .with_context(|| format!("reading the Go package {}", dir.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(|e| e.file_name());
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "generated.proto" {
            package.messages = read_proto(&fs::read_to_string(entry.path())?);
        }
        let generated = name.starts_with("zz_") || name.ends_with(".pb.go") || name.contains("swagger_doc");
        if !name.ends_with(".go") || name.ends_with("_test.go") || generated {
            continue;
        }
        let source = fs::read_to_string(entry.path())?;
        read_file(path, &source, &mut package, &mut constants).with_context(|| format!("in {path}/{name}"))?;
    }
    for (kind, value) in constants {
        if let Some(values) = package.enums.get_mut(&kind) {
            values.push(value);
        }
    }
    for values in package.enums.values_mut() {
        values.sort();
        values.dedup();
    }
    Ok(package)
}

static TYPE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^type (\w+) (= )?(\S+)( \{)?").unwrap());
static CONSTANT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"^(?:\t|const )(\w+)\s+(\w+)\s*=\s*"([^"]*)""#).unwrap());
static NAMED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\t(\w+)\s+([^\s`]+)\s*`([^`]*)`").unwrap());
static EMBEDDED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\t(\*?[\w.]+)\s*`([^`]*)`").unwrap());
static IMPORT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"^(?:import)?\s*(\w+)?\s*"([^"]+)"$"#).unwrap());
static TAG: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"(\w+):"([^"]*)""#).unwrap());

fn read_file(path: &str, source: &str, package: &mut Package, constants: &mut Vec<(String, String)>) -> Result<()> {
    let mut scope = Scope { package: path, imports: HashMap::new() };
    let mut lines = source.lines();
    let mut marked_enum = false;
    while let Some(line) = lines.next() {
        if let Some(import) = IMPORT.captures(line) {
            let target = import[2].to_string();
            let name = import.get(1).map_or_else(|| last_segment(&target).to_string(), |m| m.as_str().to_string());
            scope.imports.insert(name, target);
        } else if let Some(constant) = CONSTANT.captures(line) {
            constants.push((constant[2].to_string(), constant[3].to_string()));
        } else if let Some(decl) = TYPE.captures(line) {
            let name = decl[1].to_string();
            let shape = if &decl[3] == "struct{}" || line.ends_with("struct {}") {
                Decl::Struct(Vec::new())
            } else if &decl[3] == "struct" {
                Decl::Struct(read_struct(&scope, &mut lines).with_context(|| format!("type {name}"))?)
            } else if line.ends_with('{')
                || decl[3].starts_with("func")
                || decl[3].contains('[') && !is_go_type(&decl[3])
            {
                // Interfaces, functions and generics carry no API data.
                continue;
            } else if decl.get(2).is_some() {
                Decl::Alias(scope.parse(&decl[3])?)
            } else {
                Decl::Named(scope.parse(&decl[3])?)
            };
            if std::mem::take(&mut marked_enum) {
                package.enums.insert(name.clone(), Vec::new());
            }
            package.types.insert(name, shape);
        } else if line.starts_with("// +enum") {
            marked_enum = true;
        } else if !line.starts_with("//") {
            marked_enum = false;
        }
    }
    Ok(())
}

fn is_go_type(text: &str) -> bool {
    text.starts_with("[]") || text.starts_with("map[")
}

fn read_struct<'a>(scope: &Scope<'_>, lines: &mut impl Iterator<Item = &'a str>) -> Result<Vec<Field>> {
    let mut fields = Vec::new();
    for line in lines {
        if line == "}" {
            break;
        }
        let (go_name, expr, tags) = if let Some(field) = NAMED.captures(line) {
            (field[1].to_string(), scope.parse(&field[2])?, field[3].to_string())
        } else if let Some(field) = EMBEDDED.captures(line) {
            let go_name = field[1].rsplit('.').next().unwrap_or_default().trim_start_matches('*').to_string();
            (go_name, scope.parse(&field[1])?, field[2].to_string())
        } else {
            continue;
        };
        let tags: HashMap<_, _> = TAG.captures_iter(&tags).map(|t| (t[1].to_string(), t[2].to_string())).collect();
        let Some(json) = tags.get("json").filter(|json| *json != "-") else { continue };
        let mut json = json.split(',');
        let name = json.next().unwrap_or_default().to_string();
        let options: Vec<_> = json.collect();
        let protobuf = tags.get("protobuf").map_or("-", String::as_str);
        fields.push(Field {
            go_name,
            json: name,
            expr,
            omit_empty: options.contains(&"omitempty"),
            omit_zero: options.contains(&"omitzero"),
            number: protobuf.split(',').nth(1).map_or(Ok(0), str::parse)?,
            patch_strategy: tags.get("patchStrategy").cloned().unwrap_or_default(),
            patch_key: tags.get("patchMergeKey").cloned().unwrap_or_default(),
        });
    }
    Ok(fields)
}

struct Scope<'a> {
    package: &'a str,
    imports: HashMap<String, String>,
}

impl Scope<'_> {
    fn parse(&self, text: &str) -> Result<Expr> {
        if let Some(rest) = text.strip_prefix('*') {
            return Ok(Expr::Pointer(Box::new(self.parse(rest)?)));
        }
        if let Some(rest) = text.strip_prefix("[]") {
            return Ok(Expr::Slice(Box::new(self.parse(rest)?)));
        }
        if let Some((key, value)) = text.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
            return Ok(Expr::Map(Box::new(self.parse(key)?), Box::new(self.parse(value)?)));
        }
        let (package, name) = match text.split_once('.') {
            Some((import, name)) => match self.imports.get(import) {
                Some(package) => (package.clone(), name),
                None => bail!("unknown import {import:?} in type {text:?}"),
            },
            None if is_predeclared(text) => (String::new(), text),
            None => (self.package.to_string(), text),
        };
        Ok(Expr::Name { package, name: name.to_string() })
    }
}

fn is_predeclared(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
}

/// The name a package is used by: `v1` for `k8s.io/api/core/v1`.
pub fn last_segment(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn read_proto(source: &str) -> HashMap<String, HashMap<String, u32>> {
    let mut messages: HashMap<String, HashMap<String, u32>> = HashMap::new();
    let mut current = String::new();
    for line in source.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("message ") {
            current = name.trim_end_matches(['{', ' ']).to_string();
            messages.entry(current.clone()).or_default();
        } else if !line.starts_with("//")
            && let Some((left, right)) = line.split_once(" = ")
            && let Ok(number) = right.trim_end_matches(';').parse()
        {
            let name = left.rsplit(' ').next().unwrap_or_default().to_string();
            messages.entry(current.clone()).or_default().insert(name, number);
        }
    }
    messages
}
