//! ServiceAccounts.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::page::Page;
use super::{Subject, events};

pub async fn describe(subject: &Subject<'_>, page: &mut Page) -> anyhow::Result<()> {
    let account: ServiceAccount = subject.get().await?;
    page.meta(&account.metadata);
    let secrets = account.image_pull_secrets.as_deref().unwrap_or_default();
    if secrets.is_empty() {
        page.field(0, "Image pull secrets", "<none>");
    }
    for (at, secret) in secrets.iter().enumerate() {
        let title = if at == 0 { "Image pull secrets:" } else { "                   " };
        page.line(0, format_args!("{title}\t{}", secret.name));
    }
    events::describe(subject, &account.metadata, page).await;
    Ok(())
}
