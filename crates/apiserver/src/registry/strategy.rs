//! What only one kind knows: its defaults, validation, columns, selectable fields and the rules of its life.
//!
//! Everything mechanical (names, uid, timestamps, generation, status isolation, dry run, preconditions, finalizers) is the
//! registry's, once for all kinds; a strategy never talks to the store, the cache or a clock. Modelled on upstream's
//! `RESTCreateStrategy` and its siblings.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::Value;
use xebec_api::field::FieldErrors;
use xebec_api::fields::Filter;
use xebec_api::resource::Kind;

/// How a kind's name is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain, at most 253 characters.
    DnsSubdomain,
    /// RFC 1123 label, at most 63 characters.
    DnsLabel,
    /// RFC 1035 label (Services).
    Dns1035Label,
    /// Anything that can stand in a path (RBAC).
    PathSegment,
    /// What the kind's own validation says of it, for it follows from the object (APIServices).
    Own,
}

/// Whether `metadata.generation` counts changes of this kind, and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// Not kept.
    None,
    /// 1 on creation; grows with every change of anything but `metadata` and `status`.
    Spec,
}

/// One column of a kind's Table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `date`, `boolean`, `number`.
    pub kind: &'static str,
    /// `name` for the first one, else empty.
    pub format: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
    pub description: &'static str,
}

/// What a deletion request wants of the kind, after defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Gone at once unless finalizers hold it.
    Immediate,
    /// `deletionTimestamp` is set that many seconds ahead and the object waits for its node (Pods).
    Graceful(i64),
}

/// The rules of one kind. Default bodies are the rule for most kinds.
pub trait Strategy: Send + Sync + 'static {
    type Object: Kind;

    fn name_rule(&self) -> NameRule {
        NameRule::DnsSubdomain
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    /// Whether there is a `/status` subresource, and so status is isolated.
    fn has_status(&self) -> bool {
        true
    }

    /// Whether PUT on a name that does not exist creates it (Leases, Events, …).
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// Whether an update without `resourceVersion` is let through unconditionally.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// Versioned defaults, applied on create and on every update.
    fn default(&self, _object: &mut Self::Object) {}

    /// After defaults and mutating admission, before validation of a creation: clear what a client may not set.
    fn prepare_create(&self, _object: &mut Self::Object) {}

    /// After mutating admission, before validation of an update of the main resource; status was already taken over from `old` by the registry.
    fn prepare_update(&self, _new: &mut Self::Object, _old: &Self::Object) {}

    /// Before validation of an update of `/status`; everything but status (and metadata rules) was taken over from `old`.
    fn prepare_status_update(&self, _new: &mut Self::Object, _old: &Self::Object) {}

    /// Everything wrong with a new object but its `metadata`, which the registry checks.
    fn validate(&self, object: &Self::Object) -> FieldErrors;

    /// Everything wrong with a change: immutable fields, plus what `validate` says of the new object.
    fn validate_update(&self, new: &Self::Object, _old: &Self::Object) -> FieldErrors {
        self.validate(new)
    }

    fn validate_status_update(&self, _new: &Self::Object, _old: &Self::Object) -> FieldErrors {
        FieldErrors::new()
    }

    /// Before validation of an update through a subresource that writes a part of the specification (`ephemeralcontainers`,
    /// `resize`, `finalize`); everything else was taken over from `old`.
    fn prepare_part_update(&self, _subresource: &str, new: &mut Self::Object, old: &Self::Object) {
        self.prepare_update(new, old);
    }

    fn validate_part_update(&self, _subresource: &str, new: &Self::Object, old: &Self::Object) -> FieldErrors {
        self.validate_update(new, old)
    }

    /// Texts of `Warning` headers for this object.
    fn warnings(&self, _object: &Self::Object, _old: Option<&Self::Object>) -> Vec<String> {
        Vec::new()
    }

    /// What a DELETE without or with `gracePeriodSeconds` means for this object.
    fn deletion(&self, _object: &Self::Object, _grace_period: Option<i64>) -> Deletion {
        Deletion::Immediate
    }

    /// Whether the object itself lists who must let it go, beside `metadata.finalizers` (a Namespace's `spec.finalizers`).
    fn holds_deletion(&self, _object: &Self::Object) -> bool {
        false
    }

    /// Called when `deletionTimestamp` is set for the first time (a Namespace's phase becomes Terminating).
    fn begin_deletion(&self, _object: &mut Self::Object) {}

    /// Which fields a write of the resource or of a subresource can change, and so own (upstream's "reset fields").
    fn ownable(&self, subresource: &str) -> Filter {
        match subresource {
            "" if self.has_status() => Filter::Without(&[&["status"]]),
            "status" => Filter::Without(&[&["spec"]]),
            _ => Filter::Without(&[]),
        }
    }

    /// Fields beside `metadata.name` and `metadata.namespace` that a field selector may name.
    fn selectable_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// The value of one of `selectable_fields`.
    fn field<'a>(&self, _object: &'a Self::Object, _field: &str) -> Cow<'a, str> {
        Cow::Borrowed("")
    }

    /// The kind's columns, the first being Name. Kinds without columns of their own show Name and Age ("Created At" for upstream's default).
    fn columns(&self) -> &'static [Column] {
        DEFAULT_COLUMNS
    }

    /// One row, in the order of `columns`.
    fn cells(&self, object: &Self::Object, now: Timestamp) -> Vec<Value> {
        let meta = k8s_openapi::Metadata::metadata(object);
        vec![
            Value::from(meta.name.clone().unwrap_or_default()),
            crate::registry::table::age(meta.creation_timestamp.as_ref(), now),
        ]
    }

    /// The `scale` subresource, for kinds that have replicas.
    fn scale(&self) -> Option<Scale<Self::Object>> {
        None
    }
}

/// How `/scale` reads and writes a kind.
pub struct Scale<K> {
    pub replicas: fn(&K) -> i32,
    pub set_replicas: fn(&mut K, i32),
    pub status_replicas: fn(&K) -> i32,
    /// The selector in its query form.
    pub selector: fn(&K) -> String,
}

pub const NAME_COLUMN: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    priority: 0,
    description: "Name must be unique within a namespace.",
};

pub const AGE_COLUMN: Column =
    Column { name: "Age", kind: "string", format: "", priority: 0, description: "Time since the object was created." };

pub const DEFAULT_COLUMNS: &[Column] = &[NAME_COLUMN, AGE_COLUMN];

/// A column that is always shown.
pub const fn column(name: &'static str, kind: &'static str, description: &'static str) -> Column {
    Column { name, kind, format: "", priority: 0, description }
}

/// A column shown with `-o wide` only.
pub const fn wide(name: &'static str, kind: &'static str, description: &'static str) -> Column {
    Column { name, kind, format: "", priority: 1, description }
}
