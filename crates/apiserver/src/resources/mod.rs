//! What each kind is: one file a kind, `resources/<group>/<kind>.rs`, and the one table that lists them.

pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod certificates;
mod columns;
pub mod coordination;
pub mod core;
pub mod discovery;
pub mod networking;
pub mod node;
pub mod policy;
pub mod rbac;
pub mod scheduling;
pub mod storage;
pub mod validation;

#[cfg(test)]
mod tests;

use k8s_openapi::api::autoscaling::v1 as autoscaling_v1;
use k8s_openapi::api::events::v1 as events;

use crate::registry::erased::{Conversion, Row};

/// Events live for an hour unless told otherwise.
const EVENT_SECONDS: u32 = 3600;

/// Every resource that is served, in the order of discovery.
pub const RESOURCES: &[Row] = &[
    Row::of::<core::config_map::ConfigMapStrategy>().short(&["cm"]),
    Row::of::<core::endpoints::EndpointsStrategy>().short(&["ep"]).directory("services/endpoints"),
    Row::of::<core::event::EventStrategy>().short(&["ev"]).deferred().time_to_live(EVENT_SECONDS),
    Row::of::<core::limit_range::LimitRangeStrategy>().short(&["limits"]),
    Row::of::<core::namespace::NamespaceStrategy>().short(&["ns"]).subresources(&["finalize"]),
    Row::of::<core::node::NodeStrategy>().short(&["no"]).directory("minions").subresources(&["proxy"]),
    Row::of::<core::persistent_volume_claim::PersistentVolumeClaimStrategy>().short(&["pvc"]),
    Row::of::<core::persistent_volume::PersistentVolumeStrategy>().short(&["pv"]),
    Row::of::<core::pod::PodStrategy>().short(&["po"]).categories(&["all"]).subresources(&[
        "attach",
        "binding",
        "ephemeralcontainers",
        "eviction",
        "exec",
        "log",
        "portforward",
        "proxy",
    ]),
    Row::of::<core::pod_template::PodTemplateStrategy>(),
    Row::of::<core::replication_controller::ReplicationControllerStrategy>()
        .short(&["rc"])
        .categories(&["all"])
        .directory("controllers"),
    Row::of::<core::resource_quota::ResourceQuotaStrategy>().short(&["quota"]),
    Row::of::<core::secret::SecretStrategy>(),
    Row::of::<core::service_account::ServiceAccountStrategy>().short(&["sa"]).subresources(&["token"]),
    Row::of::<core::service::ServiceStrategy>()
        .short(&["svc"])
        .categories(&["all"])
        .directory("services/specs")
        .subresources(&["proxy"]),
    Row::view::<events::Event, core::event::EventStrategy>(EVENTS_GROUP).short(&["ev"]),
    Row::of::<apps::controller_revision::ControllerRevisionStrategy>(),
    Row::of::<apps::daemon_set::DaemonSetStrategy>().short(&["ds"]).categories(&["all"]),
    Row::of::<apps::deployment::DeploymentStrategy>().short(&["deploy"]).categories(&["all"]),
    Row::of::<apps::replica_set::ReplicaSetStrategy>().short(&["rs"]).categories(&["all"]),
    Row::of::<apps::stateful_set::StatefulSetStrategy>().short(&["sts"]).categories(&["all"]),
    Row::of::<autoscaling::horizontal_pod_autoscaler::HorizontalPodAutoscalerStrategy>()
        .short(&["hpa"])
        .categories(&["all"]),
    Row::view::<
        autoscaling_v1::HorizontalPodAutoscaler,
        autoscaling::horizontal_pod_autoscaler::HorizontalPodAutoscalerStrategy,
    >(AUTOSCALING_ONE)
    .short(&["hpa"])
    .categories(&["all"]),
    Row::of::<batch::cron_job::CronJobStrategy>().short(&["cj"]).categories(&["all"]),
    Row::of::<batch::job::JobStrategy>().categories(&["all"]),
    Row::of::<certificates::signing_request::SigningRequestStrategy>().short(&["csr"]).subresources(&["approval"]),
    Row::of::<coordination::lease::LeaseStrategy>().deferred(),
    Row::of::<discovery::endpoint_slice::EndpointSliceStrategy>(),
    Row::of::<networking::ingress_class::IngressClassStrategy>(),
    Row::of::<networking::ingress::IngressStrategy>().short(&["ing"]).directory("ingress"),
    Row::of::<networking::network_policy::NetworkPolicyStrategy>().short(&["netpol"]),
    Row::of::<node::runtime_class::RuntimeClassStrategy>(),
    Row::of::<policy::pod_disruption_budget::PodDisruptionBudgetStrategy>().short(&["pdb"]),
    Row::of::<rbac::binding::ClusterRoleBindingStrategy>(),
    Row::of::<rbac::role::ClusterRoleStrategy>(),
    Row::of::<rbac::binding::RoleBindingStrategy>(),
    Row::of::<rbac::role::RoleStrategy>(),
    Row::of::<scheduling::priority_class::PriorityClassStrategy>().short(&["pc"]),
    Row::of::<storage::csi_driver::CsiDriverStrategy>(),
    Row::of::<storage::csi_node::CsiNodeStrategy>(),
    Row::of::<storage::storage_class::StorageClassStrategy>().short(&["sc"]),
    Row::of::<storage::volume_attachment::VolumeAttachmentStrategy>(),
];

const EVENTS_GROUP: Conversion = Conversion {
    to_stored: core::event::from_events_group,
    from_stored: core::event::to_events_group,
    fields: core::event::EVENTS_GROUP_FIELDS,
};

const AUTOSCALING_ONE: Conversion = Conversion {
    to_stored: autoscaling::version_one::to_version_two,
    from_stored: autoscaling::version_one::from_version_two,
    fields: &[],
};

/// The table as the registry takes it.
pub fn rows() -> Vec<Row> {
    RESOURCES.to_vec()
}
