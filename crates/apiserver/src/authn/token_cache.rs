//! Tokens whose signatures have been checked already. A signature costs a tenth of a millisecond, and a client sends its
//! token with each request.
//!
//! It keeps what stands in the token, never the verdict: whether the account and what the token is bound to still exist
//! is looked up for every request.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use sha2::{Digest, Sha256};

/// So many tokens are kept; one of a Pod is some hundred bytes of claims. A cluster of more Pods that talk to the API at
/// the same time checks signatures more often.
const CAPACITY: usize = 8192;

pub struct TokenCache<T> {
    verified: RwLock<HashMap<[u8; 32], Arc<T>>>,
}

impl<T> Default for TokenCache<T> {
    fn default() -> Self {
        TokenCache { verified: RwLock::default() }
    }
}

impl<T> TokenCache<T> {
    /// The content of a token, read by `verify` unless that has succeeded before.
    pub fn get<E>(&self, token: &str, verify: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.verified.read().get(&key) {
            return Ok(known.clone());
        }
        let verified = Arc::new(verify()?);
        let mut all = self.verified.write();
        if all.len() >= CAPACITY {
            // Starting anew is simpler than keeping an order, and costs each live token one more check.
            all.clear();
        }
        all.insert(key, verified.clone());
        Ok(verified)
    }
}
