//! A store that keeps what the configuration names encrypted, and shows it as it was.
//!
//! It stands between the cache and the real store. Keys are never encrypted, and comparisons go by revision.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use xebec_store::{
    Error, Got, KeyValue, Op, OpResult, Range, RangeResult, Result, Revision, Store, Txn, TxnResult, WatchRequest,
    WatchStream,
};

use super::Encryption;
use crate::cache::ROOT;
use crate::registry::erased::Row;

pub struct EncryptedStore {
    inner: Arc<dyn Store>,
    seals: Arc<Seals>,
}

/// What turns values into stored ones and back.
struct Seals {
    encryption: Arc<Encryption>,
    /// Group and resource by the directory that the stored keys have below the root.
    directories: HashMap<String, (String, String)>,
}

impl EncryptedStore {
    pub fn new(inner: Arc<dyn Store>, encryption: Arc<Encryption>, rows: &[Row]) -> Self {
        let directories = rows.iter().map(|row| {
            let prefix = row.prefix();
            let directory = prefix.strip_prefix(ROOT).unwrap_or(&prefix).trim_end_matches('/').to_owned();
            (directory, (row.stored.group.to_string(), row.stored.plural.to_string()))
        });
        EncryptedStore { inner, seals: Arc::new(Seals { encryption, directories: directories.collect() }) }
    }
}

impl Seals {
    /// The resource that a key belongs to; `None` for what the server keeps for itself.
    fn resource(&self, key: &[u8]) -> Option<(&str, &str)> {
        let path = std::str::from_utf8(key).ok()?.strip_prefix(ROOT)?;
        let first = path.find('/')?;
        let second = || path[first + 1..].find('/').map(|at| &path[..first + 1 + at]);
        let found = self.directories.get(&path[..first]).or_else(|| self.directories.get(second()?))?;
        Some((&found.0, &found.1))
    }

    fn seal(&self, op: &mut Op) -> Result<()> {
        let Op::Put { key, value } = op else { return Ok(()) };
        let Some(resource) = self.resource(key) else { return Ok(()) };
        match self.encryption.seal(resource, key, value) {
            Ok(Some(sealed)) => *value = sealed.into(),
            Ok(None) => {}
            Err(error) => return Err(unusable(key, error)),
        }
        Ok(())
    }

    fn open(&self, kv: &mut KeyValue) -> Result<()> {
        if kv.value.is_empty() {
            return Ok(());
        }
        let Some(resource) = self.resource(&kv.key) else { return Ok(()) };
        let opened = self.encryption.open(resource, &kv.key, &kv.value).map_err(|error| unusable(&kv.key, error))?;
        if let Some(bytes) = opened.bytes {
            kv.value = Bytes::from(bytes.into_boxed_slice());
        }
        Ok(())
    }

    fn open_all<'a>(&self, kvs: impl IntoIterator<Item = &'a mut KeyValue>) -> Result<()> {
        kvs.into_iter().try_for_each(|kv| self.open(kv))
    }
}

fn unusable(key: &[u8], error: super::EncryptionError) -> Error {
    Error::Value { key: key.escape_ascii().to_string(), source: Arc::new(error) }
}

#[async_trait]
impl Store for EncryptedStore {
    async fn get(&self, key: &[u8], revision: Option<Revision>) -> Result<Got> {
        let mut got = self.inner.get(key, revision).await?;
        self.seals.open_all(&mut got.kv)?;
        Ok(got)
    }

    async fn range(&self, range: Range) -> Result<RangeResult> {
        let mut result = self.inner.range(range).await?;
        self.seals.open_all(&mut result.kvs)?;
        Ok(result)
    }

    async fn txn(&self, mut txn: Txn) -> Result<TxnResult> {
        txn.success.iter_mut().chain(&mut txn.failure).try_for_each(|op| self.seals.seal(op))?;
        let mut result = self.inner.txn(txn).await?;
        for response in &mut result.responses {
            match response {
                OpResult::Put { prev: kv } | OpResult::Get { kv } => self.seals.open_all(kv)?,
                OpResult::Delete { prev } => self.seals.open_all(prev)?,
            }
        }
        Ok(result)
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream> {
        let (stream, seals) = (self.inner.watch(request).await?, self.seals.clone());
        Ok(WatchStream::new(stream.map(move |batch| {
            let mut batch = batch?;
            for event in &mut batch.events {
                seals.open(&mut event.kv)?;
                seals.open_all(&mut event.prev)?;
            }
            Ok(batch)
        })))
    }

    async fn request_progress(&self) -> Result<()> {
        self.inner.request_progress().await
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.inner.compact(revision).await
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.inner.current_revision().await
    }

    async fn is_outdated(&self, key: &[u8]) -> Result<bool> {
        let Some(resource) = self.seals.resource(key).filter(|resource| self.seals.encryption.names(*resource)) else {
            return Ok(false);
        };
        let Some(kv) = self.inner.get(key, None).await?.kv else { return Ok(false) };
        let opened = self.seals.encryption.open(resource, key, &kv.value).map_err(|error| unusable(key, error))?;
        Ok(opened.stale)
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
