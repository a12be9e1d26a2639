//! Creation and update of objects of any kind: the one path that every write takes.
//!
//! Order, as upstream's: defaults, mutating admission, preparation by the strategy, validation, validating admission,
//! transaction. An update that changes nothing is not written and keeps its `resourceVersion`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::api::core::v1::Service;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use xebec_api::fields::{Managed, ManagedError};
use xebec_api::object::{Object, with_managed_fields};
use xebec_api::status::StatusError;
use xebec_store::{Txn, TxnResult};

use super::erased::AnyObject;
use super::ownership::{Asked, Ownership};
use super::strategy::Generation;
use super::{Registry, Served, broken, durability, metadata, store_error};
use crate::admission::{AdmissionRequest, Operation};
use crate::allocator::Reservation;
use crate::authn::User;
use crate::cache::Item;

/// How often a generated name is tried again when it is taken, as upstream does.
const NAME_ATTEMPTS: usize = 8;
/// How often an update without a `resourceVersion` is tried on a newer state before its client is told of the conflict.
const UPDATE_ATTEMPTS: usize = 16;

/// The manager of what the server writes of itself.
pub const SERVER: &str = "kube-apiserver";

/// Who writes, and how.
pub struct Call<'a> {
    pub user: &'a Arc<User>,
    pub dry_run: bool,
    /// Empty for the resource itself.
    pub subresource: &'a str,
    /// Who comes to own what the write changes.
    pub manager: String,
    /// Texts of `Warning` headers, gathered on the way.
    pub warnings: Vec<String>,
}

impl<'a> Call<'a> {
    pub fn new(user: &'a Arc<User>) -> Self {
        Call { user, dry_run: false, subresource: "", manager: SERVER.to_owned(), warnings: Vec::new() }
    }

    pub(super) fn operation<'r>(
        &'r mut self,
        operation: Operation,
        served: &'r Served,
        object: Option<&'r mut dyn AnyObject>,
        old: Option<&'r dyn AnyObject>,
        key: (&'r str, &'r str),
    ) -> AdmissionRequest<'r> {
        AdmissionRequest {
            operation,
            resource: served.resource(),
            subresource: self.subresource,
            namespace: key.0,
            name: key.1,
            user: self.user,
            dry_run: self.dry_run,
            object,
            old,
            warnings: &mut self.warnings,
        }
    }
}

/// Which part of an object an update may change besides its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status.
    Main,
    /// The status alone.
    Status,
    /// What a subresource with rules of its own lets through; the edit sees to it that nothing else changes.
    Subresource(&'static str),
    /// What the server itself changes by rules of its own, such as a Pod's node: neither admission nor the strategy is asked.
    Direct,
}

type TreeEdit<'a> = dyn Fn(&Item, &mut Vec<String>) -> Result<Value, StatusError> + Send + Sync + 'a;
type ApplyEdit<'a> =
    dyn Fn(Option<&Item>, &mut Vec<String>) -> Result<(Value, Managed), StatusError> + Send + Sync + 'a;
type OwnedEdit<'a> = dyn Fn(&mut dyn AnyObject, Managed) -> Result<Managed, StatusError> + Send + Sync + 'a;
type TypedEdit<'a> = dyn Fn(&mut dyn AnyObject) -> Result<(), StatusError> + Send + Sync + 'a;

/// How the new state follows from the current one. May be asked again when another write came between.
pub enum Edit<'a> {
    /// A tree in the stored form; it may add warnings.
    Tree(&'a TreeEdit<'a>),
    /// A change of the typed object, which comes with the current `resourceVersion`; another one set by it is a precondition.
    Typed(&'a TypedEdit<'a>),
    /// A tree in the stored form with the owners of its fields, which the edit knows by itself: an apply.
    Apply(&'a ApplyEdit<'a>),
    /// A change of the typed object together with its owners: through a subresource with fields of its own.
    Owned(&'a OwnedEdit<'a>),
}

/// The new object, and what is known of its owners.
struct Edited {
    object: Box<dyn AnyObject>,
    owners: Known,
}

