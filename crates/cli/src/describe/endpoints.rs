//! Endpoints.

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints};

use super::page::{Page, or_none};
use super::{Subject, events};

pub async fn describe(subject: &Subject<'_>, page: &mut Page) -> anyhow::Result<()> {
    let endpoints: Endpoints = subject.get().await?;
    page.meta(&endpoints.metadata);
    page.line(0, "Subsets:");
    for subset in endpoints.subsets.iter().flatten() {
        page.field(1, "Addresses", joined(subset.addresses.as_deref()));
        page.field(1, "NotReadyAddresses", joined(subset.not_ready_addresses.as_deref()));
        let ports = subset.ports.as_deref().unwrap_or_default();
        if !ports.is_empty() {
            page.line(1, "Ports:");
            page.heading(2, &["Name", "Port", "Protocol"]);
        }
        for port in ports {
            let name = port.name.as_deref().filter(|name| !name.is_empty()).unwrap_or("<unset>");
            page.line(2, format_args!("{name}\t{}\t{}", port.port, port.protocol.as_deref().unwrap_or("")));
        }
        page.line(0, "");
    }
    events::describe(subject, &endpoints.metadata, page).await;
    Ok(())
}

fn joined(addresses: Option<&[EndpointAddress]>) -> String {
    let addresses: Vec<&str> = addresses.unwrap_or_default().iter().map(|address| address.ip.as_str()).collect();
    or_none(addresses.join(","))
}
