//! GET requests to containers, for probes and hooks: HTTP/1.1 on a fresh connection, any certificate accepted, redirections
//! followed on the same host only. Errors read as Go's, since users know them from there.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue, LOCATION};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

pub const USER_AGENT: &str = "kube-probe/1.37";
const BODY_LIMIT: usize = 10 << 10;
/// Go's client gives up here.
const MOST_REDIRECTIONS: usize = 10;

#[derive(Clone, Debug)]
pub struct Request {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    /// With its query, beginning with a slash.
    pub path: String,
    pub headers: Vec<(String, String)>,
}

pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Request {
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", join_host_port(&self.host, self.port), self.path)
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A failed connection as Go words it.
pub fn dial_error(address: &str, error: &io::Error) -> String {
    let what = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {address}: {what}")
}

/// The final answer, after redirections on the same host.
pub async fn get(request: &Request) -> Result<Answer, String> {
    let mut request = request.clone();
    for _ in 0..MOST_REDIRECTIONS {
        let (answer, location) = get_once(&request).await?;
        let followed =
            location.filter(|_| (300..400).contains(&answer.status)).and_then(|to| redirected(&request, &to));
        match followed {
            Some(next) => request = next,
            None => return Ok(answer),
        }
    }
    Err(format!("stopped after {MOST_REDIRECTIONS} redirects"))
}

/// The next request, if it goes to the same host.
fn redirected(request: &Request, location: &str) -> Option<Request> {
    let target: http::Uri = location.parse().ok()?;
    let path = target.path_and_query()?.as_str().to_owned();
    let Some(host) = target.host() else { return Some(Request { path, ..request.clone() }) };
    let tls = target.scheme_str() == Some("https");
    let port = target.port_u16().unwrap_or(if tls { 443 } else { 80 });
    (host.trim_matches(['[', ']']) == request.host).then(|| Request { tls, port, path, ..request.clone() })
}

async fn get_once(request: &Request) -> Result<(Answer, Option<String>), String> {
    let address = join_host_port(&request.host, request.port);
    let socket = TcpStream::connect((request.host.as_str(), request.port))
        .await
        .map_err(|error| dial_error(&address, &error))?;
    if !request.tls {
        return exchange(request, socket).await;
    }
    let name = ServerName::try_from(request.host.clone()).map_err(|error| error.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls_config()));
    let stream = connector.connect(name, socket).await.map_err(|error| error.to_string())?;
    exchange(request, stream).await
}

async fn exchange<S>(request: &Request, stream: S) -> Result<(Answer, Option<String>), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let text = |error: hyper::Error| if error.is_incomplete_message() { "EOF".to_owned() } else { error.to_string() };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    let result = async {
        let answer = sender.send_request(message(request)?).await.map_err(text)?;
        let location = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok()).map(str::to_owned);
        let status = answer.status().as_u16();
        // A body that is too long is of no interest, what counts has been said.
        let body = Limited::new(answer.into_body(), BODY_LIMIT).collect().await;
        let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        Ok((Answer { status, body }, location))
    };
    let result = result.await;
    driver.abort();
    result
}

fn message(request: &Request) -> Result<http::Request<Empty<Bytes>>, String> {
    let mut message = http::Request::get(&request.path).body(Empty::new()).map_err(|error| error.to_string())?;
    let default = if request.tls { 443 } else { 80 };
    let host = if request.port == default { request.host.clone() } else { join_host_port(&request.host, request.port) };
    let headers = message.headers_mut();
    for (name, value) in &request.headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|error| error.to_string())?;
        headers.append(name, HeaderValue::try_from(value.as_str()).map_err(|error| error.to_string())?);
    }
    for (name, value) in [("host", host.as_str()), ("user-agent", USER_AGENT), ("accept", "*/*")] {
        if !headers.contains_key(name) {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::try_from(value).map_err(|error| error.to_string())?,
            );
        }
    }
    // An empty value asks for the header to be left out; a request cannot do without its host.
    headers.get(HOST).is_some_and(|host| !host.is_empty()).then_some(()).ok_or("http: no Host in request URL")?;
    headers.insert("connection", HeaderValue::from_static("close"));
    Ok(message)
}

fn tls_config() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(AnyCertificate(provider.clone()));
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows the default versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth()
}

/// A probe asks whether the container answers, not who it is: upstream checks no certificate here either.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Serves the answers one after the other, each on its connection, and returns what was asked.
    async fn check(answers: &[&'static str], expected: Result<u16, &str>) -> Vec<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answers = answers.to_vec();
        let server = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut buffer = vec![0; 4096];
                let length = socket.read(&mut buffer).await.unwrap();
                asked.push(String::from_utf8_lossy(&buffer[..length]).lines().next().unwrap_or_default().to_owned());
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        let headers = vec![("x-a".to_owned(), "b".to_owned())];
        let request = Request { tls: false, host: "127.0.0.1".into(), port, path: "/p?q".into(), headers };
        let result = get(&request).await;
        assert_eq!(result.as_ref().map(|answer| answer.status).map_err(String::as_str), expected);
        server.await.unwrap()
    }

    #[tokio::test]
    async fn answers_and_redirections() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        assert_eq!(check(&[ok], Ok(200)).await, ["GET /p?q HTTP/1.1"]);
        let here = "HTTP/1.1 302 Found\r\nlocation: /next\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(check(&[here, ok], Ok(200)).await, ["GET /p?q HTTP/1.1", "GET /next HTTP/1.1"]);
        let away = "HTTP/1.1 302 Found\r\nlocation: http://example.org/\r\ncontent-length: 0\r\n\r\n";
        check(&[away], Ok(302)).await;
        check(&["HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"], Ok(500)).await;
        check(&[""], Err("EOF")).await;
    }
}
