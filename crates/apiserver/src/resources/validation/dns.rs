//! Names: DNS labels and subdomains, label keys and values, port, header, environment and data-key names.
//!
//! Each function returns what is wrong with a text, in the words of upstream's `util/validation`; nothing means it is fine.

use xebec_api::field::{FieldError, FieldErrors, Path};

use super::text;

pub type Messages = Vec<String>;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_UNDERSCORE: &str = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const LABEL_KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                          and end with an alphanumeric character";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
                              must start and end with an alphanumeric character";
const LABEL_KEY_TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                              alphanumeric character";

/// An RFC 1123 label of at most 63 characters.
pub fn label(value: &str) -> Messages {
    let mut messages = at_most(value, 63);
    if !is_label(value) {
        messages.push(if is_subdomain(value) {
            "must not contain dots".to_owned()
        } else {
            by_regex(LABEL_TEXT, LABEL, &["my-name", "123-abc"])
        });
    }
    messages
}

/// An RFC 1123 subdomain of at most 253 characters: what most objects are named.
pub fn subdomain(value: &str) -> Messages {
    let mut messages = at_most(value, 253);
    if !is_subdomain(value) {
        messages.push(by_regex(SUBDOMAIN_TEXT, SUBDOMAIN, &["example.com"]));
    }
    messages
}

/// A subdomain in letters of either case.
pub fn subdomain_caseless(value: &str) -> Messages {
    let mut messages: Messages = at_most(value, 253).iter().map(|text| text.replace("characters", "bytes")).collect();
    if !is_subdomain(&value.to_ascii_lowercase()) {
        let about = "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end with \
                     an alphanumeric character";
        messages.push(by_regex(about, SUBDOMAIN, &["Example.com"]));
    }
    messages
}

/// A subdomain whose labels may hold and begin with underscores, as DNS search paths do.
pub fn subdomain_with_underscore(value: &str) -> Messages {
    let mut messages = at_most(value, 253);
    let fits = |part: &str| {
        let part = part.strip_prefix('_').unwrap_or(part);
        is_word(part, |c| c.is_ascii_lowercase() || c.is_ascii_digit(), |c| c == b'-' || c == b'_')
    };
    if !value.split('.').all(fits) {
        let about = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and \
                     must start and end with an alphanumeric character";
        messages.push(by_regex(about, SUBDOMAIN_UNDERSCORE, &["example.com"]));
    }
    messages
}

/// A subdomain whose first label is `*`.
pub fn wildcard_subdomain(value: &str) -> Messages {
    let mut messages = at_most(value, 253);
    if !value.strip_prefix("*.").is_some_and(is_subdomain) {
        let about = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of \
                     lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        messages.push(by_regex(about, &format!("\\*\\.{SUBDOMAIN}"), &["*.example.com"]));
    }
    messages
}

/// An RFC 1035 label: begins with a letter.
pub fn label_1035(value: &str) -> Messages {
    let mut messages = at_most(value, 63);
    if !(is_label(value) && value.as_bytes()[0].is_ascii_lowercase()) {
        let about = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
                     character, and end with an alphanumeric character";
        messages.push(by_regex(about, LABEL_1035, &["my-name", "abc-123"]));
    }
    messages
}

/// What a name may not be in a URL path (RBAC names).
pub fn path_segment(value: &str) -> Messages {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    ["/", "%"].iter().filter(|bad| value.contains(**bad)).map(|bad| format!("may not contain '{bad}'")).collect()
}

/// The key of a label, an annotation, a taint: a name with an optional DNS prefix.
pub fn label_key(value: &str) -> Messages {
    let mut messages = Vec::new();
    let regex = || by_regex(LABEL_KEY_TEXT, LABEL_KEY, &["MyName", "my.name", "123-abc"]);
    let name = match value.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                messages.push("prefix part must be non-empty".to_owned());
            } else {
                messages.extend(subdomain(prefix).into_iter().map(|message| format!("prefix part {message}")));
            }
            name
        }
        _ => {
            let about = format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                regex()
            );
            return vec![about];
        }
    };
    if name.is_empty() {
        messages.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        messages.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_label_word(name) {
        messages.push(format!("name part {}", regex()));
    }
    messages
}

/// The value of a label.
pub fn label_value(value: &str) -> Messages {
    let mut messages = Vec::new();
    if value.len() > 63 {
        messages.push("must be no more than 63 bytes".to_owned());
    }
    if !value.is_empty() && !is_label_word(value) {
        let about = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start \
                     and end with an alphanumeric character";
        messages.push(by_regex(about, &format!("({LABEL_KEY})?"), &["MyValue", "my_value", "12345"]));
    }
    messages
}

