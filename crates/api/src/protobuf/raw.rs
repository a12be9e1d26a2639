//! JSON inside messages: `RawExtension`, `FieldsV1` and `JSON` carry the text itself.

/// Appends well-formed JSON without the space between its tokens, as upstream's encoder keeps it.
pub(super) fn put_compact(json: &[u8], out: &mut Vec<u8>) {
    let (mut kept, mut in_string, mut at) = (0, false, 0);
    while at < json.len() {
        match json[at] {
            b'"' => in_string = !in_string,
            b'\\' if in_string => at += 1,
            b' ' | b'\n' | b'\r' | b'\t' if !in_string => {
                out.extend_from_slice(&json[kept..at]);
                kept = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    out.extend_from_slice(&json[kept..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_goes_but_for_that_in_strings() {
        let check = |json: &str, expected: &str| {
            let mut out = Vec::new();
            put_compact(json.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check("{ \"a b\" : [ 1,\n\t2 ] }", "{\"a b\":[1,2]}");
        check(r#"{"a\" b": "c \\" }"#, r#"{"a\" b":"c \\"}"#);
        check("1", "1");
    }
}
