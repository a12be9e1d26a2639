//! The strategies of all kinds behind one trait without a type parameter, and the row that describes a resource.
//!
//! Generic code stops here: everything above handles [`AnyObject`] and [`AnyStrategy`]. A kind that is defined at run time
//! implements the same two traits over a JSON tree.

use std::any::Any;
use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use serde_json::ser::{CompactFormatter, Formatter};
use xebec_api::field::FieldErrors;
use xebec_api::fields::Filter;
use xebec_api::object::{DecodeError, Object};
use xebec_api::resource::{Kind, ResourceType, ScopeFact};

use super::strategy::{Column, Deletion, Generation, NameRule, Strategy};

/// An object under way through the registry: its kind is known only to its strategy.
pub trait AnyObject: Any + Send + Sync {
    fn meta(&self) -> &ObjectMeta;
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    /// JSON as the store keeps it: without `apiVersion` and `kind`. `metadata.resourceVersion` is left out if unset.
    fn encode(&self) -> Vec<u8>;
    /// What [`AnyObject::encode`] writes, as a tree.
    fn tree(&self) -> Value;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn clone_boxed(&self) -> Box<dyn AnyObject>;
}

/// Numbers as upstream writes them: what has no fraction is shown without one.
struct Numbers;

impl Formatter for Numbers {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        const EXACT: f64 = (1_u64 << 53) as f64;
        if value.fract() == 0.0 && value.abs() < EXACT {
            write!(writer, "{value:.0}")
        } else {
            CompactFormatter.write_f64(writer, value)
        }
    }
}

impl<K: Kind> AnyObject for K {
    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.metadata_mut()
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1024);
        let mut encoder = serde_json::Serializer::with_formatter(&mut bytes, Numbers);
        self.serialize(&mut encoder).expect("API types encode to JSON");
        // The generated encoders write the type first; cutting it off is cheaper than encoding through a tree.
        let head = 1 + br#""apiVersion":"","kind":"","#.len() + K::API_VERSION.len() + K::KIND.len();
        debug_assert!(bytes[..head].ends_with(br#"","#), "{}", String::from_utf8_lossy(&bytes[..head]));
        bytes.drain(1..head);
        bytes
    }

    fn tree(&self) -> Value {
        let mut tree = serde_json::to_value(self).expect("API types encode to JSON");
        if let Value::Object(fields) = &mut tree {
            fields.shift_remove("apiVersion");
            fields.shift_remove("kind");
        }
        tree
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn clone_boxed(&self) -> Box<dyn AnyObject> {
        Box::new(self.clone())
    }
}

/// What `/scale` shows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaleState {
    pub replicas: i32,
    pub status_replicas: i32,
    pub selector: String,
}

/// [`Strategy`] without its type parameter. The objects handed in are of the strategy's own kind.
pub trait AnyStrategy: Send + Sync + 'static {
    fn name_rule(&self) -> NameRule;
    fn generation(&self) -> Generation;
    fn has_status(&self) -> bool;
    fn has_scale(&self) -> bool;
    fn allow_create_on_update(&self) -> bool;
    fn allow_unconditional_update(&self) -> bool;
    fn ownable(&self, subresource: &str) -> Filter;
    fn selectable_fields(&self) -> &'static [&'static str];
    fn columns(&self) -> &'static [Column];

    /// Reads a tree whose unknown fields have been dealt with already.
    fn decode(&self, value: Value) -> Result<Box<dyn AnyObject>, serde_json::Error>;
    /// The typed value of a stored object, shared with everyone who asks.
    fn typed(&self, object: &Object) -> Result<Arc<dyn AnyObject>, DecodeError>;
    fn default(&self, object: &mut dyn AnyObject);
    fn prepare_create(&self, object: &mut dyn AnyObject);
    fn prepare_update(&self, new: &mut dyn AnyObject, old: &dyn AnyObject);
    fn prepare_status_update(&self, new: &mut dyn AnyObject, old: &dyn AnyObject);
    fn validate(&self, object: &dyn AnyObject) -> FieldErrors;
    fn validate_update(&self, new: &dyn AnyObject, old: &dyn AnyObject) -> FieldErrors;
    fn validate_status_update(&self, new: &dyn AnyObject, old: &dyn AnyObject) -> FieldErrors;
    fn prepare_part_update(&self, subresource: &str, new: &mut dyn AnyObject, old: &dyn AnyObject);
    fn validate_part_update(&self, subresource: &str, new: &dyn AnyObject, old: &dyn AnyObject) -> FieldErrors;
    fn warnings(&self, object: &dyn AnyObject, old: Option<&dyn AnyObject>) -> Vec<String>;
    fn deletion(&self, object: &dyn AnyObject, grace_period: Option<i64>) -> Deletion;
    fn holds_deletion(&self, object: &dyn AnyObject) -> bool;
    fn begin_deletion(&self, object: &mut dyn AnyObject);
    /// The values of `selectable_fields`, in their order. Decodes without keeping the typed value.
    fn fields(&self, object: &Object) -> Result<Box<[Box<str>]>, DecodeError>;
    /// One Table row. Decodes without keeping the typed value.
    fn cells(&self, object: &Object, now: Timestamp) -> Result<Vec<Value>, DecodeError>;
    fn scale(&self, object: &dyn AnyObject) -> Option<ScaleState>;
    fn set_replicas(&self, object: &mut dyn AnyObject, replicas: i32);
}

