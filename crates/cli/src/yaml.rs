//! Objects as YAML, byte for byte as kubectl writes them.
//!
//! kubectl's writer is go-yaml 2: keys in its natural order, lists not indented below their key, text plain where it reads back as
//! the same text, in single quotes where signs of YAML stand in the way, in double quotes where it would read back as something
//! else than text (by the rules of YAML 1.1) or cannot be written otherwise, and lines folded after column 80. Only JSON values
//! are written, so there are no tags and no anchors.

mod scalar;

use std::cmp::Ordering;

use serde_json::{Map, Value};

use scalar::Style;

/// A document, with a line feed at its end.
pub fn to_string(value: &Value) -> String {
    let mut writer = Writer::default();
    match value {
        Value::Object(map) if !map.is_empty() => writer.mapping(map, 0),
        Value::Array(items) if !items.is_empty() => writer.sequence(items, 0),
        leaf => writer.leaf(leaf, 0),
    }
    writer.end_line();
    writer.out
}

#[derive(Default)]
struct Writer {
    out: String,
    /// Characters since the last line feed.
    column: usize,
}

impl Writer {
    /// The entries; the first of them goes where the writer stands.
    fn mapping(&mut self, map: &Map<String, Value>, indent: usize) {
        let mut entries: Vec<(&String, &Value)> = map.iter().collect();
        entries.sort_by(|a, b| natural_order(a.0, b.0));
        for (at, (key, value)) in entries.into_iter().enumerate() {
            if at > 0 {
                self.line(indent);
            }
            self.key(key, indent);
            match value {
                Value::Object(map) if !map.is_empty() => {
                    self.line(indent + 2);
                    self.mapping(map, indent + 2);
                }
                Value::Array(items) if !items.is_empty() => {
                    self.line(indent);
                    self.sequence(items, indent);
                }
                leaf => {
                    self.put(" ");
                    self.leaf(leaf, indent + 2);
                }
            }
        }
    }

    fn sequence(&mut self, items: &[Value], indent: usize) {
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.line(indent);
            }
            self.put("- ");
            match item {
                Value::Object(map) if !map.is_empty() => self.mapping(map, indent + 2),
                Value::Array(items) if !items.is_empty() => self.sequence(items, indent + 2),
                leaf => self.leaf(leaf, indent + 2),
            }
        }
    }

    fn leaf(&mut self, value: &Value, indent: usize) {
        match value {
            Value::String(text) => self.text(text, indent),
            Value::Object(_) => self.put("{}"),
            Value::Array(_) => self.put("[]"),
            Value::Number(number) if number.is_f64() => self.put(&float(number.as_f64().unwrap_or_default())),
            other => self.put(&other.to_string()),
        }
    }

    fn text(&mut self, text: &str, indent: usize) {
        match scalar::style(text) {
            Style::Plain => self.plain(text, Some(indent)),
            Style::Single => self.single(text, Some(indent)),
            Style::Double => self.double(text, Some(indent)),
            Style::Literal => self.literal(text, indent),
        }
    }

    /// A key never spans lines; one that is too long to be found by a reader's look-ahead is announced.
    fn key(&mut self, key: &str, indent: usize) {
        const LOOK_AHEAD: usize = 128;
        let announced = key.len() > LOOK_AHEAD;
        if announced {
            self.put("? ");
        }
        match scalar::key_style(key) {
            Style::Plain => self.plain(key, None),
            Style::Single => self.single(key, None),
            _ => self.double(key, None),
        }
        if announced {
            self.line(indent);
        }
        self.put(":");
    }

    fn plain(&mut self, text: &str, fold: Option<usize>) {
        let mut after_space = false;
        let mut characters = text.chars().peekable();
        while let Some(c) = characters.next() {
            if c == ' ' && !after_space && characters.peek() != Some(&' ') && self.must_fold(fold) {
                self.line(fold.unwrap_or(0));
            } else {
                self.put_char(c);
            }
            after_space = c == ' ';
        }
    }

    fn single(&mut self, text: &str, fold: Option<usize>) {
        self.put("'");
        let mut after_space = false;
        let mut characters = text.chars().enumerate().peekable();
        while let Some((at, c)) = characters.next() {
            let next = characters.peek().map(|(_, next)| *next);
            if c == ' ' && !after_space && at > 0 && next.is_some_and(|next| next != ' ') && self.must_fold(fold) {
                self.line(fold.unwrap_or(0));
            } else {
                if c == '\'' {
                    self.put_char(c);
                }
                self.put_char(c);
            }
            after_space = c == ' ';
        }
        self.put("'");
    }

    fn double(&mut self, text: &str, fold: Option<usize>) {
        self.put("\"");
        let mut after_space = false;
        let mut characters = text.chars().enumerate().peekable();
        while let Some((at, c)) = characters.next() {
            let next = characters.peek().map(|(_, next)| *next);
            if let Some(escape) = scalar::escape(c) {
                self.put(&escape);
            } else if c == ' ' && !after_space && at > 0 && next.is_some() && self.must_fold(fold) {
                self.line(fold.unwrap_or(0));
                if next == Some(' ') {
                    self.put("\\");
                }
            } else {
                self.put_char(c);
            }
            after_space = c == ' ';
        }
        self.put("\"");
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.put("|");
        if text.starts_with([' ', '\n', '\r']) {
            self.put("2");
        }
        if !text.ends_with('\n') {
            self.put("-");
        } else if text == "\n" || text.ends_with("\n\n") {
            self.put("+");
        }
        self.put_char('\n');
        for line in text.split_inclusive('\n') {
            if line != "\n" {
                self.line(indent);
            }
            self.put(line);
        }
    }

    fn must_fold(&self, fold: Option<usize>) -> bool {
        const WIDTH: usize = 80;
        fold.is_some() && self.column > WIDTH
    }

    fn line(&mut self, indent: usize) {
        self.end_line();
        self.out.extend(std::iter::repeat_n(' ', indent));
        self.column = indent;
    }

    fn end_line(&mut self) {
        if self.column > 0 {
            self.put_char('\n');
        }
    }

    fn put(&mut self, text: &str) {
        text.chars().for_each(|c| self.put_char(c));
    }

    fn put_char(&mut self, c: char) {
        self.out.push(c);
        self.column = if c == '\n' { 0 } else { self.column + 1 };
    }
}

