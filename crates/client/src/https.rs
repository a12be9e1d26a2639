//! The transport over HTTPS: any Kubernetes API server that a kubeconfig names.
//!
//! Relies on `kube` for kubeconfig, credentials (tokens, certificates, exec plugins) and TLS. It adds no retries.

use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

use crate::error::Error;
use crate::transport::{Body, Io, Transport};

pub struct Https {
    client: kube::Client,
    /// The namespace that the kubeconfig's context names.
    pub default_namespace: String,
}

impl Https {
    /// Connects as the kubeconfig at `path` says, in its current context.
    pub async fn from_file(path: &Path, context: Option<&str>) -> Result<Self, Error> {
        let operation = || format!("use kubeconfig {}", path.display());
        let kubeconfig = Kubeconfig::read_from(path).map_err(|e| Error::transport(operation(), e))?;
        let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
        let config =
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| Error::transport(operation(), e))?;
        Self::from_config(config)
    }

    pub fn from_config(mut config: Config) -> Result<Self, Error> {
        // Watches are silent for long; the server ends them, not a timer of ours.
        config.read_timeout = None;
        let default_namespace = config.default_namespace.clone();
        let client = kube::Client::try_from(config).map_err(|e| Error::transport("set up HTTPS", e))?;
        Ok(Https { client, default_namespace })
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<kube::client::Body>, Error> {
        let operation = format!("{} {}", request.method(), request.uri().path());
        let request = request.map(|body| kube::client::Body::from(body.to_vec()));
        self.client.send(request).await.map_err(|e| Error::transport(operation, e))
    }
}

#[async_trait]
impl Transport for Https {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        let (parts, body) = self.send(request).await?.into_parts();
        let body = body.collect().await.map_err(|e| Error::transport("read the answer", e))?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }

    async fn open(&self, request: Request<Bytes>) -> Result<Response<Body>, Error> {
        let (parts, body) = self.send(request).await?.into_parts();
        let chunks = body.into_data_stream();
        let body = chunks.map(|chunk| chunk.map_err(|e| Error::transport("read the answer", e))).boxed();
        Ok(Response::from_parts(parts, body))
    }

    async fn upgrade(&self, request: Request<Bytes>) -> Result<(Response<()>, Box<dyn Io>), Error> {
        let response = self.send(request).await?;
        if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|e| Error::transport("read the answer", e))?.to_bytes();
            return Err(match crate::transport::checked(Response::from_parts(parts, body)) {
                Err(error) => error,
                Ok(_) => Error::transport("upgrade the connection", "the server did not switch protocols"),
            });
        }
        let mut head = Response::new(());
        *head.status_mut() = response.status();
        *head.headers_mut() = response.headers().clone();
        let upgraded = hyper::upgrade::on(response).await.map_err(|e| Error::transport("upgrade the connection", e))?;
        Ok((head, Box::new(TokioIo::new(upgraded))))
    }
}
