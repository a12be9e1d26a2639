//! A node changes its own Node and the Pods bound to it, and nothing in them by which it could draw other work to itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, ServiceAccount};
use k8s_openapi::api::storage::v1::CSINode;
use xebec_api::resource::ResourceType;
use xebec_api::status::StatusError;

use super::{AdmissionRequest, Mutating, Operation};
use crate::authn::User;
use crate::authz::node::node_of;
use crate::authz::references;
use crate::registry::Registry;

const NODE_LEASES: &str = "kube-node-lease";
/// Labels under these, and only these of the well-known ones, are a kubelet's to set.
const KUBELET_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
const KUBELET_LABEL_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
const RESERVED_DOMAIN: &str = "node-restriction.kubernetes.io";

pub struct NodeRestriction;

#[async_trait]
impl Mutating for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    async fn admit(&self, request: &mut AdmissionRequest<'_>, registry: &Registry) -> Result<(), StatusError> {
        let Some(node) = node_of(request.user) else { return Ok(()) };
        let refuse = request.refuse();
        if node.is_empty() {
            return Err(refuse(format!("could not determine node from user {:?}", request.user.name)));
        }
        let checked = if request.is_about::<Pod>() {
            match request.subresource {
                "" => pod(node, request, registry)?,
                "status" => pod_status(node, request),
                "eviction" => eviction(node, request, registry)?,
                other => Err(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed")),
            }
        } else if request.is_about::<Node>() {
            own_node(node, request)
        } else if request.is_about::<PersistentVolumeClaim>() {
            claim_status(node, request)
        } else if request.is_about::<Lease>() {
            lease(node, request)
        } else if request.is_about::<CSINode>() {
            csi_node(node, request)
        } else {
            Ok(())
        };
        checked.map_err(refuse)
    }
}

/// The inner error is the plugin's reason, the outer one another answer.
type Checked = Result<Result<(), String>, StatusError>;

fn is_on(pod: &Pod, node: &str) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
}

fn pod(node: &str, request: &AdmissionRequest<'_>, registry: &Registry) -> Checked {
    match request.operation {
        Operation::Create => match request.object_as::<Pod>() {
            Some(pod) => mirror_pod(node, pod, registry),
            None => Ok(Ok(())),
        },
        Operation::Delete => Ok(match request.old_as::<Pod>() {
            Some(pod) if !is_on(pod, node) => {
                Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
            }
            _ => Ok(()),
        }),
        Operation::Update | Operation::Connect => {
            let operation = if request.operation == Operation::Update { "UPDATE" } else { "CONNECT" };
            Ok(Err(format!("unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods")))
        }
    }
}

