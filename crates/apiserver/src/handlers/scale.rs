//! The `scale` subresource: an `autoscaling/v1` Scale in place of the object.

use std::sync::Arc;

use http::StatusCode;
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use xebec_api::field::{FieldError, Path};
use xebec_api::fields::{Filter, Managed, Node, Owners, Versions, from_scale, to_scale};
use xebec_api::object::Object;
use xebec_api::resource::ResourceType;
use xebec_api::schema;
use xebec_api::status::StatusError;

use super::decode::Expected;
use super::update::check_name;
use super::{Answer, Context, apply, patch};
use crate::body;
use crate::options::{Write, WriteOptions};
use crate::registry::erased::AnyObject;
use crate::registry::{Edit, Part, Served};

const SCALE: ResourceType = ResourceType::new("autoscaling", "v1", "Scale", "scales", true);

pub async fn get(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    let namespace = context.namespace(served);
    let item = context.server.registry.fresh(served, namespace, context.info.name).await?;
    answer(context, scale_of(served, &item.object)?)
}

pub async fn update(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    let WriteOptions { dry_run, validation } = context.options.write(Write::Update)?;
    let bytes = body::read(context.take_body()).await?;
    let tree = Expected::named("autoscaling", "v1", "Scale").read(
        &context.parts.headers,
        bytes,
        validation,
        &mut context.warnings,
    )?;
    check_name(context.info, &tree)?;
    let wanted = decoded(tree)?;
    write(context, served, dry_run, &|_, _, _| Ok((wanted.clone(), None))).await
}

pub async fn patch(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    if patch::is_apply(context) {
        return apply(context, served).await;
    }
    let (patch, WriteOptions { dry_run, .. }) = patch::read(context).await?;
    let ty = schema::table().type_of("autoscaling", "v1", "Scale");
    write(context, served, dry_run, &|current, _, _| {
        let mut tree = serde_json::to_value(current).map_err(StatusError::internal)?;
        patch.apply(&mut tree, ty).map_err(|error| patch::refused(&error))?;
        let patched =
            serde_json::from_value(tree).map_err(|error| StatusError::new(422, "Invalid", error.to_string()))?;
        Ok((patched, None))
    })
    .await
}

async fn apply(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    let (config, dry_run) = apply::read(context).await?;
    config.check_strict(&mut context.warnings)?;
    write(context, served, dry_run, &|current, managed, owners| {
        let applied = config.apply_as(owners, (VERSION, "Scale"), managed.clone(), &tree_of(current)?)?;
        Ok((decoded(applied.object)?, Some(applied.managed)))
    })
    .await
}

fn decoded(tree: Value) -> Result<Scale, StatusError> {
    serde_json::from_value(tree).map_err(|error| StatusError::bad_request(error.to_string()))
}

/// The scale that is wanted, and who owns its fields then if the change knows.
type Change<'a> =
    dyn Fn(&Scale, &Managed, &Owners<'_>) -> Result<(Scale, Option<Managed>), StatusError> + Send + Sync + 'a;

async fn write(context: &mut Context<'_>, served: &Arc<Served>, dry_run: bool, change: &Change<'_>) -> Answer {
    let (user, name) = (context.user, context.info.name);
    let namespace = context.namespace(served).to_owned();
    let mut call = context.call(user, dry_run, "scale");
    let (registry, manager) = (&context.server.registry, call.manager.clone());
    let own = served.resource().api_version();
    let edit = |object: &mut dyn AnyObject, parent: Managed| {
        let writer = registry.writer(served, "scale", &manager);
        let owners =
            Owners { versions: &ScaleVersion, version: VERSION, filter: Filter::Without(&[]), ..writer.owners() };
        let before = current(served, object)?;
        let managed = to_scale(&parent, &[&own]);
        let (wanted, after) = change(&before, &managed, &owners)?;
        check(&wanted)?;
        let after = match after {
            Some(after) => after,
            // As for the object itself: nobody is followed before somebody is known.
            None if managed.is_empty() => managed,
            None => owners.update(managed, &tree_of(&before)?, &tree_of(&wanted)?).map_err(StatusError::internal)?,
        };
        let replicas = wanted.spec.and_then(|spec| spec.replicas).unwrap_or(0);
        served.strategy.set_replicas(object, replicas);
        let meta = object.meta_mut();
        // Absent, the change is made on whatever state there is.
        if let Some(version) = wanted.metadata.resource_version.filter(|version| !version.is_empty()) {
            meta.resource_version = Some(version);
        }
        // Of a PUT the uid is a precondition; to a patch it is immutable.
        meta.uid = wanted.metadata.uid.or(meta.uid.take());
        Ok(from_scale(&parent, after, &own, &[&own]))
    };
    let result = registry.update(served, (&namespace, name), Part::Main, Edit::Owned(&edit), &mut call).await;
    let outcome = context.finish(call, result)?;
    answer(context, scale_of(served, &outcome.object)?)
}

const VERSION: &str = "autoscaling/v1";

/// A scale exists in one version only.
struct ScaleVersion;

impl Versions for ScaleVersion {
    fn node(&self, version: &str) -> Option<Node> {
        let ty = schema::table().type_of("autoscaling", "v1", "Scale").filter(|_| version == VERSION)?;
        Some(Node::of(ty))
    }

    fn convert(&self, object: &Value, _: &str, to: &str) -> Option<Value> {
        (to == VERSION).then(|| object.clone())
    }
}

/// A scale as upstream's encoder writes it.
fn tree_of(scale: &Scale) -> Result<Value, StatusError> {
    let mut tree = serde_json::to_value(scale).map_err(StatusError::internal)?;
    if let Some(ty) = schema::table().type_of("autoscaling", "v1", "Scale") {
        schema::canonical(&mut tree, ty);
    }
    Ok(tree)
}

fn check(scale: &Scale) -> Result<(), StatusError> {
    let replicas = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    if replicas >= 0 {
        return Ok(());
    }
    let path = Path::new("spec").child("replicas");
    let error = FieldError::invalid(&path, replicas, "must be greater than or equal to 0");
    Err(StatusError::invalid(&SCALE, scale.metadata.name.as_deref().unwrap_or(""), vec![error]))
}

fn scale_of(served: &Served, object: &Object) -> Result<Scale, StatusError> {
    current(served, &*served.strategy.typed(object).map_err(StatusError::internal)?)
}

fn current(served: &Served, object: &dyn AnyObject) -> Result<Scale, StatusError> {
    let state = served.strategy.scale(object).ok_or_else(StatusError::no_such_path)?;
    let meta = object.meta();
    Ok(Scale {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            creation_timestamp: meta.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec { replicas: Some(state.replicas) }),
        status: Some(ScaleStatus {
            replicas: state.status_replicas,
            selector: (!state.selector.is_empty()).then_some(state.selector),
        }),
    })
}

fn answer(context: &Context<'_>, scale: Scale) -> Answer {
    let accepted = context.accepted()?.encoding;
    let tree: Value = serde_json::to_value(&scale).map_err(StatusError::internal)?;
    context.encoded(StatusCode::OK, tree.to_string().into_bytes(), accepted)
}
