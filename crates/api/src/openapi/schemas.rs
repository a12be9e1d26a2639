//! The definitions of types: those that are referred to, and those that they refer to.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Dialect;
use crate::schema::{Alternative, Field, ListType, MapType, Shape, Type, TypeId, table};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";

/// Collects definitions while references to them are made.
pub(super) struct Schemas {
    pub(super) dialect: Dialect,
    done: BTreeMap<String, Value>,
    wanted: Vec<TypeId>,
}

impl Schemas {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, done: BTreeMap::new(), wanted: Vec::new() }
    }

    /// A reference to a type of the meta package, such as `Status`.
    pub(super) fn meta(&mut self, name: &str) -> Value {
        match table().type_named(META, name) {
            Some(ty) => self.reference(ty),
            None => self.special(&format!("{META}.{name}"), json!({"type": "object"})),
        }
    }

    pub(super) fn reference(&mut self, ty: &Type) -> Value {
        let name = ty.openapi_name();
        if !self.done.contains_key(&name) {
            self.done.insert(name.clone(), Value::Null);
            self.wanted.push(ty.id);
        }
        self.dialect.reference(&name)
    }

    pub(super) fn finish(mut self) -> Map<String, Value> {
        while let Some(id) = self.wanted.pop() {
            let ty = table().get(id);
            let definition = self.definition(ty);
            self.done.insert(ty.openapi_name(), definition);
        }
        self.done.into_iter().collect()
    }

    fn special(&mut self, name: &str, definition: Value) -> Value {
        if !self.done.contains_key(name) {
            self.done.insert(name.to_owned(), definition);
        }
        self.dialect.reference(name)
    }

    fn definition(&mut self, ty: &Type) -> Value {
        let mut out = Map::new();
        out.insert("type".into(), "object".into());
        let required: Vec<_> = ty.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
        if !required.is_empty() {
            out.insert("required".into(), json!(required));
        }
        if !ty.fields.is_empty() {
            let properties: Map<_, _> =
                ty.fields.iter().map(|field| (field.name.to_owned(), self.property(field))).collect();
            out.insert("properties".into(), properties.into());
        }
        let kinds: Vec<_> = ty
            .kinds()
            .map(|(group, version, kind)| json!({"group": group, "kind": kind, "version": version}))
            .collect();
        if !kinds.is_empty() {
            out.insert("x-kubernetes-group-version-kind".into(), kinds.into());
        }
        insert_map_type(&mut out, ty.map_type());
        if let Some(unions) = ty.unions().and_then(|unions| serde_json::from_str(unions).ok()) {
            out.insert("x-kubernetes-unions".into(), unions);
        }
        Value::Object(out)
    }

    fn property(&mut self, field: &Field) -> Value {
        let mut extensions = Map::new();
        // The second version of the published documents carries no defaults.
        if let Some(default) = field.default_json().filter(|_| self.dialect == Dialect::V3) {
            extensions.insert("default".into(), serde_json::from_str(default).unwrap_or_default());
        }
        match field.list_type() {
            Some(ListType::Atomic) => drop(extensions.insert("x-kubernetes-list-type".into(), "atomic".into())),
            Some(ListType::Set) => drop(extensions.insert("x-kubernetes-list-type".into(), "set".into())),
            Some(ListType::Map(keys)) => {
                extensions.insert("x-kubernetes-list-type".into(), "map".into());
                let keys: Vec<_> = keys.split(',').collect();
                extensions.insert("x-kubernetes-list-map-keys".into(), json!(keys));
            }
            None => {}
        }
        insert_map_type(&mut extensions, field.map_type());
        if let Some((strategy, key)) = field.patch_attribute() {
            extensions.insert("x-kubernetes-patch-strategy".into(), strategy.into());
            if !key.is_empty() {
                extensions.insert("x-kubernetes-patch-merge-key".into(), key.into());
            }
        }
        let mut schema = self.shape(field.shape);
        if let Some(values) = field.values() {
            let holder = if field.shape.is_list() { &mut schema["items"] } else { &mut schema };
            holder["enum"] = values.map(Value::from).collect();
        }
        if extensions.is_empty() {
            return schema;
        }
        // In version 3 a reference has no room for anything beside it.
        if self.dialect == Dialect::V3 && schema.get("$ref").is_some() {
            schema = json!({"allOf": [schema]});
        }
        if let Value::Object(schema) = &mut schema {
            schema.extend(extensions);
        }
        schema
    }

    fn shape(&mut self, shape: Shape) -> Value {
        let either = |v2: Value, v3: Value| if self.dialect == Dialect::V2 { v2 } else { v3 };
        match shape {
            Shape::String => json!({"type": "string"}),
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer", "format": "int64"}),
            Shape::Double => json!({"type": "number", "format": "double"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::IntOrString => {
                let v3 = json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]});
                let definition = either(json!({"type": "string", "format": "int-or-string"}), v3);
                self.special("io.k8s.apimachinery.pkg.util.intstr.IntOrString", definition)
            }
            Shape::Quantity => {
                let definition =
                    either(json!({"type": "string"}), json!({"oneOf": [{"type": "string"}, {"type": "number"}]}));
                self.special("io.k8s.apimachinery.pkg.api.resource.Quantity", definition)
            }
            Shape::Time => self.special(&format!("{META}.Time"), json!({"type": "string", "format": "date-time"})),
            Shape::MicroTime => {
                self.special(&format!("{META}.MicroTime"), json!({"type": "string", "format": "date-time"}))
            }
            Shape::RawExtension => {
                self.special("io.k8s.apimachinery.pkg.runtime.RawExtension", json!({"type": "object"}))
            }
            Shape::FieldsV1 => self.special(&format!("{META}.FieldsV1"), json!({"type": "object"})),
            Shape::Json => self.special(&format!("{EXTENSIONS}.JSON"), json!({})),
            Shape::SchemaOr(alternative) => {
                let name = match alternative {
                    Alternative::Array => "JSONSchemaPropsOrArray",
                    Alternative::Bool => "JSONSchemaPropsOrBool",
                    Alternative::Strings => "JSONSchemaPropsOrStringArray",
                };
                self.special(&format!("{EXTENSIONS}.{name}"), json!({}))
            }
            Shape::Object(id) => self.reference(table().get(id)),
            Shape::List(element) | Shape::WrappedList(element) => {
                json!({"type": "array", "items": self.shape(element.get())})
            }
            Shape::Map(element) => json!({"type": "object", "additionalProperties": self.shape(element.get())}),
        }
    }
}

fn insert_map_type(out: &mut Map<String, Value>, map_type: Option<MapType>) {
    if let Some(map_type) = map_type {
        let map_type = if map_type == MapType::Atomic { "atomic" } else { "granular" };
        out.insert("x-kubernetes-map-type".into(), map_type.into());
    }
}
