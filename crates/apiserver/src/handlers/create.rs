//! POST of a new object.

use std::sync::Arc;

use http::StatusCode;

use super::decode::{self, Expected};
use super::{Answer, Context};
use crate::body;
use crate::options::{Write, WriteOptions};
use crate::registry::Served;

pub async fn create(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    context.accepted()?;
    let WriteOptions { dry_run, validation } = context.options.write(Write::Create)?;
    let bytes = body::read(context.take_body()).await?;
    let tree = Expected::of(served).read(&context.parts.headers, bytes, validation, &mut context.warnings)?;
    let tree = decode::to_stored(served, tree);
    let (user, namespace) = (context.user, context.namespace(served).to_owned());
    let mut call = context.call(user, dry_run, "");
    let result = context.server.registry.create(served, &namespace, tree, &mut call).await;
    let outcome = context.finish(call, result)?;
    context.object(served, StatusCode::CREATED, &outcome.object)
}
