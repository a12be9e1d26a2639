//! What makes the kernel follow the model. One file per way of doing it, all behind [`Backend`].

pub mod nftables;

use std::collections::BTreeSet;

use async_trait::async_trait;
use xebec_api::ObjectKey;

use crate::table::Table;

pub use nftables::Nftables;

/// What a synchronisation has to look at.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// Everything, trusting nothing that may be in the kernel.
    All,
    /// These Services differ from the table of the last successful synchronisation; no other does.
    Changed(&'a BTreeSet<ObjectKey>),
}

/// One way to balance Services in the kernel.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Makes the kernel follow `table`. After an error the next call must come with [`Scope::All`].
    async fn sync(&mut self, table: &Table, scope: Scope<'_>) -> Result<(), Error>;

    /// Whether the kernel still holds what the last synchronisation put there.
    async fn is_intact(&self) -> Result<bool, Error>;

    /// Takes everything away again.
    async fn remove(&mut self) -> Result<(), Error>;
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("write the rules for a Service")]
    Text(#[from] xebec_netfilter::InvalidText),
    #[error("change the Service rules")]
    Netfilter(#[from] xebec_netfilter::Error),
}
