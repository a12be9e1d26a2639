//! API errors: the `Status` object with its code, reason and message, one constructor for each way a request fails.
//!
//! Reasons and codes follow the API conventions ("Response Status Kind"); messages keep upstream's form because clients match on
//! them.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};

use crate::field::{FieldError, FieldErrors};
use crate::resource::ResourceType;

/// An API error. It displays as its message.
#[derive(Clone, Debug)]
pub struct StatusError(pub Box<Status>);

impl std::error::Error for StatusError {}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.message.as_deref().unwrap_or("unknown error"))
    }
}

impl StatusError {
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        StatusError(Box::new(Status {
            status: Some("Failure".to_owned()),
            code: Some(i32::from(code)),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            message: Some(message.into()),
            ..Status::default()
        }))
    }

    fn with_details(mut self, resource: &ResourceType, kind: &str, name: &str) -> Self {
        self.0.details = Some(StatusDetails {
            group: (!resource.group.is_empty()).then(|| resource.group.to_string()),
            kind: Some(kind.to_owned()),
            name: (!name.is_empty()).then(|| name.to_owned()),
            ..StatusDetails::default()
        });
        self
    }

    pub fn with_causes(mut self, causes: Vec<StatusCause>) -> Self {
        self.0.details.get_or_insert_default().causes = Some(causes);
        self
    }

    pub fn with_retry_after(mut self, seconds: i32) -> Self {
        self.0.details.get_or_insert_default().retry_after_seconds = Some(seconds);
        self
    }

    pub fn code(&self) -> u16 {
        self.0.code.and_then(|code| u16::try_from(code).ok()).unwrap_or(500)
    }

    pub fn reason(&self) -> &str {
        self.0.reason.as_deref().unwrap_or("")
    }

    pub fn not_found(resource: &ResourceType, name: &str) -> Self {
        let message = format!("{} {name:?} not found", resource.group_resource());
        Self::new(404, "NotFound", message).with_details(resource, &resource.plural, name)
    }

    /// A URL that names nothing.
    pub fn no_such_path() -> Self {
        let mut error = Self::new(404, "NotFound", "the server could not find the requested resource");
        error.0.details = Some(StatusDetails::default());
        error
    }

    pub fn already_exists(resource: &ResourceType, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", resource.group_resource());
        Self::new(409, "AlreadyExists", message).with_details(resource, &resource.plural, name)
    }

    pub fn generate_name_conflict(resource: &ResourceType, name: &str) -> Self {
        let message = format!(
            "{} {name:?} already exists, the server was not able to generate a unique name for the object",
            resource.group_resource()
        );
        Self::new(409, "AlreadyExists", message).with_details(resource, &resource.plural, name).with_retry_after(1)
    }

    pub fn conflict(resource: &ResourceType, name: &str, why: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", resource.group_resource());
        Self::new(409, "Conflict", message).with_details(resource, &resource.plural, name)
    }

    /// The conflict of a stale `resourceVersion`.
    pub fn stale(resource: &ResourceType, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    pub fn forbidden(resource: &ResourceType, name: &str, why: impl fmt::Display) -> Self {
        let subject = if name.is_empty() {
            format!("{} is forbidden", resource.group_resource())
        } else {
            format!("{} {name:?} is forbidden", resource.group_resource())
        };
        Self::new(403, "Forbidden", format!("{subject}: {why}")).with_details(resource, &resource.plural, name)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 422 with every wrong field as a cause.
    pub fn invalid(resource: &ResourceType, name: &str, errors: FieldErrors) -> Self {
        let causes = errors
            .iter()
            .map(|error| StatusCause {
                field: Some(error.field.clone()),
                message: Some(error.body()),
                reason: Some(error.kind.reason().to_owned()),
            })
            .collect();
        let qualified = if resource.group.is_empty() {
            resource.kind.to_string()
        } else {
            format!("{}.{}", resource.kind, resource.group)
        };
        let message = format!("{qualified} {name:?} is invalid: {}", aggregate(&errors));
        Self::new(422, "Invalid", message).with_details(resource, &resource.kind, name).with_causes(causes)
    }

    pub fn method_not_supported(resource: &ResourceType, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind {:?}", resource.group_resource());
        Self::new(405, "MethodNotAllowed", message).with_details(resource, &resource.plural, "")
    }

    /// 410: the revision asked for has been compacted.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, "Gone", message)
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }

    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message)
    }

    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
            .with_causes(vec![StatusCause { message: Some(message.to_string()), ..StatusCause::default() }])
    }

    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", message)
    }

    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after: i32) -> Self {
        Self::new(429, "TooManyRequests", message).with_retry_after(retry_after)
    }

    pub fn is_not_found(&self) -> bool {
        self.reason() == "NotFound"
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason() == "AlreadyExists"
    }

    pub fn is_conflict(&self) -> bool {
        self.reason() == "Conflict"
    }

    pub fn is_forbidden(&self) -> bool {
        self.reason() == "Forbidden"
    }

    pub fn is_invalid(&self) -> bool {
        self.reason() == "Invalid"
    }

    /// The revision asked for is no longer there: list anew.
    pub fn is_expired(&self) -> bool {
        self.code() == 410
    }
}

/// Upstream prints one error bare and several in brackets, each text once.
fn aggregate(errors: &[FieldError]) -> String {
    let mut texts: Vec<String> = Vec::with_capacity(errors.len());
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) }
}