/// The name of a container's port.
pub fn port_name(value: &str) -> Messages {
    let mut messages = at_most(value, 15);
    let mut check = |wrong: bool, about: &str| {
        if wrong {
            messages.push(about.to_owned());
        }
    };
    let fits = |c: u8| c == b'-' || c.is_ascii_lowercase() || c.is_ascii_digit();
    check(
        value.is_empty() || !value.bytes().all(fits),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    );
    check(!value.bytes().any(|c| c.is_ascii_lowercase()), "must contain at least one letter (a-z)");
    check(value.contains("--"), "must not contain consecutive hyphens");
    check(value.starts_with('-') || value.ends_with('-'), "must not begin or end with a hyphen");
    messages
}

/// The name of an environment variable: printable ASCII without `=`.
pub fn env_name(value: &str) -> Messages {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    let fits = |c: char| (' '..='~').contains(&c) && c != '=';
    if value.chars().all(fits) {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// A key of a ConfigMap or a Secret.
pub fn data_key(value: &str) -> Messages {
    let mut messages = at_most(value, 253);
    let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    if value.is_empty() || !value.bytes().all(fits) {
        let about = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        messages.push(by_regex(about, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    match value {
        "." => messages.push("must not be '.'".to_owned()),
        ".." => messages.push("must not be '..'".to_owned()),
        _ if value.starts_with("..") => messages.push("must not start with '..'".to_owned()),
        _ => {}
    }
    messages
}

/// The name of an HTTP header.
pub fn header_name(value: &str) -> Messages {
    if !value.is_empty() && value.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        return Vec::new();
    }
    vec![by_regex(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// `50%`.
pub fn percent(value: &str) -> Messages {
    let number = value.strip_suffix('%').unwrap_or("");
    if !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit()) {
        return Vec::new();
    }
    let about = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![by_regex(about, "[0-9]+%", &["1%", "93%"])]
}

/// `example.com/anything/that/stands/in-a-path`: whose it is, and what.
pub fn domain_prefixed_path(errors: &mut FieldErrors, path: &Path, value: &str) {
    if value.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    let Some((domain, rest)) = value.split_once('/').filter(|(domain, rest)| !domain.is_empty() && !rest.is_empty())
    else {
        let about = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        return errors.push(FieldError::invalid(path, value, about));
    };
    errors.extend(subdomain(domain).into_iter().map(|message| FieldError::invalid(path, domain, message)));
    let fits = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
    if !rest.chars().all(fits) {
        let about = by_regex("Invalid path", r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", &[]);
        errors.push(FieldError::invalid(path, rest, about));
    }
}

/// A name that more text is appended to: a trailing `-` is let through by checking it with one letter more.
pub fn as_prefix(check: fn(&str) -> Messages, value: &Option<String>) -> Messages {
    let value = text(value);
    match value.strip_suffix('-') {
        Some(rest) => check(&format!("{rest}-a")),
        None => check(value),
    }
}

pub fn is_label(value: &str) -> bool {
    is_word(value, |c| c.is_ascii_lowercase() || c.is_ascii_digit(), |c| c == b'-')
}

pub fn is_subdomain(value: &str) -> bool {
    value.split('.').all(is_label)
}

fn is_label_word(value: &str) -> bool {
    is_word(value, |c| c.is_ascii_alphanumeric(), |c| matches!(c, b'-' | b'_' | b'.'))
}

/// Begins and ends with a character of the first class, with those of either class between.
fn is_word(value: &str, edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    let bytes = value.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    edge(*first) && edge(*last) && bytes.iter().all(|c| edge(*c) || inner(*c))
}

fn at_most(value: &str, max: usize) -> Messages {
    if value.len() > max { vec![format!("must be no more than {max} characters")] } else { Vec::new() }
}

pub fn by_regex(about: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{about} (regex used for validation is '{regex}')");
    }
    // Upstream joins with " or " after a comma and a blank, hence two blanks.
    let examples: Vec<String> = examples.iter().map(|one| format!("'{one}', ")).collect();
    format!("{about} (e.g. {}regex used for validation is '{regex}')", examples.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_in_upstreams_words() {
        let check = |messages: Messages, expected: &[&str]| assert_eq!(messages, expected);
        check(label("a-1"), &[]);
        check(label("a.b"), &["must not contain dots"]);
        check(
            label("-a"),
            &[
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with \
               an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
               '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ],
        );
        check(
            subdomain("A"),
            &[
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and \
               end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
               '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ],
        );
        check(label_key("example.com/a_b"), &[]);
        check(label_key("/a"), &["prefix part must be non-empty"]);
        check(label_value(""), &[]);
        check(port_name("http--x"), &["must not contain consecutive hyphens"]);
        check(port_name("12"), &["must contain at least one letter (a-z)"]);
        check(data_key(".."), &["must not be '..'"]);
        check(
            env_name("a=b"),
            &["a valid environment variable name must consist only of printable ASCII characters other than '='"],
        );
        check(
            percent("5"),
            &[
                "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for \
             validation is '[0-9]+%')",
            ],
        );
    }
}
