//! What nodes may do: their own Node and Lease, the Pods bound to them and what these refer to.
//!
//! Behaviour: upstream's Node authoriser. Its graph of objects is not kept here: the Pods of one node are found by the
//! field that kubelets select on, and the few that there are in a namespace are read when a node asks for an object.
//! What a node may write into an object is for the NodeRestriction plugin.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::certificates::v1beta1::PodCertificateRequest;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::resource::v1::ResourceSlice;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use xebec_api::selector::FieldSelector;

use super::{Attributes, Authorizer, UserRules, Verdict, references, rules};
use crate::authn::User;
use crate::registry::Registry;

const GROUP: &str = "system:nodes";
const NODE_NAME: &str = "spec.nodeName";
const USER_PREFIX: &str = "system:node:";
/// Upstream evaluates a copy of this role's rules, which its bootstrap policy writes into the cluster too.
const ROLE: &str = "system:node";

/// The node that a user is, if it is one. Nodes are told by their group; a name without the prefix gives an empty node.
pub fn node_of(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix(USER_PREFIX);
    match name {
        Some(name) if user.is_in(GROUP) => Some(name),
        _ => None,
    }
}

pub struct Node {
    registry: Arc<Registry>,
    rules: Vec<k8s_openapi::api::rbac::v1::PolicyRule>,
}

type Answer = Result<(), String>;

impl Node {
    pub fn new(registry: Arc<Registry>) -> Self {
        let role: Option<ClusterRole> = crate::bootstrap::policy::cluster_role(ROLE);
        Node { registry, rules: role.and_then(|role| role.rules).unwrap_or_default() }
    }

    fn answer(&self, node: &str, request: &Attributes<'_>) -> Answer {
        if request.is_resource {
            match (request.group, request.resource) {
                ("", "secrets") => {
                    let used = |pod: &Pod, name: &str| {
                        pod.spec.as_ref().is_some_and(|spec| references::secrets(spec).contains(&name))
                            || self.volumes_need_secret(pod, name)
                    };
                    return self.read(node, request, used);
                }
                ("", "configmaps") => {
                    return self.read(node, request, |pod, name| {
                        pod.spec.as_ref().is_some_and(|spec| references::config_maps(spec).contains(&name))
                    });
                }
                ("", "persistentvolumeclaims") => return self.claim(node, request),
                ("", "persistentvolumes") => return self.volume(node, request),
                ("resource.k8s.io", "resourceclaims") => {
                    return self.get(node, request, |pod, name| references::resource_claims(pod).contains(&name));
                }
                ("storage.k8s.io", "volumeattachments") => return self.attachment(node, request),
                ("", "serviceaccounts") => return self.service_account(node, request),
                ("coordination.k8s.io", "leases") => return lease(node, request),
                ("storage.k8s.io", "csinodes") => return csi_node(node, request),
                ("resource.k8s.io", "resourceslices") => return self.resource_slice(node, request),
                ("certificates.k8s.io", "podcertificaterequests") => return self.certificate_request(node, request),
                ("", "nodes") => return own_node(node, request),
                ("", "pods") => return self.pod(node, request),
                _ => {}
            }
        }
        if self.rules.iter().any(|rule| rules::allows(rule, request)) { Ok(()) } else { Err(String::new()) }
    }

    fn read(&self, node: &str, request: &Attributes<'_>, refers: impl Fn(&Pod, &str) -> bool) -> Answer {
        if !matches!(request.verb, "get" | "list" | "watch") {
            return Err("can only read resources of this type".to_owned());
        }
        if !request.subresource.is_empty() {
            return Err("cannot read subresource".to_owned());
        }
        if request.namespace.is_empty() {
            return Err("can only read namespaced object of this type".to_owned());
        }
        self.related(node, request, refers)
    }

    fn get(&self, node: &str, request: &Attributes<'_>, refers: impl Fn(&Pod, &str) -> bool) -> Answer {
        only_get(request)?;
        self.related(node, request, refers)
    }

    /// Whether a Pod on the node refers to the object of the request.
    fn related(&self, node: &str, request: &Attributes<'_>, refers: impl Fn(&Pod, &str) -> bool) -> Answer {
        if request.name.is_empty() {
            return Err("No Object name found".to_owned());
        }
        let refers = |pod: &Pod| !references::is_mirror(pod) && refers(pod, request.name);
        if self.any_pod(node, request.namespace, refers) { Ok(()) } else { Err(unrelated(node)) }
    }