/// Go's `%g` of a number that is no integer.
fn float(number: f64) -> String {
    let exponent = if number == 0.0 { 0 } else { number.abs().log10().floor() as i32 };
    if (-4..6).contains(&exponent) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(("+", exponent), |exponent| ("-", exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// go-yaml's order of keys: letters after other signs, numbers by their value.
fn natural_order(a: &str, b: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(at) = (0..a.len().min(b.len())).find(|at| a[*at] != b[*at]) else { return a.len().cmp(&b.len()) };
    match (a[at].is_alphabetic(), b[at].is_alphabetic()) {
        (true, true) => return a[at].cmp(&b[at]),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    let number = |text: &[char]| {
        let zero = a[at] == '0' || b[at] == '0';
        let before = text[..at].iter().rev().take_while(|c| c.is_ascii_digit()).any(|c| *c != '0');
        let digits: Vec<char> = text[at..].iter().copied().take_while(char::is_ascii_digit).collect();
        let start = u128::from(zero && before);
        let value = digits.iter().fold(start, |sum, c| sum.saturating_mul(10).saturating_add(u128::from(*c) - 48));
        (value, digits.len())
    };
    number(&a).cmp(&number(&b)).then(a[at].cmp(&b[at]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(value: Value, expected: &str) {
        assert_eq!(to_string(&value), expected);
    }

    #[test]
    fn structure() {
        check(json!({"b": {"c": [1, {"d": null, "e": []}, ["x", "y"]]}, "a": {}}), {
            "a: {}\nb:\n  c:\n  - 1\n  - d: null\n    e: []\n  - - x\n    - \"y\"\n"
        });
        check(json!([]), "[]\n");
        check(json!({"a10": 1, "a2": 2, "a.b": 3, "ab": true, "f": 1.5, "g": 1e21}), {
            "a.b: 3\na2: 2\na10: 1\nab: true\nf: 1.5\ng: 1e+21\n"
        });
    }

    #[test]
    fn texts() {
        let text = |text: &str, expected: &str| check(json!({"k": text}), &format!("k: {expected}\n"));
        text("plain text", "plain text");
        text("", "\"\"");
        text("yes", "\"yes\"");
        text("0644", "\"0644\"");
        text("1e3", "\"1e3\"");
        text("12:30:45", "\"12:30:45\"");
        text("2020-01-01T00:00:00Z", "\"2020-01-01T00:00:00Z\"");
        text("1.2.3", "1.2.3");
        text("100m", "100m");
        text("a: b", "'a: b'");
        text("it's: \"x\"", "'it''s: \"x\"'");
        text("*x", "'*x'");
        text(" x", "' x'");
        text("a\tb", "\"a\\tb\"");
        text("äöü € \u{1F6A2}", "\"äöü € \\U0001F6A2\"");
        text("a\r\nb", "\"a\\r\\nb\"");
        text("a \nb\n\n", "\"a \\nb\\n\\n\"");
    }

    #[test]
    fn literals() {
        let text = |text: &str, expected: &str| check(json!({"k": text, "l": 1}), expected);
        text("a\nb\n", "k: |\n  a\n  b\nl: 1\n");
        text("a\nb", "k: |-\n  a\n  b\nl: 1\n");
        text("a\n\nb\n\n", "k: |+\n  a\n\n  b\n\nl: 1\n");
        text("  a\nb\n", "k: |2\n    a\n  b\nl: 1\n");
        text("\n", "k: |2+\n\nl: 1\n");
        text("\n\n", "k: |2+\n\n\nl: 1\n");
    }

    #[test]
    fn long_lines_are_folded() {
        let words =
            "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore";
        check(json!({"data": {"long": words}}), {
            "data:\n  long: Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor\n    incididunt ut labore\n"
        });
    }
}
