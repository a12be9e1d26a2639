//! ResourceClaimTemplates: claims that each Pod gets of its own.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::ResourceClaimTemplate;
use serde_json::Value;
use xebec_api::field::{FieldErrors, Path};

use super::claim;
use crate::registry::strategy::{AGE_COLUMN, Column, Generation, NAME_COLUMN, Strategy};
use crate::resources::columns;
use crate::resources::validation::{immutable, labels};

#[derive(Default)]
pub struct ResourceClaimTemplateStrategy;

impl Strategy for ResourceClaimTemplateStrategy {
    type Object = ResourceClaimTemplate;

    fn generation(&self) -> Generation {
        Generation::None
    }

    fn has_status(&self) -> bool {
        false
    }

    fn default(&self, template: &mut ResourceClaimTemplate) {
        let spec = template.spec.get_or_insert_default();
        spec.metadata.get_or_insert_default();
        claim::default(spec.spec.get_or_insert_default());
    }

    fn prepare_create(&self, template: &mut ResourceClaimTemplate) {
        template.spec.iter_mut().flat_map(|spec| &mut spec.spec).for_each(claim::drop_gated);
    }

    fn prepare_update(&self, new: &mut ResourceClaimTemplate, _old: &ResourceClaimTemplate) {
        self.prepare_create(new);
    }

    fn validate(&self, template: &ResourceClaimTemplate) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let (path, spec) = (Path::new("spec"), template.spec.clone().unwrap_or_default());
        let (at, meta) = (path.child("metadata"), spec.metadata.unwrap_or_default());
        labels::annotations(&mut errors, &at.child("annotations"), meta.annotations.as_ref());
        labels::labels(&mut errors, &at.child("labels"), meta.labels.as_ref());
        claim::spec(&mut errors, &path.child("spec"), &spec.spec.unwrap_or_default());
        errors
    }

    fn validate_update(&self, new: &ResourceClaimTemplate, old: &ResourceClaimTemplate) -> FieldErrors {
        let mut errors = FieldErrors::new();
        immutable(&mut errors, &Path::new("spec"), &new.spec, &old.spec);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME_COLUMN, AGE_COLUMN];
        COLUMNS
    }

    fn cells(&self, template: &ResourceClaimTemplate, now: Timestamp) -> Vec<Value> {
        vec![columns::name(&template.metadata), columns::age(&template.metadata, now)]
    }
}