enum Known {
    Asked(Asked),
    After(Managed),
}

/// What a write left behind.
pub struct Outcome {
    pub object: Arc<Object>,
    pub created: bool,
}

impl Registry {
    /// Creates an object from a tree in the stored form.
    pub async fn create(
        &self,
        served: &Served,
        namespace: &str,
        mut tree: Value,
        call: &mut Call<'_>,
    ) -> Result<Outcome, StatusError> {
        let owners = Known::Asked(Asked::take(&mut tree, ""));
        let object = served.strategy.decode(tree).map_err(|error| undecodable(served, &error))?;
        self.create_edited(served, namespace, Edited { object, owners }, call).await
    }

    /// Applies a configuration: creates the object or changes it.
    pub async fn apply(
        &self,
        served: &Served,
        key: (&str, &str),
        part: Part,
        edit: &ApplyEdit<'_>,
        call: &mut Call<'_>,
    ) -> Result<Outcome, StatusError> {
        let warned = call.warnings.len();
        for _ in 0..UPDATE_ATTEMPTS {
            call.warnings.truncate(warned);
            let outcome = match self.fresh(served, key.0, key.1).await {
                Ok(item) => self.try_update(served, &item, part, &Edit::Apply(edit), call).await.transpose(),
                Err(error) if error.is_not_found() && part == Part::Main => {
                    let (tree, managed) = edit(None, &mut call.warnings)?;
                    let object = served.strategy.decode(tree).map_err(|error| undecodable(served, &error))?;
                    let edited = Edited { object, owners: Known::After(managed) };
                    let created = self.create_edited(served, key.0, edited, call).await;
                    // Someone else made it meanwhile: then it is changed.
                    if call.dry_run {
                        Some(created)
                    } else {
                        Some(created).filter(|one| !one.as_ref().is_err_and(StatusError::is_already_exists))
                    }
                }
                Err(error) => return Err(error),
            };
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
        Err(StatusError::stale(served.resource(), key.1))
    }

    pub async fn create_object(
        &self,
        served: &Served,
        namespace: &str,
        object: Box<dyn AnyObject>,
        call: &mut Call<'_>,
    ) -> Result<Outcome, StatusError> {
        self.create_edited(served, namespace, Edited { object, owners: Known::Asked(Asked::Nothing) }, call).await
    }

    async fn create_edited(
        &self,
        served: &Served,
        namespace: &str,
        edited: Edited,
        call: &mut Call<'_>,
    ) -> Result<Outcome, StatusError> {
        let Edited { mut object, owners } = edited;
        let strategy = &*served.strategy;
        strategy.default(&mut *object);
        let meta = object.meta_mut();
        metadata::check_namespace(meta, namespace)?;
        if meta.resource_version.as_deref().is_some_and(|version| !version.is_empty()) {
            return Err(StatusError::new(500, "", "resourceVersion should not be set on objects to be created"));
        }
        let base = meta.generate_name.clone().filter(|base| !base.is_empty());
        let generated = base.filter(|_| meta.name.as_deref().unwrap_or("").is_empty());
        if let Some(base) = &generated {
            meta.name = Some(metadata::generated_name(base));
        }
        metadata::begin(meta, self.clock.now(), strategy.generation() == Generation::Spec);
        let owners = self.owners_of_new(served, &*object, owners, call)?;
        self.admit_new(served, namespace, &mut *object, call).await?;
        let reservation = self.reserve(&mut *object, None, served).await?;
        self.validate_new(served, namespace, &mut *object, call).await?;

        for attempt in 1.. {
            let name = object.meta().name.clone().unwrap_or_default();
            let bytes = with_managed_fields(encode(&mut *object), &owners);
            if call.dry_run {
                if served.cache.get(namespace, &name).is_some() {
                    return Err(taken(served, namespace, &name));
                }
                return Ok(Outcome { object: unsaved(served, &bytes)?, created: true });
            }
            let key = served.cache.store_key(namespace, &name);
            let txn = self.with_addresses(Txn::create(key, bytes.clone()), Some(&*object), None);
            let txn = txn.durability(durability(served));
            let result = self.store.txn(txn).await.map_err(store_error)?;
            if result.succeeded {
                reservation.keep();
                return Ok(Outcome { object: self.stored(served, bytes, result.revision)?, created: true });
            }
            self.address_is_taken(served, &*object, result.revision).await?;
            match &generated {
                None => return Err(taken(served, namespace, &name)),
                Some(_) if attempt >= NAME_ATTEMPTS => {
                    return Err(StatusError::generate_name_conflict(served.resource(), &name));
                }
                Some(base) => object.meta_mut().name = Some(metadata::generated_name(base)),
            }
        }
        unreachable!("the attempts end by returning")
    }

    /// The text of the owners of a new object.
    fn owners_of_new(
        &self,
        served: &Served,
        object: &dyn AnyObject,
        owners: Known,
        call: &Call<'_>,
    ) -> Result<String, StatusError> {
        let asked = match owners {
            Known::After(managed) => return Ok(managed.to_json()),
            Known::Asked(asked) => asked,
        };
        let errors = asked.validate();
        if errors.is_empty() {
            return Ok(self.first_owners(served, object, asked, &call.manager).text);
        }
        Err(StatusError::invalid(served.resource(), object.meta().name.as_deref().unwrap_or(""), errors))
    }

    async fn admit_new(
        &self,
        served: &Served,
        namespace: &str,
        object: &mut dyn AnyObject,
        call: &mut Call<'_>,
    ) -> Result<(), StatusError> {
        let name = object.meta().name.clone().unwrap_or_default();
        let mut request = call.operation(Operation::Create, served, Some(object), None, (namespace, &name));
        self.plugins.admit(&mut request, self).await?;
        served.strategy.default(object);
        self.allocator.complete(object, None);
        served.strategy.prepare_create(object);
        Ok(())
    }

    async fn validate_new(
        &self,
        served: &Served,
        namespace: &str,
        object: &mut dyn AnyObject,
        call: &mut Call<'_>,
    ) -> Result<(), StatusError> {
        let strategy = &*served.strategy;
        let mut errors = metadata::validate(object.meta(), strategy.name_rule(), served.resource().namespaced);
        errors.extend(strategy.validate(object));
        let name = object.meta().name.clone().unwrap_or_default();
        if !errors.is_empty() {
            return Err(StatusError::invalid(served.resource(), &name, errors));
        }
        call.warnings.extend(strategy.warnings(object, None));
        let mut request = call.operation(Operation::Create, served, Some(object), None, (namespace, &name));
        self.plugins.validate(&mut request, self).await
    }

    /// Changes an object. Where the kind allows it and `edit` gives a tree, one that does not exist is created.
    pub async fn update(
        &self,
        served: &Served,
        key: (&str, &str),
        part: Part,
        edit: Edit<'_>,
        call: &mut Call<'_>,
    ) -> Result<Outcome, StatusError> {
        for _ in 0..UPDATE_ATTEMPTS {
            let item = self.fresh(served, key.0, key.1).await?;
            let warned = call.warnings.len();
            if let Some(outcome) = self.try_update(served, &item, part, &edit, call).await? {
                return Ok(outcome);
            }
            call.warnings.truncate(warned);
        }
        Err(StatusError::stale(served.resource(), key.1))
    }

    /// One attempt; `None` when another write came between.
    async fn try_update(
        &self,
        served: &Served,
        item: &Item,
        part: Part,
        edit: &Edit<'_>,
        call: &mut Call<'_>,
    ) -> Result<Option<Outcome>, StatusError> {
        let strategy = &*served.strategy;
        let old = strategy.typed(&item.object).map_err(|error| broken(served.resource(), &error))?;
        let Edited { mut object, owners } = self.edited(served, item, &*old, part, edit, call)?;
        self.check_preconditions(served, item, &mut *object)?;
        metadata::carry_over(object.meta_mut(), old.meta());
        let key = (item.object.namespace(), item.object.name());
        if part != Part::Direct {
            strategy.default(&mut *object);
        }
        let owners = self.owners_of_changed(served, item, &*object, part, owners, call)?;
        let reservation = match part {
            Part::Direct => Reservation::nothing(&self.allocator),
            _ => self.admit_change(served, &mut *object, &*old, part, call).await?,
        };
        let bytes = self.next_generation(served, item, part, &mut *object);
        let meta = object.meta();
        let released = meta.deletion_timestamp.is_some()
            && meta.deletion_grace_period_seconds.unwrap_or(0) == 0
            && meta.finalizers.as_ref().is_none_or(Vec::is_empty)
            && !strategy.holds_deletion(&*object);
        let store_key = served.cache.store_key(key.0, key.1);
        let unchanged = !owners.changed && !released && bytes == *item.object.plain();
        // Writing what is there already renews its encryption after a change of keys.
        let renews = unchanged
            && part == Part::Main
            && !call.dry_run
            && self.store.is_outdated(store_key.as_bytes()).await.map_err(store_error)?;
        if unchanged && !renews {
            return Ok(Some(Outcome { object: item.object.clone(), created: false }));
        }
        let bytes = with_managed_fields(bytes, &owners.text);
        if call.dry_run {
            return Ok(Some(Outcome { object: self.stored(served, bytes, item.object.revision())?, created: false }));
        }
        let revision = item.object.revision();
        let txn =
            if released { Txn::delete(store_key, revision) } else { Txn::update(store_key, revision, bytes.clone()) };
        let txn = self.with_addresses(txn, (!released).then_some(&*object), Some(&*old));
        let TxnResult { succeeded, revision, .. } =
            self.store.txn(txn.durability(durability(served))).await.map_err(store_error)?;
        if !succeeded {
            self.cache.reach(revision).await;
            return Ok(None);
        }
        reservation.keep();
        Ok(Some(Outcome { object: self.stored(served, bytes, revision)?, created: false }))
    }

    fn owners_of_changed(
        &self,
        served: &Served,
        item: &Item,
        object: &dyn AnyObject,
        part: Part,
        owners: Known,
        call: &Call<'_>,
    ) -> Result<Ownership, StatusError> {
        let text = || item.object.managed_fields().unwrap_or("").to_owned();
        match owners {
            // What the server does by rules of its own is nobody's.
            _ if part == Part::Direct => Ok(Ownership { text: text(), changed: false }),
            Known::After(managed) => {
                let live = Managed::parse(&text()).unwrap_or_default();
                if managed.same_owners(&live) {
                    // An apply that changes the object is dated anew even where the owners stay.
                    return Ok(Ownership { text: managed.to_json(), changed: false });
                }
                Ok(Ownership { text: managed.to_json(), changed: true })
            }
            Known::Asked(asked) => {
                let errors = asked.validate();
                if !errors.is_empty() {
                    return Err(StatusError::invalid(served.resource(), item.object.name(), errors));
                }
                Ok(self.next_owners(served, item, object, asked, call))
            }
        }
    }

    /// The new object as the client wants it, without what the client may not change in this part.
    fn edited(
        &self,
        served: &Served,
        item: &Item,
        old: &dyn AnyObject,
        part: Part,
        edit: &Edit<'_>,
        call: &mut Call<'_>,
    ) -> Result<Edited, StatusError> {
        let (mut tree, owners) = match edit {
            Edit::Typed(change) => {
                let mut object = old.clone_boxed();
                change(&mut *object)?;
                return Ok(Edited { object, owners: Known::Asked(Asked::Nothing) });
            }
            Edit::Owned(change) => {
                let mut object = old.clone_boxed();
                let text = item.object.managed_fields();
                let managed = text.map(Managed::parse).transpose().map_err(|error| unreadable_owners(&error))?;
                let managed = change(&mut *object, managed.unwrap_or_default())?;
                return Ok(Edited { object, owners: Known::After(managed) });
            }
            Edit::Tree(change) => {
                let mut tree = change(item, &mut call.warnings)?;
                let asked = Asked::take(&mut tree, call.subresource);
                (tree, Known::Asked(asked))
            }
            Edit::Apply(change) => {
                let (tree, managed) = change(Some(item), &mut call.warnings)?;
                (tree, Known::After(managed))
            }
        };
        let raw = &*item.object.plain();
        match part {
            Part::Main if served.strategy.has_status() => put(&mut tree, "status", part_of(raw, "status")),
            Part::Main | Part::Subresource(_) | Part::Direct => {}
            Part::Status => {
                let mut whole: Value = serde_json::from_slice(raw).map_err(StatusError::internal)?;
                put(&mut whole, "status", take(&mut tree, "status"));
                put(&mut whole, "metadata", take(&mut tree, "metadata"));
                tree = whole;
            }
        }
        let object = served.strategy.decode(tree).map_err(|error| undecodable(served, &error))?;
        Ok(Edited { object, owners })
    }

    fn check_preconditions(&self, served: &Served, item: &Item, object: &mut dyn AnyObject) -> Result<(), StatusError> {
        let (resource, name) = (served.resource(), item.object.name());
        let meta = object.meta_mut();
        metadata::check_namespace(meta, item.object.namespace())?;
        match meta.resource_version.take().filter(|version| !version.is_empty() && version != "0") {
            None if served.strategy.allow_unconditional_update() => Ok(()),
            None => {
                let path = xebec_api::field::Path::new("metadata").child("resourceVersion");
                let error = xebec_api::field::FieldError::invalid(&path, 0, "must be specified for an update");
                Err(StatusError::invalid(resource, name, vec![error]))
            }
            Some(version) => match version.parse::<u64>() {
                Ok(version) if version == item.object.revision() => Ok(()),
                Ok(_) => Err(StatusError::stale(resource, name)),
                Err(_) => {
                    Err(StatusError::new(500, "", format!("strconv.ParseUint: parsing {version:?}: invalid syntax")))
                }
            },
        }
    }

    async fn admit_change(
        &self,
        served: &Served,
        object: &mut dyn AnyObject,
        old: &dyn AnyObject,
        part: Part,
        call: &mut Call<'_>,
    ) -> Result<Reservation<'_>, StatusError> {
        let strategy = &*served.strategy;
        let name = old.meta().name.clone().unwrap_or_default();
        let namespace = old.meta().namespace.clone().unwrap_or_default();
        let mut request = call.operation(Operation::Update, served, Some(object), Some(old), (&namespace, &name));
        self.plugins.admit(&mut request, self).await?;
        strategy.default(object);
        match part {
            Part::Status => strategy.prepare_status_update(object, old),
            Part::Subresource(name) => strategy.prepare_part_update(name, object, old),
            Part::Main | Part::Direct => {
                self.allocator.complete(object, Some(old));
                strategy.prepare_update(object, old);
            }
        }
        let reservation = match part {
            Part::Main => self.reserve(object, Some(old), served).await?,
            _ => Reservation::nothing(&self.allocator),
        };
        self.validate_change(served, object, old, part, call).await?;
        Ok(reservation)
    }