struct Typed<S>(S);

fn own<K: Kind>(object: &dyn AnyObject) -> &K {
    object.as_any().downcast_ref().expect("the registry hands a strategy objects of its own kind")
}

fn own_mut<K: Kind>(object: &mut dyn AnyObject) -> &mut K {
    object.as_any_mut().downcast_mut().expect("the registry hands a strategy objects of its own kind")
}

fn decode_once<K: Kind>(object: &Object) -> Result<K, DecodeError> {
    serde_json::from_slice(&object.plain()).map_err(|source| DecodeError { what: object.key().to_string(), source })
}

impl<S: Strategy> AnyStrategy for Typed<S> {
    fn name_rule(&self) -> NameRule {
        self.0.name_rule()
    }

    fn generation(&self) -> Generation {
        self.0.generation()
    }

    fn has_status(&self) -> bool {
        self.0.has_status()
    }

    fn has_scale(&self) -> bool {
        self.0.scale().is_some()
    }

    fn allow_create_on_update(&self) -> bool {
        self.0.allow_create_on_update()
    }

    fn allow_unconditional_update(&self) -> bool {
        self.0.allow_unconditional_update()
    }

    fn ownable(&self, subresource: &str) -> Filter {
        self.0.ownable(subresource)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        self.0.selectable_fields()
    }

    fn columns(&self) -> &'static [Column] {
        self.0.columns()
    }

    fn decode(&self, value: Value) -> Result<Box<dyn AnyObject>, serde_json::Error> {
        Ok(Box::new(serde_json::from_value::<S::Object>(value)?))
    }

    fn typed(&self, object: &Object) -> Result<Arc<dyn AnyObject>, DecodeError> {
        Ok(object.typed::<S::Object>()?)
    }

    fn default(&self, object: &mut dyn AnyObject) {
        self.0.default(own_mut(object));
    }

    fn prepare_create(&self, object: &mut dyn AnyObject) {
        self.0.prepare_create(own_mut(object));
    }

    fn prepare_update(&self, new: &mut dyn AnyObject, old: &dyn AnyObject) {
        self.0.prepare_update(own_mut(new), own(old));
    }

    fn prepare_status_update(&self, new: &mut dyn AnyObject, old: &dyn AnyObject) {
        self.0.prepare_status_update(own_mut(new), own(old));
    }

    fn validate(&self, object: &dyn AnyObject) -> FieldErrors {
        self.0.validate(own(object))
    }

    fn validate_update(&self, new: &dyn AnyObject, old: &dyn AnyObject) -> FieldErrors {
        self.0.validate_update(own(new), own(old))
    }

    fn validate_status_update(&self, new: &dyn AnyObject, old: &dyn AnyObject) -> FieldErrors {
        self.0.validate_status_update(own(new), own(old))
    }

    fn prepare_part_update(&self, subresource: &str, new: &mut dyn AnyObject, old: &dyn AnyObject) {
        self.0.prepare_part_update(subresource, own_mut(new), own(old));
    }

    fn validate_part_update(&self, subresource: &str, new: &dyn AnyObject, old: &dyn AnyObject) -> FieldErrors {
        self.0.validate_part_update(subresource, own(new), own(old))
    }

    fn warnings(&self, object: &dyn AnyObject, old: Option<&dyn AnyObject>) -> Vec<String> {
        self.0.warnings(own(object), old.map(own))
    }

    fn deletion(&self, object: &dyn AnyObject, grace_period: Option<i64>) -> Deletion {
        self.0.deletion(own(object), grace_period)
    }

    fn holds_deletion(&self, object: &dyn AnyObject) -> bool {
        self.0.holds_deletion(own(object))
    }

    fn begin_deletion(&self, object: &mut dyn AnyObject) {
        self.0.begin_deletion(own_mut(object));
    }

    fn fields(&self, object: &Object) -> Result<Box<[Box<str>]>, DecodeError> {
        let typed = decode_once::<S::Object>(object)?;
        let text = |field: &&str| Box::from(&*self.0.field(&typed, field));
        Ok(self.0.selectable_fields().iter().map(text).collect())
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Result<Vec<Value>, DecodeError> {
        Ok(self.0.cells(&decode_once::<S::Object>(object)?, now))
    }

    fn scale(&self, object: &dyn AnyObject) -> Option<ScaleState> {
        let (scale, object) = (self.0.scale()?, own(object));
        Some(ScaleState {
            replicas: (scale.replicas)(object),
            status_replicas: (scale.status_replicas)(object),
            selector: (scale.selector)(object),
        })
    }

    fn set_replicas(&self, object: &mut dyn AnyObject, replicas: i32) {
        if let Some(scale) = self.0.scale() {
            (scale.set_replicas)(own_mut(object), replicas);
        }
    }
}

