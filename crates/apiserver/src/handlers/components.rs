//! `componentstatuses`: the store, and the components whose leases say who leads them. Read only, made for each request.

use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ComponentCondition, ComponentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use xebec_api::object::Object;
use xebec_api::status::StatusError;

use super::{Answer, Context, page};
use crate::cache::{Item, ResourceCache};
use crate::registry::{Registry, Served};
use crate::resources::component_status::ROW;

/// The names of components, each with that of the lease in `kube-system` that its leader holds.
const LED: [(&str, &str); 2] = [("controller-manager", "kube-controller-manager"), ("scheduler", "kube-scheduler")];

pub async fn handle(context: &mut Context<'_>) -> Answer {
    let served = Arc::new(served());
    let statuses = statuses(&context.server.registry).await;
    match context.info.verb {
        "get" => {
            let name = context.info.name;
            let found = statuses.into_iter().find(|status| status.metadata.name.as_deref() == Some(name));
            let found = found.ok_or_else(|| StatusError::not_found(served.resource(), name))?;
            context.object(&served, StatusCode::OK, &wire(&found)?)
        }
        "list" => {
            context.options.check_list()?;
            let selection = page::selection(&served, &context.options, "", "")?;
            let objects = statuses.iter().map(wire).collect::<Result<Vec<Object>, StatusError>>()?;
            let items = objects.into_iter().map(Item::new).filter(|item| selection.matches(item, &*served.strategy));
            let objects: Vec<Arc<Object>> = items.map(|item| item.object.clone()).collect();
            context.objects(&served, objects, 0)
        }
        _ => Err(super::method_not_allowed()),
    }
}

/// The resource with an empty cache: nothing is behind it.
fn served() -> Served {
    let strategy = (ROW.strategy)();
    let resource = &ROW.resource;
    let schema = xebec_api::schema::table().type_of(&resource.group, &resource.version, &resource.kind);
    Served { cache: Arc::new(ResourceCache::new(&ROW, strategy.clone())), row: ROW, strategy, schema }
}

async fn statuses(registry: &Registry) -> Vec<ComponentStatus> {
    let store = registry.is_healthy().await.map(|()| "ok".to_owned()).map_err(|error| error.to_string());
    let mut all = vec![status("etcd-0", store)];
    for (name, lease) in LED {
        if let Some(lease) = registry.get::<Lease>("kube-system", lease) {
            all.push(status(name, is_led(&lease, registry.clock.now())));
        }
    }
    all
}

fn is_led(lease: &Lease, now: Timestamp) -> Result<String, String> {
    let spec = lease.spec.clone().unwrap_or_default();
    let renewed = spec.renew_time.map_or(0, |time| time.0.as_second());
    let lasts = i64::from(spec.lease_duration_seconds.unwrap_or(0));
    if now.as_second() <= renewed + lasts {
        Ok("ok".to_owned())
    } else {
        Err("nobody has renewed the leader's lease in time".to_owned())
    }
}

fn status(name: &str, health: Result<String, String>) -> ComponentStatus {
    let (state, message, error) = match health {
        Ok(message) => ("True", Some(message), None),
        Err(error) => ("False", None, Some(error)),
    };
    let condition = ComponentCondition { type_: "Healthy".to_owned(), status: state.to_owned(), message, error };
    ComponentStatus {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        conditions: Some(vec![condition]),
    }
}

fn wire(status: &ComponentStatus) -> Result<Object, StatusError> {
    let bytes = serde_json::to_vec(status).map_err(StatusError::internal)?;
    Object::from_wire(bytes.into()).map_err(StatusError::internal)
}