    fn any_pod(&self, node: &str, namespace: &str, wanted: impl Fn(&Pod) -> bool) -> bool {
        let Some(cache) = self.registry.cache_of::<Pod>() else { return false };
        let Some(field) = cache.strategy.selectable_fields().iter().position(|field| *field == NODE_NAME) else {
            return false;
        };
        let snapshot = cache.snapshot();
        snapshot
            .scan(namespace, None)
            .filter(|item| item.fields(&*cache.strategy).get(field).is_some_and(|value| **value == *node))
            .filter_map(|item| item.object.typed::<Pod>().ok())
            .any(|pod| wanted(&pod))
    }

    fn claim(&self, node: &str, request: &Attributes<'_>) -> Answer {
        let uses = |pod: &Pod, name: &str| references::claims(pod).iter().any(|claim| claim == name);
        if request.subresource == "status" {
            if !matches!(request.verb, "update" | "patch") {
                return Err("can only get/update/patch this type".to_owned());
            }
            return self.related(node, request, uses);
        }
        self.get(node, request, uses)
    }

    fn volume(&self, node: &str, request: &Attributes<'_>) -> Answer {
        only_get(request)?;
        let claim = self.registry.get::<PersistentVolume>("", request.name).and_then(|volume| {
            let claim = volume.spec.as_ref()?.claim_ref.clone()?;
            Some((claim.namespace?, claim.name?))
        });
        let Some((namespace, name)) = claim else { return Err(unrelated(node)) };
        if self.registry.get::<PersistentVolumeClaim>(&namespace, &name).is_none() {
            return Err(unrelated(node));
        }
        let uses = |pod: &Pod| references::claims(pod).contains(&name);
        if self.any_pod(node, &namespace, uses) { Ok(()) } else { Err(unrelated(node)) }
    }

    /// Whether one of the volumes behind a Pod's claims names the Secret for its driver.
    fn volumes_need_secret(&self, pod: &Pod, name: &str) -> bool {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
        references::claims(pod).iter().any(|claim| {
            let claim = self.registry.get::<PersistentVolumeClaim>(namespace, claim);
            let volume = claim.and_then(|claim| claim.spec.as_ref()?.volume_name.clone());
            let volume = volume.and_then(|name| self.registry.get::<PersistentVolume>("", &name));
            volume.is_some_and(|volume| references::volume_secrets_in(&volume, namespace).contains(&name))
        })
    }

    fn resource_slice(&self, node: &str, request: &Attributes<'_>) -> Answer {
        if !request.subresource.is_empty() {
            return Err("cannot authorize ResourceSlice subresources".to_owned());
        }
        match request.verb {
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => {
                if request.name.is_empty() {
                    return Err("No Object name found".to_owned());
                }
                let slice = self.registry.get::<ResourceSlice>("", request.name);
                let own = slice.is_some_and(|slice| slice.spec.node_name.as_deref() == Some(node));
                if own { Ok(()) } else { Err(unrelated(node)) }
            }
            "watch" | "list" | "deletecollection" if selects(request, NODE_NAME, node) => Ok(()),
            "watch" | "list" | "deletecollection" => {
                Err("can only list/watch/deletecollection resourceslices with nodeName field selector".to_owned())
            }
            _ => Err(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, \
                      delete, deletecollection"
                    .to_owned(),
            ),
        }
    }

    fn certificate_request(&self, node: &str, request: &Attributes<'_>) -> Answer {
        if !request.subresource.is_empty() {
            return Err("nodes may not access the status subresource of PodCertificateRequests".to_owned());
        }
        match request.verb {
            "create" => Ok(()),
            "get" => {
                let found = self.registry.get::<PodCertificateRequest>(request.namespace, request.name);
                if found.is_some_and(|found| found.spec.node_name == node) { Ok(()) } else { Err(unrelated(node)) }
            }
            "list" | "watch" if selects(request, NODE_NAME, node) => Ok(()),
            "list" | "watch" => {
                Err("can only list/watch podcertificaterequests with nodeName field selector".to_owned())
            }
            verb => Err(format!("nodes may not {verb} podcertificaterequests")),
        }
    }

    fn attachment(&self, node: &str, request: &Attributes<'_>) -> Answer {
        only_get(request)?;
        let found = self.registry.get::<VolumeAttachment>("", request.name);
        if found.is_some_and(|found| found.spec.node_name == node) { Ok(()) } else { Err(unrelated(node)) }
    }

