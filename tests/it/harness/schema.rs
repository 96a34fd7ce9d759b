//! Holds every answer of the HTTP interface that a test gets against openapi.json, with as much of
//! JSON Schema as stands there.

use std::sync::LazyLock;

use serde_json::Value;

use super::HttpAnswer;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/protocol/http/openapi.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
});

/// Fails when the answer is not as the document says; paths that it does not have are not looked at.
pub fn check(method: &str, path: &str, answer: &HttpAnswer) {
    let what = format!("{method} {path}: {}", answer.status);
    let Some(call) = call(method, path) else { return };
    let responses = &call["responses"];
    let response = responses.get(answer.status.to_string()).unwrap_or(&responses["default"]);
    let told = answer.field("content-type").unwrap_or_default();
    let schema = &response["content"][told]["schema"];
    assert!(schema.is_object(), "{what}: the document has no {told} there");
    if told.ends_with("json") {
        let value = answer.json();
        matches(schema, &value).unwrap_or_else(|error| panic!("{what}: {error}\n{value}"));
    }
}

fn call(method: &str, path: &str) -> Option<&'static Value> {
    let path = path.split('?').next().unwrap_or_default();
    let is_of = |pattern: &str| {
        let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                (Some(name), Some(_)) if name.starts_with('{') => {}
                (Some(same), Some(segment)) if same == segment => {}
                _ => return false,
            }
        }
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let (_, methods) = paths.iter().find(|(pattern, _)| is_of(pattern))?;
    methods.get(method.to_lowercase())
}

fn matches(schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let place = name.strip_prefix('#').unwrap();
        return matches(DOCUMENT.pointer(place).unwrap(), value);
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(()),
    };
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !types.contains(&is) {
        return Err(format!("{value} is none of {types:?}"));
    }
    let allowed = schema.get("enum").and_then(Value::as_array);
    if allowed.is_some_and(|all| !value.is_null() && !all.contains(value)) {
        return Err(format!("{value} is none of {}", schema["enum"]));
    }
    for item in value.as_array().into_iter().flatten() {
        matches(&schema["items"], item)?;
    }
    match value.as_object() {
        Some(members) => object(schema, members),
        None => Ok(()),
    }
}

fn object(schema: &Value, members: &serde_json::Map<String, Value>) -> Result<(), String> {
    for name in schema["required"].as_array().into_iter().flatten() {
        if !members.contains_key(name.as_str().unwrap()) {
            return Err(format!("{name} is not there"));
        }
    }
    for (name, value) in members {
        let known = schema["properties"].get(name).or(schema.get("additionalProperties"));
        match known {
            Some(Value::Bool(false)) => return Err(format!("{name} is not in the document")),
            Some(schema) => matches(schema, value).map_err(|error| format!("{name}: {error}"))?,
            None => {}
        }
    }
    Ok(())
}
