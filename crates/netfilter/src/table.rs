//! The parts of a rule set: tables, chains, rules, sets and maps.
//!
//! Values only; rendering belongs to `transaction`. Does not know whether a rule makes sense to the kernel: `nft` says
//! so when the transaction is applied.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// A table with all it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub id: TableId,
    pub sets: BTreeMap<Name, Set>,
    pub chains: BTreeMap<Name, Chain>,
}

/// Which table: the family and the name together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId {
    pub family: Family,
    pub name: Name,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    Ip,
    Ip6,
    Inet,
    Arp,
    Bridge,
    Netdev,
}

/// A chain; a base chain where it has a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    pub hook: Option<Hook>,
    pub rules: Vec<Rule>,
}

/// Where in a packet's way the kernel calls a base chain. The policy is always to accept: what shall not pass is said
/// by a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    pub kind: HookKind,
    pub point: HookPoint,
    pub priority: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    Filter,
    Nat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookPoint {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

impl Hook {
    /// Before connection tracking sees the packet.
    pub const RAW: i32 = -300;
    /// Where destinations are rewritten.
    pub const DSTNAT: i32 = -100;
    /// Where packets are let through or not.
    pub const FILTER: i32 = 0;
    /// Where sources are rewritten.
    pub const SRCNAT: i32 = 100;

    pub const fn new(kind: HookKind, point: HookPoint, priority: i32) -> Self {
        Self { kind, point, priority }
    }
}

/// One rule: matches and statements in nft's language, and a comment that `nft list` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    text: String,
    comment: Option<String>,
}

/// A set, or a map where it has a value type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The key's type, such as `ipv4_addr . inet_proto . inet_service`.
    pub key: String,
    /// The value's type, such as `verdict`.
    pub value: Option<String>,
    /// Where given, rules add elements themselves and the kernel forgets them after this time without use.
    pub timeout: Option<Duration>,
    pub elements: BTreeSet<Element>,
}

/// A key of a set, with its value where the set is a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    key: String,
    value: Option<String>,
}

/// A name that nft takes without quotes: a letter, then letters, digits and `/ - _ .`, at most 255 bytes; not one of its
/// own words (`reject`), which a name with a hyphen or a slash in it never is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Text that would not stay within its place in a transaction.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not usable as {what} in a packet filter rule set: {text:?}")]
pub struct InvalidText {
    what: &'static str,
    text: String,
}

impl Table {
    pub fn new(id: TableId) -> Self {
        Self { id, sets: BTreeMap::new(), chains: BTreeMap::new() }
    }

    /// Adds a chain; to be used while a table is written down.
    pub fn chain(&mut self, name: Name, hook: Option<Hook>, rules: Vec<Rule>) -> &mut Self {
        self.chains.insert(name, Chain { hook, rules });
        self
    }
}

impl TableId {
    pub fn new(family: Family, name: Name) -> Self {
        Self { family, name }
    }

    /// Whether the name carries this program's prefix.
    pub fn is_ours(&self) -> bool {
        let rest = self.name.as_str().strip_prefix(crate::TABLE_PREFIX);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family.as_str(), self.name)
    }
}

impl Family {
    const ALL: [Family; 6] = [Self::Ip, Self::Ip6, Self::Inet, Self::Arp, Self::Bridge, Self::Netdev];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            Self::Arp => "arp",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.as_str() == text)
    }
}

impl HookKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

impl HookPoint {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }
}

impl Rule {
    /// nft's limit for a comment is 128 bytes with the closing zero.
    const COMMENT_LIMIT: usize = 127;

    pub fn new(text: impl Into<String>) -> Result<Self, InvalidText> {
        let text = text.into();
        let mut depth = 0_i32;
        for c in text.chars() {
            depth += i32::from(c == '{') - i32::from(c == '}');
            if depth < 0 || c == ';' || c == '#' || c.is_control() {
                return Err(InvalidText { what: "a rule", text });
            }
        }
        if depth != 0 || text.trim().is_empty() {
            return Err(InvalidText { what: "a rule", text });
        }
        Ok(Self { text, comment: None })
    }

    /// A rule known while compiling.
    ///
    /// # Panics
    /// Where the text is no rule, which the first test run shows.
    pub fn fixed(text: &'static str) -> Self {
        Self::new(text).expect("a fixed rule is valid")
    }

