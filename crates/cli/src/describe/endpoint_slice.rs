//! EndpointSlices.

use std::fmt::Display;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use super::page::{Page, or_none};
use super::{Subject, events};

pub async fn describe(subject: &Subject<'_>, page: &mut Page) -> anyhow::Result<()> {
    let slice: EndpointSlice = subject.get().await?;
    page.meta(&slice.metadata);
    page.field(0, "AddressType", &slice.address_type);
    describe_ports(slice.ports.as_deref().unwrap_or_default(), page);
    let endpoints = slice.endpoints.as_deref().unwrap_or_default();
    page.line(0, if endpoints.is_empty() { "Endpoints: <none>" } else { "Endpoints:" });
    endpoints.iter().for_each(|endpoint| describe_endpoint(endpoint, page));
    events::describe(subject, &slice.metadata, page).await;
    Ok(())
}

fn describe_ports(ports: &[EndpointPort], page: &mut Page) {
    if ports.is_empty() {
        return page.line(0, "Ports: <unset>");
    }
    page.line(0, "Ports:");
    page.heading(1, &["Name", "Port", "Protocol"]);
    for port in ports {
        let name = port.name.as_deref().filter(|name| !name.is_empty());
        let protocol = port.protocol.as_deref().unwrap_or("");
        page.line(1, format_args!("{}\t{}\t{protocol}", or_unset(name), or_unset(port.port)));
    }
}

fn describe_endpoint(endpoint: &Endpoint, page: &mut Page) {
    page.field(1, "- Addresses", or_none(endpoint.addresses.join(", ")));
    page.line(2, "Conditions:");
    page.field(3, "Ready", or_unset(endpoint.conditions.as_ref().and_then(|conditions| conditions.ready)));
    page.field(2, "Hostname", or_unset(endpoint.hostname.as_deref()));
    if let Some(target) = &endpoint.target_ref {
        let (kind, name) = (target.kind.as_deref().unwrap_or(""), target.name.as_deref().unwrap_or(""));
        page.field(2, "TargetRef", format_args!("{kind}/{name}"));
    }
    page.field(2, "NodeName", or_unset(endpoint.node_name.as_deref()));
    page.field(2, "Zone", or_unset(endpoint.zone.as_deref()));
}

fn or_unset(value: Option<impl Display>) -> String {
    value.map_or_else(|| "<unset>".to_owned(), |value| value.to_string())
}
