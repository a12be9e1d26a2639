//! Fields that an applied configuration would change although others own them.

use std::fmt;

use super::element::Path;
use super::managed::ManagerId;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub manager: ManagerId,
    pub path: Path,
}

/// Never empty; ordered by manager. It displays as the message of the API error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts(pub Vec<Conflict>);

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return write!(f, "Apply failed with 1 conflict: conflict with {}: {}", only.manager, only.path);
        }
        write!(f, "Apply failed with {} conflicts: ", self.0.len())?;
        for (at, conflict) in self.0.iter().enumerate() {
            if at == 0 || self.0[at - 1].manager != conflict.manager {
                let line = if at == 0 { "" } else { "\n" };
                write!(f, "{line}conflicts with {}:", conflict.manager)?;
            }
            write!(f, "\n- {}", conflict.path)?;
        }
        Ok(())
    }
}

impl fmt::Display for ManagerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.manager)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        if !self.api_version.is_empty() {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}
