//! Pages that come through a proxy subresource: their absolute links are led through it too.
//!
//! Behaviour: upstream's `util/proxy.Transport`. Only links to the page's own host are changed; scripts are not looked into.

use std::sync::LazyLock;

use http::Response;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use http_body_util::{BodyExt, Limited};
use regex::{Captures, Regex};
use xebec_api::status::StatusError;

use super::Answer;
use crate::body::{self, Body};

/// A longer page is not a page for people; it is held in memory while it is changed.
const MAX_PAGE: usize = 16 << 20;

static TAG: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?i)<[a-z][^<>]*>").expect("the expression is well-formed"));

/// An attribute that holds a URL, up to the path in quotes.
static ATTRIBUTE: LazyLock<Regex> = LazyLock::new(|| {
    let names =
        "href|src|action|cite|longdesc|codebase|background|usemap|profile|data|formaction|icon|manifest|poster|classid";
    Regex::new(&format!(r#"(?i)(\s(?:{names})\s*=\s*["'])(/[^"']*)"#)).expect("the expression is well-formed")
});

/// Leads a response's redirection and links through `prefix`, the path of the proxy subresource.
pub async fn through(response: Response<Body>, prefix: &str) -> Answer {
    let (mut parts, body) = response.into_parts();
    if let Some(location) = parts.headers.get(LOCATION).and_then(|value| value.to_str().ok()) {
        let location = HeaderValue::from_str(&led(location, prefix)).map_err(StatusError::internal)?;
        parts.headers.insert(LOCATION, location);
        return Ok(Response::from_parts(parts, body));
    }
    let media_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if media_type.split(';').next().unwrap_or("").trim() != "text/html" {
        return Ok(Response::from_parts(parts, body));
    }
    let read = Limited::new(body, MAX_PAGE).collect().await;
    let bytes = read.map_err(|error| StatusError::new(502, "", format!("error reading backend: {error}")))?.to_bytes();
    parts.headers.remove(CONTENT_LENGTH);
    let Ok(page) = std::str::from_utf8(&bytes) else { return Ok(Response::from_parts(parts, body::full(bytes))) };
    Ok(Response::from_parts(parts, body::full(with_links(page, prefix))))
}

fn with_links(page: &str, prefix: &str) -> String {
    let lead = |found: &Captures<'_>| format!("{}{}", &found[1], led(&found[2], prefix));
    TAG.replace_all(page, |tag: &Captures<'_>| ATTRIBUTE.replace_all(&tag[0], lead).into_owned()).into_owned()
}

/// A URL of the same host behind the prefix; others as they are.
fn led(url: &str, prefix: &str) -> String {
    let elsewhere = !url.starts_with('/') || url.starts_with("//");
    if elsewhere || url.starts_with(prefix) { url.to_owned() } else { format!("{prefix}{url}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_links_go_through_the_proxy() {
        let check = |page: &str, expected: &str| assert_eq!(with_links(page, "/p/proxy"), expected);
        check("<a href=\"/x\">/y</a>", "<a href=\"/p/proxy/x\">/y</a>");
        check("<a href='/p/proxy/x'>", "<a href='/p/proxy/x'>");
        check("<a href=\"x\"><a href=\"//h/x\">", "<a href=\"x\"><a href=\"//h/x\">");
        check("<form id=a action='/x'><img src=\"/y\">", "<form id=a action='/p/proxy/x'><img src=\"/p/proxy/y\">");
        check("<object classid=\"/x\" data=\"/y\">", "<object classid=\"/p/proxy/x\" data=\"/p/proxy/y\">");
        check("if (a </b) href=\"/x\"", "if (a </b) href=\"/x\"");
    }
}
