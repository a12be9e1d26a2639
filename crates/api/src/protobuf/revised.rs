//! A stored message with the `resourceVersion` that it lacks.
//!
//! Stored objects do not know their revision; the store does. In protobuf it lies inside the metadata, and the metadata's
//! length stands before it: both are written anew, everything else is copied.

use std::io::Write;

use super::wire::{Reader, Wire, put_tag, put_varint, varint_len};

/// `metadata` in every kind that is stored, and `resourceVersion` in the metadata.
const METADATA: u64 = 1;
const RESOURCE_VERSION: u64 = 6;

/// Enough for every revision.
const MAX_DIGITS: usize = 20;

/// How a message looks with its `resourceVersion`.
#[derive(Clone, Copy)]
pub struct Revised<'a> {
    /// The metadata before and after the field.
    before: &'a [u8],
    after: &'a [u8],
    /// What follows the metadata.
    rest: &'a [u8],
    digits: [u8; MAX_DIGITS],
    /// None, if the metadata stays as it is.
    count: usize,
}

impl<'a> Revised<'a> {
    /// The message as it is.
    pub fn plain(message: &'a [u8]) -> Self {
        let (before, rest) = split(message);
        Revised { before, after: &[], rest, digits: [0; MAX_DIGITS], count: 0 }
    }

    /// `message` is the encoding of an object that has metadata; what it may say of a `resourceVersion` is replaced.
    pub fn new(message: &'a [u8], revision: u64) -> Self {
        let (metadata, rest) = split(message);
        let mut reader = Reader(metadata);
        let (mut before, mut after) = (metadata, &[][..]);
        loop {
            let here = metadata.len() - reader.0.len();
            match reader.next() {
                Some(Ok((number, _))) if number < RESOURCE_VERSION => {}
                Some(Ok((RESOURCE_VERSION, _))) => {
                    (before, after) = (&metadata[..here], reader.0);
                    break;
                }
                Some(Ok(_)) => {
                    (before, after) = metadata.split_at(here);
                    break;
                }
                _ => break,
            }
        }
        let mut digits = [0; MAX_DIGITS];
        let mut free = &mut digits[..];
        // The longest number fits, so writing cannot fail.
        let _ = write!(free, "{revision}");
        let count = MAX_DIGITS - free.len();
        Revised { before, after, rest, digits, count }
    }

    fn metadata_len(&self) -> usize {
        let field = if self.count == 0 { 0 } else { 2 + self.count };
        self.before.len() + field + self.after.len()
    }

    fn field_len(&self) -> usize {
        let metadata = self.metadata_len();
        1 + varint_len(metadata) + metadata
    }

    /// How many bytes [`Revised::write`] appends.
    pub fn len(&self) -> usize {
        self.field_len() + self.rest.len()
    }

    /// Never: there is always the field of the metadata.
    pub fn is_empty(&self) -> bool {
        false
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        self.write_metadata(out);
        out.extend_from_slice(self.rest);
    }

    fn write_metadata(&self, out: &mut Vec<u8>) {
        put_tag(METADATA as u16, 2, out);
        put_varint(self.metadata_len() as u64, out);
        out.extend_from_slice(self.before);
        if self.count > 0 {
            put_tag(RESOURCE_VERSION as u16, 2, out);
            put_varint(self.count as u64, out);
            out.extend_from_slice(&self.digits[..self.count]);
        }
        out.extend_from_slice(self.after);
    }
}

/// The metadata of an object, and what follows it.
fn split(message: &[u8]) -> (&[u8], &[u8]) {
    let mut reader = Reader(message);
    match reader.next() {
        Some(Ok((METADATA, Wire::Bytes(metadata)))) => (metadata, reader.0),
        _ => (&[], message),
    }
}
