//! JSON patch (RFC 6902) as upstream's library applies it: a negative index counts from the end, and `replace` of a key that an
//! object does not have adds it.

use serde_json::{Map, Value};

use super::{MAX_JSON_PATCH_OPERATIONS, PatchError};

/// What `copy` operations of one patch may add, as upstream's API server sets it: the largest request body it takes.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

#[derive(Clone, Debug)]
pub(super) struct Operation {
    op: String,
    path: Option<String>,
    from: Option<String>,
    value: Option<Value>,
}

impl Operation {
    /// Where it reads or writes.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.path.as_deref().into_iter().chain(self.from.as_deref())
    }
}

/// Checks the patch document and words its strict errors as those of a patch.
pub(super) fn read(document: Value, strict: Vec<String>) -> Result<(Vec<Operation>, Vec<String>), PatchError> {
    let wrong = |found: &str, expected: &str| {
        let text = format!("error decoding patch: json: cannot unmarshal {found} into Go {expected}");
        PatchError::BadRequest(text)
    };
    let items = match document {
        Value::Array(items) => items,
        Value::Null => Vec::new(),
        other => return Err(wrong(kind_of(&other), "value of type []handlers.jsonPatchOp")),
    };
    let mut strict: Vec<_> = strict.into_iter().map(|error| format!("json patch {error}")).collect();
    let mut operations = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let mut item = match item {
            Value::Object(map) => map,
            Value::Null => Map::new(),
            other => return Err(wrong(kind_of(&other), "value of type handlers.jsonPatchOp")),
        };
        let known = ["op", "path", "from", "value"];
        for name in item.keys().filter(|name| !known.contains(&name.as_str())) {
            strict.push(format!("json patch unknown field {:?}", format!("[{index}].{name}")));
        }
        let mut text = |name: &str| match item.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(kind_of(&other), &format!("struct field jsonPatchOp.{name} of type string"))),
        };
        let (op, path, from) = (text("op")?, text("path")?, text("from")?);
        let op = op.unwrap_or_else(|| "unknown".into());
        operations.push(Operation { op, path, from, value: item.remove("value") });
    }
    if operations.len() > MAX_JSON_PATCH_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    Ok((operations, strict))
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

pub(super) fn apply(target: &mut Value, operations: &[Operation]) -> Result<(), PatchError> {
    let mut copied = 0;
    for operation in operations {
        let outcome = match operation.op.as_str() {
            "add" => operation.add(target),
            "remove" => operation.remove(target),
            "replace" => operation.replace(target),
            "move" => operation.move_value(target),
            "test" => operation.test(target),
            "copy" => operation.copy(target, &mut copied),
            other => Err(format!("Unexpected kind: {other}")),
        };
        outcome.map_err(PatchError::Unprocessable)?;
    }
    Ok(())
}

impl Operation {
    fn path(&self) -> Result<&str, String> {
        let path = self.path.as_deref();
        path.ok_or_else(|| format!("{} operation failed to decode path: {}", self.op, self.missing("path")))
    }

    fn from(&self) -> Result<&str, String> {
        let missing = "operation, missing from field: missing value";
        self.from.as_deref().ok_or_else(|| format!("{} operation failed to decode from: {missing}", self.op))
    }

    /// Some operations name the field that is missing, some do not.
    fn missing(&self, field: &str) -> String {
        match self.op.as_str() {
            "add" | "remove" | "copy" => "missing value".into(),
            _ => format!("operation missing {field} field: missing value"),
        }
    }

    fn value(&self) -> Value {
        self.value.clone().unwrap_or(Value::Null)
    }

    fn add(&self, target: &mut Value) -> Result<(), String> {
        let path = self.path()?;
        let (container, key) = find(target, path)
            .ok_or_else(|| format!("add operation does not apply: doc is missing path: \"{path}\": missing value"))?;
        add(container, &key, self.value()).map_err(|error| format!("error in add for path: '{path}': {error}"))
    }

