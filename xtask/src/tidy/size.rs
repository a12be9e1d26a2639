//! The size ratchet: a file has at most 800 lines and a function at most 70, tests aside. `xtask/tidy.toml` lists the
//! exceptions with their size; the list may only shrink, so an exception that is outgrown or no longer needed is a
//! finding as well.
use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::source::{Source, Tree};

const LONGEST_FILE: usize = 800;
const LONGEST_FUNCTION: usize = 70;
const EXCEPTIONS: &str = "xtask/tidy.toml";

pub fn check(tree: &Tree) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(tree.root.join(EXCEPTIONS)).with_context(|| format!("reading {EXCEPTIONS}"))?;
    let mut sizes = BTreeMap::new();
    for file in tree.files.iter().filter(|file| !file.is_test()) {
        sizes.insert(file.path.clone(), (file.lines, LONGEST_FILE));
        for (name, length) in functions(file) {
            // Methods of the same name share an entry, which the longest of them decides.
            let entry = sizes.entry(format!("{}::{name}", file.path)).or_insert((length, LONGEST_FUNCTION));
            entry.0 = entry.0.max(length);
        }
    }
    Ok(findings(&sizes, &exceptions(&text)?))
}

fn findings(sizes: &BTreeMap<String, (usize, usize)>, exceptions: &BTreeMap<String, usize>) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, (size, limit)) in sizes {
        match exceptions.get(name) {
            None if size > limit => findings.push(format!("{name} has {size} lines, the limit is {limit}")),
            Some(_) if size <= limit => findings.push(format!("{name} needs its exception no longer: remove it")),
            Some(allowed) if size > allowed => findings.push(format!("{name} grew from {allowed} to {size} lines")),
            _ => {}
        }
    }
    let gone = exceptions.keys().filter(|name| !sizes.contains_key(*name));
    findings.extend(gone.map(|name| format!("{name} is no longer there: remove its exception")));
    findings
}

/// Lines of the form `"NAME" = SIZE`; the file is TOML, of which nothing else is used.
fn exceptions(text: &str) -> Result<BTreeMap<String, usize>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '[']));
    lines
        .map(|line| {
            let (name, size) = line.split_once('=').with_context(|| format!("{EXCEPTIONS}: {line} is no entry"))?;
            let size = size.trim().parse().with_context(|| format!("{EXCEPTIONS}: {size} is no number"))?;
            Ok((name.trim().trim_matches('"').to_owned(), size))
        })
        .collect()
}

/// The functions before the file's tests, with how many lines each has from its signature to its closing brace.
fn functions(file: &Source) -> Vec<(String, usize)> {
    let code: String = file.code.lines().take(file.lines).flat_map(|line| [line, "\n"]).collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = code[at..].find("fn ").map(|place| at + place) {
        at = start + 3;
        let begins_word =
            start == 0 || !code.as_bytes()[start - 1].is_ascii_alphanumeric() && code.as_bytes()[start - 1] != b'_';
        let name: String = code[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if begins_word
            && !name.is_empty()
            && let Some(end) = body_end(&code, at)
        {
            found.push((name, code[start..end].matches('\n').count() + 1));
        }
    }
    found
}

/// The end of the body of the function whose name stands at `at`; none for a declaration.
fn body_end(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0usize;
    // Within the signature a semicolon also separates an array's type from its length.
    let mut brackets = 0usize;
    for (place, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'[' | b'(' => brackets += 1,
            b']' | b')' => brackets = brackets.saturating_sub(1),
            b';' if depth == 0 && brackets == 0 => return None,
            b'{' => depth += 1,
            b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(place);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_measured() {
        let check = |text: &str, expected: &[(&str, usize)]| {
            let found = functions(&Source::new("a.rs", text));
            let found: Vec<_> = found.iter().map(|(name, length)| (name.as_str(), *length)).collect();
            assert_eq!(found, expected, "{text}");
        };
        check("fn a() {\n  b\n}\nfn c() {}\n", &[("a", 3), ("c", 1)]);
        check("trait T {\n  fn a();\n  fn b(x: [u8; 2]) {\n  }\n}\n", &[("b", 2)]);
        check("fn a() {\n  // }\n  \"}\";\n}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\n", &[("a", 4)]);
        check("type F = fn (u8) -> u8;\n", &[]);
    }

    #[test]
    fn the_list_of_exceptions_may_only_shrink() {
        let check = |size, exceptions: &str, expected: &str| {
            let sizes = BTreeMap::from([("a.rs".to_owned(), (size, 800))]);
            let found = findings(&sizes, &super::exceptions(exceptions).expect("exceptions")).join("\n");
            assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{found}");
        };
        check(800, "", "");
        check(801, "", "the limit is 800");
        check(801, "\"a.rs\" = 900", "");
        check(901, "\"a.rs\" = 900", "grew from 900 to 901");
        check(800, "\"a.rs\" = 900", "no longer: remove it");
        check(1, "\"b.rs\" = 900", "no longer there");
    }
}
