//! Objects encrypted at rest: which resources, with which keys, and the store in between that does it.
//!
//! [`Encryption`] turns the bytes of one object into those that are stored and back; it is pure but for the randomness of
//! nonces. [`EncryptedStore`] applies it to everything that passes between the cache and the real store, so neither of them
//! knows of it. Configuration and stored form are upstream's (`EncryptionConfiguration`, `k8s:enc:aesgcm:v1:NAME:`), so
//! that data can be carried over to and from an upstream server with the same configuration. Key management services are
//! not supported: a configuration that names one is refused.

mod cipher;
mod config;
mod store;

use std::path::{Path, PathBuf};

use arc_swap::ArcSwap;

use cipher::Cipher;
pub use store::EncryptedStore;

/// What every encrypted value begins with, whatever the cipher.
const MARK: &[u8] = b"k8s:enc:";

#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is not an EncryptionConfiguration", path.display())]
    Parse { path: PathBuf, source: serde_saphyr::Error },
    #[error("{}: {why}", path.display())]
    Config { path: PathBuf, why: String },
    #[error("no key of the configuration opens the value: {why}")]
    Open { why: String },
    #[error("the value cannot be encrypted")]
    Seal,
}

/// The bytes of an object as they were before encryption.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// `None`: the stored bytes are the object's.
    pub bytes: Option<Vec<u8>>,
    /// Another provider or key would be used now: whoever writes the object anew renews its encryption.
    pub stale: bool,
}

/// The rules of one configuration file; exchanged as a whole when the file has changed.
pub struct Encryption {
    path: PathBuf,
    rules: ArcSwap<Vec<Rule>>,
}

/// The providers of some resources, the first for writing and all for reading.
struct Rule {
    group: String,
    /// `*` for all of the group.
    resource: String,
    providers: Vec<Provider>,
}

enum Provider {
    Identity,
    /// One key of a cipher, with the prefix of the values that it wrote.
    Key {
        prefix: Vec<u8>,
        cipher: Cipher,
    },
}

impl Encryption {
    /// Reads the file that `--encryption-provider-config` names.
    pub fn load(path: &Path) -> Result<Self, EncryptionError> {
        Ok(Encryption { path: path.to_owned(), rules: ArcSwap::from_pointee(config::read(path)?) })
    }

    /// Reads the file again. Values are encrypted with the new keys from then on; an error leaves the old ones in use.
    pub fn reload(&self) -> Result<(), EncryptionError> {
        self.rules.store(config::read(&self.path)?.into());
        Ok(())
    }

    /// Whether the configuration says anything of a resource.
    pub fn names(&self, (group, resource): (&str, &str)) -> bool {
        find(&self.rules.load(), group, resource).is_some()
    }

    /// The bytes to store for an object; `None` if they are the object's own. `key` is the key in the store, which ties the
    /// value to its place.
    pub fn seal(
        &self,
        (group, resource): (&str, &str),
        key: &[u8],
        plain: &[u8],
    ) -> Result<Option<Vec<u8>>, EncryptionError> {
        let rules = self.rules.load();
        match find(&rules, group, resource).and_then(|rule| rule.providers.first()) {
            None | Some(Provider::Identity) => Ok(None),
            Some(Provider::Key { prefix, cipher }) => cipher.seal(prefix, key, plain).map(Some),
        }
    }

    /// The object's bytes for those that are stored.
    pub fn open(&self, (group, resource): (&str, &str), key: &[u8], stored: &[u8]) -> Result<Opened, EncryptionError> {
        let rules = self.rules.load();
        let providers = find(&rules, group, resource).map_or(&[][..], |rule| &rule.providers);
        if !stored.starts_with(MARK) {
            // Values from before the encryption was switched on stay readable, as long as the configuration says so.
            let identity = providers.iter().position(|one| matches!(one, Provider::Identity));
            return match identity {
                Some(place) => Ok(Opened { bytes: None, stale: place > 0 }),
                None if providers.is_empty() => Ok(Opened { bytes: None, stale: false }),
                None => Err(EncryptionError::Open { why: "it is not encrypted".to_owned() }),
            };
        }
        let mut why = "its prefix is unknown";
        for (place, provider) in providers.iter().enumerate() {
            let Provider::Key { prefix, cipher } = provider else { continue };
            let Some(body) = stored.strip_prefix(&prefix[..]) else { continue };
            match cipher.open(key, body) {
                Some(bytes) => return Ok(Opened { bytes: Some(bytes), stale: place > 0 }),
                None => why = "its key is another one, or it was damaged or moved",
            }
        }
        Err(EncryptionError::Open { why: why.to_owned() })
    }
}

/// The most specific rule: that of the resource, of all resources of its group, or of all groups.
fn find<'r>(rules: &'r [Rule], group: &str, resource: &str) -> Option<&'r Rule> {
    let exact = |group: &str, resource: &str| rules.iter().find(|one| one.group == group && one.resource == resource);
    exact(group, resource).or_else(|| exact(group, "*")).or_else(|| exact("*", "*"))
}

#[cfg(test)]
mod tests;
