//! Gzip for large answers to clients that take it.
//!
//! Clients on the same machine get no compression, though Go's ask for it always: the loopback carries the bytes faster than
//! they can be compressed.

use std::io::Write;
use std::net::IpAddr;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, VARY};
use http::{HeaderMap, HeaderValue, Method, Response};

use crate::body::{self, Body};
use crate::negotiation;

/// Below this, compressing costs more than it saves; upstream's threshold.
const THRESHOLD: usize = 128 << 10;

pub fn wanted(headers: &HeaderMap, method: &Method, address: &str) -> bool {
    let local = address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    *method == Method::GET && !local && negotiation::takes_gzip(headers)
}

/// Compresses a whole body that is large enough; streams go out as they are.
pub fn compressed(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let bytes = match body {
        Body::Whole(Some(bytes)) if bytes.len() >= THRESHOLD => bytes,
        other => return Response::from_parts(parts, other),
    };
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::fast());
    let written = encoder.write_all(&bytes).and_then(|()| encoder.finish());
    let Ok(packed) = written else { return Response::from_parts(parts, body::full(bytes)) };
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, body::full(packed))
}
