//! ConfigMaps.

use k8s_openapi::api::core::v1::ConfigMap;

use super::page::Page;
use super::{Subject, events};

pub async fn describe(subject: &Subject<'_>, page: &mut Page) -> anyhow::Result<()> {
    let map: ConfigMap = subject.get().await?;
    page.meta(&map.metadata);
    page.line(0, "\nData\n====");
    for (key, value) in map.data.iter().flatten() {
        page.line(0, format_args!("{key}:\n----\n{value}\n"));
    }
    page.line(0, "\nBinaryData\n====");
    for (key, value) in map.binary_data.iter().flatten() {
        page.line(0, format_args!("{key}: {} bytes", value.0.len()));
    }
    page.line(0, "");
    events::describe(subject, &map.metadata, page).await;
    Ok(())
}
