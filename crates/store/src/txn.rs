//! Transactions: comparisons, the operations of either outcome, and their results. Pure values.

use std::cmp::Ordering;
use std::collections::HashSet;

use bytes::Bytes;

use crate::key::{KeyRange, KeyValue, Revision};
use crate::store::Error;

/// If all of `compare` hold, `success` is applied, else `failure`; either at one revision.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    pub compare: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
    pub durability: Durability,
}

/// When a write is on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Before it is acknowledged, and before anyone can see it.
    #[default]
    Immediate,
    /// Some seconds later: it is seen and acknowledged at once, reaches the disk with the next immediate write or after
    /// a while, and is lost if the process is killed before. For what is renewed or of passing interest anyway.
    Deferred,
}

impl Txn {
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes `key` if it does not exist; otherwise reads it.
    pub fn create(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let key = key.into();
        Txn::new().when(Compare::absent(key.clone())).then(Op::put(key.clone(), value)).otherwise(Op::Get { key })
    }

    /// Writes `key` if its last change was at `expected`; otherwise reads it.
    pub fn update(key: impl Into<Bytes>, expected: Revision, value: impl Into<Bytes>) -> Self {
        let key = key.into();
        Txn::new()
            .when(Compare::mod_revision(key.clone(), expected))
            .then(Op::put(key.clone(), value))
            .otherwise(Op::Get { key })
    }

    /// Deletes `key` if its last change was at `expected`; otherwise reads it.
    pub fn delete(key: impl Into<Bytes>, expected: Revision) -> Self {
        let key = key.into();
        Txn::new()
            .when(Compare::mod_revision(key.clone(), expected))
            .then(Op::Delete { key: key.clone() })
            .otherwise(Op::Get { key })
    }

    pub fn when(mut self, compare: Compare) -> Self {
        self.compare.push(compare);
        self
    }

    pub fn then(mut self, op: Op) -> Self {
        self.success.push(op);
        self
    }

    pub fn otherwise(mut self, op: Op) -> Self {
        self.failure.push(op);
        self
    }

    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// A key that changed twice at one revision could not be told apart in a watch, so this is refused as etcd does.
    pub(crate) fn check(&self) -> Result<(), Error> {
        check_distinct(&self.success)?;
        check_distinct(&self.failure)
    }
}

fn check_distinct(ops: &[Op]) -> Result<(), Error> {
    if ops.len() < 2 {
        return Ok(());
    }
    let mut put = HashSet::new();
    for op in ops {
        let Op::Put { key, .. } = op else { continue };
        let deleted = ops.iter().any(|other| match other {
            Op::Delete { key: other } => other == key,
            Op::DeleteRange(range) => range.contains(key),
            Op::Put { .. } | Op::Get { .. } => false,
        });
        if deleted || !put.insert(key) {
            return Err(Error::DuplicateKey { key: key.escape_ascii().to_string() });
        }
    }
    Ok(())
}

/// A condition on one key. A key that does not exist has zero for every number and no value.
#[derive(Clone, Debug)]
pub struct Compare {
    pub key: Bytes,
    pub target: Target,
    pub relation: Relation,
}

/// What of a key is compared, and with what.
#[derive(Clone, Debug)]
pub enum Target {
    ModRevision(Revision),
    CreateRevision(Revision),
    Version(u64),
    /// Never holds for a key that does not exist.
    Value(Bytes),
}

/// How what is stored has to relate to what is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    Equal,
    NotEqual,
    Greater,
    Less,
}

impl Compare {
    pub fn new(key: impl Into<Bytes>, relation: Relation, target: Target) -> Self {
        Compare { key: key.into(), target, relation }
    }

    pub fn absent(key: impl Into<Bytes>) -> Self {
        Self::mod_revision(key, 0)
    }

    pub fn mod_revision(key: impl Into<Bytes>, revision: Revision) -> Self {
        Self::new(key, Relation::Equal, Target::ModRevision(revision))
    }

    pub fn create_revision(key: impl Into<Bytes>, revision: Revision) -> Self {
        Self::new(key, Relation::Equal, Target::CreateRevision(revision))
    }

    pub fn version(key: impl Into<Bytes>, version: u64) -> Self {
        Self::new(key, Relation::Equal, Target::Version(version))
    }

    pub fn value(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::new(key, Relation::Equal, Target::Value(value.into()))
    }

    pub(crate) fn holds(&self, stored: Option<&KeyValue>) -> bool {
        let ordering = match &self.target {
            Target::ModRevision(number) => stored.map_or(0, |kv| kv.mod_revision).cmp(number),
            Target::CreateRevision(number) => stored.map_or(0, |kv| kv.create_revision).cmp(number),
            Target::Version(number) => stored.map_or(0, |kv| kv.version).cmp(number),
            Target::Value(value) => match stored {
                Some(kv) => kv.value.cmp(value),
                None => return false,
            },
        };
        match self.relation {
            Relation::Equal => ordering == Ordering::Equal,
            Relation::NotEqual => ordering != Ordering::Equal,
            Relation::Greater => ordering == Ordering::Greater,
            Relation::Less => ordering == Ordering::Less,
        }
    }
}

/// One operation of a transaction. Later operations see what earlier ones did.
#[derive(Clone, Debug)]
pub enum Op {
    Put { key: Bytes, value: Bytes },
    Delete { key: Bytes },
    DeleteRange(KeyRange),
    Get { key: Bytes },
}

impl Op {
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Op::Put { key: key.into(), value: value.into() }
    }

    pub fn delete(key: impl Into<Bytes>) -> Self {
        Op::Delete { key: key.into() }
    }

    pub fn get(key: impl Into<Bytes>) -> Self {
        Op::Get { key: key.into() }
    }
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnResult {
    /// Whether all comparisons held.
    pub succeeded: bool,
    /// The revision of the change; where nothing changed, that of the state which was compared.
    pub revision: Revision,
    /// One for each operation applied, in their order.
    pub responses: Vec<OpResult>,
}

/// What one operation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    Put { prev: Option<KeyValue> },
    Delete { prev: Vec<KeyValue> },
    Get { kv: Option<KeyValue> },
}
