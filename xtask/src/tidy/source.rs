//! The sources of the tree: their text, and the same text with comments, strings and tests blanked out, so that a check
//! of code does not stumble over prose. Generated files (first line `// @generated`) are left aside.
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Folders of the tree that hold Rust sources.
const FOLDERS: [&str; 5] = ["crates", "e2e", "testkit", "testtool", "xtask"];

pub struct Tree {
    pub root: PathBuf,
    pub files: Vec<Source>,
}

pub struct Source {
    /// Relative to the root, with `/`.
    pub path: String,
    pub text: String,
    /// `text` with comments and literals blanked, line for line.
    pub code: String,
    /// How many lines come before the tests; all tests stand at the end of a file.
    pub lines: usize,
}

impl Tree {
    /// Reads all sources below `root`.
    ///
    /// # Errors
    /// A folder or a file cannot be read.
    pub fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for folder in FOLDERS {
            let folder = root.join(folder);
            if folder.exists() {
                collect(root, &folder, &mut files)?;
            }
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Self { root: root.to_owned(), files })
    }
}

impl Source {
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let code = blank(&text);
        let lines = tests_begin(&code).unwrap_or_else(|| text.lines().count());
        Self { path, text, code, lines }
    }

    /// Whether the file holds tests alone.
    pub fn is_test(&self) -> bool {
        let stem = self.stem();
        self.path.contains("/tests/") || self.path.contains("/benches/") || stem == "tests" || stem.ends_with("_tests")
    }

    pub fn stem(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs")
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<Source>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(root, &path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            if !text.starts_with("// @generated") {
                files.push(Source::new(path.strip_prefix(root)?.to_string_lossy(), text));
            }
        }
    }
    Ok(())
}

/// The line, counted from 0, at which the file's own tests begin.
fn tests_begin(code: &str) -> Option<usize> {
    let lines: Vec<_> = code.lines().collect();
    lines.windows(2).position(|pair| {
        let item = pair[1].trim_start_matches("pub").trim_start_matches("(crate)").trim_start();
        pair[0].trim_end() == "#[cfg(test)]" && item.starts_with("mod ") && item.trim_end().ends_with('{')
    })
}

/// Replaces comments and the insides of literals by spaces; line breaks stay.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        if end == at {
            code.push(bytes[at]);
            at += 1;
        } else {
            code.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
            at = end;
        }
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// Where the comment or literal that begins at `at` ends; `at` itself where none begins.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let in_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest {
        [b'/', b'/', ..] => at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => at + find(rest, b"*/").map_or(rest.len(), |end| end + 2),
        [b'"', ..] => at + string_end(rest),
        [b'r', b'"' | b'#', ..] if !in_word => raw_string_end(bytes, at),
        [b'b', b'r', b'"' | b'#', ..] if !in_word => raw_string_end(bytes, at + 1),
        [b'\'', b'\\', ..] => at + 3 + rest.iter().skip(3).position(|byte| *byte == b'\'').unwrap_or(0) + 1,
        [b'\'', tail @ ..] => match std::str::from_utf8(&tail[..tail.len().min(4)]) {
            // A quote after one character closes a literal; otherwise this was a lifetime.
            Ok(text) => character_end(text).map_or(at, |length| at + 1 + length),
            Err(error) => character_end(std::str::from_utf8(&tail[..error.valid_up_to()]).unwrap_or_default())
                .map_or(at, |length| at + 1 + length),
        },
        _ => at,
    }
}

fn character_end(text: &str) -> Option<usize> {
    let mut characters = text.char_indices();
    characters.next()?;
    let (place, quote) = characters.next()?;
    (quote == '\'').then_some(place + 1)
}

fn string_end(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `r` stands at `at`; a raw identifier (`r#type`) is no literal.
fn raw_string_end(bytes: &[u8], at: usize) -> usize {
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    if bytes.get(at + 1 + hashes) != Some(&b'"') {
        return at;
    }
    let closing = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    let start = at + 2 + hashes;
    find(&bytes[start..], &closing).map_or(bytes.len(), |end| start + end + closing.len())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked() {
        let check = |text: &str, expected: &str| assert_eq!(blank(text), expected, "{text}");
        check("a // b\nc", "a     \nc");
        check("a /* b */ c", "a         c");
        check(r#"f("a\"{", x)"#, "f(      , x)");
        check("f(r#\"{\"#)", "f(      )");
        check("let c = '{'; fn f<'a>(x: &'a str)", "let c =    ; fn f<'a>(x: &'a str)");
        check(r"'\'' '\u{1}' 'é'", "                 ");
        check("r#type", "r#type");
    }

    #[test]
    fn lines_are_counted_up_to_the_tests() {
        let check = |text: &str, expected| assert_eq!(Source::new("a.rs", text).lines, expected, "{text}");
        check("a\nb\n", 2);
        check("a\n#[cfg(test)]\nmod tests {\n}\n", 1);
        check("a\n#[cfg(test)]\nmod tests;\nb\n", 4);
        check("a\n#[cfg(test)]\nuse b;\nc\n", 4);
    }
}
