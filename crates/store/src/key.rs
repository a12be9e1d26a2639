//! Keys, ranges of keys and what is stored under a key. Pure values.

use bytes::Bytes;

/// A point in the store's history. It grows by one with each transaction that changes something.
///
/// It jumps forward after a crash, past every number which may have been handed out before; it never repeats.
pub type Revision = u64;

/// What is stored under one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    /// Shared with everyone who got it from the store; empty where only keys were asked for, and in a delete event.
    pub value: Bytes,
    /// The revision that brought the key into being; zero in a delete event.
    pub create_revision: Revision,
    /// The revision of the last change; in a delete event, that of the deletion.
    pub mod_revision: Revision,
    /// How often the key was written since it came into being, from 1; zero in a delete event.
    pub version: u64,
}

/// The keys from `start` (included) to `end` (excluded). An empty `end` means: no upper bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    pub start: Bytes,
    pub end: Bytes,
}

impl KeyRange {
    pub fn all() -> Self {
        KeyRange { start: Bytes::new(), end: Bytes::new() }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start: Bytes = prefix.into();
        let end = match start.iter().rposition(|byte| *byte != u8::MAX) {
            Some(last) => {
                let mut end = start[..=last].to_vec();
                end[last] += 1;
                end.into()
            }
            // Nothing sorts after a prefix of 0xff bytes alone but its own keys.
            None => Bytes::new(),
        };
        KeyRange { start, end }
    }

    /// Exactly one key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        let start: Bytes = key.into();
        let end = [&start[..], &[0]].concat().into();
        KeyRange { start, end }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && (self.end.is_empty() || key < &self.end[..])
    }

    pub fn is_empty(&self) -> bool {
        !self.end.is_empty() && self.start >= self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_the_keys_they_name() {
        fn check(range: KeyRange, inside: &[&[u8]], outside: &[&[u8]]) {
            for key in inside {
                assert!(range.contains(key), "{key:?} belongs in {range:?}");
            }
            for key in outside {
                assert!(!range.contains(key), "{key:?} does not belong in {range:?}");
            }
        }
        check(KeyRange::all(), &[b"", b"a", b"\xff\xff"], &[]);
        check(KeyRange::prefix(&b"a/"[..]), &[b"a/", b"a/b", b"a/\xff\xff"], &[b"a", b"a0", b"b"]);
        check(KeyRange::prefix(&b"a\xff"[..]), &[b"a\xff", b"a\xff\xff"], &[b"a", b"a\xfe", b"b"]);
        check(KeyRange::prefix(&b"\xff"[..]), &[b"\xff", b"\xff\xff"], &[b"\xfe"]);
        check(KeyRange::prefix(&b""[..]), &[b"", b"a", b"\xff"], &[]);
        check(KeyRange::key(&b"a"[..]), &[b"a"], &[b"", b"a\0", b"b"]);
    }
}
