//! What can go wrong with a call: the server's own answer, the way to it, or what came back.

use std::error::Error as StdError;

use xebec_api::StatusError;
use xebec_api::object::DecodeError;

type Source = Box<dyn StdError + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server answered with a `Status`.
    #[error(transparent)]
    Status(#[from] StatusError),
    #[error("cannot {operation}")]
    Transport {
        operation: String,
        #[source]
        source: Source,
    },
    #[error("cannot decode {what}")]
    Decode {
        what: String,
        #[source]
        source: Source,
    },
}

impl Error {
    pub fn transport(operation: impl Into<String>, source: impl Into<Source>) -> Self {
        Error::Transport { operation: operation.into(), source: source.into() }
    }

    pub fn decode(what: impl Into<String>, source: impl Into<Source>) -> Self {
        Error::Decode { what: what.into(), source: source.into() }
    }

    pub fn status(&self) -> Option<&StatusError> {
        match self {
            Error::Status(status) => Some(status),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(StatusError::is_not_found)
    }

    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(StatusError::is_already_exists)
    }

    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(StatusError::is_conflict)
    }

    pub fn is_expired(&self) -> bool {
        self.status().is_some_and(StatusError::is_expired)
    }

    pub fn is_forbidden(&self) -> bool {
        self.status().is_some_and(StatusError::is_forbidden)
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Error::Decode { what: error.what, source: Box::new(error.source) }
    }
}
