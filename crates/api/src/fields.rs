//! Who owns which field: field sets, their stored form, and what creating, updating and applying do to them.
//!
//! A [`Set`] holds paths of fields. It is found by walking a JSON tree along the schema table ([`Node`]), compared with
//! another tree ([`compare`]), and stored in `metadata.managedFields` as one entry for each manager ([`Managed`]).
//! [`Owners::update`] settles who owns what after a write, [`Owners::apply`] merges an applied configuration into the live object and
//! takes away what its manager gave up. Trees are in the form that [`crate::schema::canonical`] gives them: which fields are
//! present is what ownership is about.
//! Source of the behaviour: `sigs.k8s.io/structured-merge-diff/v6` and `k8s.io/apimachinery/pkg/util/managedfields`. Nothing
//! here knows the time, a request or a store.

mod apply;
mod check;
mod compare;
mod conflict;
mod element;
mod ensure;
mod extract;
mod json;
mod managed;
mod merge;
mod node;
mod remove;
mod scale;
mod set;
mod update;

pub use apply::Applied;
pub use check::check;
pub use compare::{Diff, compare};
pub use conflict::{Conflict, Conflicts};
pub use element::{Element, Path};
pub use extract::extract;
pub use managed::{Entry, Managed, ManagedError, ManagerId, Operation, is_reset};
pub use node::Node;
pub use scale::{from_scale, to_scale};
pub use set::{Pattern, Set};
pub use update::{FieldsError, Filter, Owners, Versions};
