//! The transcoder against upstream's filled objects: every type of the Go module `k8s.io/api`, each field set.
//!
//! `filled-objects.z` is made by `cargo xtask fixtures`, which also says what its form is.

use std::io::Read;

use serde_json::Value;
use xebec_api::protobuf;
use xebec_api::schema::table;

const FILE: &[u8] = include_bytes!("filled-objects.z");
const COUNT: usize = 193;

struct Filled {
    name: String,
    json: Vec<u8>,
    protobuf: Vec<u8>,
}

fn filled() -> Vec<Filled> {
    let mut bytes = Vec::new();
    flate2::read::ZlibDecoder::new(FILE).read_to_end(&mut bytes).expect("a zlib stream");
    let (mut rest, mut all) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').expect("a record begins with a line");
        let line = std::str::from_utf8(&rest[..end]).expect("the line is text");
        let mut words = line.split(' ');
        let name = words.next().expect("a name").to_owned();
        let mut length = || words.next().and_then(|word| word.parse().ok()).expect("a length");
        let (json, protobuf): (usize, usize) = (length(), length());
        rest = &rest[end + 1..];
        all.push(Filled { name, json: rest[..json].to_vec(), protobuf: rest[json..json + protobuf].to_vec() });
        rest = &rest[json + protobuf..];
    }
    all
}

/// Group, version and kind from a file's name; the core group has a name there.
fn kind_of(name: &str) -> (&str, &str, &str) {
    let (rest, kind) = name.rsplit_once('.').expect("a kind");
    let (group, version) = rest.rsplit_once('.').expect("a version");
    (if group == "core" { "" } else { group }, version, kind)
}

/// What differs both ways, if anything.
fn check(filled: &Filled) -> Result<(), String> {
    let (group, version, kind) = kind_of(&filled.name);
    let ty = table().type_of(group, version, kind).ok_or("the table has no such kind")?;
    let envelope = protobuf::unwrap(&filled.protobuf).map_err(|error| error.to_string())?;
    let message = protobuf::encode(ty, &filled.json).map_err(|error| format!("{error}: {}", error.source))?;
    if protobuf::wrap(envelope.api_version, envelope.kind, &message) != filled.protobuf {
        let same = message.iter().zip(envelope.message).take_while(|(a, b)| a == b).count();
        return Err(format!("the message differs at byte {same} of {}", envelope.message.len()));
    }
    let json = protobuf::decode(ty, envelope.message, envelope.api_version, envelope.kind);
    let json = json.map_err(|error| error.to_string())?;
    let [ours, theirs] = [&json, &filled.json].map(|json| serde_json::from_slice::<Value>(json));
    let (ours, theirs) = (ours.map_err(|error| error.to_string())?, theirs.map_err(|error| error.to_string())?);
    if ours != theirs {
        return Err(format!("the JSON differs: {ours}\n{theirs}"));
    }
    if json != filled.json {
        return Err("the JSON is the same but for the order of its fields".to_owned());
    }
    Ok(())
}

#[test]
fn every_filled_object_goes_both_ways() {
    let all = filled();
    assert_eq!(all.len(), COUNT);
    let failed: Vec<String> =
        all.iter().filter_map(|one| Some(format!("{}: {}", one.name, check(one).err()?))).collect();
    assert!(failed.is_empty(), "{} of {COUNT} differ:\n{}", failed.len(), failed.join("\n"));
}

/// What is cut off at any place is refused or read as less; it never ends the process.
#[test]
fn cut_messages_do_no_harm() {
    for one in filled() {
        let (group, version, kind) = kind_of(&one.name);
        let ty = table().type_of(group, version, kind).expect("a kind");
        for end in (0..one.protobuf.len()).step_by(7) {
            if let Ok(envelope) = protobuf::unwrap(&one.protobuf[..end]) {
                let _ = protobuf::decode(ty, envelope.message, "", "");
            }
        }
    }
}
