//! Services in nftables.
//!
//! One table a family. Three maps lead from what a packet is sent to (address, protocol, port; or protocol and node port)
//! to a verdict, so the way of a packet is as long with ten thousand Services as with one. Each Service port has a chain
//! that picks an endpoint; with session affinity each endpoint has one as well, and a set of the clients that keep to it.
//!
//! The rules of each Service are kept as a [`Fragment`]; a change sends the difference between the old fragment and the
//! new one. Two Services may lay claim to the same element (the same external address): the first by name gets it, and
//! the other one takes over when it goes.

mod render;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use ipnet::IpNet;
use xebec_api::ObjectKey;
use xebec_netfilter::{
    Chain, Change, Element, Family, Listing, Name, Netfilter, Set, Table as NftTable, TableId, Transaction,
};

use super::{Backend, Error, Scope};
use crate::table::Table;

pub struct Nftables {
    netfilter: Arc<dyn Netfilter>,
    families: [FamilyRules; 2],
}

/// The rules of one address family, as they are in the kernel.
struct FamilyRules {
    ip: Ip,
    cluster_cidrs: Vec<IpNet>,
    present: bool,
    /// Everything but the Services.
    base: NftTable,
    fragments: BTreeMap<ObjectKey, Fragment>,
    /// Who wants which element, by set and key.
    claims: BTreeMap<Place, BTreeMap<ObjectKey, Element>>,
}

/// A set's name and a key in it.
type Place = (&'static str, String);

/// What one Service needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fragment {
    chains: BTreeMap<Name, Chain>,
    sets: BTreeMap<Name, Set>,
    elements: BTreeMap<Place, Element>,
}

/// The words in which the families differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ip {
    family: Family,
    word: &'static str,
    address_type: &'static str,
}

const IPV4: Ip = Ip { family: Family::Ip, word: "ip", address_type: "ipv4_addr" };
const IPV6: Ip = Ip { family: Family::Ip6, word: "ip6", address_type: "ipv6_addr" };

impl Nftables {
    /// `cluster_cidrs` holds the addresses of Pods; clients from elsewhere are masqueraded.
    pub fn new(netfilter: Arc<dyn Netfilter>, cluster_cidrs: &[IpNet]) -> Result<Self, Error> {
        let families = [FamilyRules::new(IPV4, cluster_cidrs)?, FamilyRules::new(IPV6, cluster_cidrs)?];
        Ok(Self { netfilter, families })
    }
}

#[async_trait]
impl Backend for Nftables {
    async fn sync(&mut self, table: &Table, scope: Scope<'_>) -> Result<(), Error> {
        let mut transaction = Transaction::new();
        for rules in &mut self.families {
            match scope {
                Scope::All => rules.rebuild(table, &mut transaction)?,
                Scope::Changed(names) => rules.update(table, names, &mut transaction)?,
            }
        }
        Ok(self.netfilter.apply(&transaction).await?)
    }

