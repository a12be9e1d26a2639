//! Reads `schema.table` into flat arrays. Nothing is copied out of the text: names are slices of it.
//!
//! The format: one record a line, tokens separated by tabs, the first token says what the record is.
//! `P package` opens an OpenAPI package; `T name` a type in it (`-`: not in the OpenAPI documents; `M:` map type, `U:` unions,
//! `K:group/version/kind`); then its fields in the order of the Go declaration: `name shape number`, flags (`?` left out
//! when empty, `z` left out when zero, `*` pointer, `!` required), `L:` list type and keys, `M:` map type, `P:strategy:key`
//! for patches, `G:` Go's name of the type where it cannot be derived, `E:` allowed values, `=` default; `+ type number` embeds a
//! struct. `G group/version` opens a served version; `R` and `S` are its resources and subresources:
//! `name kind scope verbs`, `1:` singular, `s:` short names, `c:` categories, `g:` group and version of the kind, `h:` storage
//! version hash.

use std::{borrow::Cow, collections::HashMap, fmt, sync::LazyLock};

static TEXT: &str = include_str!("schema.table");
static TABLE: LazyLock<Table> = LazyLock::new(|| Reader::default().read(TEXT));

/// The facts about the built-in kinds, read on the first call.
pub fn table() -> &'static Table {
    &TABLE
}

/// The type that the alternatives of [`Alternative`] alternate with.
pub(crate) fn json_schema() -> &'static Type {
    let package = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";
    table().type_named(package, "JSONSchemaProps").expect("the table has the type of JSON schemas")
}

