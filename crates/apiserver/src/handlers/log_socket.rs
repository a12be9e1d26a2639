//! A Pod's log over a WebSocket: the bytes of the stream as messages, as browsers can read them.
//!
//! Sub-protocols as upstream's: `binary.k8s.io` (the default) and `base64.binary.k8s.io`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{Response, StatusCode};
use http_body_util::BodyDataStream;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};
use xebec_api::status::StatusError;

use super::connect::{Target, forward};
use super::{Answer, Context};
use crate::body::{self, Body};

const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";

pub fn is_wanted(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket")) && headers.contains_key(SEC_WEBSOCKET_KEY)
}

/// Reads the log from the node and hands it on as messages.
pub async fn open(context: &mut Context<'_>, target: Target) -> Answer {
    let headers = &mut context.parts.headers;
    let protocol = protocol(headers)?;
    let key = headers.remove(SEC_WEBSOCKET_KEY).ok_or_else(|| StatusError::bad_request("Upgrade request required"))?;
    // To the node it is a plain request.
    for name in [UPGRADE, CONNECTION, SEC_WEBSOCKET_PROTOCOL] {
        headers.remove(name);
    }
    let client = context.parts.extensions.remove::<OnUpgrade>();
    let client = client.ok_or_else(|| StatusError::bad_request("Upgrade request required"))?;
    let log = forward(context, target).await?;
    if !log.status().is_success() {
        return Ok(log);
    }
    tokio::spawn(send(log.into_body(), client, protocol == Some(BASE64)));
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(StatusError::internal)?;
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok(response)
}

/// The first sub-protocol of the client's that is known; `None` if it asks for none.
fn protocol(headers: &HeaderMap) -> Result<Option<&'static str>, StatusError> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let offered: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
    let known = offered.iter().find_map(|offer| [BINARY, BASE64].into_iter().find(|known| known == offer));
    if known.is_none() && !offered.is_empty() {
        return Err(StatusError::bad_request(format!("none of the sub-protocols is known: {}", offered.join(", "))));
    }
    Ok(known)
}

async fn send(log: Body, client: OnUpgrade, base64: bool) {
    let upgraded = match client.await {
        Ok(upgraded) => upgraded,
        Err(error) => return tracing::debug!(%error, "an upgrade failed"),
    };
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    let mut chunks = BodyDataStream::new(log);
    loop {
        let chunk = tokio::select! {
            chunk = chunks.next() => chunk,
            // The client says nothing but that it leaves.
            said = socket.next() => match said {
                Some(Ok(message)) if !message.is_close() => continue,
                _ => return,
            },
        };
        let Some(Ok(chunk)) = chunk else { break };
        let message = if base64 { Message::text(STANDARD.encode(&chunk)) } else { Message::Binary(chunk) };
        if socket.send(message).await.is_err() {
            return;
        }
    }
    let _ = socket.close(None).await;
}
