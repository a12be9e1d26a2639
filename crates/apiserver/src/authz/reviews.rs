//! The access and token reviews: questions about what someone may do and who someone is.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{
    SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewStatus, UserInfo,
};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, NonResourceAttributes, NonResourceRule, ResourceAttributes, ResourceRule,
    SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewSpec,
    SubjectAccessReviewStatus, SubjectRulesReviewStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use xebec_api::field::{FieldError, FieldErrors, Path};
use xebec_api::resource::ResourceType;
use xebec_api::status::StatusError;

use super::rules::list;
use super::{Attributes, Authorizer, Decision, UserRules, selectors};
use crate::authn::User;
use crate::handlers::review::{Review, ReviewRequest, ReviewRow};

const AUTHORIZATION: &str = "authorization.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Every review that is served.
pub static REVIEWS: &[ReviewRow] = &[
    row(AUTHENTICATION, "SelfSubjectReview", "selfsubjectreviews", &SelfSubject),
    row(AUTHENTICATION, "TokenReview", "tokenreviews", &Token),
    ReviewRow {
        namespaced: true,
        ..row(AUTHORIZATION, "LocalSubjectAccessReview", "localsubjectaccessreviews", &LocalSubjectAccess)
    },
    row(AUTHORIZATION, "SelfSubjectAccessReview", "selfsubjectaccessreviews", &SelfSubjectAccess),
    row(AUTHORIZATION, "SelfSubjectRulesReview", "selfsubjectrulesreviews", &SelfSubjectRules),
    row(AUTHORIZATION, "SubjectAccessReview", "subjectaccessreviews", &SubjectAccess),
];

const fn row(group: &'static str, kind: &'static str, plural: &'static str, review: &'static dyn Review) -> ReviewRow {
    ReviewRow { group, version: "v1", kind, plural, namespaced: false, review }
}

struct SubjectAccess;

#[async_trait]
impl Review for SubjectAccess {
    async fn review(&self, request: ReviewRequest<'_>, body: Value) -> Result<Value, StatusError> {
        let mut review: SubjectAccessReview = read(body)?;
        let mut errors = check_spec(&review.spec);
        check_empty(&review.metadata, "must be empty", &mut errors);
        refuse(errors)?;
        review.status = Some(ask_spec(&*request.server.authorizer, &review.spec).await);
        write(&review)
    }
}

struct LocalSubjectAccess;

#[async_trait]
impl Review for LocalSubjectAccess {
    async fn review(&self, request: ReviewRequest<'_>, body: Value) -> Result<Value, StatusError> {
        let mut review: LocalSubjectAccessReview = read(body)?;
        let own = review.metadata.namespace.get_or_insert_with(|| request.namespace.to_owned()).clone();
        let mut errors = check_spec(&review.spec);
        let rest = ObjectMeta { namespace: None, ..review.metadata.clone() };
        check_empty(&rest, "must be empty except for namespace", &mut errors);
        let spec = Path::new("spec");
        let asked = review.spec.resource_attributes.as_ref().map(|attributes| text(&attributes.namespace));
        if let Some(asked) = asked.filter(|asked| *asked != own) {
            let path = spec.child("resourceAttributes").child("namespace");
            errors.push(FieldError::invalid(&path, asked, "must match metadata.namespace"));
        }
        if let Some(attributes) = &review.spec.non_resource_attributes {
            let path = spec.child("nonResourceAttributes");
            errors.push(FieldError::invalid(&path, shown(attributes), "disallowed on this kind of request"));
        }
        refuse(errors)?;
        if own != request.namespace {
            return Err(StatusError::bad_request(format!(
                "spec.resourceAttributes.namespace must match namespace: {}",
                request.namespace
            )));
        }
        review.status = Some(ask_spec(&*request.server.authorizer, &review.spec).await);
        write(&review)
    }
}

struct SelfSubjectAccess;

