//! The FlowSchemas and levels that every cluster begins with. Facts: upstream's bootstrap configuration. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::flowcontrol::v1::{
    ExemptPriorityLevelConfiguration, FlowDistinguisherMethod, FlowSchema, FlowSchemaSpec, GroupSubject, LimitResponse,
    LimitedPriorityLevelConfiguration, NonResourcePolicyRule, PolicyRulesWithSubjects, PriorityLevelConfiguration,
    PriorityLevelConfigurationReference, PriorityLevelConfigurationSpec, QueuingConfiguration, ResourcePolicyRule,
    ServiceAccountSubject, Subject, UserSubject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Whether the server keeps the specification as it is here.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
pub const EXEMPT: &str = "exempt";
pub const CATCH_ALL: &str = "catch-all";

const ANYONE: &[Who] = &[Who::Group("system:unauthenticated"), Who::Group("system:authenticated")];
const CONTROLLERS: Who = Who::User("system:kube-controller-manager");
const SCHEDULER: Who = Who::User("system:kube-scheduler");

enum Who {
    Group(&'static str),
    User(&'static str),
    /// All of `kube-system`.
    SystemAccounts,
}

/// What a schema is about.
enum What {
    Everything,
    Resources(&'static [Resources]),
    Probes,
}

struct Resources {
    verbs: &'static [&'static str],
    group: &'static str,
    resources: &'static [&'static str],
    cluster: bool,
}

struct Schema {
    name: &'static str,
    level: &'static str,
    precedence: i32,
    distinguished_by: Option<&'static str>,
    who: &'static [Who],
    what: What,
}

const BY_USER: Option<&str> = Some("ByUser");
const BY_NAMESPACE: Option<&str> = Some("ByNamespace");
const LEASES: &[&str] = &["leases"];
const COORDINATION: &str = "coordination.k8s.io";

/// In the order of precedence; the first and the last must be as they are.
#[rustfmt::skip]
const SCHEMAS: &[Schema] = &[
    Schema { name: EXEMPT, level: EXEMPT, precedence: 1, distinguished_by: None, who: &[Who::Group("system:masters")], what: What::Everything },
    Schema { name: "probes", level: EXEMPT, precedence: 2, distinguished_by: None, who: ANYONE, what: What::Probes },
    Schema {
        name: "system-leader-election", level: "leader-election", precedence: 100, distinguished_by: BY_USER,
        who: &[CONTROLLERS, SCHEDULER, Who::SystemAccounts],
        what: What::Resources(&[Resources { verbs: &["get", "create", "update"], group: COORDINATION, resources: LEASES, cluster: false }]),
    },
    Schema {
        name: "system-node-high", level: "node-high", precedence: 400, distinguished_by: BY_USER, who: &[Who::Group("system:nodes")],
        what: What::Resources(&[
            Resources { verbs: &["*"], group: "", resources: &["nodes", "nodes/status"], cluster: true },
            Resources { verbs: &["*"], group: COORDINATION, resources: LEASES, cluster: false },
        ]),
    },
    Schema { name: "system-nodes", level: "system", precedence: 500, distinguished_by: BY_USER, who: &[Who::Group("system:nodes")], what: What::Everything },
    Schema { name: "kube-controller-manager", level: "workload-high", precedence: 800, distinguished_by: BY_NAMESPACE, who: &[CONTROLLERS], what: What::Everything },
    Schema { name: "kube-scheduler", level: "workload-high", precedence: 800, distinguished_by: BY_NAMESPACE, who: &[SCHEDULER], what: What::Everything },
    Schema { name: "kube-system-service-accounts", level: "workload-high", precedence: 900, distinguished_by: BY_NAMESPACE, who: &[Who::SystemAccounts], what: What::Everything },
    Schema { name: "service-accounts", level: "workload-low", precedence: 9000, distinguished_by: BY_USER, who: &[Who::Group("system:serviceaccounts")], what: What::Everything },
    Schema { name: "global-default", level: "global-default", precedence: 9900, distinguished_by: BY_USER, who: ANYONE, what: What::Everything },
    Schema { name: CATCH_ALL, level: CATCH_ALL, precedence: 10_000, distinguished_by: BY_USER, who: ANYONE, what: What::Everything },
];

/// Name, shares, how much of them others may borrow in hundredths, queues and hand size.
const LEVELS: &[(&str, i32, i32, i32, i32)] = &[
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
];
const QUEUE_LENGTH: i32 = 50;
const CATCH_ALL_SHARES: i32 = 5;

pub fn schemas() -> Vec<FlowSchema> {
    SCHEMAS.iter().map(schema).collect()
}

pub fn levels() -> Vec<PriorityLevelConfiguration> {
    let exempt = PriorityLevelConfigurationSpec {
        exempt: Some(ExemptPriorityLevelConfiguration {
            lendable_percent: Some(0),
            nominal_concurrency_shares: Some(0),
        }),
        limited: None,
        type_: "Exempt".to_owned(),
    };
    let reject = LimitResponse { queuing: None, type_: "Reject".to_owned() };
    let mut all = vec![level(EXEMPT, exempt), level(CATCH_ALL, limited(CATCH_ALL_SHARES, 0, reject))];
    for (name, shares, lendable, queues, hand_size) in LEVELS {
        let queuing = QueuingConfiguration {
            hand_size: Some(*hand_size),
            queue_length_limit: Some(QUEUE_LENGTH),
            queues: Some(*queues),
        };
        let queue = LimitResponse { queuing: Some(queuing), type_: "Queue".to_owned() };
        all.push(level(name, limited(*shares, *lendable, queue)));
    }
    all
}

/// Those that nobody may change.
pub fn is_mandatory(name: &str) -> bool {
    matches!(name, EXEMPT | CATCH_ALL)
}

fn limited(shares: i32, lendable: i32, response: LimitResponse) -> PriorityLevelConfigurationSpec {
    let limited = LimitedPriorityLevelConfiguration {
        borrowing_limit_percent: None,
        lendable_percent: Some(lendable),
        limit_response: response,
        nominal_concurrency_shares: Some(shares),
    };
    PriorityLevelConfigurationSpec { exempt: None, limited: Some(limited), type_: "Limited".to_owned() }
}

fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        annotations: Some(BTreeMap::from([(AUTO_UPDATE.to_owned(), "true".to_owned())])),
        ..ObjectMeta::default()
    }
}

