//! The HTTP part of streaming: what a request wants to be upgraded to, and the answer that grants or refuses it.
//!
//! The codes and texts of refusals are those of upstream's node and runtime servers, for clients decide by them whether
//! to fall back to an older protocol. Relies on hyper for the upgraded connection itself.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

/// An answer to an upgrade request.
pub type Reply = Response<Full<Bytes>>;

/// The answer to a request that is not granted, boxed because it is far larger than what is returned beside it.
pub type Refusal = Box<Reply>;

/// The byte stream of a connection that has left HTTP behind.
pub type Io = TokioIo<Upgraded>;

/// What SPDY upgrades are called in `Upgrade`.
pub const SPDY: &str = "SPDY/3.1";

/// Where a SPDY client lists, and the server chooses, the version of the protocol on top.
pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// Where a server that supports none of the client's versions lists its own.
const ACCEPTED_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// A refusal in plain text, in the form Go's `http.Error` gives it.
pub fn refuse(status: StatusCode, message: &str) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(format!("{message}\n"))));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// Whether the request asks for any upgrade at all.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    contains(headers, header::CONNECTION, "upgrade")
}

/// Whether the request asks to become a WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket")) && is_upgrade(headers)
}

/// The WebSocket subprotocols a request offers, in its order.
pub fn websocket_protocols(headers: &HeaderMap) -> Vec<&str> {
    listed(headers, header::SEC_WEBSOCKET_PROTOCOL)
}

/// The first subprotocol of the client that the server has too. A client that names none gets the empty one.
pub fn choose_websocket_protocol(headers: &HeaderMap, supported: &[&'static str]) -> Result<&'static str, Refusal> {
    let mut offered = websocket_protocols(headers);
    if offered.is_empty() {
        offered.push("");
    }
    offered.iter().find_map(|offer| supported.iter().find(|known| *known == offer)).copied().ok_or_else(|| {
        let message = format!("requested protocol(s) are not supported: {offered:?}; supports {supported:?}");
        Box::new(refuse(StatusCode::FORBIDDEN, &message))
    })
}

/// The answer that turns the connection into a WebSocket (RFC 6455, section 4.2).
pub fn grant_websocket<B>(request: &Request<B>, protocol: &str) -> Result<Reply, Refusal> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(Box::new(refuse(StatusCode::METHOD_NOT_ALLOWED, "bad method")));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut reply = refuse(StatusCode::BAD_REQUEST, "missing or bad WebSocket version");
        reply.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(Box::new(reply));
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return Err(Box::new(refuse(StatusCode::BAD_REQUEST, "mismatch challenge/response")));
    };
    let accept = derive_accept_key(key.as_bytes());
    let mut reply = switching("websocket");
    reply.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, text(&accept));
    if !protocol.is_empty() {
        reply.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, text(protocol));
    }
    Ok(reply)
}

/// Chooses the protocol version over SPDY and answers with it.
///
/// The version is settled before the upgrade headers are looked at, which decides the code that a plain request gets.
pub fn grant_spdy(headers: &HeaderMap, supported: &[&'static str]) -> Result<(&'static str, Reply), Refusal> {
    let bad = |message: &str| Box::new(refuse(StatusCode::BAD_REQUEST, &format!("unable to upgrade: {message}")));
    if !headers.contains_key(PROTOCOL_VERSION) {
        let message =
            format!("header X-Stream-Protocol-Version does not exist in request with {} headers", headers.len());
        return Err(bad(&message));
    }
    let offered = listed(headers, PROTOCOL_VERSION);
    if offered.is_empty() {
        return Err(bad("header X-Stream-Protocol-Version contains no valid protocols"));
    }
    let chosen = offered.iter().find_map(|offer| supported.iter().find(|known| *known == offer)).copied();
    let Some(chosen) = chosen else {
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            offered.join(" "),
            supported.join(" ")
        );
        let mut reply = refuse(StatusCode::FORBIDDEN, &message);
        for version in supported {
            reply.headers_mut().append(ACCEPTED_VERSIONS, text(version));
        }
        return Err(Box::new(reply));
    };
    if !is_upgrade(headers) || !contains(headers, header::UPGRADE, "spdy/3.1") {
        return Err(bad("missing upgrade headers in request"));
    }
    let mut reply = switching(SPDY);
    reply.headers_mut().insert(PROTOCOL_VERSION, text(chosen));
    Ok((chosen, reply))
}

