//! Values sealed and opened, keys exchanged, and a registry on an encrypted store.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::json;
use tempfile::TempDir;
use xebec_base::{Shutdown, SystemClock};
use xebec_store::{Memory, Store};

use super::*;
use crate::admission::Plugins;
use crate::registry::{Call, Edit, Part, Registry, RegistryConfig};
use crate::testing::create;

const KEY: &[u8] = b"/registry/secrets/default/s";
const SECRETS: (&str, &str) = ("", "secrets");
/// Thirty-two bytes each.
const FIRST: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const SECOND: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

fn text(rows: &str) -> String {
    format!("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n{rows}")
}

fn row(resources: &str, providers: &[(&str, &[(&str, &str)])]) -> String {
    let mut out = format!("- resources: [{resources}]\n  providers:\n");
    for (provider, keys) in providers {
        let keys: Vec<String> =
            keys.iter().map(|(name, secret)| format!("{{name: {name}, secret: {secret}}}")).collect();
        let keys = if *provider == "identity" { "{}".to_owned() } else { format!("{{keys: [{}]}}", keys.join(", ")) };
        out.push_str(&format!("  - {provider}: {keys}\n"));
    }
    out
}

struct House {
    folder: TempDir,
    encryption: Encryption,
}

fn house(rows: &str) -> House {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("encryption.yaml");
    std::fs::write(&path, text(rows)).unwrap();
    House { encryption: Encryption::load(&path).unwrap(), folder }
}

impl House {
    fn change(&self, rows: &str) {
        std::fs::write(self.folder.path().join("encryption.yaml"), text(rows)).unwrap();
        self.encryption.reload().unwrap();
    }

    fn seal(&self) -> Vec<u8> {
        self.encryption.seal(SECRETS, KEY, b"the object").unwrap().unwrap()
    }
}

#[test]
fn what_is_sealed_is_opened_in_its_place_only() {
    for (provider, bound) in [("aesgcm", true), ("secretbox", false), ("aescbc", false)] {
        let house = house(&row("secrets", &[(provider, &[("k1", FIRST)])]));
        let sealed = house.seal();
        assert!(sealed.starts_with(format!("k8s:enc:{provider}:v1:k1:").as_bytes()));
        assert_ne!(sealed, house.seal(), "nonces differ");
        let opened = house.encryption.open(SECRETS, KEY, &sealed).unwrap();
        assert_eq!(opened, Opened { bytes: Some(b"the object".to_vec()), stale: false });
        let moved = house.encryption.open(SECRETS, b"/registry/secrets/default/t", &sealed);
        assert_eq!(moved.is_err(), bound, "{provider}");
        let mut damaged = sealed.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(house.encryption.open(SECRETS, KEY, &damaged).is_err() || provider == "aescbc");
        assert!(house.encryption.open(SECRETS, KEY, b"plain").is_err(), "nothing lets plain values be read");
    }
}

#[test]
fn keys_and_providers_are_exchanged() {
    let house = house(&row("secrets", &[("aesgcm", &[("k1", FIRST)]), ("identity", &[])]));
    let old = house.seal();
    assert_eq!(house.encryption.open(SECRETS, KEY, b"{}").unwrap(), Opened { bytes: None, stale: true });
    house.change(&row("secrets", &[("secretbox", &[("k2", SECOND), ("k0", FIRST)]), ("aesgcm", &[("k1", FIRST)])]));
    assert!(house.seal().starts_with(b"k8s:enc:secretbox:v1:k2:"));
    let opened = house.encryption.open(SECRETS, KEY, &old).unwrap();
    assert_eq!(opened, Opened { bytes: Some(b"the object".to_vec()), stale: true });
    house.change(&row("secrets", &[("secretbox", &[("k2", SECOND)])]));
    let error = house.encryption.open(SECRETS, KEY, &old).unwrap_err();
    assert!(error.to_string().contains("its prefix is unknown"), "{error}");
    house.change(&row("configmaps", &[("aesgcm", &[("k1", FIRST)])]));
    assert!(house.encryption.seal(SECRETS, KEY, b"{}").unwrap().is_none(), "not named any more");
    assert!(house.encryption.open(SECRETS, KEY, &old).is_err(), "a sealed value is never taken for an object");
}

#[test]
fn the_most_specific_rule_counts() {
    let keyed = |name| row("'*.*'", &[("aesgcm", &[(name, FIRST)])]);
    let group = row("'*.apps'", &[("aesgcm", &[("group", FIRST)])]);
    let core = row("'*.'", &[("aesgcm", &[("core", FIRST)])]);
    let exact = row("secrets, deployments.apps", &[("aesgcm", &[("exact", FIRST)])]);
    let house = house(&[keyed("all"), group, core, exact].concat());
    let check = |resource: (&str, &str), name: &str| {
        let sealed = house.encryption.seal(resource, KEY, b"x").unwrap().unwrap();
        assert!(sealed.starts_with(format!("k8s:enc:aesgcm:v1:{name}:").as_bytes()), "{resource:?}");
    };
    check(SECRETS, "exact");
    check(("apps", "deployments"), "exact");
    check(("", "configmaps"), "core");
    check(("apps", "daemonsets"), "group");
    check(("batch", "jobs"), "all");
}

fn check_refused(rows: &str, expected: &str) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("encryption.yaml");
    std::fs::write(&path, text(rows)).unwrap();
    let error = Encryption::load(&path).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains(expected), "{rows} gives {error:?}");
}

