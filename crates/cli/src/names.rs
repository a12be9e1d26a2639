//! What words on the command line mean: `pods`, `po/a`, `deployments.apps b c`, `all`.

use anyhow::bail;
use xebec_api::ResourceType;
use xebec_client::ListOptions;

use crate::manifests::{self, Files};
use crate::session::{Served, Session};

/// One thing that was named: a whole collection, or one object of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub resource: ResourceType,
    pub name: Option<String>,
    /// Where it is not the session's.
    pub namespace: Option<String>,
    /// The file that names it.
    pub origin: Option<String>,
}

impl Target {
    /// A collection.
    pub fn all(resource: ResourceType) -> Self {
        Target { resource, name: None, namespace: None, origin: None }
    }

    pub fn named(self, name: &str) -> Self {
        Target { name: Some(name.to_owned()), ..self }
    }

    pub fn within(self, namespace: &str) -> Self {
        Target { namespace: Some(namespace.to_owned()), ..self }
    }

    /// The path of an object that a target names.
    pub fn path(&self, session: &Session) -> String {
        self.resource.object_path(Some(self.namespace(session)), self.name.as_deref().unwrap_or(""))
    }

    pub fn namespace<'a>(&'a self, session: &'a Session) -> &'a str {
        self.namespace.as_deref().unwrap_or(&session.namespace)
    }

    /// `pod/a`, `deployment.apps/b`: how results name an object.
    pub fn label(resource: &ResourceType, name: &str) -> String {
        let kind = resource.kind.to_lowercase();
        if resource.group.is_empty() { format!("{kind}/{name}") } else { format!("{kind}.{}/{name}", resource.group) }
    }
}

/// The targets that files or else arguments name, in their order.
pub async fn of_files_or_words(session: &Session, files: &Files, words: &[String]) -> anyhow::Result<Vec<Target>> {
    if files.files.is_empty() {
        return targets(session, words).await;
    }
    let mut targets = Vec::new();
    for manifest in manifests::read(files)? {
        targets.push(Target {
            resource: session.resource_of(&manifest.object, &manifest.origin).await?,
            name: Some(manifest.name().to_owned()),
            namespace: Some(manifest.namespace(session)?.to_owned()),
            origin: Some(manifest.origin.clone()),
        });
    }
    Ok(targets)
}

/// Which objects of a collection are meant.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub labels: Option<String>,
    pub fields: Option<String>,
    pub all_namespaces: bool,
}

/// The objects that a target means: itself, or those of its collection.
pub async fn objects(session: &Session, target: &Target, selection: &Selection) -> anyhow::Result<Vec<Target>> {
    if target.name.is_some() {
        if selection.all_namespaces && target.namespace.is_none() {
            bail!("a resource cannot be retrieved by name across all namespaces");
        }
        return Ok(vec![target.clone()]);
    }
    let options = ListOptions {
        label_selector: selection.labels.clone(),
        field_selector: selection.fields.clone(),
        ..ListOptions::default()
    };
    let namespace = (!selection.all_namespaces).then_some(session.namespace.as_str());
    let list = session.client.transport().list(&target.resource, namespace, &options).await?;
    let all = || Target::all(target.resource.clone());
    Ok(list.items.iter().map(|item| all().named(item.name()).within(item.namespace())).collect())
}

/// The targets that the arguments name, in their order.
pub async fn targets(session: &Session, words: &[String]) -> anyhow::Result<Vec<Target>> {
    let Some(first) = words.first() else { bail!("the type of resource is missing, for example 'pods'") };
    let served = session.served().await?;
    if first.contains('/') {
        return words.iter().map(|word| typed_name(served, word)).collect();
    }
    if words.len() > 1 && words.iter().any(|word| word.contains('/')) {
        bail!("a type and a TYPE/NAME cannot stand together: write either 'TYPE NAME' or 'TYPE/NAME'");
    }
    let mut targets = Vec::new();
    for kind in first.split(',') {
        for resource in resolve(served, kind)? {
            if words.len() == 1 {
                targets.push(Target::all(resource));
                continue;
            }
            targets.extend(words[1..].iter().map(|name| Target::all(resource.clone()).named(name)));
        }
    }
    Ok(targets)
}

fn typed_name(served: &[Served], word: &str) -> anyhow::Result<Target> {
    let Some((kind, name)) = word.split_once('/') else {
        bail!("{word:?} names no type: after a TYPE/NAME only further TYPE/NAMEs can follow");
    };
    if kind.is_empty() || name.is_empty() || name.contains('/') {
        bail!("arguments in resource/name form must have a single resource and name");
    }
    let resource = resolve(served, kind)?.remove(0);
    Ok(Target::all(resource).named(name))
}

/// The resources that a word means; several only for a category.
pub fn resolve(served: &[Served], word: &str) -> anyhow::Result<Vec<ResourceType>> {
    let lower = word.to_lowercase();
    let (plain, group) = lower.split_once('.').map_or((lower.as_str(), None), |(plain, group)| (plain, Some(group)));
    let is = |one: &&Served| {
        let names = one.resource.plural == plain || one.singular == plain || one.resource.kind.to_lowercase() == plain;
        let groups = group.is_none_or(|group| {
            group == one.resource.group || group == format!("{}.{}", one.resource.version, one.resource.group)
        });
        groups && (names || one.short_names.iter().any(|short| short == plain))
    };
    if let Some(found) = served.iter().find(is) {
        return Ok(vec![found.resource.clone()]);
    }
    let mut members: Vec<ResourceType> = Vec::new();
    for one in served.iter().filter(|one| one.categories.contains(&lower)) {
        let known =
            members.iter().any(|other| other.group == one.resource.group && other.plural == one.resource.plural);
        if !known {
            members.push(one.resource.clone());
        }
    }
    if members.is_empty() {
        bail!("the server doesn't have a resource type {word:?}");
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served() -> Vec<Served> {
        let row = |group: &'static str, kind: &'static str, plural: &'static str, short: &str, category: &str| Served {
            resource: ResourceType::new(group, "v1", kind, plural, true),
            singular: kind.to_lowercase(),
            short_names: vec![short.to_owned()],
            categories: vec![category.to_owned()],
            verbs: Vec::new(),
        };
        vec![row("", "Pod", "pods", "po", "all"), row("apps", "Deployment", "deployments", "deploy", "all")]
    }

    #[test]
    fn words_are_resolved() {
        let check = |word: &str, expected: &[&str]| {
            let found = resolve(&served(), word).unwrap();
            assert_eq!(found.iter().map(|one| one.plural.as_ref()).collect::<Vec<_>>(), expected, "{word}");
        };
        check("po", &["pods"]);
        check("Pod", &["pods"]);
        check("deployments.apps", &["deployments"]);
        check("deploy.v1.apps", &["deployments"]);
        check("all", &["pods", "deployments"]);
        assert!(resolve(&served(), "nothing").is_err());
    }
}
