//! A rule engine in memory, for tests.
//!
//! Keeps the tables that the transactions describe and refuses what the kernel refuses: deleting what is not there,
//! using a table or set that does not exist. Does not judge packets.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::table::{Table, TableId};
use crate::{Change, Error, Listing, Netfilter, Transaction};

#[derive(Debug, Default)]
pub struct Fake {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tables: BTreeMap<TableId, Table>,
    applied: Vec<Transaction>,
    failures: Vec<String>,
}

impl Fake {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn table(&self, id: &TableId) -> Option<Table> {
        self.state.lock().tables.get(id).cloned()
    }

    /// Takes the transactions that were applied since the last call.
    pub fn take_applied(&self) -> Vec<Transaction> {
        std::mem::take(&mut self.state.lock().applied)
    }

    /// Refuses the next transaction with this message.
    pub fn fail_next(&self, message: &str) {
        self.state.lock().failures.push(message.to_owned());
    }
}

#[async_trait]
impl Netfilter for Fake {
    async fn apply(&self, transaction: &Transaction) -> Result<(), Error> {
        let mut state = self.state.lock();
        let refused = |message| Error::Refused { operation: "apply the transaction", message };
        if let Some(message) = state.failures.pop() {
            return Err(refused(message));
        }
        let mut tables = state.tables.clone();
        // The kernel sees additions of chains and sets first and deletions last, as `Transaction::render` orders them.
        let mut changes: Vec<&Change> = transaction.changes().iter().collect();
        changes.sort_by_key(|change| rank(change));
        for change in changes {
            step(&mut tables, change).map_err(refused)?;
        }
        state.tables = tables;
        state.applied.push(transaction.clone());
        Ok(())
    }

    async fn list(&self, table: &TableId) -> Result<Option<Listing>, Error> {
        Ok(self.state.lock().tables.get(table).map(Listing::of))
    }

    async fn tables(&self) -> Result<Vec<TableId>, Error> {
        Ok(self.state.lock().tables.keys().cloned().collect())
    }
}

fn rank(change: &Change) -> u8 {
    match change {
        Change::ReplaceTable(_) | Change::DeleteTable(_) => 0,
        Change::PutChain(..) | Change::PutSet(..) => 1,
        Change::DeleteElement(..) => 2,
        Change::AddElement(..) => 3,
        Change::DeleteChain(..) | Change::DeleteSet(..) => 4,
    }
}

fn step(tables: &mut BTreeMap<TableId, Table>, change: &Change) -> Result<(), String> {
    let present = |found: bool, what: String| if found { Ok(()) } else { Err(format!("no {what}")) };
    match change {
        Change::ReplaceTable(new) => drop(tables.insert(new.id.clone(), new.clone())),
        Change::DeleteTable(id) => drop(tables.remove(id)),
        Change::PutChain(id, name, chain) => drop(find(tables, id)?.chains.insert(name.clone(), chain.clone())),
        Change::DeleteChain(id, name) => {
            let goal = format!("goto {name}");
            let table = find(tables, id)?;
            if table.sets.values().flat_map(|set| &set.elements).any(|e| e.value_text() == Some(&goal)) {
                return Err(format!("chain {name} is in use"));
            }
            present(table.chains.remove(name).is_some(), format!("chain {name}"))?;
        }
        Change::PutSet(id, name, set) => {
            let entry = find(tables, id)?.sets.entry(name.clone());
            entry.and_modify(|old| old.elements.extend(set.elements.clone())).or_insert_with(|| set.clone());
        }
        Change::DeleteSet(id, name) => present(find(tables, id)?.sets.remove(name).is_some(), format!("set {name}"))?,
        Change::AddElement(id, name, element) => {
            let set = find(tables, id)?.sets.get_mut(name).ok_or_else(|| format!("no set {name}"))?;
            if set.elements.iter().any(|old| old.key_text() == element.key_text() && old != element) {
                return Err(format!("element {} of {name} exists with another value", element.key_text()));
            }
            set.elements.insert(element.clone());
        }
        Change::DeleteElement(id, name, element) => {
            let set = find(tables, id)?.sets.get_mut(name).ok_or_else(|| format!("no set {name}"))?;
            let before = set.elements.len();
            set.elements.retain(|old| old.key_text() != element.key_text());
            present(set.elements.len() < before, format!("element {} in {name}", element.key_text()))?;
        }
    }
    Ok(())
}

fn find<'a>(tables: &'a mut BTreeMap<TableId, Table>, id: &TableId) -> Result<&'a mut Table, String> {
    tables.get_mut(id).ok_or_else(|| format!("no table {id}"))
}
