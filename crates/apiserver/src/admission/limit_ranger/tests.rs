//! Defaults and bounds, on a registry with one LimitRange.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use serde_json::{Value, json};

use super::*;
use crate::testing::{self, create};

async fn pod(limit: Value, resources: Value) -> Result<Arc<Pod>, String> {
    let registry = testing::registry().await;
    create::<Namespace>(&registry, json!({"metadata": {"name": "ns"}})).await.unwrap();
    create::<ServiceAccount>(&registry, json!({"metadata": {"name": "default", "namespace": "ns"}})).await.unwrap();
    let range = json!({"metadata": {"name": "r", "namespace": "ns"}, "spec": {"limits": [limit]}});
    create::<LimitRange>(&registry, range).await.unwrap();
    let container = json!({"name": "c", "image": "i", "resources": resources});
    let tree = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [container]}});
    let object = create::<Pod>(&registry, tree).await.map_err(|error| error.to_string())?;
    Ok(object.typed().unwrap())
}

async fn check_bounds(limit: Value, resources: Value, expected: Result<(), &str>) {
    let result = pod(limit.clone(), resources.clone()).await.map(drop);
    let expected = expected.map_err(|why| format!("pods \"p\" is forbidden: {why}"));
    assert_eq!(result, expected, "{limit} {resources}");
}

#[tokio::test]
async fn bounds_are_held() {
    let max = json!({"type": "Container", "max": {"cpu": "1"}});
    check_bounds(max.clone(), json!({"limits": {"cpu": "500m"}}), Ok(())).await;
    let why = "maximum cpu usage per Container is 1, but limit is 2";
    check_bounds(max, json!({"limits": {"cpu": "2"}}), Err(why)).await;
    let max = json!({"type": "Pod", "max": {"cpu": "1"}});
    let why = "maximum cpu usage per Pod is 1.  No limit is specified";
    check_bounds(max, json!({}), Err(why)).await;
    let min = json!({"type": "Pod", "min": {"memory": "64Mi"}});
    let why = "minimum memory usage per Pod is 64Mi, but request is 32Mi";
    check_bounds(min, json!({"requests": {"memory": "32Mi"}}), Err(why)).await;
    let ratio = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}});
    let why = "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000";
    check_bounds(ratio, json!({"requests": {"cpu": "1"}, "limits": {"cpu": "3"}}), Err(why)).await;
}

#[tokio::test]
async fn defaults_are_filled_in() {
    let limit =
        json!({"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "100m", "memory": "8Mi"}});
    let pod = pod(limit, json!({"requests": {"memory": "16Mi"}})).await.unwrap();
    let resources = pod.spec.as_ref().unwrap().containers[0].resources.as_ref();
    let expected = json!({"limits": {"cpu": "1"}, "requests": {"cpu": "100m", "memory": "16Mi"}});
    assert_eq!(serde_json::to_value(resources).unwrap(), expected);
    let told = "LimitRanger plugin set: cpu request for container c; cpu limit for container c";
    assert_eq!(pod.metadata.annotations.as_ref().unwrap()[ANNOTATION], told);
}
