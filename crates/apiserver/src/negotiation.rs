//! In which form a response goes out: the media type and whether as objects, as a Table or as metadata only.
//!
//! Behaviour: upstream's content negotiation over the `Accept` header. CBOR is not offered, as upstream does not by default.

use http::header::{ACCEPT, ACCEPT_ENCODING};
use http::{HeaderMap, HeaderValue};
use xebec_api::status::StatusError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

/// What objects are shown as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Objects,
    /// In this version of `meta.k8s.io`.
    Table(&'static str),
    Metadata(&'static str),
    MetadataList(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub encoding: Encoding,
    pub shown: Shown,
}

/// In the order in which a wildcard is tried.
const ENCODINGS: [Encoding; 3] = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf];

impl Encoding {
    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Yaml => "application/yaml",
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    pub fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(self.media_type())
    }
}

impl Accepted {
    pub const JSON: Accepted = Accepted { encoding: Encoding::Json, shown: Shown::Objects };
}

/// What the client likes best of what a resource is shown as.
pub fn accepted(headers: &HeaderMap) -> Result<Accepted, StatusError> {
    best(headers, |encoding, transform| Some(Accepted { encoding, shown: transform.shown(encoding)? }))
        .ok_or_else(|| not_acceptable(headers, OFFERED))
}

/// What the client likes best for a document that can only be shown as it is.
pub fn plain(headers: &HeaderMap) -> Result<Encoding, StatusError> {
    best(headers, |encoding, transform| transform.is_none().then_some(encoding))
        .ok_or_else(|| not_acceptable(headers, OFFERED))
}

pub const OFFERED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// Nothing that the client accepts is offered. Upstream looks at the media types first, and at what is to become of the
/// objects later, with another answer.
pub fn not_acceptable(headers: &HeaderMap, offered: &str) -> StatusError {
    if best(headers, |_, _| Some(())).is_some() && offered.starts_with(OFFERED) {
        return StatusError::not_acceptable(format!("only the following media types are accepted: {OFFERED}"));
    }
    let mut error = StatusError::not_acceptable(format!("406: Not Acceptable\n\nAvailable representations: {offered}"));
    error.0.details = Some(Default::default());
    error
}

/// The type that the client wants the objects turned into; all empty for none.
#[derive(Default)]
pub struct Transform<'a> {
    pub kind: &'a str,
    pub group: &'a str,
    pub version: &'a str,
}

impl Transform<'_> {
    fn is_none(&self) -> bool {
        self.kind.is_empty() && self.group.is_empty() && self.version.is_empty()
    }

    fn shown(&self, encoding: Encoding) -> Option<Shown> {
        if self.is_none() {
            return Some(Shown::Objects);
        }
        let version = match (self.group, self.version) {
            ("meta.k8s.io", "v1") => "v1",
            ("meta.k8s.io", "v1beta1") => "v1beta1",
            _ => return None,
        };
        match self.kind {
            // A Table has no protobuf form.
            "Table" => (encoding != Encoding::Protobuf).then_some(Shown::Table(version)),
            "PartialObjectMetadata" => Some(Shown::Metadata(version)),
            "PartialObjectMetadataList" => Some(Shown::MetadataList(version)),
            _ => None,
        }
    }
}

