//! What a user may do: the attributes of a request and the seam through which every policy is asked.
//!
//! It does not look at objects: a policy on their content is admission.

pub mod node;
pub mod rbac;
pub mod references;
pub mod reviews;
pub mod rules;
pub mod selectors;

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::PolicyRule;
use xebec_api::resource::ResourceType;
use xebec_api::status::StatusError;

use crate::authn::{GROUP_MASTERS, User};

/// One question. Resource fields are empty for non-resource requests, as upstream's are.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    pub user: &'a User,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, …; the lower-case HTTP method for
    /// non-resource requests.
    pub verb: &'a str,
    pub namespace: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub name: &'a str,
    pub is_resource: bool,
    /// The URL path, for non-resource rules.
    pub path: &'a str,
    /// The field selector of a list, watch or collection deletion, as the query has it.
    pub field_selector: &'a str,
    /// The label selector of such a request. No policy here looks at it: labels are what their owner says they are.
    pub label_selector: &'a str,
}

impl<'a> Attributes<'a> {
    /// Attributes in which nothing but the user is set.
    pub fn new(user: &'a User) -> Self {
        Attributes {
            user,
            verb: "",
            namespace: "",
            group: "",
            version: "",
            resource: "",
            subresource: "",
            name: "",
            is_resource: false,
            path: "",
            field_selector: "",
            label_selector: "",
        }
    }

    /// The refusal of this request, in upstream's words. The reason is that of the policies, or empty.
    pub fn refusal(&self, reason: &str) -> StatusError {
        let mut why = self.describe().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        if !reason.is_empty() {
            why = format!("{why}: {reason}");
        }
        if self.resource.is_empty() {
            let subject =
                if self.name.is_empty() { "forbidden".to_owned() } else { format!("forbidden: {:?}", self.name) };
            let mut error = StatusError::new(403, "Forbidden", format!("{subject}: {why}"));
            error.0.details = Some(Default::default());
            return error;
        }
        let resource = ResourceType {
            group: self.group.to_owned().into(),
            version: self.version.to_owned().into(),
            kind: "".into(),
            plural: self.resource.to_owned().into(),
            namespaced: !self.namespace.is_empty(),
        };
        StatusError::forbidden(&resource, self.name, why)
    }

    fn describe(&self) -> String {
        let (user, verb) = (&self.user.name, self.verb);
        if !self.is_resource {
            return format!("User {user:?} cannot {verb} path {:?}", self.path);
        }
        let slash = if self.subresource.is_empty() { "" } else { "/" };
        let resource = format!("{}{slash}{}", self.resource, self.subresource);
        let what = format!("User {user:?} cannot {verb} resource {resource:?} in API group {:?}", self.group);
        if self.namespace.is_empty() {
            format!("{what} at the cluster scope")
        } else {
            format!("{what} in the namespace {:?}", self.namespace)
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// Ends the chain of policies.
    Deny,
    /// Another policy may allow; if none does, the request is refused.
    NoOpinion,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub decision: Decision,
    pub reason: String,
}

impl Verdict {
    pub fn allow(reason: impl Into<String>) -> Self {
        Verdict { decision: Decision::Allow, reason: reason.into() }
    }

    pub fn deny(reason: impl Into<String>) -> Self {
        Verdict { decision: Decision::Deny, reason: reason.into() }
    }

    pub fn no_opinion() -> Self {
        Verdict { decision: Decision::NoOpinion, reason: String::new() }
    }
}

/// What is known of all that a user may do in a namespace.
#[derive(Clone, Debug, Default)]
pub struct UserRules {
    pub rules: Vec<PolicyRule>,
    /// The user may do more than the rules say.
    pub incomplete: bool,
    pub errors: Vec<String>,
}

#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict;

    /// For reviews of a user's rules. A policy that cannot list its rules says so.
    fn rules(&self, _user: &User, _namespace: &str) -> UserRules {
        UserRules::default()
    }
}

/// Lets the privileged group pass and has no opinion on others.
pub struct Masters;

#[async_trait]
impl Authorizer for Masters {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        if attributes.user.is_in(GROUP_MASTERS) { Verdict::allow("") } else { Verdict::no_opinion() }
    }
}

/// Asks policies in turn; the first that allows or denies decides.
pub struct Union(pub Vec<std::sync::Arc<dyn Authorizer>>);

#[async_trait]
impl Authorizer for Union {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        let mut reasons = Vec::new();
        for one in &self.0 {
            let verdict = one.authorize(attributes).await;
            if verdict.decision != Decision::NoOpinion {
                return verdict;
            }
            if !verdict.reason.is_empty() {
                reasons.push(verdict.reason);
            }
        }
        Verdict { decision: Decision::NoOpinion, reason: reasons.join("\n") }
    }

    fn rules(&self, user: &User, namespace: &str) -> UserRules {
        let mut all = UserRules::default();
        for one in &self.0 {
            let UserRules { rules, incomplete, errors } = one.rules(user, namespace);
            all.rules.extend(rules);
            all.incomplete |= incomplete;
            all.errors.extend(errors);
        }
        all
    }
}
