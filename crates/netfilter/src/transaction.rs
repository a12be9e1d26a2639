//! Transactions and their text for `nft -f -`.
//!
//! Changes may be collected in any order: the text puts them so that each thing exists before it is referred to and is
//! referred to no longer before it goes. Does not check against what the kernel holds.

use std::fmt::Write;

use crate::table::{Chain, Element, Name, Set, Table, TableId};

/// Changes that take effect together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    changes: Vec<Change>,
}

/// One thing to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Makes the table exactly so, whatever was there; what rules had learnt (expiring elements) is lost.
    ReplaceTable(Table),
    /// No error where the table does not exist.
    DeleteTable(TableId),
    /// Creates the chain, or replaces its rules; its hook must not change.
    PutChain(TableId, Name, Chain),
    /// The chain must exist and nothing outside this transaction may refer to it.
    DeleteChain(TableId, Name),
    /// Creates the set; where it exists with the same type, its elements stay and these are added.
    PutSet(TableId, Name, Set),
    DeleteSet(TableId, Name),
    AddElement(TableId, Name, Element),
    /// The element must exist.
    DeleteElement(TableId, Name, Element),
}

impl Transaction {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, change: Change) {
        self.changes.push(change);
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The text that `nft -f -` reads.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for phase in PHASES {
            for change in &self.changes {
                phase(change, &mut text);
            }
        }
        text
    }
}

impl FromIterator<Change> for Transaction {
    fn from_iter<I: IntoIterator<Item = Change>>(changes: I) -> Self {
        Self { changes: changes.into_iter().collect() }
    }
}

impl From<Change> for Transaction {
    fn from(change: Change) -> Self {
        Self { changes: vec![change] }
    }
}

/// The order of the text. Chains are declared before sets are filled and rules are written, because both may name a
/// chain as their goal; elements go before they come, so that a key can get a new value; chains are emptied before the
/// first of them is deleted, because they may refer to each other.
const PHASES: [fn(&Change, &mut String); 8] = [
    remove_tables,
    declare_chains,
    declare_sets,
    write_rules,
    delete_elements,
    add_elements,
    empty_chains,
    delete_chains_and_sets,
];

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(arguments);
    text.push('\n');
}

/// The `add` before the `delete` makes deleting what does not exist no error.
fn remove_tables(change: &Change, text: &mut String) {
    let (id, again) = match change {
        Change::ReplaceTable(table) => (&table.id, true),
        Change::DeleteTable(id) => (id, false),
        _ => return,
    };
    line(text, format_args!("add table {id}"));
    line(text, format_args!("delete table {id}"));
    if again {
        line(text, format_args!("add table {id}"));
    }
}

fn declare_chains(change: &Change, text: &mut String) {
    match change {
        Change::ReplaceTable(table) => {
            table.chains.iter().for_each(|(name, c)| declare_chain(&table.id, name, c, text))
        }
        Change::PutChain(id, name, chain) => declare_chain(id, name, chain, text),
        _ => {}
    }
}

fn declare_chain(id: &TableId, name: &Name, chain: &Chain, text: &mut String) {
    match chain.hook {
        None => line(text, format_args!("add chain {id} {name}")),
        Some(hook) => line(
            text,
            format_args!(
                "add chain {id} {name} {{ type {} hook {} priority {}; policy accept; }}",
                hook.kind.as_str(),
                hook.point.as_str(),
                hook.priority
            ),
        ),
    }
}

fn declare_sets(change: &Change, text: &mut String) {
    match change {
        Change::ReplaceTable(table) => {
            table.sets.iter().for_each(|(name, set)| declare_set(&table.id, name, set, text))
        }
        Change::PutSet(id, name, set) => declare_set(id, name, set, text),
        _ => {}
    }
}

fn declare_set(id: &TableId, name: &Name, set: &Set, text: &mut String) {
    let (keyword, arrow, value) = match &set.value {
        Some(value) => ("map", " : ", value.as_str()),
        None => ("set", "", ""),
    };
    let flags = match set.timeout {
        Some(timeout) => format!(" flags dynamic,timeout; timeout {}s;", timeout.as_secs().max(1)),
        None => String::new(),
    };
    line(text, format_args!("add {keyword} {id} {name} {{ type {}{arrow}{value};{flags} }}", set.key));
}

fn write_rules(change: &Change, text: &mut String) {
    match change {
        Change::ReplaceTable(table) => table.chains.iter().for_each(|(name, c)| write_chain(&table.id, name, c, text)),
        Change::PutChain(id, name, chain) => {
            line(text, format_args!("flush chain {id} {name}"));
            write_chain(id, name, chain, text);
        }
        _ => {}
    }
}