fn mirror_pod(node: &str, pod: &Pod, registry: &Registry) -> Checked {
    if !references::is_mirror(pod) {
        let annotation = references::MIRROR_POD;
        return Ok(Err(format!(
            "pod does not have {annotation:?} annotation, node {node:?} can only create mirror pods"
        )));
    }
    if !is_on(pod, node) {
        return Ok(Err(format!("node {node:?} can only create pods with spec.nodeName set to itself")));
    }
    let owner = match pod.metadata.owner_references.as_deref().unwrap_or_default() {
        [owner] => owner,
        [] => return Ok(Err(format!("node {node:?} can only create pods with an owner reference set to itself"))),
        _ => return Ok(Err(format!("node {node:?} can only create pods with a single owner reference set to itself"))),
    };
    if owner.api_version != "v1" || owner.kind != "Node" || owner.name != node {
        return Ok(Err(format!("node {node:?} can only create pods with an owner reference set to itself")));
    }
    if owner.controller != Some(true) {
        return Ok(Err(format!("node {node:?} can only create pods with a controller owner reference set to itself")));
    }
    if owner.block_owner_deletion == Some(true) {
        return Ok(Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference")));
    }
    let found = registry.get::<Node>("", node);
    let found = found.ok_or_else(|| StatusError::not_found(&ResourceType::of::<Node>(), node))?;
    let uid = found.metadata.uid.as_deref().unwrap_or("");
    if owner.uid != uid {
        return Ok(Err(format!("node {node} UID mismatch: expected {} got {uid}", owner.uid)));
    }
    let Some(kind) = referenced(pod) else { return Ok(Ok(())) };
    Ok(Err(format!("node {node:?} can not create pods that reference {kind}")))
}

/// The kind of some other object that a Pod refers to.
fn referenced(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    let any = |wanted: fn(&k8s_openapi::api::core::v1::Volume) -> bool| spec.volumes.iter().flatten().any(wanted);
    let projected = |wanted: fn(&k8s_openapi::api::core::v1::VolumeProjection) -> bool| {
        let sources = spec.volumes.iter().flatten().filter_map(|volume| volume.projected.as_ref()?.sources.as_ref());
        sources.flatten().any(wanted)
    };
    if spec.service_account_name.as_deref().is_some_and(|name| !name.is_empty()) {
        Some("serviceaccounts")
    } else if !references::secrets(spec).is_empty() {
        Some("secrets")
    } else if !references::config_maps(spec).is_empty() {
        Some("configmaps")
    } else if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        Some("resourceclaims")
    } else if any(|volume| volume.persistent_volume_claim.is_some()) {
        Some("persistentvolumeclaims")
    } else if any(|volume| volume.ephemeral.is_some()) {
        Some("persistentvolumeclaims")
    } else if any(|volume| volume.csi.is_some()) {
        Some("csi")
    } else if projected(|source| source.service_account_token.is_some()) {
        Some("serviceaccounts")
    } else if projected(|source| source.cluster_trust_bundle.is_some()) {
        Some("clustertrustbundles")
    } else {
        None
    }
}