pub struct Table {
    types: Vec<Type>,
    shapes: Vec<Shape>,
    by_name: HashMap<(&'static str, &'static str), TypeId>,
    by_kind: HashMap<(&'static str, &'static str, &'static str), TypeId>,
    resources: Vec<ResourceRow>,
    group_versions: Vec<(&'static str, &'static str)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TypeId(u16);

/// Index of the shape of a list's or map's elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ElementId(u16);

/// A struct of the API.
pub struct Type {
    pub id: TypeId,
    /// `io.k8s.api.core.v1`
    pub package: &'static str,
    pub name: &'static str,
    /// The fields as JSON has them, embedded ones in place, in the order in which upstream encodes them.
    pub fields: Box<[Field]>,
    /// The members as declared, which is how protobuf nests them.
    pub members: Box<[Member]>,
    /// Positions in `members` of those that have a protobuf form, by ascending field number.
    pub numbered: Box<[u16]>,
    /// Field numbers of `fields`, sorted by name.
    by_name: Box<[u16]>,
    attributes: &'static str,
}

pub struct Field {
    pub name: &'static str,
    pub shape: Shape,
    /// Protobuf field number within the struct that declares it; 0: no protobuf form.
    pub number: u16,
    /// Go leaves it out when empty (which a struct that is not behind a pointer never is).
    pub omit_empty: bool,
    /// Go leaves it out when it is the zero value.
    pub omit_zero: bool,
    pub pointer: bool,
    pub required: bool,
    /// Go names of the embedded structs it comes through, joined by dots.
    pub through: Option<Box<str>>,
    attributes: &'static str,
}

#[derive(Clone, Copy)]
pub enum Member {
    /// Index into `Type::fields`.
    Field(u16),
    Embedded(Embedded),
}

#[derive(Clone, Copy)]
pub struct Embedded {
    pub ty: TypeId,
    /// Where in `Type::fields` the fields of `ty` begin; they follow one another.
    pub first: u16,
    /// 0: no protobuf form (`TypeMeta`).
    pub number: u16,
}

/// What a value of a field looks like.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Shape {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// base64 in JSON.
    Bytes,
    IntOrString,
    Quantity,
    Time,
    MicroTime,
    /// An object of any kind.
    RawExtension,
    FieldsV1,
    /// Any JSON value.
    Json,
    /// A JSON schema or something else, in a CustomResourceDefinition.
    SchemaOr(Alternative),
    Object(TypeId),
    List(ElementId),
    /// A list that is a message of its own in protobuf: `repeated T items = 1`.
    WrappedList(ElementId),
    Map(ElementId),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Alternative {
    Array,
    Bool,
    Strings,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WireType {
    Varint,
    Fixed64,
    Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListType {
    Atomic,
    Set,
    /// The keys that tell items apart, joined by commas.
    Map(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapType {
    Atomic,
    Granular,
}

/// How a strategic merge patch treats a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PatchStrategy {
    pub merge: bool,
    pub replace: bool,
    pub retain_keys: bool,
    /// Empty for a list of scalars.
    pub merge_key: &'static str,
}

/// A served resource.
pub struct ResourceRow {
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
    pub verbs: Box<[&'static str]>,
    pub short_names: Box<[&'static str]>,
    pub categories: Box<[&'static str]>,
    /// Empty for a resource that is not stored.
    pub storage_version_hash: &'static str,
    pub subresources: Vec<SubresourceRow>,
}

pub struct SubresourceRow {
    /// `status`
    pub name: &'static str,
    pub kind: &'static str,
    /// Group and version of the kind where they are not the resource's own.
    pub group_version: Option<(&'static str, &'static str)>,
    pub verbs: Box<[&'static str]>,
}

impl Table {
    /// The type of a kind, list kinds included.
    pub fn type_of(&self, group: &str, version: &str, kind: &str) -> Option<&Type> {
        self.by_kind.get(&(group, version, kind)).map(|id| self.get(*id))
    }

    /// `io.k8s.api.core.v1`, `PodSpec`.
    pub fn type_named(&self, package: &str, name: &str) -> Option<&Type> {
        self.by_name.get(&(package, name)).map(|id| self.get(*id))
    }

    pub fn types(&self) -> &[Type] {
        &self.types
    }

    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[usize::from(id.0)]
    }

    pub fn element(&self, id: ElementId) -> Shape {
        self.shapes[usize::from(id.0)]
    }

    /// Everything that the release serves by default, by group in upstream's order, the preferred version first.
    pub fn resources(&self) -> &[ResourceRow] {
        &self.resources
    }

    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&ResourceRow> {
        self.resources.iter().find(|r| r.plural == plural && r.group == group && r.version == version)
    }

    pub fn resource_of_kind(&self, group: &str, version: &str, kind: &str) -> Option<&ResourceRow> {
        self.resources.iter().find(|r| r.kind == kind && r.group == group && r.version == version)
    }

    /// Groups in upstream's order of priority, each with its versions, the preferred one first.
    pub fn group_versions(&self) -> &[(&'static str, &'static str)] {
        &self.group_versions
    }
}

impl TypeId {
    pub fn get(self) -> &'static Type {
        table().get(self)
    }
}

impl ElementId {
    pub fn get(self) -> Shape {
        table().element(self)
    }
}

impl Type {
    /// `io.k8s.api.core.v1.PodSpec`
    pub fn openapi_name(&self) -> String {
        format!("{}.{}", self.package, self.name)
    }

    /// `v1.PodSpec`, as Go prints it.
    pub fn go_name(&self) -> String {
        format!("{}.{}", self.package.rsplit('.').next().unwrap_or_default(), self.name)
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        self.position(name).map(|at| &self.fields[at])
    }

    pub fn position(&self, name: &str) -> Option<usize> {
        let found = self.by_name.binary_search_by(|at| self.fields[usize::from(*at)].name.cmp(name));
        found.ok().map(|at| usize::from(self.by_name[at]))
    }

    /// Not a definition of the OpenAPI documents: only ever embedded in other types, or of a version that is no longer
    /// served.
    pub fn is_unpublished(&self) -> bool {
        attribute(self.attributes, "-").is_some()
    }

    pub fn map_type(&self) -> Option<MapType> {
        map_type(self.attributes)
    }

    /// `x-kubernetes-unions` as JSON.
    pub fn unions(&self) -> Option<&'static str> {
        attribute(self.attributes, "U:")
    }

    /// Group, version and kind under which the type is a kind.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        self.attributes.split('\t').filter_map(|token| {
            let mut parts = token.strip_prefix("K:")?.splitn(3, '/');
            Some((parts.next()?, parts.next()?, parts.next()?))
        })
    }
}

impl fmt::Debug for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.package, self.name)
    }
}

