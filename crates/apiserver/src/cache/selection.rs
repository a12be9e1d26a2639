//! Which objects a list or watch wants: a namespace, labels and fields, put together once and asked often.

use xebec_api::object::Object;
use xebec_api::selector::{FieldSelector, LabelSelector};

use super::resource::Item;
use crate::registry::erased::AnyStrategy;

/// A field selector names a field that the kind does not select on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("field label not supported: {0}")]
pub struct UnknownField(pub String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldName {
    Name,
    Namespace,
    /// The place in the strategy's list.
    Own(usize),
}

#[derive(Clone, Debug)]
struct FieldTerm {
    field: FieldName,
    value: Box<str>,
    equal: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Empty for all.
    pub namespace: String,
    labels: LabelSelector,
    fields: Vec<FieldTerm>,
}

impl Selection {
    pub fn new(
        namespace: &str,
        labels: LabelSelector,
        fields: &FieldSelector,
        strategy: &dyn AnyStrategy,
        aliases: &[(&str, &str)],
    ) -> Result<Self, UnknownField> {
        let own = strategy.selectable_fields();
        let term = |(name, value, equal): &(String, String, bool)| {
            let stored = aliases.iter().find(|(alias, _)| alias == name).map_or(name.as_str(), |(_, stored)| stored);
            let field = match stored {
                "metadata.name" => FieldName::Name,
                "metadata.namespace" => FieldName::Namespace,
                _ => own
                    .iter()
                    .position(|one| *one == stored)
                    .map(FieldName::Own)
                    .ok_or_else(|| UnknownField(name.clone()))?,
            };
            Ok(FieldTerm { field, value: value.as_str().into(), equal: *equal })
        };
        let fields = fields.terms.iter().map(term).collect::<Result<_, UnknownField>>()?;
        Ok(Selection { namespace: namespace.to_owned(), labels, fields })
    }

    /// Whether it selects by nothing but the namespace.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_empty()
    }

    /// The one name that it can select.
    pub fn single_name(&self) -> Option<&str> {
        self.fields.iter().find(|term| term.field == FieldName::Name && term.equal).map(|term| &*term.value)
    }

    /// A field of the kind that must have one value.
    pub(super) fn trigger(&self) -> Option<(usize, &str)> {
        self.fields.iter().find_map(|term| match term.field {
            FieldName::Own(index) if term.equal => Some((index, &*term.value)),
            _ => None,
        })
    }

    pub fn matches(&self, item: &Item, strategy: &dyn AnyStrategy) -> bool {
        let object: &Object = &item.object;
        if !self.namespace.is_empty() && object.namespace() != self.namespace {
            return false;
        }
        if !self.labels.matches(object.meta()) {
            return false;
        }
        self.fields.iter().all(|term| {
            let value = match term.field {
                FieldName::Name => object.name(),
                FieldName::Namespace => object.namespace(),
                FieldName::Own(index) => item.fields(strategy).get(index).map_or("", |value| value),
            };
            (value == &*term.value) == term.equal
        })
    }
}
