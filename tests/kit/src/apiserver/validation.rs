//! The rules for names and keys, with the real server's messages.

use super::kinds::Kind;
use super::status::{Cause, Failure};
use serde_json::Value;

const NAME_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
    'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const KEY_RULE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or \
    '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
    '[-._a-zA-Z0-9]+')";
/// The most that `data` and `binaryData` may hold in all.
const MAX_CONFIG_MAP_BYTES: usize = 1 << 20;

/// Checks that an object's name, and a ConfigMap's keys and size, are within the rules.
pub fn validate(kind: &Kind, name: &str, object: &Value) -> Result<(), Failure> {
    let mut causes: Vec<Cause> = Vec::new();
    let label = |label: &str| {
        let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let ends = [label.bytes().next(), label.bytes().last()];
        ends.iter().all(|end| end.is_some_and(alphanumeric))
            && label.bytes().all(|b| alphanumeric(b) || b == b'-')
    };
    if name.is_empty() {
        let said = "Required value: name or generateName is required".to_string();
        causes.push(("metadata.name".into(), said));
    } else if name.len() > 253 || !name.split('.').all(label) {
        causes.push((
            "metadata.name".into(),
            format!("Invalid value: \"{name}\": {NAME_RULE}"),
        ));
    }
    if kind.resource() == "configmaps" {
        check_keys(object, &mut causes);
    }
    if causes.is_empty() {
        Ok(())
    } else {
        Err(Failure::invalid(kind, name, &causes))
    }
}

fn check_keys(object: &Value, causes: &mut Vec<Cause>) {
    let mut bytes = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in object[field].as_object().into_iter().flatten() {
            let mut said = Vec::new();
            if !key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            {
                said.push(KEY_RULE);
            }
            if key.len() > 253 {
                said.push("must be no more than 253 characters");
            }
            match key.as_str() {
                "." => said.push("must not be '.'"),
                ".." => said.push("must not be '..'"),
                other if other.starts_with("..") => said.push("must not start with '..'"),
                _ => {}
            }
            let cause = |said: &str| {
                (
                    format!("{field}[{key}]"),
                    format!("Invalid value: \"{key}\": {said}"),
                )
            };
            causes.extend(said.into_iter().map(cause));
            let text = value.as_str().unwrap_or_default().len();
            bytes += if field == "data" { text } else { text / 4 * 3 };
        }
    }
    if bytes > MAX_CONFIG_MAP_BYTES {
        let said = format!("Too long: may not be more than {MAX_CONFIG_MAP_BYTES} bytes");
        causes.push(("[]".into(), said));
    }
}
