//! The query parameters of requests, read once into typed options.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use xebec_api::field::{FieldError, FieldErrors, Path};
use xebec_api::resource::ResourceType;
use xebec_api::selector::{FieldSelector, LabelSelector};
use xebec_api::status::StatusError;

use crate::resources::validation::unsupported;

/// What becomes of unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// A request that writes, which has options of its own kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Create,
    Update,
    Patch,
    Apply,
}

impl Write {
    fn kind(self) -> &'static str {
        match self {
            Write::Create => "CreateOptions",
            Write::Update => "UpdateOptions",
            Write::Patch | Write::Apply => "PatchOptions",
        }
    }
}

/// The checked options of a request that writes.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub validation: FieldValidation,
}

/// Upstream's limit for the name of a manager, in bytes.
const MAX_FIELD_MANAGER: usize = 128;

/// Every parameter that a handler may ask for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub watch: bool,
    pub label_selector: String,
    pub field_selector: String,
    pub resource_version: String,
    pub resource_version_match: String,
    pub limit: usize,
    pub continue_token: String,
    pub timeout_seconds: Option<u64>,
    pub allow_watch_bookmarks: bool,
    pub send_initial_events: Option<bool>,
    pub include_object: String,
    pub pretty: bool,
    pub dry_run: Vec<String>,
    pub field_validation: String,
    pub field_manager: String,
    pub force: Option<bool>,
    pub grace_period_seconds: Option<i64>,
    pub propagation_policy: Option<String>,
    pub orphan_dependents: Option<bool>,
}

impl Options {
    pub fn parse(query: Option<&str>) -> Result<Self, StatusError> {
        let mut options = Options::default();
        let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(options) };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            options.set(&name, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: Cow<'_, str>) -> Result<(), StatusError> {
        match name {
            "watch" => self.watch = truth(&value),
            "labelSelector" => self.label_selector = value.into_owned(),
            "fieldSelector" => self.field_selector = value.into_owned(),
            "resourceVersion" => self.resource_version = value.into_owned(),
            "resourceVersionMatch" => self.resource_version_match = value.into_owned(),
            "limit" => self.limit = number::<i64>(&value)?.map_or(0, |limit| limit.max(0) as usize),
            "continue" => self.continue_token = value.into_owned(),
            "timeoutSeconds" => {
                self.timeout_seconds = number::<i64>(&value)?.and_then(|seconds| u64::try_from(seconds).ok());
            }
            "allowWatchBookmarks" => self.allow_watch_bookmarks = truth(&value),
            "sendInitialEvents" => self.send_initial_events = Some(truth(&value)),
            "includeObject" => self.include_object = value.into_owned(),
            "pretty" => self.pretty = truth(&value),
            "dryRun" => self.dry_run.push(value.into_owned()),
            "fieldValidation" => self.field_validation = value.into_owned(),
            "fieldManager" => self.field_manager = value.into_owned(),
            "force" => self.force = Some(truth(&value)),
            "gracePeriodSeconds" => self.grace_period_seconds = number(&value)?,
            "propagationPolicy" => self.propagation_policy = Some(value.into_owned()).filter(|text| !text.is_empty()),
            "orphanDependents" => self.orphan_dependents = Some(truth(&value)),
            _ => {}
        }
        Ok(())
    }

    pub fn labels(&self) -> Result<LabelSelector, StatusError> {
        LabelSelector::parse(&self.label_selector).map_err(|error| StatusError::bad_request(error.to_string()))
    }

    pub fn fields(&self) -> Result<FieldSelector, StatusError> {
        FieldSelector::parse(&self.field_selector).map_err(|error| StatusError::bad_request(error.to_string()))
    }

    /// Whether nothing is to be stored.
    pub fn is_dry_run(&self, kind: &'static str) -> Result<bool, StatusError> {
        let mut errors = FieldErrors::new();
        let dry_run = self.check_dry_run(&mut errors);
        if errors.is_empty() { Ok(dry_run) } else { Err(invalid(kind, errors)) }
    }

    pub fn field_validation(&self, kind: &'static str) -> Result<FieldValidation, StatusError> {
        let mut errors = FieldErrors::new();
        let validation = self.check_field_validation(&mut errors);
        if errors.is_empty() { Ok(validation) } else { Err(invalid(kind, errors)) }
    }

    /// The options of a request that creates or changes an object.
    pub fn write(&self, verb: Write) -> Result<WriteOptions, StatusError> {
        let mut errors = FieldErrors::new();
        let path = Path::new("fieldManager");
        match verb {
            Write::Apply if self.field_manager.is_empty() => {
                errors.push(FieldError::required(&path, "is required for apply patch"));
            }
            Write::Patch if self.force.is_some() => {
                errors.push(FieldError::forbidden(&Path::new("force"), "may not be specified for non-apply patch"));
            }
            _ => {}
        }
        field_manager(&mut errors, &path, &self.field_manager);
        let dry_run = self.check_dry_run(&mut errors);
        let validation = self.check_field_validation(&mut errors);
        if errors.is_empty() { Ok(WriteOptions { dry_run, validation }) } else { Err(invalid(verb.kind(), errors)) }
    }

