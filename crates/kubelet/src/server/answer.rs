//! The answers of the node server: whole texts, streams of bytes, and refusals worded as upstream words them.

use std::io;

use bytes::Bytes;
use futures::stream::poll_fn;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::sync::mpsc;
use xebec_cri::Code;
use xebec_streaming::upgrade::Reply;

/// The body of an answer.
pub type Answer = UnsyncBoxBody<Bytes, io::Error>;

/// How long a client waits that found the runtime's streaming server full; tokens there live as long.
const RETRY: HeaderValue = HeaderValue::from_static("60");

/// A text.
pub fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Answer> {
    typed(status, "text/plain; charset=utf-8", text)
}

/// JSON.
pub fn json(body: impl Into<Bytes>) -> Response<Answer> {
    typed(StatusCode::OK, "application/json", body)
}

/// A refusal: the bare text, without the newline that other Go servers add, as go-restful writes it.
pub fn error(status: StatusCode, text: impl ToString) -> Response<Answer> {
    plain(status, text.to_string())
}

/// The refusal of anything but GET.
pub fn get_only() -> Response<Answer> {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    answer
}

/// What the container runtime refused, with the code that upstream derives from it.
pub fn runtime_error(failure: &xebec_cri::Error) -> Response<Answer> {
    match failure.code() {
        Some(Code::NotFound) => error(StatusCode::NOT_FOUND, failure),
        Some(Code::ResourceExhausted) => {
            let mut answer = error(StatusCode::TOO_MANY_REQUESTS, failure);
            answer.headers_mut().insert(RETRY_AFTER, RETRY);
            answer
        }
        _ => error(StatusCode::INTERNAL_SERVER_ERROR, failure),
    }
}

/// Text that comes piece by piece; an error in place of a piece cuts the answer off.
pub fn stream(mut pieces: mpsc::Receiver<io::Result<Bytes>>) -> Response<Answer> {
    let frames = poll_fn(move |cx| pieces.poll_recv(cx).map(|piece| piece.map(|bytes| bytes.map(Frame::data))));
    let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// The answer to an upgrade request.
pub fn upgrade(reply: Reply) -> Response<Answer> {
    reply.map(|body| body.map_err(|never| match never {}).boxed_unsync())
}

/// The words of the operating system, as Go gives them: without the number and in small letters.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Answer> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
