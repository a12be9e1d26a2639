//! How a remote command ended, and the `Status` object that says so on the error stream.
//!
//! Since version 4 of the protocol the error stream carries one metav1 `Status` as JSON; before, it carried a text and
//! nothing at all for success. The reason `NonZeroExitCode` and the cause `ExitCode` are what clients read exit codes
//! from (`k8s.io/apimachinery/pkg/util/remotecommand`).

use serde::{Deserialize, Serialize};

const SUCCESS: &str = "Success";
const FAILURE: &str = "Failure";
const NON_ZERO_EXIT_CODE: &str = "NonZeroExitCode";
const EXIT_CODE: &str = "ExitCode";

/// How a remote command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The command exited with 0, or there was no command to exit (attach).
    Success,
    /// The command exited with this code, which is not 0.
    Exit(i32),
    /// The command could not be run, or its streams could not be carried.
    Failed { message: String, reason: String, code: u16 },
}

/// The fields of a metav1 `Status` that remote commands use.
#[derive(Serialize, Deserialize)]
struct Status {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    status: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    #[serde(default, skip_serializing_if = "is_zero")]
    code: u16,
}

/// Always written as `{}`.
#[derive(Default, Serialize, Deserialize)]
struct Metadata {}

#[derive(Serialize, Deserialize)]
struct Details {
    #[serde(default)]
    causes: Vec<Cause>,
}

#[derive(Serialize, Deserialize)]
struct Cause {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

fn is_zero(code: &u16) -> bool {
    *code == 0
}

impl Outcome {
    /// A failure of our own, in the form upstream gives internal errors.
    pub fn internal(message: impl std::fmt::Display) -> Outcome {
        let message = format!("Internal error occurred: {message}");
        Outcome::Failed { message, reason: "InternalError".to_owned(), code: 500 }
    }

    /// The outcome of a command that exited with `code`.
    pub fn exit(code: i32) -> Outcome {
        if code == 0 { Outcome::Success } else { Outcome::Exit(code) }
    }

    /// What is said to a person; empty for success.
    pub fn message(&self) -> String {
        match self {
            Outcome::Success => String::new(),
            Outcome::Exit(code) => {
                format!("command terminated with non-zero exit code: command terminated with exit code {code}")
            }
            Outcome::Failed { message, .. } => message.clone(),
        }
    }

    /// The `Status` object as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let (status, reason, details, code) = match self {
            Outcome::Success => (SUCCESS, String::new(), None, 0),
            Outcome::Exit(code) => {
                let cause = Cause { reason: EXIT_CODE.to_owned(), message: code.to_string() };
                (FAILURE, NON_ZERO_EXIT_CODE.to_owned(), Some(Details { causes: vec![cause] }), 0)
            }
            Outcome::Failed { reason, code, .. } => (FAILURE, reason.clone(), None, *code),
        };
        let (status, message) = (status.to_owned(), self.message());
        let status = Status { metadata: Metadata {}, status, message, reason, details, code };
        // Strings and numbers always serialize.
        serde_json::to_vec(&status).unwrap_or_default()
    }

    /// Reads the error stream of version 4 and later; what is no `Status` is a failure that says so. client-go takes an
    /// empty stream for success, a leftover of version 3, and so takes a lost connection for success: here it is a
    /// failure.
    pub fn from_json(bytes: &[u8]) -> Outcome {
        if bytes.is_empty() {
            return Outcome::internal("the connection ended before the command's status");
        }
        let broken = |what: String| Outcome::internal(format!("error stream protocol error: {what}"));
        let status: Status = match serde_json::from_slice(bytes) {
            Ok(status) => status,
            Err(error) => return broken(format!("{error} in {:?}", String::from_utf8_lossy(bytes))),
        };
        match status.status.as_str() {
            SUCCESS => Outcome::Success,
            FAILURE if status.reason == NON_ZERO_EXIT_CODE => {
                let causes = status.details.map(|details| details.causes).unwrap_or_default();
                match causes.iter().find(|cause| cause.reason == EXIT_CODE).map(|cause| cause.message.parse()) {
                    Some(Ok(code)) => Outcome::Exit(code),
                    Some(Err(_)) => broken("invalid exit code value".to_owned()),
                    None => broken(format!("no {EXIT_CODE} cause given")),
                }
            }
            FAILURE => Outcome::Failed { message: status.message, reason: status.reason, code: status.code },
            _ => broken("unknown error".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_written_as_upstream_writes_them() {
        fn check(outcome: Outcome, json: &str) {
            assert_eq!(String::from_utf8(outcome.to_json()).unwrap(), json);
            assert_eq!(Outcome::from_json(json.as_bytes()), outcome);
        }
        check(Outcome::Success, r#"{"metadata":{},"status":"Success"}"#);
        check(
            Outcome::exit(3),
            r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: command terminated with exit code 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#,
        );
        check(
            Outcome::internal("no such task"),
            r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: no such task","reason":"InternalError","code":500}"#,
        );
    }

    #[test]
    fn whatever_a_runtime_sends_is_read() {
        fn check(json: &str, expect: &str) {
            let read = format!("{:?}", Outcome::from_json(json.as_bytes()));
            assert!(read.contains(expect), "{json}: {read}");
        }
        check("", "before the command's status");
        check(r#"{"status":"Success"}"#, "Success");
        check(
            r#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"137"}]}}"#,
            "Exit(137)",
        );
        check(r#"{"status":"Failure","reason":"NonZeroExitCode"}"#, "no ExitCode cause");
        check(r#"{"status":"Failure","message":"gone"}"#, "gone");
        check("exec failed", "error stream protocol error");
        check("{}", "unknown error");
    }
}