    fn check_dry_run(&self, errors: &mut FieldErrors) -> bool {
        if !self.dry_run.iter().all(|one| one == "All") {
            errors.push(FieldError::not_supported(&Path::new("dryRun"), serde_json::json!(self.dry_run), &["All"]));
        }
        !self.dry_run.is_empty()
    }

    fn check_field_validation(&self, errors: &mut FieldErrors) -> FieldValidation {
        match self.field_validation.as_str() {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let path = Path::new("fieldValidation");
                errors.push(FieldError::not_supported(&path, other, &["", "Ignore", "Strict", "Warn"]));
                FieldValidation::Warn
            }
        }
    }

    /// The options of a deletion without a body.
    pub fn deletion(&self) -> DeleteOptions {
        DeleteOptions {
            grace_period_seconds: self.grace_period_seconds,
            propagation_policy: self.propagation_policy.clone(),
            orphan_dependents: self.orphan_dependents,
            dry_run: (!self.dry_run.is_empty()).then(|| self.dry_run.clone()),
            ..DeleteOptions::default()
        }
    }

    /// What contradicts itself in the options of a list or watch.
    pub fn check_list(&self) -> Result<(), StatusError> {
        let mut errors = FieldErrors::new();
        let (version, rule) = (self.resource_version.as_str(), self.resource_version_match.as_str());
        let path = Path::new("resourceVersionMatch");
        let mut forbidden = |path: &Path, text: &str| errors.push(FieldError::forbidden(path, text));
        if !rule.is_empty() && !self.watch {
            if version.is_empty() {
                forbidden(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if !self.continue_token.is_empty() {
                forbidden(&path, "resourceVersionMatch is forbidden when continue is provided");
            }
            if rule == "Exact" && version == "0" {
                forbidden(&path, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
            }
            if !matches!(rule, "Exact" | "NotOlderThan") {
                errors.push(unsupported(&path, rule, &["Exact", "NotOlderThan", ""]));
            }
        } else if self.watch {
            match (self.send_initial_events, rule) {
                (None, "") | (Some(_), "NotOlderThan") => {}
                (None, _) => {
                    forbidden(
                        &path,
                        "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                    );
                }
                (Some(_), "") => {
                    forbidden(&path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
                }
                (Some(_), _) => {
                    forbidden(&path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
                    errors.push(FieldError::not_supported(&path, rule, &["NotOlderThan"]));
                }
            }
        }
        if self.send_initial_events.is_some() && !self.watch {
            errors.push(FieldError::forbidden(
                &Path::new("sendInitialEvents"),
                "sendInitialEvents is forbidden for list",
            ));
        }
        if errors.is_empty() { Ok(()) } else { Err(invalid("ListOptions", errors)) }
    }
}

/// The refusal of options.
pub fn invalid(kind: &'static str, errors: FieldErrors) -> StatusError {
    StatusError::invalid(&ResourceType::new("meta.k8s.io", "v1", kind, "", false), "", errors)
}

/// What is wrong with the name of a manager.
pub fn field_manager(errors: &mut FieldErrors, path: &Path, name: &str) {
    if name.len() > MAX_FIELD_MANAGER {
        errors.push(FieldError::too_long(path, MAX_FIELD_MANAGER));
    }
    for (at, c) in name.char_indices().filter(|(_, c)| !is_print(*c)) {
        let about = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.push(FieldError::invalid(path, name, about));
    }
}

/// The manager that a program is by its `User-Agent`: what stands before the first slash, as far as it can be printed.
pub fn manager_of_agent(agent: &str) -> String {
    let mut manager = String::new();
    for c in agent.split('/').next().unwrap_or("").chars().filter(|c| is_print(*c)) {
        if manager.len() + c.len_utf8() > MAX_FIELD_MANAGER {
            break;
        }
        manager.push(c);
    }
    manager
}

/// Letters, marks, numbers, punctuation, symbols and the space, as Go's `unicode.IsPrint`.
fn is_print(c: char) -> bool {
    match c {
        ' '..='~' => true,
        c if c.is_ascii() || c.is_control() || c.is_whitespace() => false,
        // What Rust shows as an escape is either not assigned or a mark, which prints upon another character.
        c => c.escape_debug().len() == 1 || c.is_alphanumeric() || ('\u{300}'..='\u{36f}').contains(&c),
    }
}

/// Any value but `false` and `0` is true, as upstream reads query parameters.
fn truth(value: &str) -> bool {
    !matches!(value, "false" | "0" | "False" | "FALSE" | "f" | "F")
}

fn number<T: std::str::FromStr>(value: &str) -> Result<Option<T>, StatusError> {
    if value.is_empty() {
        return Ok(None);
    }
    value
        .parse()
        .map(Some)
        .map_err(|_| StatusError::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax")))
}

/// The revision that a parameter names: `None` if it is absent.
pub fn revision(text: &str) -> Result<Option<u64>, FieldError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        FieldError::invalid(&Path::new("resourceVersion"), text, why)
    })
}

/// The same for requests that answer with what is wrong.
pub fn checked_revision(text: &str) -> Result<Option<u64>, StatusError> {
    revision(text).map_err(|error| StatusError::bad_request(format!("invalid resource version: {error}")))
}
