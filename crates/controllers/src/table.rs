//! The table of controllers: the one list of what runs.

use std::sync::Arc;

use futures::future::BoxFuture;
use ipnet::Ipv4Net;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use xebec_runtime::{Context, Controller};

use crate::daemon::DaemonSets;
use crate::deployment::Deployments;
use crate::disruption::DisruptionBudgets;
use crate::endpoints::legacy::LegacyEndpoints;
use crate::endpoints::mirroring::MirroredEndpoints;
use crate::endpoints::slices::EndpointSlices;
use crate::job::Jobs;
use crate::namespaces::Namespaces;
use crate::node::ipam::NodeIpam;
use crate::node::lifecycle::NodeLifecycle;
use crate::node::taint_eviction::TaintEviction;
use crate::replicas::Replicas;
use crate::root_ca::RootCaPublisher;
use crate::service_accounts::DefaultServiceAccounts;
use crate::service_cidrs::ServiceCidrs;
use crate::volume_protection::{ClaimProtection, ClassProtection, VolumeProtection};
use crate::{garbage, pod_gc, resource_quota};

/// What controllers are told beside the cluster itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// The root certificate that Pods check the API server by, in PEM.
    pub root_ca: String,
    /// The network that nodes get their Pod networks from.
    pub cluster_cidr: Ipv4Net,
}

/// One controller. Its name is upstream's, as `--controllers` takes it.
pub struct Row {
    pub name: &'static str,
    start: fn(Context, &Config) -> BoxFuture<'static, ()>,
}

fn harness<C: Controller>(controller: C, context: Context) -> BoxFuture<'static, ()> {
    Box::pin(xebec_runtime::run(Arc::new(controller), context))
}

pub const CONTROLLERS: &[Row] = &[
    Row {
        name: "replicationcontroller-controller",
        start: |c, _| harness(Replicas::<ReplicationController>::new(&c, "replication-controller"), c),
    },
    Row {
        name: "replicaset-controller",
        start: |c, _| harness(Replicas::<ReplicaSet>::new(&c, "replicaset-controller"), c),
    },
    Row { name: "daemonset-controller", start: |c, _| harness(DaemonSets::new(&c), c) },
    Row { name: "deployment-controller", start: |c, _| harness(Deployments::new(&c), c) },
    Row { name: "endpoints-controller", start: |c, _| harness(LegacyEndpoints::new(&c), c) },
    Row { name: "endpointslice-controller", start: |c, _| harness(EndpointSlices::new(&c), c) },
    Row { name: "endpointslice-mirroring-controller", start: |c, _| harness(MirroredEndpoints::new(&c), c) },
    Row { name: "job-controller", start: |c, _| harness(Jobs::new(&c), c) },
    Row { name: "disruption-controller", start: |c, _| harness(DisruptionBudgets::new(&c), c) },
    Row { name: "namespace-controller", start: |c, _| harness(Namespaces::new(&c), c) },
    Row { name: "serviceaccount-controller", start: |c, _| harness(DefaultServiceAccounts::new(&c), c) },
    Row {
        name: "root-ca-certificate-publisher-controller",
        start: |c, config| harness(RootCaPublisher::new(&c, config.root_ca.clone()), c),
    },
    Row { name: "node-ipam-controller", start: |c, config| harness(NodeIpam::new(&c, config.cluster_cidr), c) },
    Row { name: "node-lifecycle-controller", start: |c, _| harness(NodeLifecycle::new(&c), c) },
    Row { name: "taint-eviction-controller", start: |c, _| harness(TaintEviction::new(&c), c) },
    Row { name: "service-cidr-controller", start: |c, _| harness(ServiceCidrs::new(&c), c) },
    Row { name: "persistentvolumeclaim-protection-controller", start: |c, _| harness(ClaimProtection::new(&c), c) },
    Row { name: "persistentvolume-protection-controller", start: |c, _| harness(VolumeProtection::new(&c), c) },
    Row { name: "volumeattributesclass-protection-controller", start: |c, _| harness(ClassProtection::new(&c), c) },
    Row { name: "pod-garbage-collector-controller", start: |c, _| Box::pin(pod_gc::run(c)) },
    Row { name: "resourcequota-controller", start: |c, _| Box::pin(resource_quota::run(c)) },
    Row { name: "garbage-collector-controller", start: |c, _| Box::pin(garbage::run(c)) },
];

/// Starts every controller of the table; they run until the context's shutdown.
pub async fn run(context: &Context, config: &Config) {
    let starts = CONTROLLERS.iter().map(|row| (row.start)(context.clone(), config));
    futures::future::join_all(starts).await;
}
