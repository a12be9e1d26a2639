//! The transcoder on what the filled objects do not show: broken input, order, and the envelope.
use serde_json::{Value, json};

use super::*;
use crate::schema::table;

fn ty(kind: &str) -> &'static Type {
    let groups = [("", "v1"), ("apps", "v1"), ("apiextensions.k8s.io", "v1"), ("rbac.authorization.k8s.io", "v1")];
    groups.iter().find_map(|(group, version)| table().type_of(group, version, kind)).expect("a kind")
}

fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, content.len() as u8];
    out.extend_from_slice(content);
    out
}

#[test]
fn messages_become_json() {
    let check = |kind: &str, message: Vec<u8>, expected: &str| {
        assert_eq!(String::from_utf8(decode(ty(kind), &message, "", kind).unwrap()).unwrap(), expected);
    };
    let entry = [bytes(1, b"k"), bytes(2, b"v")].concat();
    let created = bytes(8, &[1 << 3, 60]);
    let metadata = [bytes(1, b"a"), created].concat();
    check(
        "ConfigMap",
        [bytes(1, &metadata), bytes(2, &entry)].concat(),
        r#"{"kind":"ConfigMap","metadata":{"name":"a","creationTimestamp":"1970-01-01T00:01:00Z"},"data":{"k":"v"}}"#,
    );
    check(
        "Secret",
        [bytes(2, &entry), bytes(3, b"Opaque")].concat(),
        r#"{"kind":"Secret","metadata":{},"data":{"k":"dg=="},"type":"Opaque"}"#,
    );
    // Port 80 with a named target port, in a Service's specification.
    let target = [vec![1 << 3, 1], bytes(3, b"http")].concat();
    let port = [vec![3 << 3, 80], bytes(4, &target)].concat();
    check(
        "Service",
        bytes(2, &bytes(1, &port)),
        r#"{"kind":"Service","metadata":{},"spec":{"ports":[{"port":80,"targetPort":"http"}]},"status":{"loadBalancer":{}}}"#,
    );
    // An embedded struct is a message of its own on the wire and no level of its own in JSON.
    let volume = [bytes(1, b"v"), bytes(2, &bytes(2, &[]))].concat();
    check(
        "Pod",
        bytes(2, &bytes(1, &volume)),
        r#"{"kind":"Pod","metadata":{},"spec":{"volumes":[{"name":"v","emptyDir":{}}],"containers":null},"status":{}}"#,
    );
}