#[test]
fn wrong_configurations_are_refused() {
    check_refused("- resources: [secrets]\n", "providers is required");
    check_refused(&row("secrets", &[("aesgcm", &[("k", "c2hvcnQ=")])]), "got 5, expected one of [16 24 32]");
    check_refused(&row("secrets", &[("secretbox", &[("k", "MDEyMzQ1Njc4OWFiY2RlZg==")])]), "expected one of [32]");
    check_refused(&row("secrets", &[("aesgcm", &[("k", "not base64")])]), "must be base64 encoded");
    check_refused(&row("secrets", &[("aesgcm", &[])]), "at least one keys is required");
    check_refused(&row("Secrets", &[("identity", &[])]), "capital letters");
    check_refused(&row("'*'", &[("identity", &[])]), "use '*.'");
    check_refused(&row("secrets, '*.'", &[("identity", &[])]), "will be masked");
    check_refused(&row("events.events.k8s.io", &[("identity", &[])]), "Use 'events' instead");
    check_refused(&row("secrets, secrets", &[("identity", &[])]), "specified multiple times");
    check_refused("- resources: [secrets]\n  providers:\n  - kms: {name: x}\n", "key management services");
}

async fn registry(store: Arc<dyn Store>) -> Arc<Registry> {
    let config = RegistryConfig {
        store,
        rows: crate::resources::rows(),
        plugins: Plugins::standard(),
        service_ranges: Default::default(),
        clock: SystemClock::shared(),
    };
    Registry::load(config, &Shutdown::new()).await.unwrap()
}

/// Objects of a named kind lie sealed in the store, read as ever, and are sealed anew by a write that changes nothing.
#[tokio::test]
async fn a_registry_does_not_notice() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("encryption.yaml");
    std::fs::write(&path, text(&row("secrets", &[("aesgcm", &[("k1", FIRST)]), ("identity", &[])]))).unwrap();
    let encryption = Arc::new(Encryption::load(&path).unwrap());
    let engine: Arc<dyn Store> = Arc::new(Memory::default());
    let rows = crate::resources::rows();
    let store: Arc<dyn Store> = Arc::new(EncryptedStore::new(engine.clone(), encryption.clone(), &rows));
    let first = registry(store.clone()).await;
    create::<k8s_openapi::api::core::v1::Namespace>(&first, json!({"metadata": {"name": "default"}})).await.unwrap();
    let secret = json!({"metadata": {"name": "s", "namespace": "default"}, "data": {"password": "c2VjcmV0"}});
    create::<Secret>(&first, secret).await.unwrap();
    create::<ConfigMap>(&first, json!({"metadata": {"name": "c", "namespace": "default"}})).await.unwrap();
    let raw = async |key: &[u8]| engine.get(key, None).await.unwrap().kv.unwrap().value;
    assert!(raw(KEY).await.starts_with(b"k8s:enc:aesgcm:v1:k1:"));
    assert!(!raw(b"/registry/configmaps/default/c").await.starts_with(b"k8s:enc:"));

    // Another server on the same store reads it at its start and by its watch.
    let second = registry(store).await;
    assert!(second.get::<Secret>("default", "s").is_some_and(|secret| secret.data.is_some()));

    let served = first.index.find("", "v1", "secrets").unwrap();
    let master = crate::authn::User::master("admin");
    let write = async || {
        let item = first.fresh(served, "default", "s").await.unwrap();
        let outcome = first
            .update(served, ("default", "s"), Part::Main, Edit::Typed(&|_| Ok(())), &mut Call::new(&master))
            .await
            .unwrap();
        first.catch_up().await.unwrap();
        outcome.object.revision() > item.object.revision()
    };
    assert!(!write().await, "a write that changes nothing is none");
    std::fs::write(&path, text(&row("secrets", &[("secretbox", &[("k2", SECOND)]), ("aesgcm", &[("k1", FIRST)])])))
        .unwrap();
    encryption.reload().unwrap();
    assert!(write().await, "but for the exchange of the key");
    assert!(raw(KEY).await.starts_with(b"k8s:enc:secretbox:v1:k2:"));
    assert!(!write().await);
    second.catch_up().await.unwrap();
    assert!(second.get::<Secret>("default", "s").is_some());
}

/// Values that upstream's server has written with the same keys: a Secret, a ConfigMap and a ServiceAccount.
const UPSTREAM: &str = include_str!("testdata/upstream.txt");

#[test]
fn what_upstream_has_sealed_is_opened() {
    let short = "MDEyMzQ1Njc4OWFiY2RlZg==";
    let house = house(
        &[
            row("secrets", &[("aesgcm", &[("k1", FIRST)]), ("identity", &[])]),
            row("configmaps", &[("secretbox", &[("k2", SECOND)])]),
            row("serviceaccounts", &[("aescbc", &[("k3", short)])]),
        ]
        .concat(),
    );
    let engine = base64::engine::general_purpose::STANDARD;
    let objects =
        [("secrets", "s", "Opaque"), ("configmaps", "c", "f:data"), ("serviceaccounts", "a", "ServiceAccount")];
    for ((resource, name, word), line) in objects.into_iter().zip(UPSTREAM.lines()) {
        let stored = base64::Engine::decode(&engine, line).unwrap();
        let key = format!("/registry/{resource}/default/{name}");
        let opened = house.encryption.open(("", resource), key.as_bytes(), &stored).unwrap();
        let plain = opened.bytes.unwrap();
        assert!(plain.starts_with(b"k8s\0"), "upstream's envelope");
        assert!(plain.windows(word.len()).any(|window| window == word.as_bytes()), "{resource}");
        assert!(!opened.stale);
    }
}
