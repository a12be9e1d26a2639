//! GET of one object and LIST of a collection.

use std::sync::Arc;

use http::StatusCode;
use xebec_api::status::StatusError;

use super::{Answer, Context, page, protobuf};
use crate::negotiation::Encoding;
use crate::registry::Served;
use crate::{body, options};

pub async fn get(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    context.accepted()?;
    let registry = &context.server.registry;
    match options::checked_revision(&context.options.resource_version)? {
        None => registry.catch_up().await?,
        Some(0) => {}
        Some(wanted) => page::reach(registry, wanted).await?,
    }
    let (namespace, name) = (context.namespace(served), context.info.name);
    let item = served.cache.get(namespace, name).ok_or_else(|| StatusError::not_found(served.resource(), name))?;
    context.object(served, StatusCode::OK, &item.object)
}

pub async fn list(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    context.options.check_list()?;
    let accepted = context.accepted()?;
    let renderer = context.renderer(served, accepted)?;
    let selection = page::selection(served, &context.options, context.namespace(served), context.info.name)?;
    let page = page::page(&context.server.registry, served, &context.options, &selection).await?;
    if accepted.encoding == Encoding::Protobuf {
        let pieces = protobuf::page(&renderer, page)?;
        return Ok(body::typed(StatusCode::OK, body::pieces(pieces), accepted.encoding.content_type()));
    }
    let pieces = renderer.page(page);
    if context.plain(accepted.encoding) {
        return Ok(body::typed(StatusCode::OK, body::pieces(pieces), body::JSON));
    }
    context.encoded(StatusCode::OK, pieces.collect::<Vec<_>>().concat(), accepted.encoding)
}