impl Field {
    pub fn list_type(&self) -> Option<ListType> {
        Some(match attribute(self.attributes, "L:")? {
            "atomic" => ListType::Atomic,
            "set" => ListType::Set,
            map => ListType::Map(map.strip_prefix("map:")?),
        })
    }

    pub fn map_type(&self) -> Option<MapType> {
        map_type(self.attributes)
    }

    pub fn patch_strategy(&self) -> PatchStrategy {
        let Some((strategies, merge_key)) = attribute(self.attributes, "P:").and_then(|p| p.split_once(':')) else {
            return PatchStrategy::default();
        };
        let has = |wanted: &str| strategies.split(',').any(|s| s == wanted);
        PatchStrategy { merge: has("merge"), replace: has("replace"), retain_keys: has("retainKeys"), merge_key }
    }

    /// The allowed values of an enumeration.
    pub fn values(&self) -> Option<impl Iterator<Item = &'static str>> {
        attribute(self.attributes, "E:").map(|values| values.split('|'))
    }

    /// The declared default as JSON.
    pub fn default_json(&self) -> Option<&'static str> {
        attribute(self.attributes, "=")
    }

    /// Go's name of the field's type, a pointer aside.
    pub fn go_name(&self) -> Cow<'static, str> {
        match attribute(self.attributes, "G:") {
            Some(name) => Cow::Borrowed(name),
            None => self.shape.go_name(),
        }
    }

    pub(super) fn declared_go_name(&self) -> Option<&'static str> {
        attribute(self.attributes, "G:")
    }

    /// The two halves of `x-kubernetes-patch-strategy`, as the documents write it.
    pub(crate) fn patch_attribute(&self) -> Option<(&'static str, &'static str)> {
        attribute(self.attributes, "P:")?.split_once(':')
    }
}

impl Shape {
    /// The shape of a list's items or a map's values.
    pub fn element(self) -> Option<Shape> {
        match self {
            Shape::List(id) | Shape::WrappedList(id) | Shape::Map(id) => Some(id.get()),
            _ => None,
        }
    }

    /// The struct that a value, or each element of it, is.
    pub fn object(self) -> Option<&'static Type> {
        match self {
            Shape::Object(id) => Some(id.get()),
            _ => self.element()?.object(),
        }
    }

    pub fn is_list(self) -> bool {
        matches!(self, Shape::List(_) | Shape::WrappedList(_))
    }

    /// A list and a map count as their elements do; a map's entries are messages.
    pub fn wire_type(self) -> WireType {
        match self {
            Shape::Bool | Shape::Int32 | Shape::Int64 => WireType::Varint,
            Shape::Double => WireType::Fixed64,
            Shape::List(id) => id.get().wire_type(),
            _ => WireType::Bytes,
        }
    }

    pub fn go_name(self) -> Cow<'static, str> {
        match self {
            Shape::String => "string".into(),
            Shape::Bool => "bool".into(),
            Shape::Int32 => "int32".into(),
            Shape::Int64 => "int64".into(),
            Shape::Double => "float64".into(),
            Shape::Bytes => "[]uint8".into(),
            Shape::IntOrString => "intstr.IntOrString".into(),
            Shape::Quantity => "resource.Quantity".into(),
            Shape::Time => "v1.Time".into(),
            Shape::MicroTime => "v1.MicroTime".into(),
            Shape::RawExtension => "runtime.RawExtension".into(),
            Shape::FieldsV1 => "v1.FieldsV1".into(),
            Shape::Json => "interface {}".into(),
            Shape::SchemaOr(Alternative::Array) => "v1.JSONSchemaPropsOrArray".into(),
            Shape::SchemaOr(Alternative::Bool) => "v1.JSONSchemaPropsOrBool".into(),
            Shape::SchemaOr(Alternative::Strings) => "v1.JSONSchemaPropsOrStringArray".into(),
            Shape::Object(id) => id.get().go_name().into(),
            Shape::List(id) | Shape::WrappedList(id) => format!("[]{}", id.get().go_name()).into(),
            Shape::Map(id) => format!("map[string]{}", id.get().go_name()).into(),
        }
    }
}

