//! Nodes, with the Pods on them and what these ask for.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeStatus, Pod};
use xebec_api::Quantity;
use xebec_api::pod::{Amounts, limits, requests};
use xebec_client::{Error, ListOptions};

use super::Subject;
use super::events::{self, Involved};
use super::page::{Labels, Page, or_none};
use crate::age;

const LEASES: &str = "kube-node-lease";
const STANDARD: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "pods"];

pub async fn describe(subject: &Subject<'_>, page: &mut Page) -> anyhow::Result<()> {
    let node: Node = subject.get().await?;
    let pods = match pods(subject).await {
        Ok(pods) => Some(pods),
        Err(error) if error.is_forbidden() => None,
        Err(error) => return Err(error.into()),
    };
    let (meta, status) = (&node.metadata, node.status.clone().unwrap_or_default());
    let spec = node.spec.clone().unwrap_or_default();
    page.field(0, "Name", subject.name);
    page.field(0, "Roles", or_none(roles(meta.labels.as_ref())));
    page.labels("Labels", meta.labels.as_ref());
    page.annotations("Annotations", meta.annotations.as_ref());
    page.field(0, "CreationTimestamp", age::date_of(meta.creation_timestamp.as_ref()));
    page.taints(spec.taints.as_ref());
    page.field(0, "Unschedulable", spec.unschedulable.unwrap_or(false));
    lease(subject, page).await;
    describe_status(&status, page);
    page.optional(0, "PodCIDR", spec.pod_cidr.as_deref());
    page.optional(0, "PodCIDRs", spec.pod_cidrs.map(|ranges| ranges.join(",")));
    page.optional(0, "ProviderID", spec.provider_id.as_deref());
    match pods {
        Some(pods) => describe_pods(&pods, &status, page),
        None => page.field(0, "Pods", "not authorized"),
    }
    if subject.with_events {
        // The node agent reports by the name, the controllers by the identity.
        let involved = |uid| Involved { namespace: "", name: subject.name, kind: "Node", uid };
        let mut found = events::find(subject, &involved(meta.uid.as_deref().unwrap_or(""))).await;
        found.extend(events::find(subject, &involved(subject.name)).await);
        events::write(found, page);
    }
    Ok(())
}

/// Those that may still run.
async fn pods(subject: &Subject<'_>) -> Result<Vec<Arc<Pod>>, Error> {
    let fields = format!("spec.nodeName={},status.phase!=Succeeded,status.phase!=Failed", subject.name);
    subject.session.client.all::<Pod>().list_typed(&ListOptions::fields(fields)).await
}

fn roles(labels: Option<&Labels>) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in labels.into_iter().flatten() {
        match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => roles.push(role),
            None if key == "kubernetes.io/role" && !value.is_empty() => roles.push(value),
            _ => {}
        }
    }
    roles.sort_unstable();
    roles.dedup();
    roles.join(",")
}

async fn lease(subject: &Subject<'_>, page: &mut Page) {
    let spec = match subject.session.client.namespaced::<Lease>(LEASES).get(subject.name).await {
        Ok(lease) => lease.spec.unwrap_or_default(),
        Err(error) => return page.field(0, "Lease", format_args!("Failed to get lease: {error}")),
    };
    let unset = || "<unset>".to_owned();
    page.line(0, "Lease:");
    page.field(1, "HolderIdentity", spec.holder_identity.unwrap_or_else(unset));
    page.field(1, "AcquireTime", spec.acquire_time.map_or_else(unset, |time| age::date(Some(time.0))));
    page.field(1, "RenewTime", spec.renew_time.map_or_else(unset, |time| age::date(Some(time.0))));
}

