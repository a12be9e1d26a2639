//! A bare HTTP/2 client of the API: one connection, bytes in and out. It knows nothing of kinds, so that
//! its own work stays out of what is measured. Certificates are not checked: it talks to servers that the test itself
//! started, on loopback, and those of upstream sign for themselves.
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Room for a LIST of 5,000 Pods without a pause in the flow.
const WINDOW: u32 = 16 << 20;
/// The largest frame taken, as Go's client says by default, and so kubectl and every client-go program.
const FRAME: u32 = 1 << 20;

#[derive(Clone)]
pub struct Api {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
    /// The value of the header `authorization`; empty where a certificate says who is calling.
    authorization: String,
}

/// A status and the body that came with it.
pub struct Response {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Response {
    /// # Errors
    /// The status is no success; the body is the message.
    pub fn success(self) -> Result<Bytes> {
        ensure!(self.status.is_success(), "{}: {}", self.status, String::from_utf8_lossy(&self.body));
        Ok(self.body)
    }

    /// # Errors
    /// The status is no success, or the body no JSON.
    pub fn json(self) -> Result<serde_json::Value> {
        Ok(serde_json::from_slice(&self.success()?)?)
    }
}

impl Api {
    /// Opens a connection; the bearer of `token` is calling.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn connect(address: SocketAddr, token: &str) -> Result<Self> {
        Self::open(address, configuration()?.with_no_client_auth(), format!("Bearer {token}")).await
    }

    /// Opens a connection; the owner of the certificate in a kubeconfig, which the binary writes as JSON, is calling.
    ///
    /// # Errors
    /// The server does not answer, or the kubeconfig holds no certificate.
    pub async fn connect_as(address: SocketAddr, kubeconfig: &str) -> Result<Self> {
        let kubeconfig: serde_json::Value = serde_json::from_str(kubeconfig)?;
        let part = |name: &str| -> Result<Vec<u8>> {
            let text = kubeconfig["users"][0]["user"][name].as_str();
            Ok(STANDARD.decode(text.with_context(|| format!("the kubeconfig holds no {name}"))?)?)
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&part("client-certificate-data")?).collect();
        let key = PrivateKeyDer::from_pem_slice(&part("client-key-data")?)?;
        Self::open(address, configuration()?.with_client_auth_cert(chain?, key)?, String::new()).await
    }

    async fn open(address: SocketAddr, mut tls: ClientConfig, authorization: String) -> Result<Self> {
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
        let io = TokioIo::new(stream);
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(FRAME)
            .handshake(io)
            .await?;
        // Its end is seen by whoever sends next.
        tokio::spawn(connection);
        Ok(Self { sender, authority: address.to_string(), authorization })
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn call(&mut self, method: Method, path: &str, kind: &str, body: impl Into<Bytes>) -> Result<Response> {
        let response = self.send(method, path, kind, body.into()).await?;
        let status = response.status();
        Ok(Response { status, body: response.into_body().collect().await?.to_bytes() })
    }

    /// # Errors
    /// As `call`.
    pub async fn get(&mut self, path: &str) -> Result<Response> {
        self.call(Method::GET, path, "", Bytes::new()).await
    }

    /// # Errors
    /// As `call`.
    pub async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> Result<Response> {
        self.call(Method::POST, path, "application/json", body).await
    }

    /// Opens a watch; the body delivers its events.
    ///
    /// # Errors
    /// The connection broke, or the watch was refused.
    pub async fn watch(&mut self, path: &str) -> Result<Incoming> {
        let response = self.send(Method::GET, path, "", Bytes::new()).await?;
        if !response.status().is_success() {
            bail!("{}", response.status());
        }
        Ok(response.into_body())
    }

    async fn send(&mut self, method: Method, path: &str, kind: &str, body: Bytes) -> Result<http::Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.authority))
            .header("accept", "application/json");
        if !self.authorization.is_empty() {
            request = request.header("authorization", &self.authorization);
        }
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        self.sender.ready().await?;
        Ok(self.sender.send_request(request.body(Full::new(body))?).await?)
    }
}

fn configuration() -> Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider))))
}

/// Accepts every certificate.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
