//! The protocols end to end: a client against a server over loopback, for every protocol a client may choose.

mod port_forward;
mod remote_command;
mod spdy;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use xebec_streaming::upgrade::{Io, Reply};

/// Longer than anything here takes, so that a hang is a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// Fails the test where `work` hangs.
async fn within<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(PATIENCE, work).await.expect("still waiting")
}

/// Serves HTTP on loopback; `handle` answers, and spawns what follows an upgrade.
async fn serve<H>(handle: H) -> SocketAddr
where
    H: Fn(Request<Incoming>) -> Reply + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handle = Arc::new(handle);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let handle = handle.clone();
            let service = service_fn(move |request| {
                let reply = handle(request);
                async move { Ok::<_, Infallible>(reply) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    address
}

/// Asks `address` for an upgrade.
async fn upgrade(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: HeaderMap,
) -> Result<Io, Response<Incoming>> {
    let socket = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    *request.headers_mut() = headers;
    request.headers_mut().insert("host", "localhost".parse().unwrap());
    let response = sender.send_request(request).await.unwrap();
    if response.status() != 101 {
        return Err(response);
    }
    Ok(TokioIo::new(hyper::upgrade::on(response).await.unwrap()))
}

/// Bytes of which no two stretches are alike.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).take(length).collect()
}