/// Puts a strategy behind the trait without a type parameter.
pub fn erase<S: Strategy>(strategy: S) -> Arc<dyn AnyStrategy> {
    Arc::new(Typed(strategy))
}

/// Another version or group under which a stored kind is served: trees are converted on their way in and out.
#[derive(Clone, Copy, Debug)]
pub struct Conversion {
    pub to_stored: fn(Value) -> Value,
    pub from_stored: fn(Value) -> Value,
    /// This form's names of selectable fields, with the names that the stored kind's strategy knows.
    pub fields: &'static [(&'static str, &'static str)],
}

/// One row of the table of resources. Built by [`Row::of`] and its `const` builder methods:
///
/// `Row::of::<PodStrategy>().short(&["po"]).categories(&["all"]).subresources(&["log", "exec"])`
#[derive(Clone)]
pub struct Row {
    /// Under which name this row serves.
    pub resource: ResourceType,
    /// Which resource's storage it uses: its own, or that of the row it is a view of.
    pub stored: ResourceType,
    pub strategy: fn() -> Arc<dyn AnyStrategy>,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    /// Subresources with a handler of their own. `status` and `scale` follow from the strategy.
    pub subresources: &'static [&'static str],
    pub conversion: Option<Conversion>,
    /// The directory under `/registry/` where it differs from the plural, as upstream's layout has it.
    pub directory: Option<&'static str>,
    /// Writes reach the disk with the next batch (Leases, Events).
    pub deferred: bool,
    /// Objects vanish that many seconds after their last write (Events).
    pub time_to_live: Option<u32>,
}

fn erase_default<S: Strategy + Default>() -> Arc<dyn AnyStrategy> {
    erase(<S as Default>::default())
}

const fn resource_of<K: Kind>() -> ResourceType {
    ResourceType::new(K::GROUP, K::VERSION, K::KIND, K::URL_PATH_SEGMENT, <K::Scope as ScopeFact>::NAMESPACED)
}

impl Row {
    pub const fn of<S: Strategy + Default>() -> Row {
        Row {
            resource: resource_of::<S::Object>(),
            stored: resource_of::<S::Object>(),
            strategy: erase_default::<S>,
            short_names: &[],
            categories: &[],
            subresources: &[],
            conversion: None,
            directory: None,
            deferred: false,
            time_to_live: None,
        }
    }

    /// The resource of kind `K` as another form of what `S` stores.
    pub const fn view<K: Kind, S: Strategy + Default>(conversion: Conversion) -> Row {
        Row {
            resource: resource_of::<K>(),
            stored: resource_of::<S::Object>(),
            strategy: erase_default::<S>,
            short_names: &[],
            categories: &[],
            subresources: &[],
            conversion: Some(conversion),
            directory: None,
            deferred: false,
            time_to_live: None,
        }
    }

    pub const fn short(mut self, names: &'static [&'static str]) -> Row {
        self.short_names = names;
        self
    }

    pub const fn categories(mut self, names: &'static [&'static str]) -> Row {
        self.categories = names;
        self
    }

    pub const fn subresources(mut self, names: &'static [&'static str]) -> Row {
        self.subresources = names;
        self
    }

    pub const fn directory(mut self, name: &'static str) -> Row {
        self.directory = Some(name);
        self
    }

    pub const fn deferred(mut self) -> Row {
        self.deferred = true;
        self
    }

    pub const fn time_to_live(mut self, seconds: u32) -> Row {
        self.time_to_live = Some(seconds);
        self
    }

    /// The name of one object in messages and discovery: the kind in lower case.
    pub fn singular(&self) -> String {
        self.resource.kind.to_lowercase()
    }

    /// `/registry/pods/`, `/registry/services/specs/`: the prefix of the stored keys.
    pub fn prefix(&self) -> String {
        let directory: Cow<'_, str> = match self.directory {
            Some(directory) => directory.into(),
            None => self.stored.plural.clone(),
        };
        format!("/registry/{directory}/")
    }
}