    /// Gives a Service its addresses and ports. What other Services have is known only once their writes have been seen.
    async fn reserve(
        &self,
        object: &mut dyn AnyObject,
        old: Option<&dyn AnyObject>,
        served: &Served,
    ) -> Result<Reservation<'_>, StatusError> {
        if object.as_any().is::<Service>() {
            self.catch_up().await?;
        }
        self.allocator.reserve(object, old, served)
    }

    async fn validate_change(
        &self,
        served: &Served,
        object: &mut dyn AnyObject,
        old: &dyn AnyObject,
        part: Part,
        call: &mut Call<'_>,
    ) -> Result<(), StatusError> {
        let strategy = &*served.strategy;
        let name = old.meta().name.clone().unwrap_or_default();
        let namespace = old.meta().namespace.clone().unwrap_or_default();
        let mut errors = metadata::validate_update(object.meta(), old.meta(), served.resource().namespaced);
        errors.extend(match part {
            Part::Status => strategy.validate_status_update(object, old),
            Part::Subresource(name) => strategy.validate_part_update(name, object, old),
            Part::Main | Part::Direct => strategy.validate_update(object, old),
        });
        if !errors.is_empty() {
            return Err(StatusError::invalid(served.resource(), &name, errors));
        }
        if part == Part::Main {
            call.warnings.extend(strategy.warnings(object, Some(old)));
        }
        let mut request = call.operation(Operation::Update, served, Some(object), Some(old), (&namespace, &name));
        self.plugins.validate(&mut request, self).await
    }

    /// Encodes the object, counting a change of its specification.
    fn next_generation(&self, served: &Served, item: &Item, part: Part, object: &mut dyn AnyObject) -> Vec<u8> {
        let bytes = encode(object);
        let counted =
            matches!(part, Part::Main | Part::Subresource(_)) && served.strategy.generation() == Generation::Spec;
        if !counted || same_specification(&bytes, &item.object.plain()) {
            return bytes;
        }
        // A strategy may have counted a change of its own already; one update is one generation.
        object.meta_mut().generation = Some(item.object.meta().generation + 1);
        encode(object)
    }

    pub(super) fn stored(&self, served: &Served, bytes: Bytes, revision: u64) -> Result<Arc<Object>, StatusError> {
        Object::from_store(bytes, revision).map(Arc::new).map_err(|error| broken(served.resource(), &error))
    }
}