fn level(name: &str, spec: PriorityLevelConfigurationSpec) -> PriorityLevelConfiguration {
    PriorityLevelConfiguration { metadata: metadata(name), spec, status: None }
}

fn schema(one: &Schema) -> FlowSchema {
    let rules = PolicyRulesWithSubjects {
        subjects: one.who.iter().map(subject).collect(),
        resource_rules: match one.what {
            What::Everything => {
                Some(vec![rule(&Resources { verbs: &["*"], group: "*", resources: &["*"], cluster: true })])
            }
            What::Resources(rules) => Some(rules.iter().map(rule).collect()),
            What::Probes => None,
        },
        non_resource_rules: match one.what {
            What::Everything => Some(vec![paths(&["*"], &["*"])]),
            What::Resources(_) => None,
            What::Probes => Some(vec![paths(&["get"], &["/healthz", "/readyz", "/livez"])]),
        },
    };
    let spec = FlowSchemaSpec {
        distinguisher_method: one.distinguished_by.map(|by| FlowDistinguisherMethod { type_: by.to_owned() }),
        matching_precedence: Some(one.precedence),
        priority_level_configuration: PriorityLevelConfigurationReference { name: one.level.to_owned() },
        rules: Some(vec![rules]),
    };
    FlowSchema { metadata: metadata(one.name), spec, status: None }
}

fn subject(who: &Who) -> Subject {
    let kind = |kind: &str| Subject { kind: kind.to_owned(), ..Subject::default() };
    match who {
        Who::Group(name) => Subject { group: Some(GroupSubject { name: (*name).to_owned() }), ..kind("Group") },
        Who::User(name) => Subject { user: Some(UserSubject { name: (*name).to_owned() }), ..kind("User") },
        Who::SystemAccounts => {
            let account = ServiceAccountSubject { name: "*".to_owned(), namespace: "kube-system".to_owned() };
            Subject { service_account: Some(account), ..kind("ServiceAccount") }
        }
    }
}

fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(|one| (*one).to_owned()).collect()
}

fn rule(one: &Resources) -> ResourcePolicyRule {
    ResourcePolicyRule {
        api_groups: texts(&[one.group]),
        cluster_scope: one.cluster.then_some(true),
        namespaces: Some(texts(&["*"])),
        resources: texts(one.resources),
        verbs: texts(one.verbs),
    }
}

fn paths(verbs: &[&str], urls: &[&str]) -> NonResourcePolicyRule {
    NonResourcePolicyRule { non_resource_urls: texts(urls), verbs: texts(verbs) }
}