#[test]
fn what_was_never_set_is_written_as_upstream_does() {
    let check = |kind: &str, json: Value, expected: Vec<u8>| {
        assert_eq!(encode(ty(kind), json.to_string().as_bytes()).unwrap(), expected, "{json}");
    };
    // name, generateName, namespace, selfLink, uid, resourceVersion, generation, creationTimestamp
    let empty_metadata = [
        bytes(1, b""),
        bytes(2, b""),
        bytes(3, b""),
        bytes(4, b""),
        bytes(5, b""),
        bytes(6, b""),
        vec![7 << 3, 0],
        bytes(8, b""),
    ]
    .concat();
    let metadata = bytes(1, &empty_metadata);
    check("ConfigMap", json!({}), metadata.clone());
    // Keys are sorted, whatever their order in the text; `null` sets nothing.
    let entry = |key: &[u8]| bytes(2, &[bytes(1, key), bytes(2, b"1")].concat());
    check(
        "ConfigMap",
        json!({ "immutable": null, "data": { "b": "1", "a": "1" }, "metadata": {} }),
        [metadata.clone(), entry(b"a"), entry(b"b")].concat(),
    );
    check("Role", json!({ "rules": [] }), metadata.clone());
    check(
        "ControllerRevision",
        json!({ "revision": 2, "data": { "a": [1, " "] } }),
        [metadata, bytes(2, &bytes(1, br#"{"a":[1," "]}"#)), vec![3 << 3, 2]].concat(),
    );
    assert!(encode(ty("ConfigMap"), br#"{"data":1}"#).is_err());
    assert!(encode(ty("ConfigMap"), br#"[]"#).is_err());
}

#[test]
fn json_schemas_go_both_ways() {
    let check = |schema: Value| {
        let object = json!({ "spec": { "versions": [{ "schema": { "openAPIV3Schema": schema } }] } });
        let message = encode(ty("CustomResourceDefinition"), object.to_string().as_bytes()).unwrap();
        let json = decode(ty("CustomResourceDefinition"), &message, "", "").unwrap();
        let tree: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(tree["spec"]["versions"][0]["schema"]["openAPIV3Schema"], schema);
    };
    check(json!({ "type": "object", "items": { "type": "string" }, "additionalProperties": false }));
    check(json!({ "items": [{ "type": "string" }, {}], "additionalProperties": { "minimum": 0.5 } }));
    check(json!({ "dependencies": { "a": ["b", "c"], "d": { "type": "x" } }, "default": { "z": 1, "a": null } }));
    check(
        json!({ "properties": { "b": {}, "a": { "enum": [1, "x", null] } }, "x-kubernetes-preserve-unknown-fields": true }),
    );
}

#[test]
fn the_revision_is_written_into_the_metadata() {
    let check = |name: &str, before: &str, revision: u64| {
        let object = json!({ "metadata": { "name": name, "labels": { "a": "b" } }, "data": { "k": "v" } });
        let mut object: Value = object;
        if !before.is_empty() {
            object["metadata"]["resourceVersion"] = json!(before);
        }
        let stored = encode(ty("ConfigMap"), object.to_string().as_bytes()).unwrap();
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        let expected = encode(ty("ConfigMap"), object.to_string().as_bytes()).unwrap();
        let revised = Revised::new(&stored, revision);
        let mut out = Vec::new();
        revised.write(&mut out);
        assert_eq!((out.len(), &out), (revised.len(), &expected));
        let mut plain = Vec::new();
        Revised::plain(&expected).write(&mut plain);
        assert_eq!(plain, expected);
    };
    check("a", "", 7);
    check("a", "12345", u64::MAX);
    // The length of the metadata takes a byte more with the revision than without it.
    check(&"n".repeat(92), "", 1_000_000_000);
}

#[test]
fn envelopes_name_the_type() {
    let bytes = wrap("apps/v1", "Deployment", b"message");
    assert_eq!(bytes.len(), wrapped_len("apps/v1", "Deployment", 7));
    let envelope = unwrap(&bytes).unwrap();
    assert_eq!((envelope.api_version, envelope.kind, envelope.message), ("apps/v1", "Deployment", &b"message"[..]));
    assert_eq!(unwrap(b"{}"), Err(DecodeError::Magic));
    assert_eq!(unwrap(b"k8s\0\x0a\x05a"), Err(DecodeError::Truncated));
}

#[test]
fn broken_messages_are_refused() {
    let check = |kind: &str, message: &[u8], expected: DecodeError| {
        assert_eq!(decode(ty(kind), message, "", ""), Err(expected));
    };
    check("ConfigMap", &[1 << 3, 1], DecodeError::WireType { found: 0, field: "metadata" });
    check("ConfigMap", &[1 << 3 | 3], DecodeError::IllegalWireType(3));
    check("ConfigMap", &[1 << 3 | 2, 9], DecodeError::Truncated);
    check("ConfigMap", &[0xff; 16], DecodeError::Overflow);
    check("ControllerRevision", &bytes(2, &bytes(1, b"k8s")), DecodeError::Raw("data"));
    check("ConfigMap", &bytes(1, &bytes(1, b"\xff")), DecodeError::Text("name"));
    let mut schema = Vec::new();
    for _ in 0..200 {
        // `not`, which holds a schema.
        let mut outer = Vec::new();
        put_tag(28, 2, &mut outer);
        put_varint(schema.len() as u64, &mut outer);
        outer.extend_from_slice(&schema);
        schema = outer;
    }
    let ty = table().type_named("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1", "JSONSchemaProps").unwrap();
    let number = ty.field("not").unwrap().number;
    assert_eq!(number, 28);
    assert_eq!(decode(ty, &schema, "", ""), Err(DecodeError::Depth));
}
