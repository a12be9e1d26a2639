//! Credentials for registries out of a Pod's image pull Secrets (`.dockerconfigjson` and the older `.dockercfg`).

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;
use xebec_cri::v1::AuthConfig;

use super::name::split_domain;

const DEFAULT_REGISTRY: &str = "docker.io";

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Clone, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
}

/// Those that are for the image's registry, the most specific first.
pub fn matching(secrets: &[Arc<Secret>], image: &str) -> Vec<AuthConfig> {
    let (domain, path) = split_domain(image);
    let whole = format!("{}/{path}", domain.unwrap_or(DEFAULT_REGISTRY));
    let mut found: Vec<(String, AuthConfig)> = Vec::new();
    for secret in secrets {
        for (server, entry) in entries(secret) {
            let place = normal(&server);
            let fits = whole == place || whole.strip_prefix(&place).is_some_and(|rest| rest.starts_with('/'));
            if fits && let Some(auth) = auth(&server, entry) {
                found.push((place, auth));
            }
        }
    }
    found.sort_by_key(|(place, _)| std::cmp::Reverse(place.len()));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn entries(secret: &Secret) -> BTreeMap<String, Entry> {
    let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
    if let Some(bytes) = data(".dockerconfigjson") {
        return serde_json::from_slice::<DockerConfig>(bytes).map(|config| config.auths).unwrap_or_default();
    }
    data(".dockercfg").and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
}

/// `https://index.docker.io/v1/` and `docker.io` are the same place.
fn normal(server: &str) -> String {
    let bare = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    match bare {
        "index.docker.io" => DEFAULT_REGISTRY.to_owned(),
        other => other.to_owned(),
    }
}

fn auth(server: &str, entry: Entry) -> Option<AuthConfig> {
    let (username, password) = if entry.auth.is_empty() {
        (entry.username, entry.password)
    } else {
        let decoded = String::from_utf8(STANDARD.decode(entry.auth.trim()).ok()?).ok()?;
        let (username, password) = decoded.split_once(':')?;
        (username.to_owned(), password.to_owned())
    };
    Some(AuthConfig { username, password, server_address: server.to_owned(), ..AuthConfig::default() })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn check(server: &str, image: &str, expected: Option<(&str, &str)>) {
        let config = format!(r#"{{"auths":{{"{server}":{{"auth":"{}"}}}}}}"#, STANDARD.encode("user:pass:word"));
        let data = BTreeMap::from([(".dockerconfigjson".to_owned(), ByteString(config.into_bytes()))]);
        let secret = Arc::new(Secret { data: Some(data), ..Secret::default() });
        let found = matching(&[secret], image);
        let found = found.first().map(|auth| (auth.username.as_str(), auth.password.as_str()));
        assert_eq!(found, expected, "{server} {image}");
    }

    #[test]
    fn the_registry_decides() {
        let pair = Some(("user", "pass:word"));
        check("https://index.docker.io/v1/", "redis:7", pair);
        check("host.example:5000", "host.example:5000/a:1", pair);
        check("host.example:5000/a", "host.example:5000/b:1", None);
        check("host.example", "host.example.org/a", None);
        check("other.example", "redis:7", None);
    }
}
