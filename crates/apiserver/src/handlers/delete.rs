//! DELETE of one object and of a collection.

use std::sync::Arc;

use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::json;
use xebec_api::object::Object;
use xebec_api::schema;
use xebec_api::status::StatusError;

use super::decode;
use super::{Answer, Context, page};
use crate::body;
use crate::registry::{DeleteRequest, Served};

/// Kinds whose deletion answers with the object and not with a Status, as upstream's registries do.
const ANSWERED_WITH_OBJECT: &[(&str, &str)] = &[
    ("", "namespaces"),
    ("", "pods"),
    ("", "services"),
    ("", "serviceaccounts"),
    ("", "persistentvolumes"),
    ("", "persistentvolumeclaims"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
    ("storage.k8s.io", "volumeattributesclasses"),
    ("resource.k8s.io", "resourceclaims"),
    ("resource.k8s.io", "resourceclaimtemplates"),
    ("resource.k8s.io", "resourceslices"),
    ("resource.k8s.io", "deviceclasses"),
];

pub async fn delete(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    let accepted = context.accepted()?;
    let options = read_options(context).await?;
    let dry_run = options.dry_run.as_ref().is_some_and(|all| !all.is_empty());
    let (user, name) = (context.user, context.info.name);
    let namespace = context.namespace(served).to_owned();
    let mut call = context.call(user, dry_run, "");
    let request = DeleteRequest { namespace: &namespace, name, options: &options };
    let result = context.server.registry.delete(served, &request, &mut call).await;
    let deleted = context.finish(call, result)?;

    let resource = served.resource();
    let key = (&*resource.group, &*resource.plural);
    if deleted.gone && !ANSWERED_WITH_OBJECT.contains(&key) {
        return context.encoded(StatusCode::OK, success(served, &deleted.object), accepted.encoding);
    }
    let cascading = options.orphan_dependents == Some(false);
    let code = if !deleted.gone && cascading { StatusCode::ACCEPTED } else { StatusCode::OK };
    context.object(served, code, &deleted.object)
}

pub async fn delete_collection(context: &mut Context<'_>, served: &Arc<Served>) -> Answer {
    context.accepted()?;
    context.options.check_list()?;
    let options = read_options(context).await?;
    let dry_run = options.dry_run.as_ref().is_some_and(|all| !all.is_empty());
    let selection = page::selection(served, &context.options, context.namespace(served), "")?;
    let user = context.user;
    let mut call = context.call(user, dry_run, "");
    let result = context.server.registry.delete_collection(served, &selection, &options, &mut call).await;
    let objects = context.finish(call, result)?;
    context.objects(served, objects, context.server.registry.cache.applied())
}

/// From the body if there is one, else from the query.
async fn read_options(context: &mut Context<'_>) -> Result<DeleteOptions, StatusError> {
    let bytes = body::read(context.take_body()).await?;
    if bytes.is_empty() {
        return Ok(context.options.deletion());
    }
    let ty = schema::table().type_named("io.k8s.apimachinery.pkg.apis.meta.v1", "DeleteOptions");
    let json = decode::as_json(&context.parts.headers, bytes, ty)?;
    // Clients send the options in the version of the resource's group or of `meta.k8s.io`; only the fields matter.
    let mut tree: serde_json::Value = serde_json::from_slice(&json)
        .map_err(|error| StatusError::bad_request(format!("couldn't get version/kind; json parse error: {error}")))?;
    if let Some(fields) = tree.as_object_mut() {
        let kind = fields.remove("kind");
        fields.remove("apiVersion");
        if kind.as_ref().and_then(|kind| kind.as_str()).is_some_and(|kind| kind != "DeleteOptions") {
            return Err(StatusError::bad_request(format!(
                "decoded object cannot be converted to DeleteOptions: {}",
                kind.unwrap_or_default()
            )));
        }
    }
    serde_json::from_value(tree).map_err(|error| StatusError::bad_request(error.to_string()))
}

fn success(served: &Served, object: &Object) -> Vec<u8> {
    let resource = served.resource();
    let mut details = json!({ "name": object.name() });
    if !resource.group.is_empty() {
        details["group"] = json!(resource.group);
    }
    details["kind"] = json!(resource.plural);
    details["uid"] = json!(object.meta().uid);
    let status =
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details });
    status.to_string().into_bytes()
}