fn pod_status(node: &str, request: &AdmissionRequest<'_>) -> Result<(), String> {
    let (Some(new), Some(old)) = (request.object_as::<Pod>(), request.old_as::<Pod>()) else { return Ok(()) };
    if !is_on(old, node) {
        return Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    let labels = |pod: &Pod| pod.metadata.labels.clone().unwrap_or_default();
    if labels(old) != labels(new) {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    let claims = |pod: &Pod| pod.status.as_ref().and_then(|status| status.resource_claim_statuses.clone());
    if claims(old).unwrap_or_default() != claims(new).unwrap_or_default() {
        // The misspelling is upstream's.
        return Err(format!("node {node:?} cannot update resource claim statues"));
    }
    Ok(())
}

fn eviction(node: &str, request: &AdmissionRequest<'_>, registry: &Registry) -> Checked {
    let found = registry.get::<Pod>(request.namespace, request.name);
    let found = found.ok_or_else(|| StatusError::not_found(request.resource, request.name))?;
    if is_on(&found, node) {
        return Ok(Ok(()));
    }
    Ok(Err(format!("node {node} can only evict pods with spec.nodeName set to itself")))
}

fn claim_status(node: &str, request: &AdmissionRequest<'_>) -> Result<(), String> {
    if request.subresource != "status" {
        return Err("may only update PVC status".to_owned());
    }
    type Claim = PersistentVolumeClaim;
    let (Some(new), Some(old)) = (request.object_as::<Claim>(), request.old_as::<Claim>()) else { return Ok(()) };
    let rest = |claim: &Claim| {
        let mut rest = claim.clone();
        rest.metadata.resource_version = None;
        let status = rest.status.get_or_insert_default();
        status.capacity = None;
        status.conditions = None;
        status.allocated_resources = None;
        status.allocated_resource_statuses = None;
        rest
    };
    if rest(new) == rest(old) {
        return Ok(());
    }
    Err(format!("node {node:?} is not allowed to update fields other than status.quantity and status.conditions"))
}

fn own_node(node: &str, request: &AdmissionRequest<'_>) -> Result<(), String> {
    if request.name != node {
        return Err(format!("node {node:?} is not allowed to modify node {:?}", request.name));
    }
    let Some(new) = request.object_as::<Node>() else { return Ok(()) };
    let source = |object: &Node| object.spec.as_ref().and_then(|spec| spec.config_source.clone());
    let none = BTreeMap::new();
    let Some(old) = request.old_as::<Node>() else {
        if source(new).is_some() {
            return Err(format!("node {node:?} is not allowed to create pods with a non-nil configSource"));
        }
        let forbidden = forbidden_labels(new.metadata.labels.as_ref().unwrap_or(&none), &none);
        if forbidden.is_empty() {
            return Ok(());
        }
        return Err(format!("node {node:?} is not allowed to set the following labels: {}", forbidden.join(", ")));
    };
    if source(new).is_some() && source(new) != source(old) {
        return Err(format!("node {node:?} is not allowed to update configSource to a new non-nil configSource"));
    }
    let taints = |object: &Node| object.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    if taints(new) != taints(old) {
        return Err(format!("node {node:?} is not allowed to modify taints"));
    }
    let owners = |object: &Node| object.metadata.owner_references.clone().unwrap_or_default();
    if owners(new) != owners(old) {
        return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    let labels = |object: &'_ Node| object.metadata.labels.clone().unwrap_or_default();
    let forbidden = forbidden_labels(&labels(new), &labels(old));
    if forbidden.is_empty() {
        return Ok(());
    }
    Err(format!("is not allowed to modify labels: {}", forbidden.join(", ")))
}

/// Labels that differ and are not the node's to change, in order.
fn forbidden_labels(new: &BTreeMap<String, String>, old: &BTreeMap<String, String>) -> Vec<String> {
    let mut keys: Vec<&String> = new.keys().chain(old.keys()).filter(|key| new.get(*key) != old.get(*key)).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter().filter(|key| !may_set(key)).cloned().collect()
}

fn may_set(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within = |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    if within(RESERVED_DOMAIN) {
        return false;
    }
    let known = KUBELET_LABELS.contains(&label) || KUBELET_LABEL_DOMAINS.iter().any(|parent| within(parent));
    known || !(within("kubernetes.io") || within("k8s.io"))
}

fn lease(node: &str, request: &AdmissionRequest<'_>) -> Result<(), String> {
    if request.namespace != NODE_LEASES {
        return Err(format!("can only access leases in the {NODE_LEASES:?} system namespace"));
    }
    if request.name != node {
        return Err("can only access node lease with the same name as the requesting node".to_owned());
    }
    Ok(())
}

fn csi_node(node: &str, request: &AdmissionRequest<'_>) -> Result<(), String> {
    if request.name != node {
        return Err("can only access CSINode with the same name as the requesting node".to_owned());
    }
    Ok(())
}

/// A node gets tokens for the Pods bound to it, and only bound to these and for audiences that they ask for.
pub fn token_request(
    registry: &Registry,
    user: &Arc<User>,
    account: &ServiceAccount,
    request: &TokenRequest,
) -> Result<(), StatusError> {
    let Some(node) = node_of(user) else { return Ok(()) };
    let resource = ResourceType::of::<ServiceAccount>();
    let name = account.metadata.name.as_deref().unwrap_or("");
    let namespace = account.metadata.namespace.as_deref().unwrap_or("");
    let refuse = |why: String| Err(StatusError::forbidden(&resource, name, why));
    let reference =
        request.spec.as_ref().and_then(|spec| spec.bound_object_ref.as_ref()).filter(|reference| {
            reference.api_version.as_deref() == Some("v1") && reference.kind.as_deref() == Some("Pod")
        });
    let pod_name = reference.and_then(|reference| reference.name.as_deref()).filter(|name| !name.is_empty());
    let (Some(reference), Some(pod_name)) = (reference, pod_name) else {
        return refuse("node requested token not bound to a pod".to_owned());
    };
    let Some(uid) = reference.uid.as_deref().filter(|uid| !uid.is_empty()) else {
        return refuse("node requested token with a pod binding without a uid".to_owned());
    };
    let pod = registry.get::<Pod>(namespace, pod_name);
    let pod = pod.ok_or_else(|| StatusError::not_found(&ResourceType::of::<Pod>(), pod_name))?;
    if pod.metadata.uid.as_deref() != Some(uid) {
        return refuse(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        ));
    }
    if !is_on(&pod, node) {
        return refuse("node requested token bound to a pod scheduled on a different node".to_owned());
    }
    Ok(())
}