    /// Adds a comment, shortened to what nft takes and without the characters it does not.
    pub fn with_comment(mut self, comment: &str) -> Self {
        let clean = comment.chars().filter(|c| c.is_ascii_graphic() && *c != '"' && *c != '\\' || *c == ' ');
        self.comment = Some(clean.take(Self::COMMENT_LIMIT).collect());
        self
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }
}

impl Set {
    pub fn of(key: &str) -> Self {
        Self { key: key.into(), value: None, timeout: None, elements: BTreeSet::new() }
    }

    pub fn map(key: &str, value: &str) -> Self {
        Self { value: Some(value.into()), ..Self::of(key) }
    }

    /// A set which rules fill with `update`, and whose elements end by themselves.
    pub fn expiring(key: &str, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..Self::of(key) }
    }
}

impl Element {
    pub fn key(key: impl Into<String>) -> Result<Self, InvalidText> {
        Ok(Self { key: element_text(key.into())?, value: None })
    }

    pub fn pair(key: impl Into<String>, value: impl Into<String>) -> Result<Self, InvalidText> {
        Ok(Self { key: element_text(key.into())?, value: Some(element_text(value.into())?) })
    }

    pub fn key_text(&self) -> &str {
        &self.key
    }

    pub fn value_text(&self) -> Option<&str> {
        self.value.as_deref()
    }
}

fn element_text(text: String) -> Result<String, InvalidText> {
    let fits = |c: char| c.is_ascii_alphanumeric() || " ./-_:".contains(c);
    match !text.trim().is_empty() && text.chars().all(fits) {
        true => Ok(text),
        false => Err(InvalidText { what: "an element", text }),
    }
}

impl Name {
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidText> {
        let name = name.into();
        let starts = name.starts_with(|c: char| c.is_ascii_alphabetic());
        let fits = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
        match starts && name.len() <= 255 && name.chars().all(fits) {
            true => Ok(Self(name)),
            false => Err(InvalidText { what: "a name", text: name }),
        }
    }

    /// A name known while compiling.
    ///
    /// # Panics
    /// Where the text is no name, which the first test run shows.
    pub fn fixed(name: &'static str) -> Self {
        Self::new(name).expect("a fixed name is valid")
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_leaves_its_place_is_refused() {
        let rule = |text: &str| Rule::new(text).is_ok();
        let element = |text: &str| Element::key(text).is_ok();
        let name = |text: &str| Name::new(text).is_ok();
        let cases: &[(&dyn Fn(&str) -> bool, &str, bool)] = &[
            (&rule, "ip daddr 10.0.0.1 drop", true),
            (&rule, "numgen random mod 2 vmap { 0 : goto a, 1 : goto b }", true),
            (&rule, "drop; flush ruleset", false),
            (&rule, "drop\nflush ruleset", false),
            (&rule, "drop } flush ruleset {", false),
            (&rule, "drop { ", false),
            (&rule, "accept # rest", false),
            (&rule, "  ", false),
            (&element, "10.96.0.1 . tcp . 80", true),
            (&element, "fd00::1 . udp . 53", true),
            (&element, "1 }", false),
            (&element, "a, b", false),
            (&element, "", false),
            (&name, "svc/default/redis-master/tcp/6379", true),
            (&name, "1st", false),
            (&name, "a b", false),
            (&name, "", false),
        ];
        for (parse, text, expected) in cases {
            assert_eq!(parse(text), *expected, "{text:?}");
        }
    }

    #[test]
    fn a_comment_is_cleaned_and_shortened() {
        let rule = Rule::fixed("drop").with_comment(&format!("a\"b\nc {}", "x".repeat(200)));
        let comment = rule.comment().unwrap();
        assert!(comment.starts_with("abc x"));
        assert_eq!(comment.len(), 127);
    }

    #[test]
    fn only_the_prefix_makes_a_table_ours() {
        let ours = |name: &'static str| TableId::new(Family::Ip, Name::fixed(name)).is_ours();
        assert_eq!(["xebec", "xebec-proxy", "xebecs", "kube-proxy"].map(ours), [true, true, false, false]);
    }
}
