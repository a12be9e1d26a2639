//! Profiles in the protocol buffer of `pprof` (`profile.proto`), compressed as its readers expect. Pure.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

/// What is measured, and its unit.
pub type Kind = (&'static str, &'static str);

pub struct Profile {
    /// Of each value of a sample.
    pub kinds: Vec<Kind>,
    /// Between two samples.
    pub period: (Kind, i64),
    pub duration: Duration,
    pub samples: Vec<Sample>,
}

pub struct Sample {
    /// The innermost call first.
    pub stack: Vec<Frame>,
    pub values: Vec<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Frame {
    pub address: u64,
    pub function: String,
    pub file: String,
    pub line: i64,
}

impl Profile {
    pub fn gzipped(&self) -> io::Result<Vec<u8>> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&self.encoded())?;
        encoder.finish()
    }

    fn encoded(&self) -> Vec<u8> {
        let mut tables = Tables::default();
        tables.string("");
        let mut out = Message::default();
        for kind in &self.kinds {
            out.message(1, &tables.kind(*kind));
        }
        for sample in &self.samples {
            let mut message = Message::default();
            let locations: Vec<u64> = sample.stack.iter().map(|frame| tables.location(frame)).collect();
            message.packed(1, locations.into_iter());
            message.packed(2, sample.values.iter().map(|value| *value as u64));
            out.message(2, &message);
        }
        let (kind, period) = self.period;
        let kind = tables.kind(kind);
        out.0.extend_from_slice(&tables.messages.0);
        for text in &tables.texts {
            out.bytes(6, text.as_bytes());
        }
        out.number(10, self.duration.as_nanos() as u64);
        out.message(11, &kind);
        out.number(12, period as u64);
        out.0
    }
}

/// What samples refer to by number.
#[derive(Default)]
struct Tables {
    texts: Vec<String>,
    numbers: HashMap<String, u64>,
    functions: HashMap<(u64, u64), u64>,
    locations: HashMap<Frame, u64>,
    /// Locations and functions as fields of the profile.
    messages: Message,
}

impl Tables {
    fn string(&mut self, text: &str) -> u64 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len() as u64;
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    fn kind(&mut self, (name, unit): Kind) -> Message {
        let mut message = Message::default();
        message.number(1, self.string(name));
        message.number(2, self.string(unit));
        message
    }

    fn function(&mut self, frame: &Frame) -> u64 {
        let key = (self.string(&frame.function), self.string(&frame.file));
        if let Some(number) = self.functions.get(&key) {
            return *number;
        }
        let number = self.functions.len() as u64 + 1;
        self.functions.insert(key, number);
        let mut message = Message::default();
        message.number(1, number);
        message.number(2, key.0);
        message.number(3, key.0);
        message.number(4, key.1);
        self.messages.message(5, &message);
        number
    }

    fn location(&mut self, frame: &Frame) -> u64 {
        if let Some(number) = self.locations.get(frame) {
            return *number;
        }
        let number = self.locations.len() as u64 + 1;
        self.locations.insert(frame.clone(), number);
        let mut line = Message::default();
        line.number(1, self.function(frame));
        line.number(2, frame.line as u64);
        let mut message = Message::default();
        message.number(1, number);
        message.number(3, frame.address);
        message.message(4, &line);
        self.messages.message(4, &message);
        number
    }
}

/// The bytes of a protocol buffer.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn number(&mut self, field: u64, number: u64) {
        if number != 0 {
            self.varint(field << 3);
            self.varint(number);
        }
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u64, message: &Message) {
        self.bytes(field, &message.0);
    }

    fn packed(&mut self, field: u64, numbers: impl Iterator<Item = u64>) {
        let mut all = Message::default();
        numbers.for_each(|number| all.varint(number));
        self.message(field, &all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_encoded_as_its_readers_expect() {
        let frame =
            |function: &str| Frame { address: 0x10, function: function.to_owned(), file: "f".to_owned(), line: 3 };
        let profile = Profile {
            kinds: vec![("n", "u")],
            period: (("n", "u"), 300),
            duration: Duration::from_nanos(5),
            samples: vec![Sample { stack: vec![frame("a"), frame("a")], values: vec![7] }],
        };
        let expected: &[u8] = &[
            0x0a, 4, 0x08, 1, 0x10, 2, // what is measured: strings 1 and 2
            0x12, 7, 0x0a, 2, 1, 1, 0x12, 1, 7, // one sample: location 1 twice, value 7
            0x2a, 8, 0x08, 1, 0x10, 3, 0x18, 3, 0x20, 4, // function 1: strings 3 and 4
            0x22, 10, 0x08, 1, 0x18, 0x10, 0x22, 4, 0x08, 1, 0x10,
            3, // location 1: address 0x10, function 1, line 3
            0x32, 0, 0x32, 1, b'n', 0x32, 1, b'u', 0x32, 1, b'a', 0x32, 1, b'f', // the strings
            0x50, 5, 0x5a, 4, 0x08, 1, 0x10, 2, 0x60, 0xac, 2, // duration, kind of the period, period
        ];
        assert_eq!(profile.encoded(), expected);
    }
}