fn write_chain(id: &TableId, name: &Name, chain: &Chain, text: &mut String) {
    for rule in &chain.rules {
        match rule.comment() {
            Some(comment) => line(text, format_args!("add rule {id} {name} {} comment \"{comment}\"", rule.text())),
            None => line(text, format_args!("add rule {id} {name} {}", rule.text())),
        }
    }
}

fn delete_elements(change: &Change, text: &mut String) {
    if let Change::DeleteElement(id, set, element) = change {
        line(text, format_args!("delete element {id} {set} {{ {} }}", element.key_text()));
    }
}

fn add_elements(change: &Change, text: &mut String) {
    match change {
        Change::ReplaceTable(table) => {
            table.sets.iter().for_each(|(name, set)| fill_set(&table.id, name, set.elements.iter(), text));
        }
        Change::PutSet(id, name, set) => fill_set(id, name, set.elements.iter(), text),
        Change::AddElement(id, name, element) => fill_set(id, name, std::iter::once(element), text),
        _ => {}
    }
}

fn fill_set<'a>(id: &TableId, name: &Name, elements: impl Iterator<Item = &'a Element>, text: &mut String) {
    let mut elements = elements.peekable();
    if elements.peek().is_none() {
        return;
    }
    let _ = write!(text, "add element {id} {name} {{ ");
    for (i, element) in elements.enumerate() {
        let comma = if i > 0 { ", " } else { "" };
        let _ = match element.value_text() {
            Some(value) => write!(text, "{comma}{} : {value}", element.key_text()),
            None => write!(text, "{comma}{}", element.key_text()),
        };
    }
    text.push_str(" }\n");
}

fn empty_chains(change: &Change, text: &mut String) {
    if let Change::DeleteChain(id, name) = change {
        line(text, format_args!("flush chain {id} {name}"));
    }
}

/// A set can still be referred to by a chain that was emptied above, never by one that stays.
fn delete_chains_and_sets(change: &Change, text: &mut String) {
    match change {
        Change::DeleteChain(id, name) => line(text, format_args!("delete chain {id} {name}")),
        Change::DeleteSet(id, name) => line(text, format_args!("delete set {id} {name}")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Family, Hook, HookKind, HookPoint, Rule};
    use std::time::Duration;

    fn id() -> TableId {
        TableId::new(Family::Ip, Name::fixed("xebec-test"))
    }

    #[test]
    fn a_table_is_declared_before_it_is_filled() {
        let mut table = Table::new(id());
        table.chain(Name::fixed("a"), None, vec![Rule::fixed("drop").with_comment("why not")]);
        let nat = Hook::new(HookKind::Nat, HookPoint::Prerouting, Hook::DSTNAT);
        table.chain(Name::fixed("pre"), Some(nat), vec![Rule::fixed("ip daddr vmap @m")]);
        let mut map = Set::map("ipv4_addr", "verdict");
        map.elements.insert(Element::pair("10.0.0.1", "goto a").unwrap());
        map.elements.insert(Element::pair("10.0.0.2", "drop").unwrap());
        table.sets.insert(Name::fixed("m"), map);
        table.sets.insert(Name::fixed("seen"), Set::expiring("ipv4_addr", Duration::from_secs(60)));
        let expected = "\
add table ip xebec-test
delete table ip xebec-test
add table ip xebec-test
add chain ip xebec-test a
add chain ip xebec-test pre { type nat hook prerouting priority -100; policy accept; }
add map ip xebec-test m { type ipv4_addr : verdict; }
add set ip xebec-test seen { type ipv4_addr; flags dynamic,timeout; timeout 60s; }
add rule ip xebec-test a drop comment \"why not\"
add rule ip xebec-test pre ip daddr vmap @m
add element ip xebec-test m { 10.0.0.1 : goto a, 10.0.0.2 : drop }
";
        assert_eq!(Transaction::from(Change::ReplaceTable(table)).render(), expected);
    }

    #[test]
    fn changes_are_ordered_by_what_refers_to_what() {
        let m = Name::fixed("m");
        let transaction: Transaction = [
            Change::DeleteChain(id(), Name::fixed("old")),
            Change::AddElement(id(), m.clone(), Element::pair("10.0.0.1", "goto new").unwrap()),
            Change::DeleteElement(id(), m, Element::pair("10.0.0.1", "goto old").unwrap()),
            Change::DeleteSet(id(), Name::fixed("seen-old")),
            Change::PutChain(id(), Name::fixed("new"), Chain { hook: None, rules: vec![Rule::fixed("accept")] }),
        ]
        .into_iter()
        .collect();
        let expected = "\
add chain ip xebec-test new
flush chain ip xebec-test new
add rule ip xebec-test new accept
delete element ip xebec-test m { 10.0.0.1 }
add element ip xebec-test m { 10.0.0.1 : goto new }
flush chain ip xebec-test old
delete chain ip xebec-test old
delete set ip xebec-test seen-old
";
        assert_eq!(transaction.render(), expected);
    }
}
