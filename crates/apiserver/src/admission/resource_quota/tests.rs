//! Quotas with a status as the controller would write it.

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use serde_json::{Value, json};
use xebec_api::resource::Kind;

use super::*;
use crate::registry::DeleteRequest;
use crate::testing::{self, create};

async fn house(hard: Value, used: Value) -> Arc<Registry> {
    let registry = testing::registry().await;
    create::<Namespace>(&registry, json!({"metadata": {"name": "ns"}})).await.unwrap();
    create::<ServiceAccount>(&registry, json!({"metadata": {"name": "default", "namespace": "ns"}})).await.unwrap();
    create::<ResourceQuota>(&registry, json!({"metadata": {"name": "q", "namespace": "ns"}, "spec": {"hard": hard}}))
        .await
        .unwrap();
    set_status(&registry, json!({"hard": hard, "used": used})).await;
    registry
}

async fn set_status(registry: &Registry, status: Value) {
    let status: k8s_openapi::api::core::v1::ResourceQuotaStatus = serde_json::from_value(status).unwrap();
    let edit = |object: &mut dyn AnyObject| {
        object.as_any_mut().downcast_mut::<ResourceQuota>().unwrap().status = Some(status.clone());
        Ok(())
    };
    let served = registry.index.find("", "v1", "resourcequotas").unwrap();
    let user = User::master("admin");
    registry.update(served, ("ns", "q"), Part::Direct, Edit::Typed(&edit), &mut Call::new(&user)).await.unwrap();
    registry.catch_up().await.unwrap();
}

async fn pod(registry: &Registry, name: &str, requests: Value) -> Result<(), String> {
    let container = json!({"name": "c", "image": "i", "resources": {"requests": requests}});
    let tree = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"containers": [container]}});
    create::<Pod>(registry, tree).await.map(drop).map_err(|error| error.to_string())
}

fn used(registry: &Registry) -> Value {
    let quota = registry.get::<ResourceQuota>("ns", "q").unwrap();
    serde_json::to_value(quota.status.as_ref().unwrap().used.as_ref()).unwrap()
}

async fn delete<K: Kind>(registry: &Registry, name: &str) {
    let served = registry.index.find(K::GROUP, K::VERSION, K::URL_PATH_SEGMENT).unwrap();
    let options = serde_json::from_value(json!({"gracePeriodSeconds": 0})).unwrap();
    let request = DeleteRequest { namespace: "ns", name, options: &options };
    registry.delete(served, &request, &mut Call::new(&User::master("admin"))).await.unwrap();
    registry.catch_up().await.unwrap();
}

#[tokio::test]
async fn pods_are_charged_and_refused() {
    let registry = house(json!({"pods": "2", "requests.cpu": "1"}), json!({"pods": "0", "requests.cpu": "0"})).await;
    pod(&registry, "a", json!({"cpu": "400m"})).await.unwrap();
    assert_eq!(used(&registry), json!({"pods": "1", "requests.cpu": "400m"}));
    let why = "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=700m, used: requests.cpu=400m, \
               limited: requests.cpu=1";
    assert_eq!(pod(&registry, "b", json!({"cpu": "700m"})).await, Err(why.to_owned()));
    let why = "pods \"b\" is forbidden: failed quota: q: must specify requests.cpu for: c";
    assert_eq!(pod(&registry, "b", json!({})).await, Err(why.to_owned()));
    pod(&registry, "b", json!({"cpu": "600m"})).await.unwrap();
    assert_eq!(used(&registry), json!({"pods": "2", "requests.cpu": "1"}));
}

#[tokio::test]
async fn a_status_that_forgot_lets_nothing_more_in() {
    let registry = house(json!({"pods": "1"}), json!({"pods": "0"})).await;
    pod(&registry, "a", json!({})).await.unwrap();
    set_status(&registry, json!({"hard": {"pods": "1"}, "used": {"pods": "0"}})).await;
    let why = "pods \"b\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1";
    assert_eq!(pod(&registry, "b", json!({})).await, Err(why.to_owned()));
    delete::<Pod>(&registry, "a").await;
    pod(&registry, "b", json!({})).await.unwrap();
}

#[tokio::test]
async fn many_at_once_get_no_more_than_there_is() {
    let registry = house(json!({"count/configmaps": "3"}), json!({"count/configmaps": "0"})).await;
    let map = |number: usize| json!({"metadata": {"name": format!("m{number}"), "namespace": "ns"}});
    let results = join_all((0..10).map(|number| create::<ConfigMap>(&registry, map(number)))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    assert_eq!(used(&registry), json!({"count/configmaps": "3"}));
}

#[tokio::test]
async fn an_uncounted_quota_lets_nothing_in() {
    let registry = house(json!({"services": "1"}), json!({})).await;
    let tree = json!({"metadata": {"name": "s", "namespace": "ns"}, "spec": {"ports": [{"port": 1}]}});
    let error = create::<Service>(&registry, tree).await.err().unwrap().to_string();
    assert_eq!(error, "services \"s\" is forbidden: status unknown for quota: q, resources: services");
}