    fn remove(&self, target: &mut Value) -> Result<(), String> {
        let path = self.path()?;
        let (container, key) = find(target, path).ok_or_else(|| {
            format!("remove operation does not apply: doc is missing path: \"{path}\": missing value")
        })?;
        remove(container, &key).map_err(|error| format!("error in remove for path: '{path}': {error}"))?;
        Ok(())
    }

    fn replace(&self, target: &mut Value) -> Result<(), String> {
        let path = self.path()?;
        if path.is_empty() {
            let value = self.value();
            if !value.is_object() && !value.is_array() {
                return Err("replace operation value must be object or array: %!w(<nil>)".into());
            }
            *target = value;
            return Ok(());
        }
        let (container, key) = find(target, path)
            .ok_or_else(|| format!("replace operation does not apply: doc is missing path: {path}: missing value"))?;
        match container {
            Value::Object(map) => drop(map.insert(key, self.value())),
            Value::Array(items) => {
                let at = index(&key, items.len()).map_err(|_| {
                    format!("replace operation does not apply: doc is missing key: {path}: missing value")
                })?;
                items[at] = self.value();
            }
            _ => {}
        }
        Ok(())
    }

    fn move_value(&self, target: &mut Value) -> Result<(), String> {
        let from = self.from()?;
        let (container, key) = find(target, from)
            .ok_or_else(|| format!("move operation does not apply: doc is missing from path: {from}: missing value"))?;
        let value = remove(container, &key).map_err(|error| format!("error in move for path: '{key}': {error}"))?;
        let path = self.path()?;
        let (container, key) = find(target, path).ok_or_else(|| {
            format!("move operation does not apply: doc is missing destination path: {path}: missing value")
        })?;
        add(container, &key, value).map_err(|error| format!("error in move for path: '{path}': {error}"))
    }

    fn copy(&self, target: &mut Value, copied: &mut usize) -> Result<(), String> {
        let from = self.from()?;
        let (container, key) = find(target, from)
            .ok_or_else(|| format!("copy operation does not apply: doc is missing from path: {from}: missing value"))?;
        let value = get(container, &key).map_err(|error| format!("error in copy for from: '{from}': {error}"))?;
        let value = value.cloned().unwrap_or(Value::Null);
        let path = self.path()?;
        let (container, key) = find(target, path).ok_or_else(|| {
            format!("copy operation does not apply: doc is missing destination path: {path}: missing value")
        })?;
        *copied += value.to_string().len();
        if *copied > MAX_COPIED_BYTES {
            return Err(format!(
                "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED_BYTES}"
            ));
        }
        add(container, &key, value).map_err(|error| format!("error while adding value during copy: {error}"))
    }

    fn test(&self, target: &mut Value) -> Result<(), String> {
        let path = self.path()?;
        let found = if path.is_empty() {
            Some(&*target)
        } else {
            let (container, key) = find(target, path)
                .ok_or_else(|| format!("test operation does not apply: is missing path: {path}: missing value"))?;
            get(container, &key).map_err(|error| format!("error in test for path: '{path}': {error}"))?
        };
        if found.unwrap_or(&Value::Null) == self.value.as_ref().unwrap_or(&Value::Null) {
            return Ok(());
        }
        Err(format!("testing value {path} failed: test failed"))
    }
}

/// The container that holds the last part of `path`, and that part.
fn find<'a>(target: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (parents, key) = path.rsplit_once('/')?;
    let mut container = target;
    for part in parents.split('/').skip(1) {
        let part = unescape(part);
        container = match container {
            Value::Object(map) => map.get_mut(&part)?,
            Value::Array(items) => {
                let at = index(&part, items.len()).ok()?;
                &mut items[at]
            }
            _ => return None,
        };
    }
    (container.is_object() || container.is_array()).then(|| (container, unescape(key)))
}

