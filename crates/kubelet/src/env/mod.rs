//! A container's environment: variables of ConfigMaps and Secrets, declared ones with `$(NAME)` expanded, fields of the Pod,
//! and the addresses of Services. Source: "Define Environment Variables" and "Downward API" in the Kubernetes documentation.
//!
//! Relies on a [`Lookup`] for ConfigMaps and Secrets; everything else is computed from values at hand.

pub mod downward;
pub mod expand;
pub mod services;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Secret};

use downward::Facts;

/// Where ConfigMaps and Secrets come from; `None` means that there is no such object.
#[async_trait]
pub trait Lookup: Send + Sync {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, EnvError>;
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, EnvError>;
}

/// Why an environment cannot be made; the texts are upstream's, since they stand in the container's status.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    #[error("{kind} \"{name}\" not found")]
    NoObject { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey { kind: &'static str, namespace: String, name: String, key: String },
    #[error("{0}")]
    Field(String),
    #[error("cannot read {kind} {namespace}/{name}: {message}")]
    Lookup { kind: &'static str, namespace: String, name: String, message: String },
}

type Variables = Vec<(String, String)>;

/// The variables in the order in which they are set: those of whole objects, the declared ones, then those of Services.
pub async fn environment(
    lookup: &dyn Lookup,
    facts: &Facts<'_>,
    container: &Container,
    services: BTreeMap<String, String>,
) -> Result<Variables, EnvError> {
    let mut objects =
        Objects { lookup, namespace: facts.namespace().to_owned(), maps: HashMap::new(), secrets: HashMap::new() };
    let mut set = Ordered::default();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref
            && let Some(map) = objects.config_map(&reference.name, reference.optional).await?
        {
            for (key, value) in map.data.iter().flatten() {
                set.put(format!("{prefix}{key}"), value.clone());
            }
        }
        if let Some(reference) = &source.secret_ref
            && let Some(secret) = objects.secret(&reference.name, reference.optional).await?
        {
            for (key, value) in secret.data.iter().flatten() {
                set.put(format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(text), _) if !text.is_empty() => {
                let known =
                    |name: &str| set.get(name).or_else(|| services.get(name).map(String::as_str)).map(str::to_owned);
                Some(expand::expand(text, known))
            }
            (_, Some(source)) => resolve(&mut objects, facts, container, source).await?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            set.put(variable.name.clone(), value);
        }
    }
    for (name, value) in services {
        set.put_if_absent(name, value);
    }
    Ok(set.entries)
}

/// `None` where an optional source has nothing: the variable is not set at all.
async fn resolve(
    objects: &mut Objects<'_>,
    facts: &Facts<'_>,
    container: &Container,
    source: &EnvVarSource,
) -> Result<Option<String>, EnvError> {
    if let Some(field) = &source.field_ref {
        return facts.field(&field.field_path).map(Some).map_err(EnvError::Field);
    }
    if let Some(resource) = &source.resource_field_ref {
        return facts.resource(resource, container).map(Some).map_err(EnvError::Field);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let Some(map) = objects.config_map(&reference.name, reference.optional).await? else { return Ok(None) };
        let value = map.data.as_ref().and_then(|data| data.get(&reference.key)).cloned();
        let missing = || objects.no_key("ConfigMap", &reference.name, &reference.key);
        return if value.is_none() && reference.optional != Some(true) { Err(missing()) } else { Ok(value) };
    }
    if let Some(reference) = &source.secret_key_ref {
        let Some(secret) = objects.secret(&reference.name, reference.optional).await? else { return Ok(None) };
        let value = secret.data.as_ref().and_then(|data| data.get(&reference.key));
        let value = value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        let missing = || objects.no_key("Secret", &reference.name, &reference.key);
        return if value.is_none() && reference.optional != Some(true) { Err(missing()) } else { Ok(value) };
    }
    Ok(Some(String::new()))
}

/// Each object is read once for a container, so that its variables are of one revision.
struct Objects<'a> {
    lookup: &'a dyn Lookup,
    namespace: String,
    maps: HashMap<String, Option<Arc<ConfigMap>>>,
    secrets: HashMap<String, Option<Arc<Secret>>>,
}

impl Objects<'_> {
    async fn config_map(&mut self, name: &str, optional: Option<bool>) -> Result<Option<Arc<ConfigMap>>, EnvError> {
        if !self.maps.contains_key(name) {
            let found = self.lookup.config_map(&self.namespace, name).await?;
            self.maps.insert(name.to_owned(), found);
        }
        present(self.maps[name].clone(), "configmap", name, optional)
    }

    async fn secret(&mut self, name: &str, optional: Option<bool>) -> Result<Option<Arc<Secret>>, EnvError> {
        if !self.secrets.contains_key(name) {
            let found = self.lookup.secret(&self.namespace, name).await?;
            self.secrets.insert(name.to_owned(), found);
        }
        present(self.secrets[name].clone(), "secret", name, optional)
    }

    fn no_key(&self, kind: &'static str, name: &str, key: &str) -> EnvError {
        EnvError::NoKey { kind, namespace: self.namespace.clone(), name: name.to_owned(), key: key.to_owned() }
    }
}

