//! What went wrong, in kubectl's words on standard error.

use std::{fmt, io};

use xebec_api::StatusError;
use xebec_client::Error;

/// Several things went wrong; the others went well.
#[derive(Debug)]
pub struct Several(Vec<anyhow::Error>);

/// A command ended with this code; the message, if there is one, goes to standard error as it is.
#[derive(Debug)]
pub struct Exit {
    pub code: i32,
    pub message: String,
}

/// Success if nothing failed; one failure is itself.
pub fn all(mut failures: Vec<anyhow::Error>) -> anyhow::Result<i32> {
    match failures.len() {
        0 => Ok(0),
        1 => Err(failures.remove(0)),
        _ => Err(Several(failures).into()),
    }
}

/// Names the file whose object a call was about.
pub fn with_source(verb: &str, origin: &str, error: Error) -> anyhow::Error {
    match error {
        Error::Status(mut status) => {
            status.0.message = Some(format!("error when {verb} {origin:?}: {status}"));
            Error::Status(status).into()
        }
        other => anyhow::Error::from(other).context(format!("error when {verb} {origin:?}")),
    }
}

/// Prints an error; the number is the exit code.
pub fn report(error: &anyhow::Error) -> i32 {
    if let Some(exit) = error.downcast_ref::<Exit>() {
        if !exit.message.is_empty() {
            eprintln!("{}", exit.message);
        }
        return exit.code;
    }
    // Whoever read what we wrote has seen enough.
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return 1;
    }
    let text = message(error);
    eprint!("{text}{}", if text.ends_with('\n') { "" } else { "\n" });
    1
}

fn message(error: &anyhow::Error) -> String {
    if let Some(several) = error.downcast_ref::<Several>() {
        return several.to_string();
    }
    match status_of(error) {
        Some(status) if status.is_invalid() => invalid(status),
        Some(status) => of_server(status),
        None => format!("error: {}", chain(error)),
    }
}

/// The error and its causes, without those that their effect has already told.
fn chain(error: &anyhow::Error) -> String {
    let refused = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    if error.chain().any(refused) {
        return "the connection to the API server was refused: is it running, and is it the one that the kubeconfig names?"
            .to_owned();
    }
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if !parts.last().is_some_and(|last| last.contains(&cause)) {
            parts.push(cause);
        }
    }
    parts.join(": ")
}

fn status_of(error: &anyhow::Error) -> Option<&StatusError> {
    error.downcast_ref::<Error>().and_then(Error::status)
}

fn of_server(status: &StatusError) -> String {
    match status.reason() {
        "Unauthorized" => format!("error: You must be logged in to the server ({status})"),
        "" => format!("Error from server: {status}"),
        reason => format!("Error from server ({reason}): {status}"),
    }
}

/// Each field that is wrong on a line of its own.
fn invalid(status: &StatusError) -> String {
    let Some(details) = &status.0.details else { return format!("The request is invalid: {status}") };
    let (kind, name) = (details.kind.as_deref().unwrap_or(""), details.name.as_deref().unwrap_or(""));
    let causes = details.causes.as_deref().unwrap_or_default();
    let mut fields: Vec<String> = Vec::new();
    for cause in causes {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let field = format!("{}: {}", text(&cause.field), text(&cause.message));
        if !fields.contains(&field) {
            fields.push(field);
        }
    }
    let subject = match (kind, name) {
        ("", "") if causes.is_empty() => format!("The request is invalid: {status}"),
        ("", "") => "The request is invalid".to_owned(),
        _ => format!("The {kind} {name:?} is invalid"),
    };
    match fields.as_slice() {
        [] => subject,
        [one] => format!("{subject}: {one}"),
        several => {
            let lines: String = several.iter().map(|field| format!("* {field}\n")).collect();
            format!("{subject}: \n{lines}")
        }
    }
}

impl fmt::Display for Several {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|error| match status_of(error) {
            Some(status) => writeln!(f, "{}", of_server(status)),
            None => writeln!(f, "{}", chain(error)),
        })
    }
}

impl std::error::Error for Several {}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(status: serde_json::Value, expected: &str) {
        let status: k8s_openapi::apimachinery::pkg::apis::meta::v1::Status = serde_json::from_value(status).unwrap();
        let error = Error::Status(StatusError(Box::new(status))).into();
        assert_eq!(message(&error), expected);
    }

    #[test]
    fn answers_of_the_server() {
        check(
            json!({"code": 404, "reason": "NotFound", "message": "pods \"a\" not found"}),
            "Error from server (NotFound): pods \"a\" not found",
        );
        check(
            json!({"code": 401, "reason": "Unauthorized", "message": "Unauthorized"}),
            "error: You must be logged in to the server (Unauthorized)",
        );
        let details = |causes| json!({"kind": "Pod", "name": "a", "causes": causes});
        let invalid = |causes| json!({"code": 422, "reason": "Invalid", "message": "m", "details": details(causes)});
        let cause = |field| json!({"field": field, "message": "Required value"});
        check(invalid(json!([cause("x")])), "The Pod \"a\" is invalid: x: Required value");
        check(
            invalid(json!([cause("x"), cause("y"), cause("x")])),
            "The Pod \"a\" is invalid: \n* x: Required value\n* y: Required value\n",
        );
    }
}
