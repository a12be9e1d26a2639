//! What can go wrong between the agent and the runtime: the call was answered with an error, or containerd could not be run.

use std::path::PathBuf;

pub use tonic::Code;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The form in which Go's gRPC prints an error; users search for these texts.
    #[error("rpc error: code = {} desc = {message}", code_name(*.code))]
    Call { call: &'static str, code: Code, message: String },
    #[error("{call} answered without its {field}")]
    Incomplete { call: &'static str, field: &'static str },
    #[error("find {0} on PATH: install it (Debian: apt-get install containerd runc) or give --runtime-endpoint")]
    NotOnPath(String),
    #[error("unix socket path {path} has {length} bytes, the kernel takes 107: choose a shorter data directory")]
    SocketPath { path: PathBuf, length: usize },
    #[error("{what} {path}")]
    File { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("start {program}")]
    Start { program: PathBuf, source: std::io::Error },
    #[error("import images from {archive}: {message}")]
    Import { archive: PathBuf, message: String },
    #[error("containerd did not answer on {socket} within {seconds} s; its log is {log}")]
    NotAnswering { socket: PathBuf, seconds: u64, log: PathBuf },
}

impl Error {
    pub fn call(call: &'static str, code: Code, message: impl Into<String>) -> Error {
        Error::Call { call, code, message: message.into() }
    }

    /// The gRPC code, where the runtime gave one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Call { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The thing asked about does not exist (any more).
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(Code::NotFound)
    }

    /// The runtime's own words, without the code.
    pub fn message(&self) -> String {
        match self {
            Error::Call { message, .. } => message.clone(),
            other => other.to_string(),
        }
    }
}

/// Go's names of the gRPC codes, which differ from the `Debug` form in one spelling.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answered_error_reads_as_go_prints_it() {
        let error = Error::call("PullImage", Code::Cancelled, "context canceled");
        assert_eq!(error.to_string(), "rpc error: code = Canceled desc = context canceled");
    }
}
