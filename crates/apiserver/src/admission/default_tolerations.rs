//! Pods stay for five minutes on a node that is not ready or cannot be reached, unless they say otherwise.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, Toleration};
use xebec_api::status::StatusError;

use super::{AdmissionRequest, Mutating, Operation};
use crate::registry::Registry;

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SECONDS: i64 = 300;

pub struct DefaultTolerations;

#[async_trait]
impl Mutating for DefaultTolerations {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>, _registry: &Registry) -> Result<(), StatusError> {
        if !request.is_of::<Pod>() || !matches!(request.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let Some(spec) = request.object_as_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) else { return Ok(()) };
        let tolerated = |toleration: &Toleration, taint: &str| {
            let (key, effect) = (toleration.key.as_deref().unwrap_or(""), toleration.effect.as_deref().unwrap_or(""));
            (key.is_empty() || key == taint) && (effect.is_empty() || effect == "NoExecute")
        };
        let before = spec.tolerations.clone().unwrap_or_default();
        for taint in TAINTS.iter().filter(|taint| !before.iter().any(|toleration| tolerated(toleration, taint))) {
            spec.tolerations.get_or_insert_default().push(Toleration {
                key: Some((*taint).to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(SECONDS),
                value: None,
            });
        }
        Ok(())
    }
}
