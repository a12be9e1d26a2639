//! `$(NAME)` in values, commands and arguments. `$$` is an escaped dollar; a reference to an unknown name stays as it is.

pub fn expand(text: &str, value_of: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match value_of(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(expand(text, |name| (name == "A").then(|| "x".to_owned())), expected, "{text}");
    }

    #[test]
    fn references() {
        check("plain", "plain");
        check("$(A)", "x");
        check("a$(A)b$(A)", "axbx");
        check("$$(A)", "$(A)");
        check("$$$(A)", "$x");
        check("$(B)", "$(B)");
        check("$A", "$A");
        check("$(A", "$(A");
        check("$", "$");
        check("a$$", "a$");
    }
}
