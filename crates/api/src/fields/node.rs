//! The schema table as ownership sees it: what a value is, and which step leads to each of its parts.

use std::borrow::Cow;

use serde_json::Value;

use super::element::Element;
use crate::schema::{Field, ListType, MapType, Shape, Type};

/// A place in a tree: the shape of its value, and the field whose attributes tell lists and maps apart.
#[derive(Clone, Copy)]
pub struct Node {
    shape: Shape,
    field: Option<&'static Field>,
    /// Below a place of unknown shape: lists are atomic, maps are not.
    deduced: bool,
}

/// How a value is owned.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Scalar,
    List(List),
    Map(Map),
}

#[derive(Clone, Copy)]
pub(super) struct List {
    pub atomic: bool,
    /// Joined by commas; empty for a set.
    pub keys: &'static str,
    pub element: Node,
}

#[derive(Clone, Copy)]
pub(super) struct Map {
    pub atomic: bool,
    /// `None` for maps, whose entries are all alike.
    pub ty: Option<&'static Type>,
    pub element: Option<Node>,
}

impl Node {
    pub fn of(ty: &'static Type) -> Node {
        Node { shape: Shape::Object(ty.id), field: None, deduced: false }
    }

    fn element(shape: Shape) -> Node {
        Node { shape, field: None, deduced: false }
    }

    fn deduced() -> Node {
        Node { shape: Shape::Json, field: None, deduced: true }
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// What `value` is here; a value that does not fit is of the kind that would.
    pub(super) fn kind(&self, value: Option<&Value>) -> Kind {
        match self.shape {
            Shape::Object(id) => Kind::Map(self.object(id.get())),
            Shape::Map(element) => Kind::Map(Map {
                atomic: self.is_atomic_map(None),
                ty: None,
                element: Some(Node::element(element.get())),
            }),
            Shape::List(element) | Shape::WrappedList(element) => Kind::List(self.list(element.get())),
            Shape::RawExtension => self.open(value, true),
            Shape::Json | Shape::SchemaOr(_) | Shape::FieldsV1 => self.open(value, false),
            _ => Kind::Scalar,
        }
    }

    fn object(&self, ty: &'static Type) -> Map {
        let element = ty.fields.is_empty().then(Node::deduced);
        Map { atomic: self.is_atomic_map(ty.map_type()), ty: Some(ty), element }
    }

    /// What a field says of its map goes before what the type says of itself.
    fn is_atomic_map(&self, own: Option<MapType>) -> bool {
        self.field.and_then(Field::map_type).or(own) == Some(MapType::Atomic)
    }

    fn list(&self, element: Shape) -> List {
        let element = Node::element(element);
        let (atomic, keys) = match self.field.and_then(Field::list_type) {
            Some(ListType::Atomic) => (true, ""),
            Some(ListType::Set) => (false, ""),
            Some(ListType::Map(keys)) => (false, keys),
            None => {
                let patch = self.field.map(Field::patch_strategy).unwrap_or_default();
                (!patch.merge, patch.merge_key)
            }
        };
        List { atomic, keys, element }
    }

    /// A value that may be anything.
    fn open(&self, value: Option<&Value>, atomic: bool) -> Kind {
        let element = Node::deduced();
        match value {
            Some(Value::Array(_)) => Kind::List(List { atomic: true, keys: "", element }),
            Some(Value::Object(_)) | None => Kind::Map(Map { atomic, ty: None, element: Some(element) }),
            Some(Value::Null) => Kind::Map(Map { atomic, ty: None, element: Some(element) }),
            Some(_) => Kind::Scalar,
        }
    }

    /// Whether the value decides what it is.
    pub(super) fn is_open(&self) -> bool {
        self.deduced || matches!(self.shape, Shape::RawExtension | Shape::Json | Shape::SchemaOr(_) | Shape::FieldsV1)
    }

    /// The place that a step leads to; `None` if the table knows nothing there.
    pub(super) fn step(&self, element: &Element) -> Option<Node> {
        match (self.kind(None), element) {
            (Kind::Map(map), Element::Field(name)) => map.entry(name).map(|(node, _)| node),
            (Kind::List(list), Element::Key(_) | Element::Value(_)) => Some(list.element),
            _ => None,
        }
    }
}

impl Map {
    /// The place of an entry, and its step; `None` if a struct has no such field.
    pub(super) fn entry(&self, name: &str) -> Option<(Node, Element)> {
        if let Some(field) = self.ty.and_then(|ty| ty.field(name)) {
            let node = Node { shape: field.shape, field: Some(field), deduced: false };
            return Some((node, Element::Field(Cow::Borrowed(field.name))));
        }
        Some((self.element?, Element::Field(Cow::Owned(name.to_owned()))))
    }

    /// Whether `name` is declared, and not just an entry like any other.
    pub(super) fn declares(&self, name: &str) -> bool {
        self.ty.is_some_and(|ty| ty.field(name).is_some())
    }
}

impl List {
    /// The step to an item of a list that is no atom.
    pub(super) fn step(&self, item: &Value) -> Result<Element, String> {
        if self.keys.is_empty() {
            return match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
                scalar => Ok(Element::Value(scalar.clone())),
            };
        }
        let map = match item {
            Value::Object(map) => map,
            Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
            _ => return Err("associative list with keys may not have non-map elements".to_owned()),
        };
        let ty = self.element.shape.object();
        let mut fields = Vec::with_capacity(2);
        for key in self.keys.split(',') {
            let default = || {
                let text = ty?.field(key)?.default_json()?;
                serde_json::from_str::<Value>(text).ok()
            };
            if let Some(value) = map.get(key).cloned().or_else(default) {
                fields.push((Cow::Borrowed(key), value));
            }
        }
        if fields.is_empty() {
            let keys: Vec<String> = self.keys.split(',').map(|key| format!("{key:?}")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any \
                 key fields)",
                keys.join(" ")
            ));
        }
        Ok(Element::key(fields))
    }
}
