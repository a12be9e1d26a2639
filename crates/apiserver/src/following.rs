//! The body of an answer that a client keeps open, and what ends with it: the place among running requests, the audit
//! record, the count of open streams.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use crate::audit::{Stage, Trail};
use crate::body::Body;
use crate::flow_control::Permit;
use crate::metrics::OpenRequest;

pub struct Following {
    body: Body,
    /// Given back as soon as nothing is ready to be sent: the objects that a watch begins with are out.
    permit: Option<Permit>,
    trail: Option<Trail>,
    _open: Option<OpenRequest>,
}

impl Following {
    #[expect(clippy::new_ret_no_self, reason = "callers have no use for it but as a body")]
    pub fn new(body: Body, permit: Option<Permit>, trail: Option<Trail>, open: Option<OpenRequest>) -> Body {
        if permit.is_none() && trail.is_none() && open.is_none() {
            return body;
        }
        Body::Stream(Following { body, permit, trail, _open: open }.boxed_unsync())
    }
}

impl http_body::Body for Following {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if !matches!(polled, Poll::Ready(Some(Ok(_)))) {
            self.permit = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        if let Some(trail) = &mut self.trail {
            trail.reach(Stage::ResponseComplete);
        }
    }
}