/// What follows `prefix` in the first token that starts with it.
fn attribute(attributes: &'static str, prefix: &str) -> Option<&'static str> {
    if attributes.is_empty() {
        return None;
    }
    attributes.split('\t').find_map(|token| token.strip_prefix(prefix))
}

fn map_type(attributes: &'static str) -> Option<MapType> {
    attribute(attributes, "M:").map(|map| if map == "atomic" { MapType::Atomic } else { MapType::Granular })
}

/// The text is generated and checked, so a malformed line is a bug of this crate: it panics, and a test reads it all.
#[derive(Default)]
struct Reader {
    by_name: HashMap<(&'static str, &'static str), TypeId>,
    shapes: Vec<Shape>,
    known_shapes: HashMap<Shape, ElementId>,
    drafts: Vec<Draft>,
    resources: Vec<ResourceRow>,
    group_versions: Vec<(&'static str, &'static str)>,
}

struct Draft {
    package: &'static str,
    name: &'static str,
    attributes: &'static str,
    lines: Vec<&'static str>,
}

impl Reader {
    fn read(mut self, text: &'static str) -> Table {
        let mut package = "";
        for line in text.lines().skip(1) {
            let (lead, rest) = line.split_once('\t').expect("every record has a second token");
            match lead {
                "P" => package = rest,
                "T" => {
                    let (name, attributes) = rest.split_once('\t').unwrap_or((rest, ""));
                    self.by_name.insert((package, name), TypeId(self.drafts.len() as u16));
                    self.drafts.push(Draft { package, name, attributes, lines: Vec::new() });
                }
                "G" => self.group_versions.push(rest.split_once('/').expect("group/version")),
                "R" | "S" => self.read_resource(rest),
                _ => self.drafts.last_mut().expect("a field follows its type").lines.push(line),
            }
        }
        let drafts = std::mem::take(&mut self.drafts);
        let mut types = Vec::with_capacity(drafts.len());
        for (id, draft) in drafts.iter().enumerate() {
            types.push(self.read_type(TypeId(id as u16), draft, &drafts));
        }
        let by_kind = types.iter().flat_map(|ty| ty.kinds().map(|kind| (kind, ty.id))).collect();
        Table {
            types,
            by_kind,
            shapes: self.shapes,
            by_name: self.by_name,
            resources: self.resources,
            group_versions: self.group_versions,
        }
    }

    fn read_type(&mut self, id: TypeId, draft: &Draft, drafts: &[Draft]) -> Type {
        let mut spread = Spread { drafts, fields: Vec::new() };
        let members = self.read_members(draft, None, &mut spread);
        let fields = spread.fields;
        assert!(fields.len() <= 128, "the decoder keeps a bit for each field of a type");
        let mut by_name: Box<[u16]> = (0..fields.len() as u16).collect();
        by_name.sort_unstable_by_key(|at| fields[usize::from(*at)].name);
        let number = |at: &u16| match members[usize::from(*at)] {
            Member::Field(field) => fields[usize::from(field)].number,
            Member::Embedded(embedded) => embedded.number,
        };
        let mut numbered: Vec<u16> = (0..members.len() as u16).filter(|at| number(at) != 0).collect();
        numbered.sort_unstable_by_key(number);
        Type {
            id,
            package: draft.package,
            name: draft.name,
            fields: fields.into(),
            members: members.into(),
            numbered: numbered.into(),
            by_name,
            attributes: draft.attributes,
        }
    }

    /// Appends the draft's fields to `spread`, those of embedded structs in their place; returns the draft's own members.
    fn read_members(&mut self, draft: &Draft, through: Option<&str>, spread: &mut Spread) -> Vec<Member> {
        let mut members = Vec::with_capacity(draft.lines.len());
        for line in &draft.lines {
            let mut tokens = line.splitn(4, '\t');
            let mut next = || tokens.next().unwrap_or_default();
            let (name, shape, number, rest) = (next(), next(), next(), next());
            let shape = self.read_shape(shape, draft.package);
            let number = number.parse().expect("a field number");
            if name != "+" {
                members.push(Member::Field(spread.fields.len() as u16));
                let through = through.map(Into::into);
                spread.fields.push(Field { name, shape, number, through, ..flagged(rest) });
                continue;
            }
            let Shape::Object(ty) = shape else { panic!("only a struct is embedded") };
            members.push(Member::Embedded(Embedded { ty, first: spread.fields.len() as u16, number }));
            let inner = &spread.drafts[usize::from(ty.0)];
            let through = through.map_or_else(|| inner.name.to_owned(), |outer| format!("{outer}.{}", inner.name));
            self.read_members(inner, Some(&through), spread);
        }
        members
    }

    fn read_shape(&mut self, token: &'static str, package: &'static str) -> Shape {
        for (prefix, make) in [
            ("[]", Shape::List as fn(ElementId) -> Shape),
            ("[w]", Shape::WrappedList as fn(ElementId) -> Shape),
            ("{}", Shape::Map as fn(ElementId) -> Shape),
        ] {
            if let Some(element) = token.strip_prefix(prefix) {
                let element = self.read_shape(element, package);
                return make(self.intern(element));
            }
        }
        match token {
            "s" => Shape::String,
            "b" => Shape::Bool,
            "i" => Shape::Int32,
            "l" => Shape::Int64,
            "d" => Shape::Double,
            "B" => Shape::Bytes,
            "O" => Shape::IntOrString,
            "Q" => Shape::Quantity,
            "t" => Shape::Time,
            "u" => Shape::MicroTime,
            "R" => Shape::RawExtension,
            "F" => Shape::FieldsV1,
            "J" => Shape::Json,
            "|array" => Shape::SchemaOr(Alternative::Array),
            "|bool" => Shape::SchemaOr(Alternative::Bool),
            "|strings" => Shape::SchemaOr(Alternative::Strings),
            name => {
                let (found, name) = name.rsplit_once('.').expect("a qualified type name");
                let key = (if found.is_empty() { package } else { found }, name);
                Shape::Object(*self.by_name.get(&key).unwrap_or_else(|| panic!("no type {key:?}")))
            }
        }
    }

    fn intern(&mut self, shape: Shape) -> ElementId {
        let shapes = &mut self.shapes;
        *self.known_shapes.entry(shape).or_insert_with(|| {
            shapes.push(shape);
            ElementId(shapes.len() as u16 - 1)
        })
    }

    fn read_resource(&mut self, rest: &'static str) {
        let mut tokens = rest.splitn(5, '\t');
        let mut next = || tokens.next().unwrap_or_default();
        let (name, kind, scope, verbs, attributes) = (next(), next(), next(), next(), next());
        let (group, version) = *self.group_versions.last().expect("a resource follows its version");
        let list = |prefix| attribute(attributes, prefix).map(|names| names.split(',').collect()).unwrap_or_default();
        let verbs = verbs.split(',').collect();
        if let Some((parent, name)) = name.split_once('/') {
            let group_version = attribute(attributes, "g:").and_then(|gv| gv.split_once('/'));
            let row = SubresourceRow { name, kind, group_version, verbs };
            let parent = self.resources.iter_mut().rev().find(|r| r.plural == parent).expect("a parent resource");
            return parent.subresources.push(row);
        }
        self.resources.push(ResourceRow {
            group,
            version,
            plural: name,
            singular: attribute(attributes, "1:").unwrap_or_default(),
            kind,
            namespaced: scope == "n",
            verbs,
            short_names: list("s:"),
            categories: list("c:"),
            storage_version_hash: attribute(attributes, "h:").unwrap_or_default(),
            subresources: Vec::new(),
        });
    }
}

/// The fields of a type while those of embedded types are spread out in it.
struct Spread<'a> {
    drafts: &'a [Draft],
    fields: Vec<Field>,
}

