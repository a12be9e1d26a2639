//! The ConfigMap by which other API servers and components learn whose client certificates this server believes: upstream's
//! `extension-apiserver-authentication`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use xebec_api::status::StatusError;

use super::Plan;
use crate::authn::RequestHeaderSettings;
use crate::registry::Registry;

/// What is told.
#[derive(Clone, Debug, Default)]
pub struct PublishedTrust {
    /// Authorities of client certificates, in PEM.
    pub client_ca: String,
    /// The authority of the proxy that names users in headers, and how it does.
    pub request_header: Option<(String, RequestHeaderSettings)>,
}

/// Writes the ConfigMap if it says something else. Authorities that others have added stay: another server of the same
/// cluster may believe them.
pub async fn publish(registry: &Registry, trust: &PublishedTrust) -> Result<(), StatusError> {
    let mut plan = Plan::default();
    plan.ensure(registry, vec![trust.object()], |stored, wanted| {
        let (old, new) = (stored.data.clone().unwrap_or_default(), wanted.data.clone().unwrap_or_default());
        let mut merged = old.clone();
        for (key, value) in new {
            let joined = match merged.get(&key).filter(|_| key.ends_with("ca-file")) {
                Some(known) => joined(known, &value),
                None => value,
            };
            merged.insert(key, joined);
        }
        (merged != old).then(|| ConfigMap { data: Some(merged), ..stored.clone() })
    });
    registry.create_all(plan.creations).await?;
    for update in plan.updates {
        update.apply(registry).await?;
    }
    Ok(())
}

impl PublishedTrust {
    fn object(&self) -> ConfigMap {
        let mut data: BTreeMap<String, String> = [("client-ca-file".to_owned(), self.client_ca.clone())].into();
        if let Some((authority, settings)) = &self.request_header {
            data.insert("requestheader-client-ca-file".to_owned(), authority.clone());
            let lists = [
                ("allowed-names", &settings.allowed_names),
                ("username-headers", &settings.username),
                ("uid-headers", &settings.uid),
                ("group-headers", &settings.group),
                ("extra-headers-prefix", &settings.extra_prefix),
            ];
            data.extend(lists.map(|(name, list)| (format!("requestheader-{name}"), json!(list).to_string())));
        }
        let metadata = ObjectMeta {
            name: Some("extension-apiserver-authentication".to_owned()),
            namespace: Some("kube-system".to_owned()),
            ..ObjectMeta::default()
        };
        ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }
    }
}

/// The certificates of both texts, each once.
fn joined(known: &str, more: &str) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    let mut all: Vec<String> = Vec::new();
    for part in known.split_inclusive(END).chain(more.split_inclusive(END)) {
        let part = part.trim();
        if part.ends_with(END) && all.iter().all(|one| one != part) {
            all.push(part.to_owned());
        }
    }
    all.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_believed_is_told_and_kept() {
        let registry = crate::testing::registry().await;
        super::super::run(&registry, "10.1.2.3:6443".parse().unwrap()).await.unwrap();
        registry.catch_up().await.unwrap();
        let certificate = |name: &str| format!("-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n");
        let told = async |trust: &PublishedTrust| {
            publish(&registry, trust).await.unwrap();
            registry.catch_up().await.unwrap();
            let found = registry.get::<ConfigMap>("kube-system", "extension-apiserver-authentication").unwrap();
            (found.data.clone().unwrap(), found.metadata.resource_version.clone())
        };
        let mut trust = PublishedTrust { client_ca: certificate("a"), request_header: None };
        let (data, revision) = told(&trust).await;
        assert_eq!((data.len(), &data["client-ca-file"]), (1, &certificate("a")));
        assert_eq!(told(&trust).await.1, revision, "nothing changes by itself");
        trust.client_ca = certificate("b");
        trust.request_header = Some((certificate("p"), RequestHeaderSettings::default()));
        let (data, _) = told(&trust).await;
        assert_eq!(data["client-ca-file"], certificate("a") + &certificate("b"));
        assert_eq!(data["requestheader-username-headers"], "[\"X-Remote-User\"]");
        assert_eq!(data["requestheader-allowed-names"], "[]");
    }
}
