//! Packet filter rule sets as values.
//!
//! A [`Table`] describes what shall be in the kernel: chains with their rules, sets and maps with their elements. A
//! [`Transaction`] is a list of [`Change`]s which the kernel takes whole or not at all. [`Nft`] hands transactions to
//! the `nft` program; [`Fake`] keeps the resulting tables in memory and remembers what it was asked.
//!
//! A rule is text in nft's own language, checked to be one statement list on one line ([`Rule::new`]), because the
//! language is the documented interface of the kernel's rule engine and typing all of it would only rename it. Names
//! and elements are checked in the same way, so no object name from the API can break out of its place.
//!
//! All tables of this program carry the prefix [`TABLE_PREFIX`], so [`remove_all`] finds them without any state. Tables
//! belong to a network namespace: several nodes on one machine do not see each other's.
//!
//! Relies on: the `nft` program (1.0.6 or later). Does not do: deciding what rules there should be (`proxy`,
//! `network`), iptables, IPVS.

mod fake;
mod listing;
mod nft;
mod table;
mod transaction;

use async_trait::async_trait;

pub use fake::Fake;
pub use listing::Listing;
pub use nft::Nft;
pub use table::{Chain, Element, Family, Hook, HookKind, HookPoint, InvalidText, Name, Rule, Set, Table, TableId};
pub use transaction::{Change, Transaction};

/// Every table of this program is called this, or begins with it and a hyphen.
pub const TABLE_PREFIX: &str = "xebec";

/// The kernel's rule engine as the components see it.
#[async_trait]
pub trait Netfilter: Send + Sync {
    /// Applies all changes of the transaction, or none.
    async fn apply(&self, transaction: &Transaction) -> Result<(), Error>;
    /// What a table holds now; `None` where it does not exist.
    async fn list(&self, table: &TableId) -> Result<Option<Listing>, Error>;
    /// All tables that exist, ours and others'.
    async fn tables(&self) -> Result<Vec<TableId>, Error>;
}

/// Deletes every table of ours in one transaction and says which there were.
pub async fn remove_all(netfilter: &dyn Netfilter) -> Result<Vec<TableId>, Error> {
    let ours: Vec<TableId> = netfilter.tables().await?.into_iter().filter(TableId::is_ours).collect();
    if !ours.is_empty() {
        netfilter.apply(&ours.iter().cloned().map(Change::DeleteTable).collect()).await?;
    }
    Ok(ours)
}

/// Why the kernel's rules could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("start {program}: is the package nftables installed?")]
    Start { program: String, source: std::io::Error },
    #[error("talk to nft")]
    Talk(#[source] std::io::Error),
    #[error("nft refuses to {operation}: {message}")]
    Refused { operation: &'static str, message: String },
    #[error("understand the output of nft")]
    Output(#[source] serde_json::Error),
}