/// A field of which only flags and attributes are known yet.
fn flagged(rest: &'static str) -> Field {
    // The flags are one token of their own signs; no other attribute starts with one of them.
    let has_flags = rest.starts_with(['?', 'z', '*', '!']);
    let (flags, attributes) = if has_flags { rest.split_once('\t').unwrap_or((rest, "")) } else { ("", rest) };
    Field {
        name: "",
        shape: Shape::Json,
        number: 0,
        omit_empty: flags.contains('?'),
        omit_zero: flags.contains('z'),
        pointer: flags.contains('*'),
        required: flags.contains('!'),
        through: None,
        attributes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_fields_are_found() {
        let check = |group: &str, version: &str, kind: &str, path: &str, go: &str| {
            let mut ty = table().type_of(group, version, kind).expect(kind);
            let mut found = String::new();
            for name in path.split('.') {
                let field = ty.field(name).expect(name);
                found = field.go_name().into_owned();
                ty = field.shape.object().unwrap_or(ty);
            }
            assert_eq!(found, go, "{kind} {path}");
        };
        check("apps", "v1", "Deployment", "spec.replicas", "int32");
        check("", "v1", "Pod", "spec.containers.resources.limits", "v1.ResourceList");
        check("", "v1", "Pod", "spec.volumes.hostPath.type", "v1.HostPathType");
        check("", "v1", "Service", "spec.ports.targetPort", "intstr.IntOrString");
        check("", "v1", "Secret", "data", "map[string][]uint8");
        check("", "v1", "PodList", "items", "[]v1.Pod");
        check("apps", "v1", "Deployment", "spec.template.spec.ephemeralContainers", "[]v1.EphemeralContainer");
    }

    #[test]
    fn facts_of_fields() {
        let spec = table().type_named("io.k8s.api.core.v1", "PodSpec").unwrap();
        let containers = spec.field("containers").unwrap();
        assert!(containers.required && !containers.omit_empty && !containers.pointer);
        assert_eq!(containers.list_type(), Some(ListType::Map("name")));
        assert_eq!(containers.patch_strategy(), PatchStrategy { merge: true, merge_key: "name", ..Default::default() });
        let volumes = spec.field("volumes").unwrap().patch_strategy();
        assert!(volumes.merge && volumes.retain_keys && volumes.merge_key == "name");
        let volume = table().type_named("io.k8s.api.core.v1", "Volume").unwrap();
        assert_eq!(volume.field("hostPath").unwrap().through.as_deref(), Some("VolumeSource"));
        assert_eq!(volume.members.len(), 2);
        let port = table().type_named("io.k8s.api.core.v1", "ServicePort").unwrap();
        assert_eq!(port.field("protocol").unwrap().default_json(), Some("\"TCP\""));
        assert_eq!(port.field("protocol").unwrap().values().unwrap().collect::<Vec<_>>(), ["SCTP", "TCP", "UDP"]);
    }

    #[test]
    fn resources_are_found() {
        let pods = table().resource("", "v1", "pods").unwrap();
        assert!(pods.namespaced && pods.verbs.contains(&"deletecollection"));
        assert_eq!((&*pods.short_names, &*pods.categories), (&["po"][..], &["all"][..]));
        let scale = table().resource("apps", "v1", "deployments").unwrap();
        let scale = scale.subresources.iter().find(|s| s.name == "scale").unwrap();
        assert_eq!((scale.kind, scale.group_version), ("Scale", Some(("autoscaling", "v1"))));
        assert!(table().group_versions().starts_with(&[("", "v1"), ("apiregistration.k8s.io", "v1")]));
    }
}
