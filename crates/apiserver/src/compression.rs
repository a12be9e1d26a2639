//! Gzip for large answers to clients that take it.
//!
//! Clients on the same machine get no compression, though Go's ask for it always: the loopback carries the bytes faster than
//! they can be compressed.

use std::io::Write;
use std::net::IpAddr;

use bytes::Bytes;
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

/// Compresses a body that is large enough and all there; streams go out as they are.
pub fn compressed(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let packed = match body {
        Body::Whole(Some(bytes)) if bytes.len() >= THRESHOLD => pack([bytes].into_iter()),
        Body::Pieces(pieces) => pack(pieces),
        other => return Response::from_parts(parts, other),
    };
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, body::full(packed))
}

fn pack(pieces: impl Iterator<Item = Bytes>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for piece in pieces {
        // Into memory: the writer has no error to give.
        let _ = encoder.write_all(&piece);
    }
    encoder.finish().unwrap_or_default()
}