/// The first of the client's clauses, the best ones before the others, for which `offer` has something.
pub fn best<T>(headers: &HeaderMap, offer: impl Fn(Encoding, &Transform<'_>) -> Option<T>) -> Option<T> {
    clauses(headers).into_iter().find_map(|clause| offered(clause, &offer))
}

/// Which of these media types the client likes best, for documents that are in none of the usual encodings.
pub fn best_of(headers: &HeaderMap, media_types: &[&'static str]) -> Option<&'static str> {
    clauses(headers).into_iter().find_map(|clause| {
        let wanted = clause.split(';').next()?.trim();
        media_types
            .iter()
            .copied()
            .find(|media_type| matches!(wanted, "*/*" | "application/*") || wanted == *media_type)
    })
}

/// What the client accepts, the best first.
fn clauses(headers: &HeaderMap) -> Vec<&str> {
    let mut clauses: Vec<(f32, &str)> = Vec::new();
    for value in headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
        // The commonest requests are spared the sorting.
        if matches!(value, "application/json" | "*/*" | "") {
            return vec!["application/json"];
        }
        clauses.extend(value.split(',').map(|clause| (quality(clause), clause.trim())));
    }
    if clauses.is_empty() {
        return vec!["*/*"];
    }
    // A stable sort: of equal ones the first wins.
    clauses.sort_by(|a, b| b.0.total_cmp(&a.0));
    clauses.into_iter().map(|(_, clause)| clause).collect()
}

fn offered<T>(clause: &str, offer: impl Fn(Encoding, &Transform<'_>) -> Option<T>) -> Option<T> {
    let media_type = clause.split(';').next()?.trim();
    let mut transform = Transform::default();
    for (name, value) in parameters(clause) {
        match name {
            "as" => transform.kind = value,
            "g" => transform.group = value,
            "v" => transform.version = value,
            // Watches are the only streams.
            "stream" if !matches!(value, "" | "watch") => return None,
            // Other parameters say nothing here.
            _ => {}
        }
    }
    let matches =
        |encoding: &Encoding| matches!(media_type, "*/*" | "application/*") || media_type == encoding.media_type();
    ENCODINGS.into_iter().filter(matches).find_map(|encoding| offer(encoding, &transform))
}

fn quality(clause: &str) -> f32 {
    parameters(clause).find(|(name, _)| *name == "q").and_then(|(_, value)| value.parse().ok()).unwrap_or(1.0)
}

fn parameters(clause: &str) -> impl Iterator<Item = (&str, &str)> {
    clause.split(';').skip(1).filter_map(|part| part.trim().split_once('='))
}

/// Whether the client takes gzip.
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|clause| {
        let name = clause.split(';').next().unwrap_or("").trim();
        name == "gzip" && quality(clause) > 0.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        headers
    }

    #[test]
    fn the_best_offered_form_is_chosen() {
        let check = |accept: &str, encoding: Encoding, shown: Shown| {
            assert_eq!(accepted(&headers(accept)).ok(), Some(Accepted { encoding, shown }), "{accept}");
        };
        use Encoding::{Json, Protobuf, Yaml};
        check("*/*", Json, Shown::Objects);
        check("application/vnd.kubernetes.protobuf,application/json", Protobuf, Shown::Objects);
        check("application/json, application/vnd.kubernetes.protobuf", Json, Shown::Objects);
        check("application/vnd.kubernetes.protobuf;stream=watch", Protobuf, Shown::Objects);
        check("application/vnd.kubernetes.protobuf;stream=tail,application/yaml", Yaml, Shown::Objects);
        check("application/cbor, */*;q=0.8", Json, Shown::Objects);
        check("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Json, Shown::Table("v1"));
        check("application/json;as=Table;v=v2;g=meta.k8s.io,application/json", Json, Shown::Objects);
        check(
            "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/vnd.kubernetes.protobuf",
            Protobuf,
            Shown::Objects,
        );
        check(
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;\
             as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Protobuf,
            Shown::MetadataList("v1"),
        );
        check("application/json;q=0.5,application/yaml", Yaml, Shown::Objects);
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        let check = |accept: &str, detailed: bool| {
            let error = accepted(&headers(accept)).expect_err(accept);
            assert_eq!((error.code(), error.0.details.is_some()), (406, detailed), "{accept}");
        };
        check("text/html", true);
        check("application/cbor", true);
        check("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", false);
        assert!(plain(&headers("application/json;as=Table;v=v1;g=meta.k8s.io")).is_err());
        assert_eq!(
            plain(&headers("application/json;as=Table;v=v1;g=meta.k8s.io,application/yaml")).ok(),
            Some(Encoding::Yaml)
        );
    }
}
