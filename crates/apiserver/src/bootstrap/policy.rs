//! The default roles and bindings, read from `policy.txt` beside this file. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

const POLICY: &str = include_str!("policy.txt");

const GROUP: &str = "rbac.authorization.k8s.io";
const AGGREGATE_TO: &str = "rbac.authorization.k8s.io/aggregate-to-";
/// With another value than `true`, the server leaves the object as its owner made it.
pub const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// All default objects. The rules of aggregated roles are still empty.
#[derive(Default)]
pub struct Policy {
    pub cluster_roles: Vec<ClusterRole>,
    pub cluster_role_bindings: Vec<ClusterRoleBinding>,
    pub roles: Vec<Role>,
    pub role_bindings: Vec<RoleBinding>,
}

/// One block of the file.
struct Block {
    /// Empty for ClusterRoles.
    namespace: String,
    name: String,
    gathers: Option<String>,
    labels: Vec<String>,
    bound_as: Option<String>,
    /// `None` if there is no binding.
    subjects: Option<Vec<Subject>>,
    rules: Vec<PolicyRule>,
}

impl Policy {
    pub fn default_policy() -> Policy {
        let mut policy = Policy::default();
        for block in blocks(POLICY) {
            policy.add(block);
        }
        policy
    }

    fn add(&mut self, block: Block) {
        let cluster = block.namespace.is_empty();
        let kind = if cluster { "ClusterRole" } else { "Role" };
        let role_ref = RoleRef { api_group: Some(GROUP.to_owned()), kind: kind.to_owned(), name: block.name.clone() };
        let mut metadata = metadata(&block.namespace, &block.name);
        let binding_name = block.bound_as.unwrap_or_else(|| block.name.clone());
        let binding_metadata = self::metadata(&block.namespace, &binding_name);
        let labels = metadata.labels.get_or_insert_default();
        labels.extend(block.labels.into_iter().map(|label| (label, "true".to_owned())));
        if !cluster {
            self.roles.push(Role { metadata, rules: Some(block.rules) });
            let binding = |subjects| RoleBinding { metadata: binding_metadata, role_ref, subjects: Some(subjects) };
            self.role_bindings.extend(block.subjects.map(binding));
            return;
        }
        let rule = |label: String| {
            let labels = BTreeMap::from([(label, "true".to_owned())]);
            let selector = LabelSelector { match_labels: Some(labels), ..LabelSelector::default() };
            AggregationRule { cluster_role_selectors: Some(vec![selector]) }
        };
        let rules = block.gathers.is_none().then_some(block.rules);
        let aggregation_rule = block.gathers.map(rule);
        self.cluster_roles.push(ClusterRole { aggregation_rule, metadata, rules });
        let some = |subjects: Vec<Subject>| (!subjects.is_empty()).then_some(subjects);
        let binding = |subjects| ClusterRoleBinding { metadata: binding_metadata, role_ref, subjects: some(subjects) };
        self.cluster_role_bindings.extend(block.subjects.map(binding));
    }
}

/// One default ClusterRole.
pub fn cluster_role(name: &str) -> Option<ClusterRole> {
    Policy::default_policy().cluster_roles.into_iter().find(|role| role.metadata.name.as_deref() == Some(name))
}

fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    let one = |key: &str, value: &str| Some(BTreeMap::from([(key.to_owned(), value.to_owned())]));
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
        labels: one("kubernetes.io/bootstrapping", "rbac-defaults"),
        annotations: one(AUTO_UPDATE, "true"),
        ..ObjectMeta::default()
    }
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if line.starts_with(' ') {
            blocks.last_mut().expect("a block begins with its role").add(&words);
        } else {
            blocks.push(Block::begin(&words));
        }
    }
    blocks
}

impl Block {
    fn begin(words: &[&str]) -> Block {
        let (namespace, name) = words[1].split_once('/').filter(|_| words[0] == "role").unwrap_or(("", words[1]));
        let label = |sign: &str| {
            let pairs = words[2..].chunks(2).filter(move |pair| pair[0] == sign);
            pairs.map(|pair| format!("{AGGREGATE_TO}{}", pair[1])).collect::<Vec<_>>()
        };
        Block {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            gathers: label("=").pop(),
            labels: label("+"),
            bound_as: None,
            subjects: None,
            rules: Vec::new(),
        }
    }

    fn add(&mut self, words: &[&str]) {
        match words {
            ["as", name] => self.bound_as = Some((*name).to_owned()),
            ["for", "nobody"] => self.subjects = Some(Vec::new()),
            ["for", kind, name] => self.subjects.get_or_insert_default().push(subject(kind, name)),
            [verbs, paths] => {
                let rule =
                    PolicyRule { verbs: list(verbs), non_resource_urls: Some(list(paths)), ..Default::default() };
                self.rules.push(rule);
            }
            [verbs, groups, resources, names @ ..] => self.rules.push(PolicyRule {
                verbs: list(verbs),
                api_groups: Some(
                    list(groups).into_iter().map(|group| if group == "core" { String::new() } else { group }).collect(),
                ),
                resources: Some(list(resources)),
                resource_names: names.first().map(|names| list(names)),
                non_resource_urls: None,
            }),
            _ => unreachable!("a line of the policy has at least two words: {words:?}"),
        }
    }
}

fn subject(kind: &str, name: &str) -> Subject {
    let (namespace, name) = name.split_once('/').map_or((None, name), |(namespace, name)| (Some(namespace), name));
    Subject {
        api_group: (kind != "ServiceAccount").then(|| GROUP.to_owned()),
        kind: kind.to_owned(),
        name: name.to_owned(),
        namespace: namespace.map(str::to_owned),
    }
}

fn list(word: &str) -> Vec<String> {
    word.split(',').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_reads_as_the_objects_of_upstream() {
        let policy = Policy::default_policy();
        let count = [
            policy.cluster_roles.len(),
            policy.cluster_role_bindings.len(),
            policy.roles.len(),
            policy.role_bindings.len(),
        ];
        assert_eq!(count, [73, 54, 7, 7]);
        let role = |name: &str| serde_json::to_value(cluster_role(name).unwrap()).unwrap();
        let edit = role("edit");
        assert_eq!(edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-admin"], "true");
        let selector = &edit["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"];
        assert_eq!(selector["rbac.authorization.k8s.io/aggregate-to-edit"], "true");
        let viewer = role("system:public-info-viewer");
        assert_eq!(viewer["rules"][0]["nonResourceURLs"][0], "/healthz");
        let reader =
            policy.role_bindings.iter().find(|one| one.role_ref.name == "extension-apiserver-authentication-reader");
        assert_eq!(reader.unwrap().metadata.name.as_deref(), Some("system::extension-apiserver-authentication-reader"));
        let node = policy.cluster_role_bindings.iter().find(|one| one.role_ref.name == "system:node").unwrap();
        assert_eq!(node.subjects, None);
    }
}
