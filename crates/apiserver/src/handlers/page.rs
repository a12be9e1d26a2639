//! Which objects a LIST returns, at which revision: the semantics of `resourceVersion`, `limit` and `continue`.
//!
//! Behaviour: "Resource versions" and "Retrieving large results sets in chunks" of the API concepts. It gives shared
//! objects; how they are written is another file's.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, StatusCause};
use serde::{Deserialize, Serialize};
use xebec_api::status::StatusError;

use crate::cache::{Item, Selection, Snapshot};
use crate::options::{self, Options};
use crate::registry::{Registry, Served};

/// How long a request waits for a revision that the caches have not reached, as upstream's watch cache does.
const WAIT_FOR_REVISION: Duration = Duration::from_secs(3);

/// A part of a collection.
pub struct Page {
    pub items: Vec<Arc<Item>>,
    pub revision: u64,
    /// Where the next part begins, in the form that clients send back.
    pub continue_token: Option<String>,
    /// How many objects come after this part, where nothing is selected.
    pub remaining: Option<usize>,
}

#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    /// Negative: continue in the state of the time when the token is used.
    rv: i64,
    /// `namespace/name` of the last object, and a NUL.
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// The selection of a list, watch or deletecollection.
pub fn selection(served: &Served, options: &Options, namespace: &str, name: &str) -> Result<Selection, StatusError> {
    let mut fields = options.fields()?;
    if !name.is_empty() && fields.required("metadata.name") != Some(name) {
        fields.terms.push(("metadata.name".to_owned(), name.to_owned(), true));
    }
    let aliases = served.field_aliases();
    Selection::new(namespace, options.labels()?, &fields, &*served.strategy, aliases).map_err(|error| {
        StatusError::bad_request(if served.strategy.selectable_fields().is_empty() {
            format!("{:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"", error.0)
        } else {
            error.to_string()
        })
    })
}

pub async fn page(
    registry: &Registry,
    served: &Served,
    options: &Options,
    selection: &Selection,
) -> Result<Page, StatusError> {
    let cache = &registry.cache;
    let (snapshot, revision, start) = if options.continue_token.is_empty() {
        let (snapshot, revision) = state(registry, served, options).await?;
        (snapshot, revision, None)
    } else {
        if !matches!(options.resource_version.as_str(), "" | "0") {
            return Err(StatusError::bad_request("specifying resource version is not allowed when using continue"));
        }
        let (revision, start) = decode_token(&options.continue_token)?;
        match revision {
            None => {
                registry.catch_up().await?;
                let (snapshot, revision) = cache.current(&served.cache);
                (snapshot, revision, Some(start))
            }
            Some(revision) => {
                reach(registry, revision).await?;
                let snapshot = cache.at(&served.cache, revision).map_err(|_| too_old_token(&start))?;
                (snapshot, revision, Some(start))
            }
        }
    };
    let page = take(&snapshot, revision, start.as_deref(), options.limit, selection, served);
    if page.continue_token.is_some() {
        cache.pin(&served.cache, revision, snapshot);
    }
    Ok(page)
}

/// The state that a list without a continue token asks for.
async fn state(registry: &Registry, served: &Served, options: &Options) -> Result<(Arc<Snapshot>, u64), StatusError> {
    let cache = &registry.cache;
    match options::checked_revision(&options.resource_version)? {
        None => registry.catch_up().await?,
        Some(0) => {}
        Some(wanted) => {
            reach(registry, wanted).await?;
            let rule = options.resource_version_match.as_str();
            // A limit without a rule means an exact revision, as it did before there were rules.
            if rule == "Exact" || (rule.is_empty() && options.limit > 0) {
                let snapshot = cache
                    .at(&served.cache, wanted)
                    .map_err(|_| StatusError::expired("The resourceVersion for the provided list is too old."))?;
                return Ok((snapshot, wanted));
            }
        }
    }
    Ok(cache.current(&served.cache))
}

fn take(
    snapshot: &Snapshot,
    revision: u64,
    start: Option<&str>,
    limit: usize,
    selection: &Selection,
    served: &Served,
) -> Page {
    if let Some(name) = selection.single_name()
        && (!selection.namespace.is_empty() || !served.resource().namespaced)
    {
        let item = snapshot.get(&selection.namespace, name).filter(|item| selection.matches(item, &*served.strategy));
        return Page { items: item.cloned().into_iter().collect(), revision, continue_token: None, remaining: None };
    }
    let after = start.map(|start| start.trim_end_matches('\0')).map(|start| match start.split_once('/') {
        Some(pair) if served.resource().namespaced => pair,
        _ => ("", start),
    });
    let everything = selection.is_everything();
    let strategy = &*served.strategy;
    let mut found =
        snapshot.scan(&selection.namespace, after).filter(|item| everything || selection.matches(item, strategy));
    if limit == 0 {
        let mut items = Vec::with_capacity(if everything { snapshot.items.len() } else { 0 });
        items.extend(found.cloned());
        return Page { items, revision, continue_token: None, remaining: None };
    }
    let items: Vec<Arc<Item>> = found.by_ref().take(limit).cloned().collect();
    if found.next().is_none() {
        return Page { items, revision, continue_token: None, remaining: None };
    }
    let remaining = everything.then(|| 1 + found.count());
    let last = items.last().map(|item| start_after(item, served)).unwrap_or_default();
    Page { items, revision, continue_token: Some(encode_token(revision as i64, last)), remaining }
}

fn start_after(item: &Item, served: &Served) -> String {
    if served.resource().namespaced {
        format!("{}/{}\0", item.object.namespace(), item.object.name())
    } else {
        format!("{}\0", item.object.name())
    }
}

fn encode_token(rv: i64, start: String) -> String {
    let token = Token { v: TOKEN_VERSION.to_owned(), rv, start };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

fn decode_token(text: &str) -> Result<(Option<u64>, String), StatusError> {
    let invalid =
        |why: &str| StatusError::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
    let bare = text.trim_end_matches('=');
    let bytes = URL_SAFE_NO_PAD.decode(bare).or_else(|_| STANDARD_NO_PAD.decode(bare));
    let bytes = bytes.map_err(|error| invalid(&error.to_string()))?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))?;
    if token.v != TOKEN_VERSION {
        return Err(invalid("server does not recognize this encoded version"));
    }
    match u64::try_from(token.rv) {
        Ok(0) => Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")),
        Ok(revision) => Ok((Some(revision), token.start)),
        Err(_) => Ok((None, token.start)),
    }
}

/// The state of a token is gone; the answer carries a token for the rest as it is now.
fn too_old_token(start: &str) -> StatusError {
    let mut error = StatusError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
         the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
         Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
         deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let token = encode_token(-1, start.to_owned());
    error.0.metadata = ListMeta { continue_: Some(token), ..ListMeta::default() };
    error
}

/// Waits until the caches have reached a revision that a client has seen somewhere, for a bounded time.
pub async fn reach(registry: &Registry, revision: u64) -> Result<(), StatusError> {
    if registry.cache.applied() >= revision {
        return Ok(());
    }
    tokio::select! {
        biased;
        () = registry.cache.reach(revision) => Ok(()),
        () = registry.clock.sleep(WAIT_FOR_REVISION) => {
            let message = format!("Too large resource version: {revision}, current: {}", registry.cache.applied());
            let cause = StatusCause {
                reason: Some("ResourceVersionTooLarge".to_owned()),
                message: Some("Too large resource version".to_owned()),
                ..StatusCause::default()
            };
            Err(StatusError::timeout(message).with_causes(vec![cause]).with_retry_after(1))
        }
    }
}
