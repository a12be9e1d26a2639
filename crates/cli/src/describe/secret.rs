//! Secrets: how much they hold, not what.

use k8s_openapi::api::core::v1::Secret;

use super::Subject;
use super::page::Page;

pub async fn describe(subject: &Subject<'_>, page: &mut Page) -> anyhow::Result<()> {
    let secret: Secret = subject.get().await?;
    page.meta(&secret.metadata);
    let kind = secret.type_.as_deref().unwrap_or("");
    page.line(0, "");
    page.field(0, "Type", kind);
    page.line(0, "\nData\n====");
    for (key, value) in secret.data.iter().flatten() {
        // A token is made to be taken from here; kubectl shows it too.
        if key == "token" && kind == "kubernetes.io/service-account-token" {
            page.field(0, key, String::from_utf8_lossy(&value.0));
        } else {
            page.field(0, key, format_args!("{} bytes", value.0.len()));
        }
    }
    Ok(())
}