fn unescape(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

fn index(key: &str, length: usize) -> Result<usize, String> {
    let number: i64 = key.parse().map_err(|_| format!("strconv.Atoi: parsing {key:?}: invalid syntax"))?;
    let at = if number < 0 { number + length as i64 } else { number };
    match usize::try_from(at) {
        Ok(at) if at < length => Ok(at),
        _ => Err(format!("Unable to access invalid index: {number}: invalid index referenced")),
    }
}

fn get<'a>(container: &'a Value, key: &str) -> Result<Option<&'a Value>, String> {
    Ok(match container {
        Value::Array(items) => items.get(index(key, items.len())?),
        other => other.get(key),
    })
}

fn add(container: &mut Value, key: &str, value: Value) -> Result<(), String> {
    match container {
        Value::Object(map) => drop(map.insert(key.to_owned(), value)),
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            if key.parse::<i64>().is_err() {
                let cause = format!("strconv.Atoi: parsing {key:?}: invalid syntax");
                return Err(format!("value was not a proper array index: '{key}': {cause}"));
            }
            // One place more than the list has: the end.
            items.insert(index(key, items.len() + 1)?, value);
        }
        _ => {}
    }
    Ok(())
}

fn remove(container: &mut Value, key: &str) -> Result<Value, String> {
    match container {
        Value::Array(items) => Ok(items.remove(index(key, items.len())?)),
        Value::Object(map) => {
            map.shift_remove(key).ok_or_else(|| format!("Unable to remove nonexistent key: {key}: missing value"))
        }
        _ => Ok(Value::Null),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(target: Value, patch: Value) -> Result<Value, String> {
        let mut target = target;
        let (operations, _) = read(patch, Vec::new()).map_err(|error| error.to_string())?;
        apply(&mut target, &operations).map_err(|error| error.to_string())?;
        Ok(target)
    }

    #[test]
    fn operations_change_the_document() {
        let check = |target: Value, patch: Value, expected: Value| assert_eq!(patched(target, patch), Ok(expected));
        check(json!({"a": {}}), json!([{"op": "add", "path": "/a/b~1c", "value": 1}]), json!({"a": {"b/c": 1}}));
        check(json!({"a": [1, 3]}), json!([{"op": "add", "path": "/a/1", "value": 2}]), json!({"a": [1, 2, 3]}));
        check(json!({"a": [1]}), json!([{"op": "add", "path": "/a/-", "value": 2}]), json!({"a": [1, 2]}));
        check(json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/-1"}]), json!({"a": [1]}));
        check(json!({}), json!([{"op": "replace", "path": "/a", "value": 2}]), json!({"a": 2}));
        check(json!({"a": 1}), json!([{"op": "move", "from": "/a", "path": "/b"}]), json!({"b": 1}));
        check(json!({"a": 1}), json!([{"op": "copy", "from": "/a", "path": "/b"}]), json!({"a": 1, "b": 1}));
        check(json!({"a": 1}), json!([{"op": "test", "path": "/b", "value": null}]), json!({"a": 1}));
    }

    #[test]
    fn errors_are_upstreams() {
        let check = |target: Value, patch: Value, expected: &str| {
            assert_eq!(patched(target, patch), Err(expected.to_owned()));
        };
        check(
            json!({}),
            json!([{"op": "remove", "path": "/a"}]),
            "error in remove for path: '/a': Unable to remove nonexistent key: a: missing value",
        );
        check(
            json!({}),
            json!([{"op": "add", "path": "/a/b", "value": 1}]),
            "add operation does not apply: doc is missing path: \"/a/b\": missing value",
        );
        check(
            json!({"a": []}),
            json!([{"op": "replace", "path": "/a/0", "value": 1}]),
            "replace operation does not apply: doc is missing key: /a/0: missing value",
        );
        check(
            json!({"a": 1}),
            json!([{"op": "test", "path": "/a", "value": 2}]),
            "testing value /a failed: test failed",
        );
        check(json!({}), json!([{"op": "boil"}]), "Unexpected kind: boil");
        check(
            json!({}),
            json!({}),
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        );
        let many = Value::Array(vec![json!({"op": "test"}); MAX_JSON_PATCH_OPERATIONS + 1]);
        check(json!({}), many, "The allowed maximum operations in a JSON patch is 10000, got 10001");
    }
}