/// The object's bytes for the store, without its owners.
pub(super) fn encode(object: &mut dyn AnyObject) -> Vec<u8> {
    object.meta_mut().resource_version = None;
    object.encode()
}

/// The answer to a creation that is not carried out: it has no revision.
fn unsaved(served: &Served, bytes: &[u8]) -> Result<Arc<Object>, StatusError> {
    let mut full = format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",",
        served.cache.resource.kind,
        served.cache.resource.api_version()
    )
    .into_bytes();
    full.extend_from_slice(&bytes[1..]);
    Object::from_wire(full.into()).map(Arc::new).map_err(|error| broken(served.resource(), &error))
}

/// The name is taken; by an object that is on its way out, the message says.
fn taken(served: &Served, namespace: &str, name: &str) -> StatusError {
    let mut error = StatusError::already_exists(served.resource(), name);
    if served.cache.get(namespace, name).is_some_and(|item| item.object.meta().deleting) {
        error.0.message = Some(format!("object is being deleted: {error}"));
    }
    error
}

/// An object whose owners cannot be read cannot be applied to.
pub fn unreadable_owners(error: &ManagedError) -> StatusError {
    StatusError::new(500, "", format!("failed to decode managed fields: {error}"))
}

fn undecodable(served: &Served, error: &serde_json::Error) -> StatusError {
    let resource = served.resource();
    let (kind, version) = (&resource.kind, &resource.version);
    StatusError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}"))
}

fn put(tree: &mut Value, key: &str, value: Option<Value>) {
    let Value::Object(map) = tree else { return };
    match value {
        Some(value) => map.insert(key.to_owned(), value),
        None => map.remove(key),
    };
}

fn take(tree: &mut Value, key: &str) -> Option<Value> {
    tree.as_object_mut()?.remove(key)
}

pub(super) type Parts<'a> = BTreeMap<&'a str, &'a RawValue>;

pub(super) fn parts(raw: &[u8]) -> Option<Parts<'_>> {
    Parts::deserialize(&mut serde_json::Deserializer::from_slice(raw)).ok()
}

/// One top-level field of an encoded object.
fn part_of(raw: &[u8], key: &str) -> Option<Value> {
    serde_json::from_str(parts(raw)?.get(key)?.get()).ok()
}

/// Whether two encodings differ in nothing but metadata and status.
fn same_specification(a: &[u8], b: &[u8]) -> bool {
    let counted = |raw| {
        let mut parts = parts(raw)?;
        parts.retain(|key, _| !matches!(*key, "metadata" | "status"));
        Some(parts)
    };
    match (counted(a), counted(b)) {
        (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && a.1.get() == b.1.get()),
        _ => false,
    }
}
