//! A server over the memory store in the test's own process, and requests to it.
// Each test binary uses a part of it.
#![allow(dead_code)]

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use xebec_apiserver::admission::Plugins;
use xebec_apiserver::authn::Fixed;
use xebec_apiserver::authz::Masters;
use xebec_apiserver::registry::RegistryConfig;
use xebec_apiserver::{ApiServer, Registry, ServerParts, ServerState, User, body, resources};
use xebec_base::{Shutdown, SimulatedClock};
use xebec_store::Memory;

pub struct Cluster {
    pub api: ApiServer,
    pub user: Arc<User>,
    pub clock: Arc<SimulatedClock>,
    pub shutdown: Shutdown,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

pub struct Answer {
    pub code: StatusCode,
    pub warnings: Vec<String>,
    pub body: Value,
}

impl Cluster {
    pub async fn start() -> Cluster {
        Self::reaching_nodes(None).await
    }

    /// One that reaches nodes with these settings.
    pub async fn reaching_nodes(node_tls: Option<Arc<rustls::ClientConfig>>) -> Cluster {
        let shutdown = Shutdown::new();
        let clock = SimulatedClock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let config = RegistryConfig {
            store: Arc::new(Memory::default()),
            rows: resources::rows(),
            plugins: Plugins::default(),
            service_ranges: Default::default(),
            clock: clock.clone(),
        };
        let registry = Registry::load(config, &shutdown).await.unwrap();
        let user = User::master("test");
        let parts = ServerParts {
            authenticator: Arc::new(Fixed(user.clone())),
            authorizer: Arc::new(Masters),
            token_issuer: None,
            audit: None,
            anonymous: Default::default(),
            limits: Default::default(),
            store_metrics: None,
            node_tls,
            advertised: "127.0.0.1:6443".to_owned(),
        };
        Cluster { api: ApiServer::new(ServerState::new(registry, parts)), user, clock, shutdown }
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<String>) -> Answer {
        let mut request = Request::builder().method(method.parse::<Method>().unwrap()).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body::full(body.into())).unwrap();
        let response = self.api.call(request, self.user.clone()).await;
        let code = response.status();
        let warnings =
            response.headers().get_all("warning").iter().map(|value| value.to_str().unwrap().to_owned()).collect();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body =
            serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
        Answer { code, warnings, body }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, &[], body.to_string()).await
    }

    pub async fn patch(&self, path: &str, kind: &str, body: &Value) -> Answer {
        let media_type = format!("application/{kind}+json");
        self.send("PATCH", path, &[("content-type", &media_type)], body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], "").await
    }

    /// The first lines of a watch.
    pub async fn watch(&self, path: &str, lines: usize) -> Vec<Value> {
        let request = Request::builder().uri(path).body(body::empty()).unwrap();
        let mut body = self.api.call(request, self.user.clone()).await.into_body();
        let mut read = Vec::new();
        while read.iter().filter(|byte| **byte == b'\n').count() < lines {
            let Some(frame) = body.frame().await else { break };
            read.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        read.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }
}
