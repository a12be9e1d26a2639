//! Image references as the runtime wants them: checked, and with a tag. Source: the grammar of the distribution project's
//! `reference` package, which upstream uses.

/// Appends `:latest` where neither tag nor digest is given.
pub fn with_default_tag(reference: &str) -> Result<String, String> {
    let failed = |why: &str| format!("couldn't parse image name {reference:?}: {why}");
    let invalid = || failed("invalid reference format");
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (reference, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err(invalid());
    }
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(invalid());
    }
    let (domain, path) = split_domain(name);
    if path.chars().any(|character| character.is_ascii_uppercase()) && is_path(&path.to_lowercase()) {
        let path = if domain.is_none() && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
        return Err(failed(&format!("invalid reference format: repository name ({path}) must be lowercase")));
    }
    if !is_path(path) || domain.is_some_and(|domain| !is_domain(domain)) {
        return Err(invalid());
    }
    if tag.is_none() && digest.is_none() { Ok(format!("{reference}:latest")) } else { Ok(reference.to_owned()) }
}

/// The registry's host and the rest; without a host the default registry is meant.
pub fn split_domain(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
        _ => (None, name),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = domain.rsplit_once(':').unwrap_or((domain, "0"));
    let label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|character| character.is_ascii_alphanumeric() || character == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    port.chars().all(|digit| digit.is_ascii_digit()) && !port.is_empty() && host.split('.').all(label)
}

fn is_path(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(is_component)
}

/// Words of lower-case letters and digits, held together by `.`, `_`, `__` or dashes.
fn is_component(component: &str) -> bool {
    let mut separator = String::from("start");
    for character in component.chars() {
        if character.is_ascii_lowercase() || character.is_ascii_digit() {
            separator.clear();
        } else if separator == "start" {
            return false;
        } else {
            separator.push(character);
            let dashes = separator.chars().all(|it| it == '-');
            if !dashes && !matches!(separator.as_str(), "." | "_" | "__") {
                return false;
            }
        }
    }
    separator.is_empty()
}

fn is_tag(tag: &str) -> bool {
    let word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    (1..=128).contains(&tag.len())
        && tag.starts_with(word)
        && tag.chars().all(|character| word(character) || matches!(character, '.' | '-'))
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.chars().all(|character| character.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reference: &str, expected: Result<&str, &str>) {
        assert_eq!(with_default_tag(reference).as_deref().map_err(String::as_str), expected, "{reference}");
    }

    #[test]
    fn references() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        check("redis", Ok("redis:latest"));
        check("redis:7", Ok("redis:7"));
        check("host.example:5000/a/b_c", Ok("host.example:5000/a/b_c:latest"));
        check("localhost/a--b:1.0-x", Ok("localhost/a--b:1.0-x"));
        check(&digest, Ok(&digest));
        check("", Err("couldn't parse image name \"\": invalid reference format"));
        check("a b", Err("couldn't parse image name \"a b\": invalid reference format"));
        check("a:", Err("couldn't parse image name \"a:\": invalid reference format"));
        check("-a", Err("couldn't parse image name \"-a\": invalid reference format"));
        check("a..b", Err("couldn't parse image name \"a..b\": invalid reference format"));
        let upper = "couldn't parse image name \"Redis\": invalid reference format: repository name (library/Redis) must be lowercase";
        check("Redis", Err(upper));
    }
}
