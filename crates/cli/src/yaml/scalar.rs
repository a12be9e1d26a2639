//! How a text is written in YAML: which of the four styles keeps it what it is.

/// The ways to write a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

/// The style of a value.
pub fn style(text: &str) -> Style {
    let shape = Shape::of(text);
    if text.contains('\n') {
        return if shape.literal { Style::Literal } else { Style::Double };
    }
    if !reads_back_as_text(text) {
        return Style::Double;
    }
    quoted_if_needed(shape)
}

/// The style of a key, which stays on one line.
pub fn key_style(text: &str) -> Style {
    if text.contains(is_break) || !reads_back_as_text(text) {
        return Style::Double;
    }
    quoted_if_needed(Shape::of(text))
}

fn quoted_if_needed(shape: Shape) -> Style {
    match shape {
        Shape { plain: true, .. } => Style::Plain,
        Shape { single: true, .. } => Style::Single,
        _ => Style::Double,
    }
}

/// The escape that stands for a character in double quotes, if it needs one.
pub fn escape(c: char) -> Option<String> {
    if is_printable(c) && !is_break(c) && c != '"' && c != '\\' {
        return None;
    }
    let short = match c {
        '\0' => '0',
        '\x07' => 'a',
        '\x08' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\x0b' => 'v',
        '\x0c' => 'f',
        '\r' => 'r',
        '\x1b' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{a0}' => '_',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        _ => {
            let code = u32::from(c);
            return Some(match code {
                0..=0xff => format!("\\x{code:02X}"),
                0x100..=0xffff => format!("\\u{code:04X}"),
                _ => format!("\\U{code:08X}"),
            });
        }
    };
    Some(format!("\\{short}"))
}

/// Which styles can bear a text.
#[derive(Clone, Copy)]
struct Shape {
    plain: bool,
    single: bool,
    literal: bool,
}

impl Shape {
    fn of(text: &str) -> Self {
        let mut shape = Shape { plain: true, single: true, literal: !text.is_empty() };
        let blank_or_break = |c: char| c == ' ' || is_break(c);
        let characters: Vec<char> = text.chars().collect();
        if has_indicators(&characters) || text.contains(is_break) {
            shape.plain = false;
        }
        if text.starts_with(blank_or_break) || text.ends_with(blank_or_break) {
            shape.plain = false;
        }
        if text.ends_with(' ') {
            shape.literal = false;
        }
        let pair = |is: fn(char, char) -> bool| characters.windows(2).any(|pair| is(pair[0], pair[1]));
        if pair(|a, b| is_break(a) && b == ' ') {
            (shape.plain, shape.single) = (false, false);
        }
        if pair(|a, b| a == ' ' && is_break(b)) || characters.iter().any(|c| !is_printable(*c)) {
            shape = Shape { plain: false, single: false, literal: false };
        }
        shape
    }
}

/// Whether signs of YAML stand where they would be taken for such.
fn has_indicators(text: &[char]) -> bool {
    let blank_after = |at: usize| text.get(at + 1).is_none_or(|c| matches!(c, ' ' | '\t'));
    if text.starts_with(&['-', '-', '-']) || text.starts_with(&['.', '.', '.']) {
        return true;
    }
    let first = match text.first() {
        Some('#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`') => true,
        Some('?' | ':' | '-') => blank_after(0),
        _ => false,
    };
    let later = |at: usize| match text[at] {
        ':' => blank_after(at),
        '#' => matches!(text[at - 1], ' ' | '\t') || is_break(text[at - 1]),
        _ => false,
    };
    first || (1..text.len()).any(later)
}

/// Whether YAML 1.1, as go-yaml reads it, takes the plain text for text.
fn reads_back_as_text(text: &str) -> bool {
    const WORDS: [&str; 11] = ["y", "yes", "true", "on", "n", "no", "false", "off", "~", "null", ""];
    // Only these three ways of writing a word mean something: yes, Yes, YES.
    let cased = |word: &str| {
        let lower = word.to_lowercase();
        let capital = lower.chars().enumerate().map(|(at, c)| if at == 0 { c.to_ascii_uppercase() } else { c });
        word == lower || word == lower.to_uppercase() || word == capital.collect::<String>()
    };
    let lower = text.to_lowercase();
    if WORDS.contains(&lower.as_str()) && cased(text) {
        return false;
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(text, ".nan" | ".NaN" | ".NAN") || matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return false;
    }
    !(is_number(text) || is_date(text) || is_base_60(text))
}

fn is_number(text: &str) -> bool {
    if let Some(fraction) = text.strip_prefix('.') {
        return is_decimal(&format!("0.{fraction}")) && fraction.starts_with(|c: char| c.is_ascii_digit());
    }
    let plain = text.replace('_', "");
    let unsigned = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    let digits = |text: &str, radix: u32| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    let prefixed = |prefixes: [&str; 2], radix: u32| {
        prefixes.iter().filter_map(|prefix| unsigned.strip_prefix(prefix)).any(|rest| digits(rest, radix))
    };
    let starts = text.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '-');
    starts
        && (is_decimal(unsigned)
            || prefixed(["0x", "0X"], 16)
            || prefixed(["0o", "0O"], 8)
            || prefixed(["0b", "0B"], 2))
}

/// `1`, `1.`, `.5`, `1.5e-3`.
fn is_decimal(unsigned: &str) -> bool {
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let exponent = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    mantissa && exponent
}

/// `2020-1-2`, `2020-01-02T03:04:05.6Z`, `2020-01-02 03:04:05`.
fn is_date(text: &str) -> bool {
    let year = text.chars().take_while(char::is_ascii_digit).count();
    if year != 4 || text.as_bytes().get(4) != Some(&b'-') {
        return false;
    }
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some(&text[at..])),
        None => (text, None),
    };
    let short = |text: &str, most: u8| {
        matches!(text.len(), 1 | 2) && text.parse::<u8>().is_ok_and(|number| number <= most) && !text.starts_with('+')
    };
    let parts: Vec<&str> = date.split('-').collect();
    let date = parts.len() == 3 && short(parts[1], 12) && short(parts[2], 31);
    let time = time.is_none_or(|time| {
        let (zoned, time) = (!time.starts_with(' '), &time[1..]);
        let clock = time.split(['Z', '+', '-', '.']).next().unwrap_or("");
        let parts: Vec<&str> = clock.split(':').collect();
        let zone = time.ends_with('Z') || time[clock.len()..].contains(['+', '-']);
        parts.len() == 3 && short(parts[0], 23) && short(parts[1], 59) && short(parts[2], 59) && zone == zoned
    });
    date && time
}

/// `12:30:45`, a number to base 60 in YAML 1.1.
fn is_base_60(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (places, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == '_');
    let mut places = places.split(':');
    let first = places.next().unwrap_or("");
    let rest: Vec<&str> = places.collect();
    let sixty = |place: &&str| matches!(place.len(), 1 | 2) && place.parse::<u8>().is_ok_and(|place| place < 60);
    first.starts_with(|c: char| c.is_ascii_digit())
        && digits(first)
        && !rest.is_empty()
        && rest.iter().all(sixty)
        && digits(fraction)
}

fn is_break(c: char) -> bool {
    matches!(c, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// go-yaml's notion: nothing beyond the basic plane, no tab.
fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && c != '\u{feff}'
}
