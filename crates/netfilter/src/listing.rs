//! What `nft -j list table` says about a table, reduced to what can be compared with a [`Table`].
//!
//! nft rewrites rules when it lists them (`mark and 0x4000` becomes `meta mark & 0x00004000`), so rules are counted, not
//! compared. That finds what happens in practice: another program flushed or deleted our table, or a part of it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::table::{Set, Table};

/// How much is where in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Chains with the number of their rules.
    pub chains: BTreeMap<String, usize>,
    /// Sets and maps with the number of their elements; zero where rules fill the set.
    pub sets: BTreeMap<String, usize>,
}

impl Listing {
    /// What a listing shows once the table is in the kernel.
    pub fn of(table: &Table) -> Self {
        let size = |set: &Set| if set.timeout.is_some() { 0 } else { set.elements.len() };
        Self {
            chains: table.chains.iter().map(|(name, chain)| (name.to_string(), chain.rules.len())).collect(),
            sets: table.sets.iter().map(|(name, set)| (name.to_string(), size(set))).collect(),
        }
    }

    pub(crate) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let output: Output = serde_json::from_slice(json)?;
        let mut listing = Self::default();
        for item in output.nftables {
            match item {
                Item { chain: Some(chain), .. } => {
                    listing.chains.entry(chain.name).or_default();
                }
                Item { rule: Some(rule), .. } => *listing.chains.entry(rule.chain).or_default() += 1,
                Item { set: Some(set), .. } | Item { map: Some(set), .. } => {
                    let size = if set.timeout.is_some() { 0 } else { set.elem.len() };
                    listing.sets.insert(set.name, size);
                }
                _ => {}
            }
        }
        Ok(listing)
    }
}

#[derive(Deserialize)]
struct Output {
    nftables: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    chain: Option<ListedChain>,
    rule: Option<ListedRule>,
    set: Option<ListedSet>,
    map: Option<ListedSet>,
}

#[derive(Deserialize)]
struct ListedChain {
    name: String,
}

#[derive(Deserialize)]
struct ListedRule {
    chain: String,
}

#[derive(Deserialize)]
struct ListedSet {
    name: String,
    timeout: Option<Value>,
    #[serde(default)]
    elem: Vec<Value>,
}
