//! Roles and ClusterRoles: what they allow, by resource.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::Value;

use super::Subject;
use super::page::{Labels, Page};

pub async fn describe(subject: &Subject<'_>, page: &mut Page) -> anyhow::Result<()> {
    let role = subject.session.get(&subject.path()).await?;
    let rules: Vec<PolicyRule> = match &role["rules"] {
        Value::Null => Vec::new(),
        rules => serde_json::from_value(rules.clone())?,
    };
    page.field(0, "Name", subject.name);
    maps(&role, page);
    page.line(0, "PolicyRule:");
    page.heading(1, &["Resources", "Non-Resource URLs", "Resource Names", "Verbs"]);
    for line in lines(&rules) {
        page.line(1, line);
    }
    Ok(())
}

/// Labels and annotations of an object without a type.
pub fn maps(object: &Value, page: &mut Page) {
    let map = |member: &str| serde_json::from_value::<Labels>(object["metadata"][member].clone()).ok();
    page.labels("Labels", map("labels").as_ref());
    page.annotations("Annotations", map("annotations").as_ref());
}

/// What one line is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Resource { group: String, resource: String, name: Option<String> },
    Url { url: String, verb: String },
}

/// Rules taken apart and put together again by resource, in the order of upstream, which sorts by the verbs first.
fn lines(rules: &[PolicyRule]) -> Vec<String> {
    let mut verbs: BTreeMap<About, Vec<String>> = BTreeMap::new();
    let mut allow = |about: About, verb: &String| {
        let verbs = verbs.entry(about).or_default();
        if !verbs.contains(verb) {
            verbs.push(verb.clone());
        }
    };
    for rule in rules {
        let names = rule.resource_names.as_deref().unwrap_or_default();
        let names: Vec<Option<String>> =
            if names.is_empty() { vec![None] } else { names.iter().cloned().map(Some).collect() };
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for (verb, name) in rule.verbs.iter().flat_map(|verb| names.iter().map(move |name| (verb, name))) {
                    let (group, resource, name) = (group.clone(), resource.clone(), name.clone());
                    allow(About::Resource { group, resource, name }, verb);
                }
            }
        }
        for url in rule.non_resource_urls.iter().flatten() {
            rule.verbs.iter().for_each(|verb| allow(About::Url { url: url.clone(), verb: verb.clone() }, verb));
        }
    }
    let mut sorted: Vec<(String, About, String)> =
        verbs.into_iter().map(|(about, verbs)| (sort_key(&about, &verbs), about, verbs.join(" "))).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    sorted.into_iter().map(|(_, about, verbs)| line(&about, &verbs)).collect()
}

/// As upstream's type writes itself.
fn sort_key(about: &About, verbs: &[String]) -> String {
    let (group, resource, name, url) = match about {
        About::Resource { group, resource, name } => {
            (group.as_str(), resource.as_str(), name.as_deref().unwrap_or(""), "")
        }
        About::Url { url, .. } => ("", "", "", url.as_str()),
    };
    format!(
        "Verbs:[{}],APIGroups:[{group}],Resources:[{resource}],ResourceNames:[{name}],NonResourceURLs:[{url}],",
        verbs.join(" ")
    )
}

fn line(about: &About, verbs: &str) -> String {
    match about {
        About::Url { url, .. } => format!("\t[{url}]\t[]\t[{verbs}]"),
        About::Resource { group, resource, name } => {
            let (plain, sub) = resource
                .split_once('/')
                .map_or((resource.as_str(), String::new()), |(plain, sub)| (plain, format!("/{sub}")));
            let group = if group.is_empty() { String::new() } else { format!(".{group}") };
            format!("{plain}{group}{sub}\t[]\t[{}]\t[{verbs}]", name.as_deref().unwrap_or(""))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn rules_by_resource() {
        let rules = serde_json::from_value(json!([
            {"apiGroups": ["", "apps"], "resources": ["pods/log"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["list", "get"]},
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["*"]},
            {"nonResourceURLs": ["/healthz"], "verbs": ["get"]}]));
        let rules: Vec<k8s_openapi::api::rbac::v1::PolicyRule> = rules.unwrap();
        assert_eq!(
            super::lines(&rules),
            [
                "secrets\t[]\t[a]\t[*]",
                "pods/log\t[]\t[]\t[get list]",
                "\t[/healthz]\t[]\t[get]",
                "pods.apps/log\t[]\t[]\t[get]"
            ]
        );
    }
}
