//! WATCH: a session written as a stream of JSON lines or of protobuf frames.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Response};
use xebec_api::status::StatusError;

use super::render::Renderer;
use super::session::{Session, Step};
use super::{Answer, Context, page, protobuf};
use crate::body::{self, Body};
use crate::cache::{Change, Seen};
use crate::negotiation::{Encoding, Shown};
use crate::registry::Served;

pub async fn watch(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    context.options.watch = true;
    context.options.check_list()?;
    let accepted = context.accepted()?;
    let encoding = accepted.encoding;
    if encoding == Encoding::Yaml {
        return Err(StatusError::not_acceptable(STREAMS));
    }
    let renderer = context.renderer(served, accepted)?;
    let selection = page::selection(served, &context.options, context.namespace(served), context.info.name)?;
    let opened = Session::open(&context.server.registry, served, &context.options, selection).await;
    let session = match opened {
        Ok(session) => session,
        // As upstream, a revision that is gone is told in the stream.
        Err(error) if error.is_expired() => return Ok(respond(body::full(failure(&error, encoding)), encoding)),
        Err(error) => return Err(error),
    };
    let writer = Writer {
        session,
        renderer,
        encoding,
        seen: Vec::new(),
        first: true,
        open: context.server.metrics.watch_opened(served.resource(), crate::metrics::scope(context.info)),
    };
    let lines = stream::unfold(Box::new(writer), |mut writer| async move {
        let line = writer.next().await?;
        Some((Ok(line), writer))
    });
    Ok(respond(body::stream(lines), encoding))
}

const STREAMS: &str = "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";

fn respond(body: Body, encoding: Encoding) -> Response<Body> {
    let mut response = Response::new(body);
    let content_type = if encoding == Encoding::Protobuf { protobuf::WATCH } else { encoding.content_type() };
    response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

struct Writer {
    session: Session,
    renderer: Renderer,
    encoding: Encoding,
    seen: Vec<Seen>,
    /// Nothing has been written yet.
    first: bool,
    /// Counts this watch as long as it lives, and what it sends.
    open: crate::metrics::OpenRequest,
}

impl Writer {
    /// The next events; several that are there already go out together.
    async fn next(&mut self) -> Option<Bytes> {
        self.renderer.now = self.session.now();
        let step = self.session.next(&mut self.seen).await?;
        if self.encoding == Encoding::Protobuf {
            return self.frames(step);
        }
        let mut out = Vec::new();
        match step {
            Step::Initial(objects) => {
                self.open.sent(objects.len());
                for object in objects {
                    self.renderer.event(Change::Added, &object, self.first, &mut out);
                    self.first = false;
                }
            }
            Step::Changes => return Some(self.changes()),
            Step::Bookmark { revision, initial_end } => self.renderer.bookmark(revision, initial_end, &mut out),
            Step::End => return None,
            Step::Failed(error) => out = failure(&error, self.encoding),
        }
        Some(out.into())
    }

    /// One step as protobuf. What cannot be encoded ends the watch, as upstream's does.
    fn frames(&mut self, step: Step) -> Option<Bytes> {
        let Writer { renderer, seen, .. } = self;
        let mut out = Vec::new();
        let written = match step {
            Step::Initial(objects) => {
                objects.iter().try_for_each(|object| protobuf::event(renderer, Change::Added, object, &mut out))
            }
            Step::Changes => {
                seen.drain(..).try_for_each(|one| protobuf::event(renderer, one.change, &one.object, &mut out))
            }
            Step::Bookmark { revision, initial_end } => {
                let object = renderer.bookmarked(revision, initial_end).to_string();
                protobuf::event_of("BOOKMARK", object.as_bytes(), &mut out)
            }
            Step::End => return None,
            Step::Failed(error) => {
                out = failure(&error, self.encoding);
                Ok(())
            }
        };
        if let Err(error) = written {
            tracing::error!(resource = %self.renderer.served.resource().plural, %error, "a watch event cannot be encoded");
            return None;
        }
        Some(out.into())
    }

    fn changes(&mut self) -> Bytes {
        self.open.sent(self.seen.len());
        if let [only] = &self.seen[..] {
            let plain = self.renderer.shown == Shown::Objects;
            let (form, stored) = (self.session.served.line_form(), &self.session.served.cache.resource);
            if let Some(line) = only.shared_line(form, stored).filter(|_| plain) {
                let line = line.clone();
                self.seen.clear();
                self.first = false;
                return line;
            }
        }
        let mut out = Vec::with_capacity(self.seen.iter().map(|one| one.object.raw().len() + 160).sum());
        for one in self.seen.drain(..) {
            self.renderer.seen(&one, self.first, &mut out);
            self.first = false;
        }
        out.into()
    }
}

/// The event that tells of an error.
fn failure(error: &StatusError, encoding: Encoding) -> Vec<u8> {
    let status = body::status_bytes(error);
    let mut out = Vec::new();
    // Every Status has a protobuf form.
    if encoding == Encoding::Protobuf && protobuf::event_of("ERROR", &status, &mut out).is_ok() {
        return out;
    }
    out.extend_from_slice(b"{\"type\":\"ERROR\",\"object\":");
    out.extend_from_slice(status.trim_ascii_end());
    out.extend_from_slice(b"}\n");
    out
}
