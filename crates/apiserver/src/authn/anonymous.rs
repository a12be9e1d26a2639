//! Which requests may come without credentials. What an anonymous user may do is for the policies to say.

/// Upstream's `--anonymous-auth`, or the `anonymous` part of its AuthenticationConfiguration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    #[default]
    Everywhere,
    Nowhere,
    /// For these paths and no others.
    Paths(Vec<String>),
}

impl Anonymous {
    pub fn allows(&self, path: &str) -> bool {
        match self {
            Anonymous::Everywhere => true,
            Anonymous::Nowhere => false,
            Anonymous::Paths(paths) => paths.iter().any(|one| one == path),
        }
    }
}
