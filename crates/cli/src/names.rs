//! What words on the command line mean: `pods`, `po/a`, `deployments.apps b c`, `all`.

use anyhow::bail;
use xebec_api::ResourceType;

use crate::session::{Served, Session};

/// One thing that was named: a whole collection, or one object of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub resource: ResourceType,
    pub name: Option<String>,
}

impl Target {
    /// `pod/a`, `deployment.apps/b`: how results name an object.
    pub fn label(resource: &ResourceType, name: &str) -> String {
        let kind = resource.kind.to_lowercase();
        if resource.group.is_empty() { format!("{kind}/{name}") } else { format!("{kind}.{}/{name}", resource.group) }
    }
}

/// The targets that the arguments name, in their order.
pub async fn targets(session: &Session, words: &[String]) -> anyhow::Result<Vec<Target>> {
    if words.is_empty() {
        bail!("You must specify the type of resource to get, for example 'pods'");
    }
    let served = session.served().await?;
    if words[0].contains('/') {
        return words.iter().map(|word| typed_name(served, word)).collect();
    }
    let mut targets = Vec::new();
    for kind in words[0].split(',') {
        for resource in resolve(served, kind)? {
            if words.len() == 1 {
                targets.push(Target { resource, name: None });
                continue;
            }
            let named = words[1..].iter().map(|name| Target { resource: resource.clone(), name: Some(name.clone()) });
            targets.extend(named);
        }
    }
    Ok(targets)
}

fn typed_name(served: &[Served], word: &str) -> anyhow::Result<Target> {
    let Some((kind, name)) = word.split_once('/') else {
        bail!("there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'get resource/<resource_name>' instead of 'get resource resource/<resource_name>'");
    };
    let resource = resolve(served, kind)?.remove(0);
    Ok(Target { resource, name: Some(name.to_owned()) })
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
        let known = members.iter().any(|other| other.group == one.resource.group && other.plural == one.resource.plural);
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
