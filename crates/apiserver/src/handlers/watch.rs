//! WATCH: a session written as a stream of JSON lines.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Response};

use super::render::Renderer;
use super::session::{Session, Step};
use super::{Answer, Context, page};
use crate::body::{self, Body};
use crate::cache::{Change, Seen};
use crate::negotiation::Encoding;
use crate::registry::Served;
use xebec_api::status::StatusError;

pub async fn watch(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    context.options.watch = true;
    context.options.check_list()?;
    let accepted = context.accepted()?;
    if accepted.encoding != Encoding::Json {
        let text = "only the following media types are accepted: application/json, application/json;stream=watch";
        return Err(StatusError::not_acceptable(text));
    }
    let renderer = context.renderer(served, accepted)?;
    let selection = page::selection(served, &context.options, context.namespace(served), context.info.name)?;
    let opened = Session::open(&context.server.registry, served, &context.options, selection).await;
    let session = match opened {
        Ok(session) => session,
        // As upstream, a revision that is gone is told in the stream.
        Err(error) if error.is_expired() => return Ok(respond(body::full(error_line(&error)))),
        Err(error) => return Err(error),
    };
    let writer = Writer {
        session,
        renderer,
        seen: Vec::new(),
        first: true,
        open: context.server.metrics.watch_opened(served.resource(), crate::metrics::scope(context.info)),
    };
    let lines = stream::unfold(Box::new(writer), |mut writer| async move {
        let line = writer.next().await?;
        Some((Ok(line), writer))
    });
    Ok(respond(body::stream(lines)))
}

fn respond(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

struct Writer {
    session: Session,
    renderer: Renderer,
    seen: Vec<Seen>,
    /// Nothing has been written yet.
    first: bool,
    /// Counts this watch as long as it lives, and what it sends.
    open: crate::metrics::OpenRequest,
}

impl Writer {
    /// The next lines; several events that are there already go out together.
    async fn next(&mut self) -> Option<Bytes> {
        self.renderer.now = self.now();
        let mut out = Vec::new();
        match self.session.next(&mut self.seen).await? {
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
            Step::Failed(error) => out = error_line(&error),
        }
        Some(out.into())
    }

    fn changes(&mut self) -> Bytes {
        self.open.sent(self.seen.len());
        if let [only] = &self.seen[..] {
            let plain = self.renderer.shown == crate::negotiation::Shown::Objects;
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

    fn now(&self) -> jiff::Timestamp {
        self.session.now()
    }
}

fn error_line(error: &StatusError) -> Vec<u8> {
    let mut out = b"{\"type\":\"ERROR\",\"object\":".to_vec();
    out.extend_from_slice(body::status_bytes(error).trim_ascii_end());
    out.extend_from_slice(b"}\n");
    out
}
