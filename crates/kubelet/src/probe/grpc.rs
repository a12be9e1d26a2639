//! The gRPC health check (`grpc.health.v1.Health/Check`), one call on a fresh connection without TLS, as upstream makes it.
//!
//! The two messages are so small that they are written and read by hand: a request with one string field, an answer with one number.

use std::convert::Infallible;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::action::Answer;
use crate::http_get;

const SERVING: u8 = 1;

pub async fn check(address: &(String, u16), service: &str, limit: Duration) -> Answer {
    match tokio::time::timeout(limit, call(address, service)).await {
        Ok(answer) => answer,
        Err(_) => {
            let address = http_get::join_host_port(&address.0, address.1);
            Answer::Failure(format!(
                "timeout: failed to connect service {address:?} within {}s: context deadline exceeded",
                limit.as_secs()
            ))
        }
    }
}

async fn call(address: &(String, u16), service: &str) -> Answer {
    let text = http_get::join_host_port(&address.0, address.1);
    let socket = match TcpStream::connect((address.0.as_str(), address.1)).await {
        Ok(socket) => socket,
        Err(error) => return Answer::Failure(format!("error: {}", http_get::dial_error(&text, &error))),
    };
    match exchange(socket, &text, service).await {
        Ok(Some(SERVING)) => Answer::Success,
        Ok(Some(status)) => Answer::Failure(format!("service unhealthy (responded with {:?})", status_name(status))),
        Ok(None) => Answer::Failure("error: health rpc probe failed".into()),
        Err(message) => Answer::Failure(format!("error: health rpc probe failed: {message}")),
    }
}

/// The status in the answer; `None` where there was none.
async fn exchange(socket: TcpStream, authority: &str, service: &str) -> Result<Option<u8>, String> {
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
        .await
        .map_err(|error| error.to_string())?;
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    let request = http::Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", http_get::USER_AGENT)
        .body(Full::<Bytes>::new(encode(service)).map_err(|error: Infallible| error))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let collected = answer.into_body().collect().await.map_err(|error| error.to_string());
    driver.abort();
    let collected = collected?;
    let failure = collected.trailers().and_then(|trailers| trailers.get("grpc-message")).cloned();
    match (decode(&collected.to_bytes()), failure) {
        (None, Some(message)) => Err(String::from_utf8_lossy(message.as_bytes()).into_owned()),
        (status, _) => Ok(status),
    }
}

/// A frame (no compression, length) with the message `{1: service}`.
fn encode(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put(message);
    frame.freeze()
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// The number in field 1 of the answer's message; a message without it means 0.
fn decode(frame: &[u8]) -> Option<u8> {
    match frame.get(5..)? {
        [] => Some(0),
        [0x08, status, ..] => Some(*status),
        _ => None,
    }
}

fn status_name(status: u8) -> &'static str {
    match status {
        0 => "UNKNOWN",
        1 => "SERVING",
        2 => "NOT_SERVING",
        _ => "SERVICE_UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        assert_eq!(&encode("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(&encode("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(decode(&[0, 0, 0, 0, 2, 8, 1]), Some(SERVING));
        assert_eq!(decode(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(decode(&[]), None);
    }
}