    fn service_account(&self, node: &str, request: &Attributes<'_>) -> Answer {
        let runs_as = |pod: &Pod, name: &str| {
            pod.spec.as_ref().is_some_and(|spec| spec.service_account_name.as_deref() == Some(name))
        };
        if request.verb == "get" && request.subresource.is_empty() {
            return self.read(node, request, runs_as);
        }
        if request.verb != "create" || request.name.is_empty() {
            return Err("can only create tokens for individual service accounts".to_owned());
        }
        if request.subresource != "token" {
            return Err("can only create token subresource of serviceaccount".to_owned());
        }
        self.related(node, request, runs_as)
    }

    fn pod(&self, node: &str, request: &Attributes<'_>) -> Answer {
        let is = |pod: &Pod| pod.metadata.name.as_deref() == Some(request.name);
        match (request.subresource, request.verb) {
            ("", "get") => {
                if self.any_pod(node, request.namespace, is) {
                    Ok(())
                } else {
                    Err(unrelated(node))
                }
            }
            ("", "list" | "watch") => {
                if selects(request, NODE_NAME, node) {
                    return Ok(());
                }
                if request.name.is_empty() {
                    return Err("can only list/watch pods with spec.nodeName field selector".to_owned());
                }
                if self.any_pod(node, request.namespace, is) { Ok(()) } else { Err(unrelated(node)) }
            }
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => Err(String::new()),
        }
    }
}

/// Whether the request is only for objects whose field has this value.
fn selects(request: &Attributes<'_>, field: &str, value: &str) -> bool {
    FieldSelector::parse(request.field_selector).is_ok_and(|selector| selector.required(field) == Some(value))
}

fn unrelated(node: &str) -> String {
    format!("no relationship found between node '{node}' and this object")
}

fn only_get(request: &Attributes<'_>) -> Answer {
    if request.verb != "get" {
        return Err("can only get individual resources of this type".to_owned());
    }
    if !request.subresource.is_empty() {
        return Err("cannot get subresource".to_owned());
    }
    Ok(())
}

fn lease(node: &str, request: &Attributes<'_>) -> Answer {
    if !matches!(request.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a node lease".to_owned());
    }
    if request.namespace != "kube-node-lease" {
        return Err("can only access leases in the \"kube-node-lease\" system namespace".to_owned());
    }
    if request.verb != "create" && request.name != node {
        return Err("can only access node lease with the same name as the requesting node".to_owned());
    }
    Ok(())
}

fn csi_node(node: &str, request: &Attributes<'_>) -> Answer {
    match request.subresource {
        "" => {}
        "status" => return Err("CSINode status access requires CSIVolumeHealth feature".to_owned()),
        _ => return Err("cannot authorize CSINode subresources".to_owned()),
    }
    if !matches!(request.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a CSINode".to_owned());
    }
    if request.verb != "create" && request.name != node {
        return Err("can only access CSINode with the same name as the requesting node".to_owned());
    }
    Ok(())
}

fn own_node(node: &str, request: &Attributes<'_>) -> Answer {
    match (request.subresource, request.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") if request.name == node => Ok(()),
        ("", "get" | "list" | "watch") if request.name.is_empty() => {
            Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            Err(format!("node '{node}' cannot read '{}', only its own Node object", request.name))
        }
        _ => Err(String::new()),
    }
}

#[async_trait]
impl Authorizer for Node {
    async fn authorize(&self, request: &Attributes<'_>) -> Verdict {
        let Some(node) = node_of(request.user) else { return Verdict::no_opinion() };
        if node.is_empty() {
            return Verdict {
                reason: format!("node: unknown node for user {:?}", request.user.name),
                ..Verdict::no_opinion()
            };
        }
        match self.answer(node, request) {
            Ok(()) => Verdict::allow(""),
            Err(why) if why.is_empty() => Verdict::no_opinion(),
            Err(why) => Verdict { reason: format!("node: {why}"), ..Verdict::no_opinion() },
        }
    }

    fn rules(&self, user: &User, _namespace: &str) -> UserRules {
        if node_of(user).is_none() {
            return UserRules::default();
        }
        let error = "node authorizer does not support user rule resolution".to_owned();
        UserRules { rules: Vec::new(), incomplete: true, errors: vec![error] }
    }
}
