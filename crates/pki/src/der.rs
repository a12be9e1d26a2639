//! The little of DER (ITU-T X.690) that certificates are made of, and PEM around it. Writing only; x509-parser reads.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

pub const BOOLEAN: u8 = 0x01;
pub const INTEGER: u8 = 0x02;
pub const BIT_STRING: u8 = 0x03;
pub const OCTET_STRING: u8 = 0x04;
pub const OBJECT_IDENTIFIER: u8 = 0x06;
pub const UTF8_STRING: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
pub const SEQUENCE: u8 = 0x30;
pub const SET: u8 = 0x31;

/// One element: tag, length, content.
pub fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ ..0x80 => out.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            out.push(0x80 | bytes.len() as u8);
            out.extend(bytes);
        }
    }
    out.extend(content);
    out
}

pub fn sequence<'a>(elements: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    element(SEQUENCE, &elements.into_iter().flatten().copied().collect::<Vec<u8>>())
}

/// Tag `[number]`, constructed, around something with a tag of its own.
pub fn explicit(number: u8, content: &[u8]) -> Vec<u8> {
    element(0xa0 | number, content)
}

/// Tag `[number]`, primitive, in place of the content's own tag.
pub fn implicit(number: u8, content: &[u8]) -> Vec<u8> {
    element(0x80 | number, content)
}

pub fn object_identifier(numbers: &[u64]) -> Vec<u8> {
    let [first, second, rest @ ..] = numbers else { panic!("an object identifier has two numbers at least") };
    let mut content = Vec::new();
    for number in [&(first * 40 + second)].into_iter().chain(rest) {
        let groups = (1..=9).rev().filter(|group| number >> (7 * group) != 0);
        content.extend(groups.map(|group| (number >> (7 * group)) as u8 | 0x80));
        content.push(*number as u8 & 0x7f);
    }
    element(OBJECT_IDENTIFIER, &content)
}

/// Whole bytes as a bit string.
pub fn bit_string(bytes: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], bytes].concat())
}

/// Named bits, of which bit 0 is the first on the wire; trailing zeros are left out as DER wants it.
pub fn named_bits(bits: u16) -> Vec<u8> {
    let reversed = bits.reverse_bits();
    let bytes = reversed.to_be_bytes();
    let used = 2 - (reversed.trailing_zeros() / 8).min(2) as usize;
    let unused = if used == 0 { 0 } else { (reversed.trailing_zeros() % 8) as u8 };
    element(BIT_STRING, &[&[unused], &bytes[..used]].concat())
}

/// RFC 5280 section 4.1.2.5: two-digit years until 2049, four-digit ones after.
pub fn time(at: Timestamp) -> Vec<u8> {
    let at = at.to_zoned(TimeZone::UTC);
    let (tag, format) = match at.year() {
        1950..2050 => (UTC_TIME, "%y%m%d%H%M%SZ"),
        _ => (GENERALIZED_TIME, "%Y%m%d%H%M%SZ"),
    };
    let text = strtime::format(format, &at).expect("the format has only what a zoned time has");
    element(tag, text.as_bytes())
}

pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().map(|byte| *byte as char));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(encoded: Vec<u8>, expected: &[u8]) {
        assert_eq!(encoded, expected);
    }

    #[test]
    fn elements_are_encoded_as_x690_says() {
        check(element(OCTET_STRING, &[7]), &[4, 1, 7]);
        assert_eq!(element(OCTET_STRING, &[0; 127])[..2], [4, 127]);
        assert_eq!(element(OCTET_STRING, &[0; 128])[..3], [4, 0x81, 128]);
        assert_eq!(element(OCTET_STRING, &[0; 300])[..4], [4, 0x82, 1, 44]);
        check(object_identifier(&[1, 2, 840, 10045, 4, 3, 2]), &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]);
        check(object_identifier(&[2, 5, 4, 3]), &[6, 3, 0x55, 4, 3]);
        check(named_bits(0b1), &[3, 2, 7, 0x80]);
        check(named_bits(0b110_0001), &[3, 2, 1, 0b1000_0110]);
        check(named_bits(1 << 8 | 1), &[3, 3, 7, 0x80, 0x80]);
        check(named_bits(0), &[3, 1, 0]);
        let moment = |text: &str| time(text.parse().unwrap());
        check(moment("2049-12-31T23:59:59Z"), b"\x17\x0d491231235959Z");
        check(moment("2050-01-01T00:00:00Z"), b"\x18\x0f20500101000000Z");
    }
}
