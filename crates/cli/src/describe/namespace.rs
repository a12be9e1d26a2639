//! Namespaces, with what limits them.

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem, Namespace, ResourceQuota};
use xebec_api::Kind;
use xebec_client::{Error, ListOptions};

use super::Subject;
use super::page::{Page, quantity};
use crate::age;

pub async fn describe(subject: &Subject<'_>, page: &mut Page) -> anyhow::Result<()> {
    let namespace: Namespace = subject.get().await?;
    let quotas = within::<ResourceQuota>(subject).await?;
    let limits = within::<LimitRange>(subject).await?;
    let meta = &namespace.metadata;
    page.field(0, "Name", subject.name);
    page.labels("Labels", meta.labels.as_ref());
    page.annotations("Annotations", meta.annotations.as_ref());
    let status = namespace.status.unwrap_or_default();
    page.field(0, "Status", status.phase.as_deref().unwrap_or(""));
    let conditions = status.conditions.unwrap_or_default();
    if !conditions.is_empty() {
        page.line(0, "Conditions:");
        page.heading(1, &["Type", "Status", "LastTransitionTime", "Reason", "Message"]);
    }
    for one in conditions {
        let (reason, message) = (one.reason.unwrap_or_default(), one.message.unwrap_or_default());
        let since = age::date_of(one.last_transition_time.as_ref());
        page.line(1, format_args!("{}\t{}\t{since}\t{reason}\t{message}", one.type_, one.status));
    }
    if let Some(quotas) = quotas {
        page.line(0, "");
        describe_quotas(&quotas, page);
    }
    if let Some(limits) = limits {
        page.line(0, "");
        describe_limits(&limits, page);
    }
    Ok(())
}

/// What of a kind is in the namespace; nothing at all where the server does not know the kind.
async fn within<K: Kind>(subject: &Subject<'_>) -> Result<Option<Vec<std::sync::Arc<K>>>, Error> {
    match subject.session.client.namespaced::<K>(subject.name).list_typed(&ListOptions::default()).await {
        Ok(list) => Ok(Some(list)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn describe_quotas(quotas: &[std::sync::Arc<ResourceQuota>], page: &mut Page) {
    if quotas.is_empty() {
        return page.line(0, "No resource quota.");
    }
    page.line(0, "Resource Quotas");
    for quota in quotas {
        page.field(1, "Name", quota.metadata.name.as_deref().unwrap_or(""));
        let scopes = quota.spec.as_ref().and_then(|spec| spec.scopes.clone()).unwrap_or_default();
        page.optional(1, "Scopes", Some(scopes.join(", ")));
        page.line(1, "Resource\tUsed\tHard");
        page.line(1, "--------\t---\t---");
        let status = quota.status.clone().unwrap_or_default();
        let used = status.used.unwrap_or_default();
        for (name, hard) in status.hard.iter().flatten() {
            let used = used.get(name).map_or_else(|| "0".to_owned(), quantity);
            page.line(1, format_args!("{name}\t{used}\t{}", quantity(hard)));
        }
    }
}

fn describe_limits(ranges: &[std::sync::Arc<LimitRange>], page: &mut Page) {
    if ranges.is_empty() {
        return page.line(0, "No LimitRange resource.");
    }
    page.line(0, "Resource Limits");
    page.line(0, " Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio");
    page.line(0, " ----\t--------\t---\t---\t---------------\t-------------\t-----------------------");
    let items = ranges.iter().filter_map(|range| range.spec.as_ref()).flat_map(|spec| &spec.limits);
    items.for_each(|item| describe_limit(item, page));
}

fn describe_limit(item: &LimitRangeItem, page: &mut Page) {
    let lists = [&item.min, &item.max, &item.default_request, &item.default, &item.max_limit_request_ratio];
    let names: std::collections::BTreeSet<&String> =
        lists.iter().filter_map(|list| list.as_ref()).flat_map(|list| list.keys()).collect();
    for name in names {
        let amount = |list: &&Option<_>| {
            let list: Option<&std::collections::BTreeMap<_, _>> = list.as_ref();
            list.and_then(|list| list.get(name)).map_or_else(|| "-".to_owned(), quantity)
        };
        let amounts: Vec<String> = lists.iter().map(amount).collect();
        page.line(0, format_args!(" {}\t{name}\t{}", item.type_, amounts.join("\t")));
    }
}
