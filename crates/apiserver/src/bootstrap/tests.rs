//! A first and a later start on the memory store.

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use serde_json::json;

use super::*;
use crate::testing::{self, create};

const ADVERTISED: &str = "10.1.2.3:6443";

fn advertised() -> SocketAddr {
    ADVERTISED.parse().unwrap()
}

#[tokio::test]
async fn a_first_start_makes_everything_and_a_second_one_nothing() {
    let registry = testing::registry().await;
    run(&registry, advertised()).await.unwrap();
    registry.catch_up().await.unwrap();
    assert_eq!(registry.list::<Namespace>("").len(), 4);
    assert_eq!(registry.list::<ClusterRole>("").len(), 73);
    assert_eq!(registry.list::<ClusterRoleBinding>("").len(), 54);
    let default = registry.get::<Namespace>("", "default").unwrap();
    assert_eq!(default.metadata.labels.as_ref().unwrap()["kubernetes.io/metadata.name"], "default");
    let service = registry.get::<Service>("default", "kubernetes").unwrap();
    assert_eq!(service.spec.as_ref().unwrap().cluster_ip.as_deref(), Some("10.96.0.1"));
    let endpoints = registry.get::<Endpoints>("default", "kubernetes").unwrap();
    assert_eq!(serde_json::to_value(&endpoints.subsets).unwrap()[0]["addresses"][0]["ip"], "10.1.2.3");
    let view = registry.get::<ClusterRole>("", "view").unwrap();
    let admin = registry.get::<ClusterRole>("", "admin").unwrap();
    let (view, admin) = (view.rules.clone().unwrap(), admin.rules.clone().unwrap());
    assert!(
        view.len() > 10 && view.iter().all(|rule| admin.contains(rule)),
        "aggregated rules are there from the start"
    );

    let before = registry.cache.applied();
    run(&registry, advertised()).await.unwrap();
    registry.catch_up().await.unwrap();
    assert_eq!(registry.cache.applied(), before);
    run(&registry, "10.1.2.4:6443".parse().unwrap()).await.unwrap();
    let endpoints = registry.get::<Endpoints>("default", "kubernetes").unwrap();
    assert_eq!(serde_json::to_value(&endpoints.subsets).unwrap()[0]["addresses"][0]["ip"], "10.1.2.4");
}

#[tokio::test]
async fn what_was_taken_from_a_default_role_comes_back() {
    let registry = testing::registry().await;
    run(&registry, advertised()).await.unwrap();
    let wanted = registry.get::<ClusterRole>("", "system:discovery").unwrap();
    let served = registry.index.find("rbac.authorization.k8s.io", "v1", "clusterroles").unwrap();
    let user = server_user();
    let change = |role: &'static str, rules: serde_json::Value, auto: &'static str| {
        let edit = move |object: &mut dyn crate::registry::erased::AnyObject| {
            let role = object.as_any_mut().downcast_mut::<ClusterRole>().unwrap();
            role.rules = serde_json::from_value(rules.clone()).unwrap();
            role.metadata.annotations.get_or_insert_default().insert(policy::AUTO_UPDATE.to_owned(), auto.to_owned());
            Ok(())
        };
        let (registry, user) = (registry.clone(), user.clone());
        async move {
            let edit = Edit::Typed(&edit);
            registry.update(served, ("", role), Part::Main, edit, &mut Call::new(&user)).await.map(drop).unwrap();
        }
    };
    let own = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    change("system:discovery", own.clone(), "true").await;
    change("system:basic-user", own, "false").await;
    run(&registry, advertised()).await.unwrap();
    registry.catch_up().await.unwrap();
    let mended = registry.get::<ClusterRole>("", "system:discovery").unwrap();
    let rules = mended.rules.as_ref().unwrap();
    assert_eq!(rules[0].resources, Some(vec!["pods".to_owned()]), "additions stay");
    let held: Vec<_> = rules.iter().collect();
    assert_eq!(crate::authz::rules::missing(&held, wanted.rules.as_ref().unwrap()), []);
    let left = registry.get::<ClusterRole>("", "system:basic-user").unwrap();
    assert_eq!(left.rules.as_ref().unwrap().len(), 1, "who turns the update off is left alone");
}

#[tokio::test]
async fn aggregated_roles_follow_what_they_gather() {
    let registry = testing::registry().await;
    run(&registry, advertised()).await.unwrap();
    let aggregation = Aggregation::of(&registry).unwrap();
    let task = tokio::spawn(aggregation.run());
    let cache = registry.cache_of::<ClusterRole>().unwrap().clone();
    let (_, revision) = registry.cache.current(&cache);
    let mut watcher = cache.watch(revision, crate::cache::Selection::default()).unwrap();
    create::<ClusterRole>(
        &registry,
        json!({
            "metadata": {"name": "crd-view", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
            "rules": [{"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["things"]}]
        }),
    )
    .await
    .unwrap();
    let has = |name: &str| {
        let role = registry.get::<ClusterRole>("", name).unwrap();
        role.rules
            .iter()
            .flatten()
            .any(|rule| rule.api_groups.as_ref().is_some_and(|groups| groups[0] == "example.com"))
    };
    let mut seen = Vec::new();
    while !(has("view") && has("edit") && has("admin")) {
        watcher.seen(&mut seen).await.unwrap();
    }
    task.abort();
}
