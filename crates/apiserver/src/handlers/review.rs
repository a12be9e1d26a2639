//! Requests that store nothing: a question is posted and comes back with its answer (access and token reviews, tokens).
//!
//! What the answers are is for `authn` and `authz`; here is the table's row and what all of them share.

use std::sync::Arc;

use async_trait::async_trait;
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusDetails;
use serde_json::Value;
use xebec_api::status::StatusError;

use super::decode::Expected;
use super::{Answer, Context};
use crate::authn::User;
use crate::body;
use crate::registry::Served;
use crate::request_info::RequestInfo;
use crate::server_state::ServerState;

/// One kind of review.
pub struct ReviewRow {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub namespaced: bool,
    pub review: &'static dyn Review,
}

/// What a review is asked with.
pub struct ReviewRequest<'a> {
    pub server: &'a Arc<ServerState>,
    pub user: &'a Arc<User>,
    pub namespace: &'a str,
}

#[async_trait]
pub trait Review: Send + Sync {
    /// The object with its status filled in. `body` has been checked against the schema.
    async fn review(&self, request: ReviewRequest<'_>, body: Value) -> Result<Value, StatusError>;
}

pub fn find(info: &RequestInfo<'_>) -> Option<&'static ReviewRow> {
    let matches =
        |row: &&ReviewRow| row.plural == info.resource && row.group == info.group && row.version == info.version;
    crate::authz::reviews::REVIEWS.iter().find(matches)
}

pub async fn handle(context: &mut Context<'_>, row: &'static ReviewRow) -> Answer {
    let info = context.info;
    if !info.name.is_empty() {
        return Err(StatusError::no_such_path());
    }
    if info.verb != "create" {
        let text = "the server does not allow this method on the requested resource";
        let mut error = StatusError::new(405, "MethodNotAllowed", text);
        error.0.details = Some(StatusDetails::default());
        return Err(error);
    }
    let accepted = context.accepted_plain()?;
    let validation = context.options.field_validation("CreateOptions")?;
    let bytes = body::read(context.take_body()).await?;
    let expected = Expected::named(row.group, row.version, row.kind);
    let tree = expected.read(&context.parts.headers, bytes, validation, &mut context.warnings)?;
    let request = ReviewRequest { server: context.server, user: context.user, namespace: info.namespace };
    let answer = row.review.review(request, tree).await?;
    context.encoded(StatusCode::CREATED, answer.to_string().into_bytes(), accepted)
}

/// `serviceaccounts/token`.
pub async fn token(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    let accepted = context.accepted_plain()?;
    let validation = context.options.field_validation("CreateOptions")?;
    let Some(issuer) = context.server.token_issuer.clone() else { return Err(StatusError::no_such_path()) };
    let bytes = body::read(context.take_body()).await?;
    let expected = Expected::named("authentication.k8s.io", "v1", "TokenRequest");
    let tree = expected.read(&context.parts.headers, bytes, validation, &mut context.warnings)?;
    let request = serde_json::from_value(tree).map_err(|error| StatusError::bad_request(error.to_string()))?;
    let registry = &context.server.registry;
    let item = registry.fresh(served, context.info.namespace, context.info.name).await?;
    let account = item.object.typed().map_err(StatusError::internal)?;
    let issued = issuer.issue(registry, context.user, &account, request, &mut context.warnings).await?;
    let tree = serde_json::to_vec(&issued).map_err(StatusError::internal)?;
    context.encoded(StatusCode::CREATED, tree, accepted)
}