/// The headers with which a client asks for a WebSocket with one of `protocols`.
pub fn websocket_request_headers(protocols: &[&str]) -> HeaderMap {
    HeaderMap::from_iter([
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
        (header::SEC_WEBSOCKET_KEY, text(&generate_key())),
        (header::SEC_WEBSOCKET_PROTOCOL, text(&protocols.join(", "))),
    ])
}

/// The headers with which a client asks for SPDY with one of `versions`.
pub fn spdy_request_headers(versions: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::from_iter([
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static(SPDY)),
    ]);
    for version in versions {
        headers.append(PROTOCOL_VERSION, text(version));
    }
    headers
}

fn switching(protocol: &'static str) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    reply.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(protocol));
    reply
}

/// A header value of a protocol name or a key: none of them holds a byte that a header may not.
fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn contains(headers: &HeaderMap, name: HeaderName, needle: &str) -> bool {
    let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| value.to_ascii_lowercase().contains(needle))
}

fn listed(headers: &HeaderMap, name: HeaderName) -> Vec<&str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|value| !value.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSIONS: [&str; 2] = ["v4.channel.k8s.io", "channel.k8s.io"];

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn spdy_versions_are_chosen_in_the_clients_order() {
        fn check(pairs: &[(&'static str, &'static str)], expect: Result<&str, u16>) {
            let granted = grant_spdy(&headers(pairs), &VERSIONS);
            match (&granted, expect) {
                (Ok((version, reply)), Ok(expected)) => {
                    assert_eq!(*version, expected);
                    assert_eq!(reply.status(), 101);
                    assert_eq!(reply.headers()[PROTOCOL_VERSION], expected);
                }
                (Err(reply), Err(code)) => assert_eq!(reply.status(), code),
                _ => panic!("{pairs:?}: {granted:?}"),
            }
        }
        let upgrade = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        let with = |versions| [upgrade[0], upgrade[1], ("x-stream-protocol-version", versions)];
        check(&with("v5.channel.k8s.io, channel.k8s.io,v4.channel.k8s.io"), Ok("channel.k8s.io"));
        check(&with("v4.channel.k8s.io"), Ok("v4.channel.k8s.io"));
        check(&with("v9.channel.k8s.io"), Err(403));
        check(&with(" "), Err(400));
        check(&upgrade, Err(400));
        check(&[("x-stream-protocol-version", "v4.channel.k8s.io")], Err(400));
    }

    #[test]
    fn websockets_are_granted_as_rfc_6455_has_it() {
        fn check(pairs: &[(&'static str, &'static str)], expect: Result<&str, u16>) {
            let mut request = Request::new(());
            *request.headers_mut() = headers(pairs);
            assert!(is_websocket(request.headers()));
            let granted = choose_websocket_protocol(request.headers(), &["", "v4.channel.k8s.io"])
                .and_then(|protocol| grant_websocket(&request, protocol).map(|reply| (protocol, reply)));
            match (&granted, expect) {
                (Ok((protocol, reply)), Ok(expected)) => {
                    assert_eq!(*protocol, expected);
                    assert_eq!(reply.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
                }
                (Err(reply), Err(code)) => assert_eq!(reply.status(), code),
                _ => panic!("{pairs:?}: {granted:?}"),
            }
        }
        let base = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let version = ("sec-websocket-version", "13");
        check(&[base[0], base[1], key, version], Ok(""));
        let v4 = ("sec-websocket-protocol", "v5.channel.k8s.io, v4.channel.k8s.io");
        check(&[base[0], base[1], key, version, v4], Ok("v4.channel.k8s.io"));
        check(&[base[0], base[1], key, version, ("sec-websocket-protocol", "soap")], Err(403));
        check(&[base[0], base[1], key], Err(400));
        check(&[base[0], base[1], version], Err(400));
    }
}