    async fn is_intact(&self) -> Result<bool, Error> {
        for rules in self.families.iter().filter(|rules| rules.present) {
            let expected = Listing::of(&rules.whole());
            if self.netfilter.list(&rules.base.id).await? != Some(expected) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn remove(&mut self) -> Result<(), Error> {
        let transaction = self.families.iter().map(|rules| Change::DeleteTable(rules.base.id.clone())).collect();
        self.families.iter_mut().for_each(FamilyRules::forget);
        Ok(self.netfilter.apply(&transaction).await?)
    }
}

impl FamilyRules {
    fn new(ip: Ip, cluster_cidrs: &[IpNet]) -> Result<Self, Error> {
        let id = TableId::new(ip.family, Name::fixed("xebec-proxy"));
        let base = render::base(ip, id, cluster_cidrs)?;
        Ok(Self {
            ip,
            cluster_cidrs: cluster_cidrs.to_vec(),
            present: false,
            base,
            fragments: BTreeMap::new(),
            claims: BTreeMap::new(),
        })
    }

    fn forget(&mut self) {
        self.present = false;
        self.fragments.clear();
        self.claims.clear();
    }

    /// Writes the whole table anew. A family without a Service has none.
    fn rebuild(&mut self, table: &Table, transaction: &mut Transaction) -> Result<(), Error> {
        self.forget();
        for (name, ports) in table {
            let fragment = render::fragment(self.ip, &self.cluster_cidrs, ports)?;
            if fragment != Fragment::default() {
                self.claim(name, &fragment, &mut BTreeSet::new());
                self.fragments.insert(name.clone(), fragment);
            }
        }
        self.present = !self.fragments.is_empty();
        transaction.push(match self.present {
            true => Change::ReplaceTable(self.whole()),
            false => Change::DeleteTable(self.base.id.clone()),
        });
        Ok(())
    }

    /// Adds to the transaction what changed in the named Services.
    fn update(
        &mut self,
        table: &Table,
        names: &BTreeSet<ObjectKey>,
        transaction: &mut Transaction,
    ) -> Result<(), Error> {
        let mut renewed = Vec::new();
        for name in names {
            let ports = table.get(name).map(Vec::as_slice).unwrap_or_default();
            let new = render::fragment(self.ip, &self.cluster_cidrs, ports)?;
            if self.fragments.get(name).unwrap_or(&Fragment::default()) != &new {
                renewed.push((name, new));
            }
        }
        if !renewed.is_empty() && !self.present {
            return self.rebuild(table, transaction);
        }
        let mut touched = BTreeSet::new();
        let mut before = BTreeMap::new();
        for (name, new) in renewed {
            let old = self.fragments.remove(name).unwrap_or_default();
            self.objects(&old, &new, transaction);
            for place in old.elements.keys().chain(new.elements.keys()) {
                if !before.contains_key(place) {
                    before.insert(place.clone(), self.holder(place).cloned());
                }
            }
            self.disclaim(name, &old, &mut touched);
            self.claim(name, &new, &mut touched);
            if new != Fragment::default() {
                self.fragments.insert(name.clone(), new);
            }
        }
        for place in &touched {
            let (old, new) = (before.get(place).and_then(Option::as_ref), self.holder(place));
            if old == new {
                continue;
            }
            let (id, set) = (&self.base.id, Name::fixed(place.0));
            if let Some(old) = old {
                transaction.push(Change::DeleteElement(id.clone(), set.clone(), old.clone()));
            }
            if let Some(new) = new {
                transaction.push(Change::AddElement(id.clone(), set, new.clone()));
            }
        }
        Ok(())
    }

    /// The difference in chains and sets of one Service.
    fn objects(&self, old: &Fragment, new: &Fragment, transaction: &mut Transaction) {
        let id = || self.base.id.clone();
        for (name, set) in new.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
            transaction.push(Change::PutSet(id(), name.clone(), set.clone()));
        }
        for (name, chain) in new.chains.iter().filter(|(name, chain)| old.chains.get(*name) != Some(*chain)) {
            transaction.push(Change::PutChain(id(), name.clone(), chain.clone()));
        }
        for name in old.chains.keys().filter(|name| !new.chains.contains_key(*name)) {
            transaction.push(Change::DeleteChain(id(), name.clone()));
        }
        for name in old.sets.keys().filter(|name| !new.sets.contains_key(*name)) {
            transaction.push(Change::DeleteSet(id(), name.clone()));
        }
    }

    fn claim(&mut self, name: &ObjectKey, fragment: &Fragment, touched: &mut BTreeSet<Place>) {
        for (place, element) in &fragment.elements {
            self.claims.entry(place.clone()).or_default().insert(name.clone(), element.clone());
            touched.insert(place.clone());
        }
    }

    fn disclaim(&mut self, name: &ObjectKey, fragment: &Fragment, touched: &mut BTreeSet<Place>) {
        for place in fragment.elements.keys() {
            if let Some(claims) = self.claims.get_mut(place) {
                claims.remove(name);
                if claims.is_empty() {
                    self.claims.remove(place);
                }
            }
            touched.insert(place.clone());
        }
    }

    fn holder(&self, place: &Place) -> Option<&Element> {
        self.claims.get(place)?.values().next()
    }

    fn whole(&self) -> NftTable {
        let mut table = self.base.clone();
        for fragment in self.fragments.values() {
            table.chains.extend(fragment.chains.clone());
            table.sets.extend(fragment.sets.clone());
        }
        for (place, claims) in &self.claims {
            if let (Some(set), Some(element)) = (table.sets.get_mut(place.0), claims.values().next()) {
                set.elements.insert(element.clone());
            }
        }
        table
    }
}
