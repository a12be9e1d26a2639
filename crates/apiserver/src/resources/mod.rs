//! What each kind is: one file a kind, `resources/<group>/<kind>.rs`, and the one table that lists them.

pub mod admissionregistration;
pub mod apiextensions;
pub mod apiregistration;
pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod certificates;
mod columns;
pub mod component_status;
pub mod coordination;
pub mod core;
pub mod discovery;
pub mod flowcontrol;
pub mod networking;
pub mod node;
pub mod policy;
pub mod rbac;
pub mod resource;
pub mod scheduling;
pub mod storage;
pub mod storagemigration;
pub mod validation;

#[cfg(test)]
mod tests;

use k8s_openapi::api::autoscaling::v1 as autoscaling_v1;
use k8s_openapi::api::events::v1 as events;

use crate::registry::erased::{Conversion, Row};

/// Events live for an hour unless told otherwise.
const EVENT_SECONDS: u32 = 3600;

/// Every resource that is served, in the order of discovery. Names, short names and categories are in `xebec_api::schema`.
pub const RESOURCES: &[Row] = &[
    Row::of::<core::config_map::ConfigMapStrategy>(),
    Row::of::<core::endpoints::EndpointsStrategy>().directory("services/endpoints"),
    Row::of::<core::event::EventStrategy>().deferred().time_to_live(EVENT_SECONDS),
    Row::of::<core::limit_range::LimitRangeStrategy>(),
    Row::of::<core::namespace::NamespaceStrategy>().subresources(&["finalize"]),
    Row::of::<core::node::NodeStrategy>().directory("minions").subresources(&["proxy"]),
    Row::of::<core::persistent_volume_claim::PersistentVolumeClaimStrategy>(),
    Row::of::<core::persistent_volume::PersistentVolumeStrategy>(),
    Row::of::<core::pod::PodStrategy>().subresources(&[
        "attach",
        "binding",
        "ephemeralcontainers",
        "eviction",
        "exec",
        "log",
        "portforward",
        "proxy",
        "resize",
    ]),
    Row::of::<core::pod_template::PodTemplateStrategy>(),
    Row::of::<core::replication_controller::ReplicationControllerStrategy>().directory("controllers"),
    Row::of::<core::resource_quota::ResourceQuotaStrategy>(),
    Row::of::<core::secret::SecretStrategy>(),
    Row::of::<core::service_account::ServiceAccountStrategy>().subresources(&["token"]),
    Row::of::<core::service::ServiceStrategy>().directory("services/specs").subresources(&["proxy"]),
    Row::view::<events::Event, core::event::EventStrategy>(EVENTS_GROUP),
    Row::of::<admissionregistration::mutating_policy::MutatingPolicyStrategy>(),
    Row::of::<admissionregistration::policy_binding::MutatingBindingStrategy>(),
    Row::of::<admissionregistration::webhooks::MutatingWebhooksStrategy>(),
    Row::of::<admissionregistration::validating_policy::ValidatingPolicyStrategy>(),
    Row::of::<admissionregistration::policy_binding::ValidatingBindingStrategy>(),
    Row::of::<admissionregistration::webhooks::ValidatingWebhooksStrategy>(),
    Row::of::<apiextensions::custom_resource_definition::DefinitionStrategy>()
        .directory("apiextensions.k8s.io/customresourcedefinitions"),
    Row::of::<apiregistration::api_service::ApiServiceStrategy>().directory("apiregistration.k8s.io/apiservices"),
    Row::of::<apps::controller_revision::ControllerRevisionStrategy>(),
    Row::of::<apps::daemon_set::DaemonSetStrategy>(),
    Row::of::<apps::deployment::DeploymentStrategy>(),
    Row::of::<apps::replica_set::ReplicaSetStrategy>(),
    Row::of::<apps::stateful_set::StatefulSetStrategy>(),
    Row::of::<autoscaling::horizontal_pod_autoscaler::HorizontalPodAutoscalerStrategy>(),
    Row::view::<
        autoscaling_v1::HorizontalPodAutoscaler,
        autoscaling::horizontal_pod_autoscaler::HorizontalPodAutoscalerStrategy,
    >(AUTOSCALING_ONE),
    Row::of::<batch::cron_job::CronJobStrategy>(),
    Row::of::<batch::job::JobStrategy>(),
    Row::of::<certificates::signing_request::SigningRequestStrategy>().subresources(&["approval"]),
    Row::of::<certificates::trust_bundle::TrustBundleStrategy>(),
    Row::of::<certificates::pod_request::PodRequestStrategy>(),
    Row::of::<coordination::lease::LeaseStrategy>().deferred(),
    Row::of::<discovery::endpoint_slice::EndpointSliceStrategy>(),
    Row::of::<flowcontrol::flow_schema::FlowSchemaStrategy>(),
    Row::of::<flowcontrol::level::PriorityLevelStrategy>(),
    Row::of::<networking::ingress_class::IngressClassStrategy>(),
    Row::of::<networking::ingress::IngressStrategy>().directory("ingress"),
    Row::of::<networking::ip_address::IpAddressStrategy>(),
    Row::of::<networking::network_policy::NetworkPolicyStrategy>(),
    Row::of::<networking::service_cidr::ServiceCidrStrategy>(),
    Row::of::<node::runtime_class::RuntimeClassStrategy>(),
    Row::of::<policy::pod_disruption_budget::PodDisruptionBudgetStrategy>(),
    Row::of::<rbac::binding::ClusterRoleBindingStrategy>(),
    Row::of::<rbac::role::ClusterRoleStrategy>(),
    Row::of::<rbac::binding::RoleBindingStrategy>(),
    Row::of::<rbac::role::RoleStrategy>(),
    Row::of::<resource::device_class::DeviceClassStrategy>(),
    Row::of::<resource::device_taint_rule::DeviceTaintRuleStrategy>(),
    Row::of::<resource::resource_claim::ResourceClaimStrategy>(),
    Row::of::<resource::resource_claim_template::ResourceClaimTemplateStrategy>(),
    Row::of::<resource::resource_slice::ResourceSliceStrategy>(),
    Row::of::<scheduling::priority_class::PriorityClassStrategy>(),
    Row::of::<storage::csi_driver::CsiDriverStrategy>(),
    Row::of::<storage::csi_node::CsiNodeStrategy>(),
    Row::of::<storage::csi_storage_capacity::CsiStorageCapacityStrategy>(),
    Row::of::<storage::storage_class::StorageClassStrategy>(),
    Row::of::<storage::volume_attachment::VolumeAttachmentStrategy>(),
    Row::of::<storage::volume_attributes_class::VolumeAttributesClassStrategy>(),
    Row::of::<storagemigration::storage_version_migration::StorageVersionMigrationStrategy>(),
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
