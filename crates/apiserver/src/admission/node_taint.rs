//! A new node takes no Pods until the node controller has seen that it is ready: upstream's TaintNodesByCondition.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Taint};
use xebec_api::status::StatusError;

use super::{AdmissionRequest, Mutating, Operation};
use crate::registry::Registry;

const KEY: &str = "node.kubernetes.io/not-ready";
const EFFECT: &str = "NoSchedule";

pub struct NodeTaint;

#[async_trait]
impl Mutating for NodeTaint {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>, _registry: &Registry) -> Result<(), StatusError> {
        if request.operation != Operation::Create || !request.is_of::<Node>() {
            return Ok(());
        }
        let Some(node) = request.object_as_mut::<Node>() else { return Ok(()) };
        let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
        if !taints.iter().any(|taint| taint.key == KEY && taint.effect == EFFECT) {
            taints.push(Taint { key: KEY.to_owned(), effect: EFFECT.to_owned(), ..Taint::default() });
        }
        Ok(())
    }
}
