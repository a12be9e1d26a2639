//! The version 2 document as protobuf, in the form of gnostic's `openapi.v2.Document`, which client-go reads.
//!
//! It writes what the document of this crate holds, not all that OpenAPI can say. Field numbers are gnostic's
//! (`openapiv2/OpenAPIv2.proto`); an extension's value is YAML text there, and JSON is YAML.

use serde_json::{Map, Value};

pub(super) fn document(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    out.message(2, |info| {
        info.text(1, &document["info"]["title"]);
        info.text(2, &document["info"]["version"]);
    });
    out.message(8, |paths| {
        for (path, item) in entries(&document["paths"]) {
            paths.named(2, path, |out| path_item(out, item));
        }
    });
    out.message(9, |definitions| {
        for (name, definition) in entries(&document["definitions"]) {
            definitions.named(1, name, |out| schema(out, definition));
        }
    });
    for requirement in items(&document["security"]) {
        out.message(12, |out| {
            for (name, _) in entries(requirement) {
                out.named(1, name, |_| {});
            }
        });
    }
    out.message(13, |definitions| {
        for (name, definition) in entries(&document["securityDefinitions"]) {
            definitions.named(1, name, |out| out.message(2, |key| api_key(key, definition)));
        }
    });
    out.bytes
}

fn api_key(out: &mut Message, definition: &Value) {
    out.text(1, &definition["type"]);
    out.text(2, &definition["name"]);
    out.text(3, &definition["in"]);
    out.text(4, &definition["description"]);
}

fn path_item(out: &mut Message, item: &Value) {
    let methods = [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("options", 6), ("head", 7), ("patch", 8)];
    for (method, number) in methods {
        if let Some(found) = item.get(method) {
            out.message(number, |out| operation(out, found));
        }
    }
    for one in items(&item["parameters"]) {
        out.message(9, |out| parameter(out, one));
    }
}

fn operation(out: &mut Message, operation: &Value) {
    out.texts(1, &operation["tags"]);
    out.text(5, &operation["operationId"]);
    out.texts(6, &operation["produces"]);
    out.texts(7, &operation["consumes"]);
    for one in items(&operation["parameters"]) {
        out.message(8, |out| parameter(out, one));
    }
    out.message(9, |responses| {
        for (code, response) in entries(&operation["responses"]) {
            responses.named(1, code, |value| {
                value.message(1, |out| {
                    out.text(1, &response["description"]);
                    if let Some(found) = response.get("schema") {
                        out.message(2, |item| item.message(1, |out| schema(out, found)));
                    }
                });
            });
        }
    });
    out.texts(10, &operation["schemes"]);
    extensions(out, 13, operation);
}

/// `ParametersItem { parameter: Parameter { body | non-body { query | path } } }`
fn parameter(out: &mut Message, parameter: &Value) {
    out.message(1, |out| match parameter["in"].as_str() {
        Some("body") => out.message(1, |out| {
            out.text(2, &parameter["name"]);
            out.text(3, &parameter["in"]);
            out.flag(4, &parameter["required"]);
            out.message(5, |out| schema(out, &parameter["schema"]));
        }),
        place => out.message(2, |out| {
            let in_path = place == Some("path");
            // The path variant lacks the field that allows empty values, so what follows it is one lower.
            let (variant, kind, unique) = if in_path { (4, 5, 19) } else { (3, 6, 20) };
            out.message(variant, |out| {
                out.flag(1, &parameter["required"]);
                out.text(2, &parameter["in"]);
                out.text(4, &parameter["name"]);
                out.text(kind, &parameter["type"]);
                out.flag(unique, &parameter["uniqueItems"]);
            });
        }),
    });
}

fn schema(out: &mut Message, definition: &Value) {
    out.text(1, &definition["$ref"]);
    out.text(2, &definition["format"]);
    out.texts(19, &definition["required"]);
    for value in items(&definition["enum"]) {
        out.message(20, |any| any.text(2, &Value::String(value.to_string())));
    }
    if let Some(element) = definition.get("additionalProperties") {
        out.message(21, |out| out.message(1, |out| schema(out, element)));
    }
    if let Some(kind) = definition.get("type") {
        out.message(22, |out| out.text(1, kind));
    }
    if let Some(element) = definition.get("items") {
        out.message(23, |out| out.message(1, |out| schema(out, element)));
    }
    if let Some(properties) = definition.get("properties") {
        out.message(25, |out| {
            for (name, property) in entries(properties) {
                out.named(1, name, |out| schema(out, property));
            }
        });
    }
    extensions(out, 31, definition);
}

fn extensions(out: &mut Message, number: u32, holder: &Value) {
    for (name, value) in entries(holder).filter(|(name, _)| name.starts_with("x-")) {
        out.named(number, name, |any| any.text(2, &Value::String(value.to_string())));
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn block(&mut self, number: u32, block: &[u8]) {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(block.len() as u64);
        self.bytes.extend_from_slice(block);
    }

    fn message(&mut self, number: u32, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.block(number, &inner.bytes);
    }

    /// `{ name = 1, value = 2 }`, which is how gnostic writes maps.
    fn named(&mut self, number: u32, name: &str, fill: impl FnOnce(&mut Message)) {
        self.message(number, |out| {
            out.block(1, name.as_bytes());
            out.message(2, fill);
        });
    }

    fn text(&mut self, number: u32, value: &Value) {
        if let Some(text) = value.as_str() {
            self.block(number, text.as_bytes());
        }
    }

    fn texts(&mut self, number: u32, values: &Value) {
        for value in items(values) {
            self.text(number, value);
        }
    }

    fn flag(&mut self, number: u32, value: &Value) {
        if value == true {
            self.varint(u64::from(number) << 3);
            self.varint(1);
        }
    }
}
