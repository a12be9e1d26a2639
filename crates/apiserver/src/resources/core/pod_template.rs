//! PodTemplates: templates that stand alone. Nothing acts on them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodTemplate;
use serde_json::Value;
use xebec_api::field::{FieldErrors, Path};

use super::{pod_defaults, pod_warnings};
use crate::registry::strategy::{Column, NAME_COLUMN, Strategy, column};
use crate::resources::columns;
use crate::resources::validation::pod_template;

#[derive(Default)]
pub struct PodTemplateStrategy;

impl Strategy for PodTemplateStrategy {
    type Object = PodTemplate;

    fn has_status(&self) -> bool {
        false
    }

    fn default(&self, one: &mut PodTemplate) {
        pod_defaults::template(one.template.get_or_insert_default());
    }

    fn validate(&self, one: &PodTemplate) -> FieldErrors {
        let mut errors = FieldErrors::new();
        pod_template::template(&mut errors, &Path::new("template"), &one.template.clone().unwrap_or_default());
        errors
    }

    fn warnings(&self, one: &PodTemplate, old: Option<&PodTemplate>) -> Vec<String> {
        if old.is_some_and(|old| old.template == one.template) {
            return Vec::new();
        }
        pod_warnings::template_warnings_at(&Path::new("template"), one.template.as_ref())
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME_COLUMN,
            column("Containers", "string", "Names of its containers."),
            column("Images", "string", "Images of its containers."),
            column("Pod Labels", "string", "The labels that its Pods get."),
        ];
        COLUMNS
    }

    fn cells(&self, one: &PodTemplate, _now: Timestamp) -> Vec<Value> {
        let [names, images] = columns::containers(one.template.as_ref());
        let metadata = one.template.as_ref().and_then(|template| template.metadata.as_ref());
        let labels = columns::labels(metadata.and_then(|metadata| metadata.labels.as_ref()));
        vec![columns::name(&one.metadata), names, images, labels]
    }
}
