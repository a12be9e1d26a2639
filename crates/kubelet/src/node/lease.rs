//! The node's heartbeat: a Lease in `kube-node-lease`, renewed every ten seconds.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use xebec_base::{Backoff, Chain, SharedClock};
use xebec_client::{Client, Error};

const NAMESPACE: &str = "kube-node-lease";
const RENEW: Duration = Duration::from_secs(10);
const DURATION: i32 = 40;
const RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(7)).with_jitter(0.2);

/// Runs as long as the agent.
pub async fn keep_lease(client: Client, clock: SharedClock, node: String) {
    let mut held: Option<Lease> = None;
    let mut retry = RETRY;
    loop {
        let pause = match renew(&client, &clock, &node, held.take()).await {
            Ok(lease) => {
                held = Some(lease);
                retry.reset();
                RENEW
            }
            // A node that has just begun is not registered yet.
            Err(error) if error.is_not_found() => retry.next_delay(),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot renew the lease of this node");
                retry.next_delay()
            }
        };
        clock.sleep(pause).await;
    }
}

async fn renew(client: &Client, clock: &SharedClock, node: &str, held: Option<Lease>) -> Result<Lease, Error> {
    let leases = client.namespaced::<Lease>(NAMESPACE);
    let now = MicroTime(clock.now());
    let mut lease = match held {
        Some(lease) => lease,
        None => match leases.get_opt(node).await? {
            Some(lease) => lease,
            None => return leases.create(&new_lease(client, node, now).await?).await,
        },
    };
    let spec = lease.spec.get_or_insert_default();
    spec.renew_time = Some(now);
    spec.holder_identity = Some(node.to_owned());
    spec.lease_duration_seconds = Some(DURATION);
    leases.replace(&lease).await
}

async fn new_lease(client: &Client, node: &str, now: MicroTime) -> Result<Lease, Error> {
    // Without the owner the lease would outlive the node; upstream waits for the Node object too.
    let owner = client.all::<Node>().get(node).await?;
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.to_owned(),
        uid: owner.metadata.uid.unwrap_or_default(),
        ..OwnerReference::default()
    };
    Ok(Lease {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: Some(DURATION),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    })
}
