//! Bodies of requests and responses: either whole, or a stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use xebec_api::status::StatusError;

/// Upstream's limit for a request: a little above what etcd takes in one write.
pub const MAX_REQUEST_BODY: usize = 3 << 20;

/// The body of a request or response, whatever carries it.
pub enum Body {
    /// `None` once it has been read.
    Whole(Option<Bytes>),
    /// Made piece by piece as the connection takes them; never waits.
    Pieces(Box<dyn Iterator<Item = Bytes> + Send>),
    Stream(UnsyncBoxBody<Bytes, io::Error>),
}

impl Body {
    /// The same in one piece, but for streams.
    pub fn gathered(self) -> Body {
        let Body::Pieces(pieces) = self else { return self };
        full(pieces.fold(BytesMut::new(), |mut all, piece| {
            all.extend_from_slice(&piece);
            all
        }))
    }

    /// What is in it, if it is in one piece.
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Body::Whole(bytes) => bytes.as_ref(),
            Body::Pieces(_) | Body::Stream(_) => None,
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Body::Whole(bytes) => {
                Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))))
            }
            Body::Pieces(pieces) => Poll::Ready(pieces.next().map(|piece| Ok(Frame::data(piece)))),
            Body::Stream(stream) => Pin::new(stream).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Body::Pieces(_) => false,
            Body::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Body::Pieces(_) => SizeHint::default(),
            Body::Stream(stream) => stream.size_hint(),
        }
    }
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Body::Whole(Some(bytes.into()))
}

pub fn empty() -> Body {
    Body::Whole(None)
}

pub fn incoming(body: Incoming) -> Body {
    use http_body::Body as _;
    if body.is_end_stream() { empty() } else { Body::Stream(body.map_err(io::Error::other).boxed_unsync()) }
}

/// Pieces as a body; a single one becomes a whole body, whose length is known.
pub fn pieces(mut pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
    let Some(first) = pieces.next() else { return empty() };
    match pieces.next() {
        None => full(first),
        Some(second) => Body::Pieces(Box::new([first, second].into_iter().chain(pieces))),
    }
}

pub fn stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    use futures::StreamExt;
    Body::Stream(StreamBody::new(stream.map(|chunk| chunk.map(Frame::data))).boxed_unsync())
}

/// Reads a request's body to its end, up to the limit.
pub async fn read(body: Body) -> Result<Bytes, StatusError> {
    let mut body = body;
    let mut first: Option<Bytes> = None;
    let mut gathered = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| StatusError::bad_request(format!("cannot read the request's body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if gathered.len() + first.as_ref().map_or(0, Bytes::len) + data.len() > MAX_REQUEST_BODY {
            return Err(StatusError::too_large(format!("limit is {MAX_REQUEST_BODY}")));
        }
        match first.take() {
            None if gathered.is_empty() => first = Some(data),
            one => {
                gathered.extend_from_slice(&one.unwrap_or_default());
                gathered.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| gathered.freeze()))
}

pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub fn json(code: StatusCode, bytes: impl Into<Bytes>) -> Response<Body> {
    typed(code, full(bytes), JSON)
}

pub fn typed(code: StatusCode, body: Body, content_type: HeaderValue) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

pub fn text(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    typed(code, full(text), HeaderValue::from_static("text/plain; charset=utf-8"))
}

/// Marks a response that tells of an error, so that it can go out in the form the client accepts.
#[derive(Clone, Copy)]
pub struct Failed;

/// An error as clients expect it: the code and a Status object.
pub fn status(error: &StatusError) -> Response<Body> {
    let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, status_bytes(error));
    response.extensions_mut().insert(Failed);
    let retry = error.0.details.as_ref().and_then(|details| details.retry_after_seconds);
    if let Some(seconds) = retry.filter(|seconds| *seconds > 0) {
        response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The Status object of an error, with its type.
pub fn status_bytes(error: &StatusError) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(&*error.0).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}
