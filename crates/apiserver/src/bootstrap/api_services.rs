//! The APIServices of the groups that the server itself answers for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec};
use xebec_api::schema;

use crate::registry::Registry;

/// The priorities of groups, as upstream's autoregistration has them.
const GROUPS: &[(&str, i32)] = &[
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("resource.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("storagemigration.k8s.io", 15_800),
];

/// Those of all versions that are served, but for the group that APIServices themselves are of.
pub fn wanted(registry: &Registry) -> Vec<APIService> {
    let versions = schema::table().group_versions();
    let served = |group: &str, version: &str| {
        // What only answers reviews has no row.
        matches!(group, "authentication.k8s.io" | "authorization.k8s.io")
            || registry.index.has_group_version(group, version)
    };
    let known = |group: &str| GROUPS.iter().find(|(name, _)| *name == group).map(|(_, priority)| *priority);
    let served = versions.iter().filter(|(group, version)| served(group, version));
    served.filter_map(|(group, version)| Some(service(group, version, known(group)?))).collect()
}

/// That the server sees to the object, once, when it starts.
const MANAGED: (&str, &str) = ("kube-aggregator.kubernetes.io/automanaged", "onstart");

fn service(group: &str, version: &str, priority: i32) -> APIService {
    APIService {
        metadata: ObjectMeta {
            name: Some(format!("{version}.{group}")),
            labels: Some([(MANAGED.0.to_owned(), MANAGED.1.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(APIServiceSpec {
            group: Some(group).filter(|group| !group.is_empty()).map(str::to_owned),
            group_priority_minimum: priority,
            version: Some(version.to_owned()),
            version_priority: version_priority(group, version),
            ..APIServiceSpec::default()
        }),
        status: None,
    }
}

/// All stable versions have the same, but where there were many before or two at once.
fn version_priority(group: &str, version: &str) -> i32 {
    match (group, version) {
        ("", _) => 1,
        ("autoscaling", "v2") => 30,
        ("flowcontrol.apiserver.k8s.io" | "resource.k8s.io", _) => 21,
        _ => 15,
    }
}

/// What the server answers for stays as it is said here.
pub fn merge(stored: &APIService, wanted: &APIService) -> Option<APIService> {
    let same = |stored: &APIServiceSpec, wanted: &APIServiceSpec| {
        stored.service.is_none()
            && stored.group_priority_minimum == wanted.group_priority_minimum
            && stored.version_priority == wanted.version_priority
    };
    let kept = matches!((&stored.spec, &wanted.spec), (Some(stored), Some(wanted)) if same(stored, wanted));
    (!kept).then(|| APIService { spec: wanted.spec.clone(), ..stored.clone() })
}
