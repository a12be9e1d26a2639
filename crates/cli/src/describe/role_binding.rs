//! RoleBindings and ClusterRoleBindings.

use super::page::Page;
use super::{Subject, role};
use crate::session::text;

pub async fn describe(subject: &Subject<'_>, page: &mut Page) -> anyhow::Result<()> {
    let binding = subject.session.get(&subject.path()).await?;
    page.field(0, "Name", subject.name);
    role::maps(&binding, page);
    page.line(0, "Role:");
    page.field(1, "Kind", text(&binding["roleRef"], "kind"));
    page.field(1, "Name", text(&binding["roleRef"], "name"));
    page.line(0, "Subjects:");
    page.heading(1, &["Kind", "Name", "Namespace"]);
    for one in binding["subjects"].as_array().into_iter().flatten() {
        page.line(1, format_args!("{}\t{}\t{}", text(one, "kind"), text(one, "name"), text(one, "namespace")));
    }
    Ok(())
}