#[async_trait]
impl Review for SelfSubjectAccess {
    async fn review(&self, request: ReviewRequest<'_>, body: Value) -> Result<Value, StatusError> {
        let mut review: SelfSubjectAccessReview = read(body)?;
        let spec = &review.spec;
        let mut errors = FieldErrors::new();
        check_attributes(spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref(), &mut errors);
        check_empty(&review.metadata, "must be empty", &mut errors);
        refuse(errors)?;
        let (resource, path) = (spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
        review.status = Some(ask(&*request.server.authorizer, request.user, resource, path).await);
        write(&review)
    }
}

struct SelfSubjectRules;

#[async_trait]
impl Review for SelfSubjectRules {
    async fn review(&self, request: ReviewRequest<'_>, body: Value) -> Result<Value, StatusError> {
        let review: SelfSubjectRulesReview = read(body)?;
        let namespace = text(&review.spec.namespace);
        if namespace.is_empty() {
            return Err(StatusError::bad_request("no namespace on request"));
        }
        let UserRules { rules, incomplete, errors } = request.server.authorizer.rules(request.user, namespace);
        let mut status = SubjectRulesReviewStatus { incomplete, ..SubjectRulesReviewStatus::default() };
        for rule in rules {
            if !list(&rule.resources).is_empty() {
                status.resource_rules.push(ResourceRule {
                    verbs: rule.verbs.clone(),
                    api_groups: rule.api_groups,
                    resources: rule.resources,
                    resource_names: rule.resource_names,
                });
            }
            if !list(&rule.non_resource_urls).is_empty() {
                let rule = NonResourceRule { verbs: rule.verbs, non_resource_urls: rule.non_resource_urls };
                status.non_resource_rules.push(rule);
            }
        }
        status.evaluation_error = match &errors[..] {
            [] => None,
            [one] => Some(one.clone()),
            several => Some(format!("[{}]", several.join(", "))),
        };
        // The answer bears nothing of the question, as upstream's does not.
        write(&SelfSubjectRulesReview { status: Some(status), ..SelfSubjectRulesReview::default() })
    }
}

struct SelfSubject;

#[async_trait]
impl Review for SelfSubject {
    async fn review(&self, request: ReviewRequest<'_>, _body: Value) -> Result<Value, StatusError> {
        let now = request.server.registry.clock.now();
        let created = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now);
        let metadata = ObjectMeta { creation_timestamp: Some(Time(created)), ..ObjectMeta::default() };
        let status = SelfSubjectReviewStatus { user_info: Some(user_info(request.user)) };
        write(&SelfSubjectReview { metadata, status: Some(status) })
    }
}

struct Token;

#[async_trait]
impl Review for Token {
    async fn review(&self, request: ReviewRequest<'_>, body: Value) -> Result<Value, StatusError> {
        let mut review: TokenReview = read(body)?;
        if review.spec.token.is_empty() {
            return Err(StatusError::bad_request("token is required for TokenReview in authentication"));
        }
        let audiences = review.spec.audiences.as_deref().unwrap_or_default();
        let mut status = TokenReviewStatus { user: Some(UserInfo::default()), ..TokenReviewStatus::default() };
        match request.server.authenticator.review(&review.spec.token, audiences).await {
            Ok(Some(found)) => {
                status.authenticated = Some(true);
                status.user = Some(user_info(&found.user));
                status.audiences = Some(found.audiences);
            }
            Ok(None) => status.error = Some("invalid bearer token".to_owned()),
            Err(error) => status.error = Some(error.to_string()),
        }
        review.status = Some(status);
        write(&review)
    }
}

fn read<T: DeserializeOwned>(body: Value) -> Result<T, StatusError> {
    serde_json::from_value(body).map_err(|error| StatusError::bad_request(error.to_string()))
}

fn write(review: &impl Serialize) -> Result<Value, StatusError> {
    serde_json::to_value(review).map_err(StatusError::internal)
}

fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or("")
}

fn user_info(user: &User) -> UserInfo {
    UserInfo {
        username: Some(user.name.clone()),
        uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
        groups: Some(user.groups.clone()).filter(|groups| !groups.is_empty()),
        extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
    }
}

