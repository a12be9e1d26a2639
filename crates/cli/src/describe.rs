//! `describe`: objects in detail, as text for people, with what belongs to them and what happened to them.
//!
//! One file a kind, of one shape: `describe(subject, page)` fetches the object and writes it on the page. The layout is kubectl's,
//! for people know where to look. A kind without a file is described by [`generic`], which walks the object.

mod config_map;
mod container;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod events;
mod generic;
mod namespace;
mod node;
mod page;
mod pod;
mod pod_template;
mod replica_set;
mod replication_controller;
mod role;
mod role_binding;
mod secret;
mod service;
mod service_account;
mod volume;

use clap::Args;
use xebec_api::{Kind, ResourceType};
use xebec_client::Error;

use crate::failure;
use crate::manifests::Files;
use crate::names::{self, Selection, Target};
use crate::print;
use crate::session::Session;

use page::Page;

/// A template by itself, which kubectl shows without aligning it.
pub fn pod_template(template: &k8s_openapi::api::core::v1::PodTemplateSpec) -> String {
    let mut page = Page::default();
    pod_template::describe(Some(template), &mut page);
    page.unaligned()
}

pub use deployment::{replica_sets, same_template};

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A type and names or beginnings of names, or type/name
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// Those with these labels
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,
    /// In all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Show events; without this for a single object only
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    show_events: Option<bool>,
}

/// The object that is described.
struct Subject<'a> {
    session: &'a Session,
    resource: &'a ResourceType,
    namespace: &'a str,
    name: &'a str,
    with_events: bool,
}

impl Subject<'_> {
    async fn get<K: Kind>(&self) -> anyhow::Result<K> {
        let object = self.session.get(&self.path()).await?;
        Ok(serde_json::from_value(object).map_err(|error| Error::decode(self.path(), error))?)
    }

    fn path(&self) -> String {
        self.resource.object_path(Some(self.namespace), self.name)
    }
}

pub async fn run(session: &Session, options: Options) -> anyhow::Result<i32> {
    let targets = names::of_files_or_words(session, &options.files, &options.words).await?;
    let selection =
        Selection { labels: options.selector.clone(), fields: None, all_namespaces: options.all_namespaces };
    let mut failures = Vec::new();
    let mut found: Vec<Target> = Vec::new();
    for target in &targets {
        match names::objects(session, target, &selection).await {
            Ok(objects) => found.extend(objects),
            Err(error) => failures.push(error),
        }
    }
    let with_events = options.show_events.unwrap_or(found.len() <= 1);
    let mut shown = 0;
    for target in &found {
        match page(session, target, with_events).await {
            Ok(text) => {
                let gap = if shown > 0 { "\n\n" } else { "" };
                print::out(format_args!("{gap}{text}"))?;
                shown += 1;
            }
            Err(error) if not_found(&error) && targets.len() == 1 && options.words.len() == 2 => {
                return by_beginning(session, &options, target, error).await;
            }
            Err(error) => failures.push(error),
        }
    }
    if found.is_empty() && failures.is_empty() {
        match options.all_namespaces {
            true => eprintln!("No resources found"),
            false => eprintln!("No resources found in {} namespace.", session.namespace),
        }
    }
    failure::all(failures)
}

fn not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Error>().is_some_and(Error::is_not_found)
}

/// A name that no object has may be the beginning of names; if it is not, the first answer stands.
async fn by_beginning(
    session: &Session,
    options: &Options,
    target: &Target,
    error: anyhow::Error,
) -> anyhow::Result<i32> {
    let beginning = target.name.as_deref().unwrap_or("");
    let all = names::objects(session, &Target::all(target.resource.clone()), &Selection::default()).await?;
    let matching: Vec<&Target> =
        all.iter().filter(|one| one.name.as_deref().is_some_and(|name| name.starts_with(beginning))).collect();
    if matching.is_empty() {
        return Err(error);
    }
    for one in matching {
        print::line(page(session, one, options.show_events.unwrap_or(false)).await?)?;
    }
    Ok(0)
}

async fn page(session: &Session, target: &Target, with_events: bool) -> anyhow::Result<String> {
    let subject = Subject {
        session,
        resource: &target.resource,
        namespace: target.namespace(session),
        name: target.name.as_deref().unwrap_or(""),
        with_events,
    };
    let mut page = Page::default();
    let (subject, on) = (&subject, &mut page);
    match (&*target.resource.group, &*target.resource.kind) {
        ("", "ConfigMap") => config_map::describe(subject, on).await,
        ("", "Endpoints") => endpoints::describe(subject, on).await,
        ("", "Namespace") => namespace::describe(subject, on).await,
        ("", "Node") => node::describe(subject, on).await,
        ("", "Pod") => pod::describe(subject, on).await,
        ("", "ReplicationController") => replication_controller::describe(subject, on).await,
        ("", "Secret") => secret::describe(subject, on).await,
        ("", "Service") => service::describe(subject, on).await,
        ("", "ServiceAccount") => service_account::describe(subject, on).await,
        ("apps", "Deployment") => deployment::describe(subject, on).await,
        ("apps", "ReplicaSet") => replica_set::describe(subject, on).await,
        ("discovery.k8s.io", "EndpointSlice") => endpoint_slice::describe(subject, on).await,
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => role::describe(subject, on).await,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            role_binding::describe(subject, on).await
        }
        _ => generic::describe(subject, on).await,
    }?;
    Ok(page.finish())
}