fn describe_status(status: &NodeStatus, page: &mut Page) {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    if !conditions.is_empty() {
        page.line(0, "Conditions:");
        page.heading(1, &["Type", "Status", "LastHeartbeatTime", "LastTransitionTime", "Reason", "Message"]);
    }
    for one in conditions {
        let (reason, message) = (one.reason.as_deref().unwrap_or(""), one.message.as_deref().unwrap_or(""));
        let beat = age::date_of(one.last_heartbeat_time.as_ref());
        let since = age::date_of(one.last_transition_time.as_ref());
        page.line(1, format_args!("{} \t{} \t{beat} \t{since} \t{reason} \t{message}", one.type_, one.status));
    }
    page.line(0, "Addresses:");
    for address in status.addresses.iter().flatten() {
        page.field(1, &address.type_, &address.address);
    }
    page.amounts("Capacity", status.capacity.as_ref());
    page.amounts("Allocatable", status.allocatable.as_ref());
    page.line(0, "System Info:");
    let info = status.node_info.clone().unwrap_or_default();
    let lines = [
        ("Machine ID", info.machine_id),
        ("System UUID", info.system_uuid),
        ("Boot ID", info.boot_id),
        ("Kernel Version", info.kernel_version),
        ("OS Image", info.os_image),
        ("Operating System", info.operating_system),
        ("Architecture", info.architecture),
        ("Container Runtime Version", info.container_runtime_version),
        ("Kubelet Version", info.kubelet_version),
    ];
    lines.iter().for_each(|(name, value)| page.field(1, name, value));
}

/// What a node can give.
struct Allocatable(BTreeMap<String, Quantity>);

impl Allocatable {
    fn of(status: &NodeStatus) -> Self {
        let amounts = status.allocatable.as_ref().filter(|all| !all.is_empty()).or(status.capacity.as_ref());
        let parsed = amounts.into_iter().flatten().map(|(name, amount)| (name.clone(), Quantity::of(Some(amount))));
        Allocatable(parsed.collect())
    }

    /// The amount, and which part of all that is.
    fn share(&self, amounts: &Amounts, name: &str) -> String {
        let units = |amount: Quantity| if name == "cpu" { amount.milli_value() } else { amount.value() } as f64;
        let amount = amounts.get(name).copied().unwrap_or(Quantity::ZERO);
        let all = self.0.get(name).copied().map_or(0.0, units);
        let percent = if all == 0.0 { 0 } else { (units(amount) / all * 100.0) as i64 };
        format!("{amount} ({percent}%)")
    }
}

fn describe_pods(pods: &[Arc<Pod>], status: &NodeStatus, page: &mut Page) {
    let allocatable = Allocatable::of(status);
    page.field(0, "Non-terminated Pods", format_args!("({} in total)", pods.len()));
    page.line(1, "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge");
    page.line(1, "---------\t----\t\t------------\t----------\t---------------\t-------------\t---");
    let (mut all_requests, mut all_limits) = (Amounts::new(), Amounts::new());
    for pod in pods {
        let Some(spec) = &pod.spec else { continue };
        let (requests, limits) = (requests(spec), limits(spec));
        add(&mut all_requests, &requests);
        add(&mut all_limits, &limits);
        let meta = &pod.metadata;
        let (namespace, name) = (meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""));
        let shares = ["cpu", "memory"]
            .map(|resource| [allocatable.share(&requests, resource), allocatable.share(&limits, resource)].join("\t"))
            .join("\t");
        let age = age::since(meta.creation_timestamp.as_ref().map(|time| time.0));
        page.line(1, format_args!("{namespace}\t{name}\t\t{shares}\t{age}"));
    }
    page.line(0, "Allocated resources:\n  (Total limits may be over 100 percent, i.e., overcommitted.)");
    page.heading(1, &["Resource", "Requests", "Limits"]);
    let huge = |name: &&&str| name.starts_with("hugepages-");
    let others: Vec<&str> = allocatable.0.keys().map(String::as_str).filter(|name| !STANDARD.contains(name)).collect();
    let shared = STANDARD[..3].iter().chain(others.iter().filter(huge));
    for name in shared {
        let (requests, limits) = (allocatable.share(&all_requests, name), allocatable.share(&all_limits, name));
        page.line(1, format_args!("{name}\t{requests}\t{limits}"));
    }
    for name in others.iter().filter(|name| !huge(name)) {
        let amount = |amounts: &Amounts| amounts.get(*name).copied().unwrap_or(Quantity::ZERO);
        page.line(1, format_args!("{name}\t{}\t{}", amount(&all_requests), amount(&all_limits)));
    }
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let entry = total.entry(name.clone()).or_insert(Quantity::ZERO);
        *entry = entry.plus(*amount);
    }
}
