//! The key pair that signs and checks service-account tokens (ES256). Tokens themselves are the API server's business.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PublicKeyData};
use sha2::{Digest, Sha256};

use crate::files::{self, Access, Lasting};
use crate::identity;
use crate::{Error, Result};

pub struct ServiceAccountKey {
    key: KeyPair,
}

impl ServiceAccountKey {
    /// Loads `<name>.key` from the folder or makes it; `<name>.pub` beside it is for others who check tokens.
    pub fn load_or_create(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(format!("{name}.key"));
        let public_path = folder.join(format!("{name}.pub"));
        let key = match files::read(&path)? {
            Some(pem) => identity::parse_key(&pem)
                .map_err(|source| Error::KeyFile { path: path.clone(), source: Some(source) })?,
            None => {
                let key = identity::new_key()?;
                files::write(&path, &key.serialize_pem(), Access::Owner, Lasting::Yes)?;
                key
            }
        };
        if !key.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256) {
            return Err(Error::KeyFile { path, source: None });
        }
        let public_pem = key.public_key_pem();
        if files::read(&public_path)?.as_deref() != Some(&public_pem) {
            files::write(&public_path, &public_pem, Access::Everyone, Lasting::Replaceable)?;
        }
        Ok(ServiceAccountKey { key })
    }

    /// PKCS#8 in PEM.
    pub fn private_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// SubjectPublicKeyInfo in PEM.
    pub fn public_pem(&self) -> String {
        self.key.public_key_pem()
    }

    /// The `kid` of tokens and of the published key set: upstream's digest of the public key.
    pub fn key_id(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.key.subject_public_key_info()))
    }

    /// The public point's coordinates as a JSON Web Key has them: `x` and `y` in base64url (RFC 7518 section 6.2.1).
    pub fn coordinates(&self) -> (String, String) {
        // SEC 1 section 2.3.3: an uncompressed point is a byte 4 and two coordinates of 32 bytes.
        let (x, y) = self.key.der_bytes()[1..].split_at(32);
        (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once() {
        let folder = tempfile::TempDir::new().unwrap();
        let made = ServiceAccountKey::load_or_create(folder.path(), "sa").unwrap();
        let loaded = ServiceAccountKey::load_or_create(folder.path(), "sa").unwrap();
        assert_eq!(made.private_pem(), loaded.private_pem());
        assert_eq!(made.key_id(), loaded.key_id());
        assert_eq!(std::fs::read_to_string(folder.path().join("sa.pub")).unwrap(), made.public_pem());
        let mode = std::fs::metadata(folder.path().join("sa.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(made.private_pem().starts_with("-----BEGIN PRIVATE KEY-----"));
        assert!(made.public_pem().starts_with("-----BEGIN PUBLIC KEY-----"));
        let (x, y) = made.coordinates();
        assert_eq!((x.len(), y.len()), (43, 43));
        std::fs::write(folder.path().join("sa.key"), "no key").unwrap();
        let error = ServiceAccountKey::load_or_create(folder.path(), "sa").err().unwrap().to_string();
        assert!(error.contains("sa.key"), "{error}");
    }
}
