//! The `scale` subresource: an `autoscaling/v1` Scale in place of the object.

use std::sync::Arc;

use http::StatusCode;
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use xebec_api::field::{FieldError, Path};
use xebec_api::object::Object;
use xebec_api::resource::ResourceType;
use xebec_api::schema;
use xebec_api::status::StatusError;

use super::decode::Expected;
use super::update::check_name;
use super::{Answer, Context, patch};
use crate::body;
use crate::registry::erased::AnyObject;
use crate::registry::{Edit, Part, Served};

const SCALE: ResourceType = ResourceType::new("autoscaling", "v1", "Scale", "scales", true);

pub async fn get(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    let namespace = context.namespace(served);
    let item = context.server.registry.fresh(served, namespace, context.info.name).await?;
    answer(context, scale_of(served, &item.object)?)
}

pub async fn update(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    let validation = context.options.field_validation("UpdateOptions")?;
    let bytes = body::read(context.take_body()).await?;
    let tree = Expected::named("autoscaling", "v1", "Scale").read(
        &context.parts.headers,
        bytes,
        validation,
        &mut context.warnings,
    )?;
    check_name(context.info, &tree)?;
    let wanted: Scale = serde_json::from_value(tree).map_err(|error| StatusError::bad_request(error.to_string()))?;
    write(context, served, &|_| Ok(wanted.clone())).await
}

pub async fn patch(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    let validation = context.options.field_validation("PatchOptions")?;
    let patch = patch::read(context, validation).await?;
    let ty = schema::table().type_of("autoscaling", "v1", "Scale");
    write(context, served, &|current| {
        let mut tree = serde_json::to_value(current).map_err(StatusError::internal)?;
        patch.apply(&mut tree, ty).map_err(|error| patch::refused(&error))?;
        serde_json::from_value(tree).map_err(|error| StatusError::new(422, "Invalid", error.to_string()))
    })
    .await
}

type Change<'a> = dyn Fn(&Scale) -> Result<Scale, StatusError> + Send + Sync + 'a;

async fn write(context: &mut Context<'_>, served: &Arc<Served>, change: &Change<'_>) -> Answer {
    let dry_run = context.options.is_dry_run("UpdateOptions")?;
    let edit = |object: &mut dyn AnyObject| {
        let wanted = change(&current(served, object)?)?;
        check(&wanted)?;
        let replicas = wanted.spec.and_then(|spec| spec.replicas).unwrap_or(0);
        served.strategy.set_replicas(object, replicas);
        let meta = object.meta_mut();
        // Absent, the change is made on whatever state there is.
        if let Some(version) = wanted.metadata.resource_version.filter(|version| !version.is_empty()) {
            meta.resource_version = Some(version);
        }
        // Of a PUT the uid is a precondition; to a patch it is immutable.
        meta.uid = wanted.metadata.uid.or(meta.uid.take());
        Ok(())
    };
    let (user, name) = (context.user, context.info.name);
    let namespace = context.namespace(served).to_owned();
    let mut call = context.call(user, dry_run, "scale");
    let registry = &context.server.registry;
    let result = registry.update(served, (&namespace, name), Part::Main, Edit::Typed(&edit), &mut call).await;
    let outcome = context.finish(call, result)?;
    answer(context, scale_of(served, &outcome.object)?)
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
    let accepted = context.accepted()?;
    let tree: Value = serde_json::to_value(&scale).map_err(StatusError::internal)?;
    context.encoded(StatusCode::OK, tree.to_string().into_bytes(), accepted)
}
