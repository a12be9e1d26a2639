//! The names of the group: drivers, pools, devices, attributes, and lists of limited length.

use std::collections::BTreeSet;

use serde::Serialize;
use xebec_api::field::{FieldError, FieldErrors, Path};

use crate::resources::validation::{dns, report, required, shown};

const MAX_POOL: usize = 253;
const MAX_DRIVER: usize = 63;
const MAX_IDENTIFIER: usize = 32;
/// Attributes and capacities longer than this are shown shortened.
pub const MAX_QUALIFIED: usize = MAX_DRIVER + 1 + MAX_IDENTIFIER;
pub const IDENTIFIER: &str = "[A-Za-z_][A-Za-z0-9_]*";

/// What is true of the length of a list; a list that is too long is not looked into.
pub fn fits(errors: &mut FieldErrors, path: &Path, length: usize, most: usize) -> bool {
    if length > most {
        errors.push(FieldError::too_many(path, length, most));
    }
    length <= most
}

/// Every value once.
pub fn unique<'a>(errors: &mut FieldErrors, path: &Path, values: impl Iterator<Item = &'a str>) {
    let mut seen = BTreeSet::new();
    for (index, value) in values.enumerate().filter(|(_, value)| !seen.insert(*value)).collect::<Vec<_>>() {
        errors.push(FieldError::duplicate(&path.index(index), value));
    }
}

/// Every object once, by what identifies it.
pub fn keyed<T: Serialize>(errors: &mut FieldErrors, path: &Path, list: &[T], key: impl Fn(&T) -> &String) {
    let mut seen = BTreeSet::new();
    for (index, one) in list.iter().enumerate().filter(|(_, one)| !seen.insert(key(one))) {
        errors.push(FieldError::duplicate(&path.index(index), shown(one)));
    }
}

pub fn pool(errors: &mut FieldErrors, path: &Path, name: &str) {
    if !required(errors, path, name) {
        return;
    }
    if name.len() > MAX_POOL {
        errors.push(FieldError::too_long(path, MAX_POOL));
    }
    for part in name.split('/') {
        report(errors, path, part, dns::subdomain(part));
    }
}

/// `pool` as the declared rules of a few fields say it.
pub fn declared_pool(errors: &mut FieldErrors, path: &Path, name: &str) {
    if !required(errors, path, name) {
        return;
    }
    if name.len() > MAX_POOL {
        errors.push(FieldError::too_long(path, MAX_POOL));
    }
    for (index, part) in name.split('/').enumerate() {
        if part.is_empty() {
            let about = format!("segment {index}: must not be empty");
            errors.push(FieldError::invalid(path, name, about));
            continue;
        }
        let messages = dns::subdomain(part).into_iter().map(|message| format!("segment {index}: {message}"));
        report(errors, path, part, messages.collect());
    }
}

pub fn driver(errors: &mut FieldErrors, path: &Path, name: &str) {
    if !required(errors, path, name) {
        return;
    }
    if name.len() > MAX_DRIVER {
        errors.push(FieldError::too_long(path, MAX_DRIVER));
    }
    report(errors, path, name, dns::subdomain(&name.to_lowercase()));
}

/// `driver` as the declared rules of a few fields say it.
pub fn declared_driver(errors: &mut FieldErrors, path: &Path, name: &str) {
    if !required(errors, path, name) {
        return;
    }
    report(errors, path, name, dns::subdomain_caseless(name));
    if name.len() > MAX_DRIVER {
        let about = format!("may not be more than {MAX_DRIVER} characters");
        errors.push(FieldError { detail: about, ..FieldError::too_long(path, MAX_DRIVER) });
    }
}

/// Warnings about a name that was meant to be in lower case.
pub fn driver_warnings(path: &str, name: &str) -> Vec<String> {
    let about = format!("{path}: driver names should be lowercase; {name:?} contains uppercase characters");
    if name.chars().any(char::is_uppercase) { vec![about] } else { Vec::new() }
}

pub fn label(errors: &mut FieldErrors, path: &Path, name: &str) {
    report(errors, path, name, dns::label(name));
}

fn identifier(errors: &mut FieldErrors, path: &Path, name: &str) {
    if name.len() > MAX_IDENTIFIER {
        errors.push(FieldError::too_long(path, MAX_IDENTIFIER));
    }
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(word) {
        let about = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
                     alphanumeric characters or '_'";
        let about = dns::by_regex(about, IDENTIFIER, &["my_name", "MY_NAME", "MyName"]);
        errors.push(FieldError::invalid(path, name, about));
    }
}

/// `model`, or `example.com/model`. Upstream lets more than one slash through.
pub fn qualified(errors: &mut FieldErrors, path: &Path, name: &str) {
    match name.split('/').collect::<Vec<_>>()[..] {
        [name] => identifier(errors, path, name),
        [domain, name] => {
            if domain.is_empty() {
                errors.push(FieldError::invalid(path, "", "the domain must not be empty"));
            } else {
                driver(errors, path, domain);
            }
            if name.is_empty() {
                errors.push(FieldError::invalid(path, "", "the name must not be empty"));
            } else {
                identifier(errors, path, name);
            }
        }
        _ => {}
    }
}

/// `example.com/model`, about which upstream has other words.
pub fn fully_qualified(errors: &mut FieldErrors, path: &Path, name: &str) {
    match name.split('/').collect::<Vec<_>>()[..] {
        [name] => {
            identifier(errors, path, name);
            let about = "a fully qualified name must be a domain and a name separated by a slash";
            errors.push(FieldError::invalid(path, name, about));
        }
        [domain, name] => {
            if domain.is_empty() {
                errors.push(FieldError::invalid(path, "", "prefix must not be empty"));
            } else {
                if domain.len() > MAX_DRIVER {
                    errors.push(FieldError::too_long(path, MAX_DRIVER));
                }
                let messages = dns::subdomain(domain).into_iter().map(|text| format!("prefix: {text}"));
                messages.for_each(|text| errors.push(FieldError::invalid(path, domain, text)));
            }
            if name.is_empty() {
                errors.push(FieldError::invalid(path, "", "name must not be empty"));
            } else {
                identifier(errors, path, name);
            }
        }
        _ => {}
    }
}

pub fn uuid(errors: &mut FieldErrors, path: &Path, value: &str) {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let groups: Vec<usize> = value.split('-').map(str::len).collect();
    if groups != [8, 4, 4, 4, 12] || !value.chars().all(|c| hex(c) || c == '-') {
        let about = "must be a lowercase UUID in 8-4-4-4-12 format";
        errors.push(FieldError::invalid(path, value, about));
    }
}

/// A long key with its middle left out.
pub fn shortened(key: &str, most: usize) -> String {
    if key.len() <= most {
        return key.to_owned();
    }
    let left = most - 3;
    let bytes = key.as_bytes();
    let (head, tail) = (&bytes[..left.div_ceil(2)], &bytes[bytes.len() - left / 2..]);
    format!("{}...{}", String::from_utf8_lossy(head), String::from_utf8_lossy(tail))
}