fn present<T>(found: Option<T>, kind: &'static str, name: &str, optional: Option<bool>) -> Result<Option<T>, EnvError> {
    if found.is_none() && optional != Some(true) {
        return Err(EnvError::NoObject { kind, name: name.to_owned() });
    }
    Ok(found)
}

/// Variables by name, in the order of their first setting.
#[derive(Default)]
struct Ordered {
    entries: Variables,
    places: HashMap<String, usize>,
}

impl Ordered {
    fn put(&mut self, name: String, value: String) {
        match self.places.get(&name) {
            Some(place) => self.entries[*place].1 = value,
            None => {
                self.places.insert(name.clone(), self.entries.len());
                self.entries.push((name, value));
            }
        }
    }

    fn put_if_absent(&mut self, name: String, value: String) {
        if !self.places.contains_key(&name) {
            self.put(name, value);
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.places.get(name).map(|place| self.entries[*place].1.as_str())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    struct Two;

    #[async_trait]
    impl Lookup for Two {
        async fn config_map(&self, _: &str, name: &str) -> Result<Option<Arc<ConfigMap>>, EnvError> {
            let map = json!({"metadata": {}, "data": {"a": "1", "b": "2"}});
            Ok((name == "map").then(|| Arc::new(serde_json::from_value(map).unwrap())))
        }

        async fn secret(&self, _: &str, name: &str) -> Result<Option<Arc<Secret>>, EnvError> {
            let secret = json!({"metadata": {}, "data": {"p": "cHc="}});
            Ok((name == "secret").then(|| Arc::new(serde_json::from_value(secret).unwrap())))
        }
    }

    async fn check(container: serde_json::Value, expected: Result<&[&str], &str>) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "u", "labels": {"app": "x"}}, "spec": {"containers": []},
        }))
        .unwrap();
        let mut container = container;
        container["name"] = json!("c");
        let container: Container = serde_json::from_value(container).unwrap();
        let facts = Facts::new(&pod, vec!["10.0.0.1".into()], vec!["192.0.2.1".into()]);
        let services = BTreeMap::from([("SVC_PORT".to_owned(), "80".to_owned())]);
        let result = environment(&Two, &facts, &container, services).await;
        let result = result.map(|set| set.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>());
        match expected {
            Ok(expected) => assert_eq!(result.unwrap(), expected),
            Err(message) => assert_eq!(result.unwrap_err().to_string(), message),
        }
    }

    #[tokio::test]
    async fn sources_in_their_order() {
        check(
            json!({
                "envFrom": [{"configMapRef": {"name": "map"}, "prefix": "P_"}, {"secretRef": {"name": "secret"}}],
                "env": [
                    {"name": "a", "value": "$(P_a)-$(SVC_PORT)-$$(P_a)-$(none)"},
                    {"name": "P_b", "value": "mine"},
                    {"name": "pod", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "gone", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}},
                    {"name": "key", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "p"}}},
                ],
            }),
            Ok(&["P_a=1", "P_b=mine", "p=pw", "a=1-80-$(P_a)-$(none)", "pod=web", "key=pw", "SVC_PORT=80"]),
        )
        .await;
        check(json!({"envFrom": [{"configMapRef": {"name": "none"}}]}), Err("configmap \"none\" not found")).await;
        check(
            json!({"env": [{"name": "x", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "z"}}}]}),
            Err("couldn't find key z in ConfigMap n/map"),
        )
        .await;
    }
}
