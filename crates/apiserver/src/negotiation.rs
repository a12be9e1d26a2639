//! In which form a response goes out: the media type and whether as objects, as a Table or as metadata only.
//!
//! Behaviour: upstream's content negotiation over the `Accept` header. Protobuf and CBOR are not offered; clients that list
//! them before JSON get JSON.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING};
use xebec_api::status::StatusError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
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

const OFFERED: &str = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml";

impl Accepted {
    pub const JSON: Accepted = Accepted { encoding: Encoding::Json, shown: Shown::Objects };

    pub fn content_type(self) -> String {
        let base = match self.encoding {
            Encoding::Json => "application/json",
            Encoding::Yaml => "application/yaml",
        };
        base.to_owned()
    }
}

/// What the client likes best of what the server has.
pub fn accepted(headers: &HeaderMap) -> Result<Accepted, StatusError> {
    let mut values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    if values.peek().is_none() {
        return Ok(Accepted::JSON);
    }
    // The commonest requests are spared the sorting.
    let mut clauses: Vec<(f32, &str)> = Vec::new();
    for value in values {
        if matches!(value, "application/json" | "*/*" | "") {
            return Ok(Accepted::JSON);
        }
        clauses.extend(value.split(',').map(|clause| (quality(clause), clause.trim())));
    }
    // A stable sort: of equal ones the first wins.
    clauses.sort_by(|a, b| b.0.total_cmp(&a.0));
    clauses.into_iter().find_map(|(_, clause)| offered(clause)).ok_or_else(not_acceptable)
}

/// Nothing that the client accepts is offered.
pub fn not_acceptable() -> StatusError {
    let mut error = StatusError::not_acceptable(OFFERED);
    error.0.details = Some(Default::default());
    error
}

fn quality(clause: &str) -> f32 {
    parameters(clause).find(|(name, _)| *name == "q").and_then(|(_, value)| value.parse().ok()).unwrap_or(1.0)
}

fn parameters(clause: &str) -> impl Iterator<Item = (&str, &str)> {
    clause.split(';').skip(1).filter_map(|part| part.trim().split_once('='))
}

fn offered(clause: &str) -> Option<Accepted> {
    let encoding = match clause.split(';').next()?.trim() {
        "application/json" | "*/*" | "application/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        _ => return None,
    };
    let (mut kind, mut group, mut version) = ("", "", "");
    for (name, value) in parameters(clause) {
        match name {
            "as" => kind = value,
            "g" => group = value,
            "v" => version = value,
            // A stream is asked for by the verb, other parameters say nothing here.
            _ => {}
        }
    }
    if kind.is_empty() {
        return Some(Accepted { encoding, shown: Shown::Objects });
    }
    let version = match (group, version) {
        ("meta.k8s.io", "v1") => "v1",
        ("meta.k8s.io", "v1beta1") => "v1beta1",
        _ => return None,
    };
    let shown = match kind {
        "Table" => Shown::Table(version),
        "PartialObjectMetadata" => Shown::Metadata(version),
        "PartialObjectMetadataList" => Shown::MetadataList(version),
        _ => return None,
    };
    Some(Accepted { encoding, shown })
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
    use http::HeaderValue;

    use super::*;

    fn check(accept: &str, expected: Option<Accepted>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        assert_eq!(accepted(&headers).ok(), expected, "{accept}");
    }

    #[test]
    fn the_best_offered_form_is_chosen() {
        let json = |shown| Some(Accepted { encoding: Encoding::Json, shown });
        check("*/*", json(Shown::Objects));
        check("application/vnd.kubernetes.protobuf,application/json", json(Shown::Objects));
        check("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", json(Shown::Table("v1")));
        check("application/json;as=Table;v=v2;g=meta.k8s.io,application/json", json(Shown::Objects));
        check(
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;\
             as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            json(Shown::MetadataList("v1")),
        );
        check(
            "application/json;q=0.5,application/yaml",
            Some(Accepted { encoding: Encoding::Yaml, shown: Shown::Objects }),
        );
        check("application/vnd.kubernetes.protobuf", None);
        check("text/html", None);
    }
}