fn check_spec(spec: &SubjectAccessReviewSpec) -> FieldErrors {
    let mut errors = FieldErrors::new();
    check_attributes(spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref(), &mut errors);
    if text(&spec.user).is_empty() && list(&spec.groups).is_empty() {
        let path = Path::new("spec").child("user");
        errors.push(FieldError::invalid(&path, "", "at least one of user or group must be specified"));
    }
    errors
}

fn check_attributes(
    resource: Option<&ResourceAttributes>,
    path: Option<&NonResourceAttributes>,
    errors: &mut FieldErrors,
) {
    let spec = Path::new("spec");
    if resource.is_some() == path.is_some() {
        let about = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(FieldError::invalid(&spec, path.map(shown), about));
    }
    let Some(resource) = resource else { return };
    let path = spec.child("resourceAttributes");
    selectors::check_fields(resource.field_selector.as_ref(), &path.child("fieldSelector"), errors);
    selectors::check_labels(resource.label_selector.as_ref(), &path.child("labelSelector"), errors);
}

/// As messages show it: in upstream's internal form, whose fields have Go's names.
fn shown(attributes: &NonResourceAttributes) -> Value {
    json!({ "Path": text(&attributes.path), "Verb": text(&attributes.verb) })
}

fn check_empty(metadata: &ObjectMeta, about: &str, errors: &mut FieldErrors) {
    if *metadata != ObjectMeta::default() {
        errors.push(FieldError::invalid(&Path::new("metadata"), json!(metadata), about));
    }
}

fn refuse(errors: FieldErrors) -> Result<(), StatusError> {
    if errors.is_empty() {
        return Ok(());
    }
    // Upstream asks the object for its kind, which it has lost on the way in.
    let mut error = StatusError::invalid(&ResourceType::new(AUTHORIZATION, "v1", "", "", false), "", errors);
    error.0.details.get_or_insert_default().kind = None;
    Err(error)
}

async fn ask_spec(authorizer: &dyn Authorizer, spec: &SubjectAccessReviewSpec) -> SubjectAccessReviewStatus {
    let user = Arc::new(User {
        name: text(&spec.user).to_owned(),
        uid: text(&spec.uid).to_owned(),
        groups: spec.groups.clone().unwrap_or_default(),
        extra: spec.extra.clone().unwrap_or_default(),
    });
    ask(authorizer, &user, spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref()).await
}

async fn ask(
    authorizer: &dyn Authorizer,
    user: &User,
    resource: Option<&ResourceAttributes>,
    path: Option<&NonResourceAttributes>,
) -> SubjectAccessReviewStatus {
    let fields = selectors::fields(resource.and_then(|asked| asked.field_selector.as_ref()));
    let labels = selectors::label_terms(resource.and_then(|asked| asked.label_selector.as_ref()));
    let mut attributes = Attributes::new(user);
    if let Some(asked) = resource {
        attributes = Attributes {
            verb: text(&asked.verb),
            namespace: text(&asked.namespace),
            group: text(&asked.group),
            version: Some(text(&asked.version)).filter(|version| !version.is_empty()).unwrap_or("*"),
            resource: text(&asked.resource),
            subresource: text(&asked.subresource),
            name: text(&asked.name),
            is_resource: true,
            field_selector: &fields.text,
            label_selector: &labels.text,
            ..attributes
        };
    } else if let Some(asked) = path {
        attributes = Attributes { verb: text(&asked.verb), path: text(&asked.path), ..attributes };
    }
    let verdict = authorizer.authorize(&attributes).await;
    SubjectAccessReviewStatus {
        allowed: verdict.decision == Decision::Allow,
        denied: (verdict.decision == Decision::Deny).then_some(true),
        reason: Some(verdict.reason).filter(|reason| !reason.is_empty()),
        evaluation_error: Some([fields.error, labels.error].into_iter().flatten().collect::<Vec<_>>().join("; "))
            .filter(|error| !error.is_empty()),
    }
}
