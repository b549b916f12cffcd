//! ConfigMaps as Helm sends those that it keeps its releases in: Kubernetes's protobuf. No more of
//! it than those have.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

/// The beginning of a body in protobuf.
const MAGIC: &[u8] = b"k8s\0";
/// Fields of `runtime.Unknown`, `ConfigMap` and `ObjectMeta`, as `generated.proto` numbers them.
const RAW: u64 = 2;
const METADATA: u64 = 1;
const DATA: u64 = 2;
const BINARY_DATA: u64 = 3;
const NAME: u64 = 1;
const NAMESPACE: u64 = 3;
const RESOURCE_VERSION: u64 = 6;
const LABELS: u64 = 11;
const ANNOTATIONS: u64 = 12;

/// Returns the ConfigMap as JSON; `None` where the bytes are not one.
pub fn config_map(body: &[u8]) -> Option<Value> {
    let unknown = fields(body.strip_prefix(MAGIC)?)?;
    let object = fields(last(&unknown, RAW)?)?;
    let metadata = fields(last(&object, METADATA)?)?;
    let mut all = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"labels": map(&metadata, LABELS)?, "annotations": map(&metadata, ANNOTATIONS)?},
        "data": map(&object, DATA)?,
    });
    for (number, name) in [
        (NAME, "name"),
        (NAMESPACE, "namespace"),
        (RESOURCE_VERSION, "resourceVersion"),
    ] {
        match last(&metadata, number) {
            Some(text) if !text.is_empty() => all["metadata"][name] = json!(utf8(text)?),
            Some(_) | None => {}
        }
    }
    for (key, bytes) in entries(&object, BINARY_DATA)? {
        all["binaryData"][key] = json!(BASE64.encode(bytes));
    }
    Some(all)
}

/// Every field of a message that has a length, in its order.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        match tag & 7 {
            0 => {
                varint(&mut bytes)?;
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (field, rest) = bytes.split_at_checked(length)?;
                all.push((tag >> 3, field));
                bytes = rest;
            }
            _ => return None,
        }
    }
    Some(all)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn last<'a>(message: &[(u64, &'a [u8])], number: u64) -> Option<&'a [u8]> {
    let mut of_number = message.iter().filter(|(field, _)| *field == number);
    of_number.next_back().map(|(_, bytes)| *bytes)
}

fn entries<'a>(message: &[(u64, &'a [u8])], number: u64) -> Option<Vec<(&'a str, &'a [u8])>> {
    let of_number = message.iter().filter(|(field, _)| *field == number);
    let entry = |(_, bytes): &(u64, &'a [u8])| {
        let pair = fields(bytes)?;
        Some((utf8(last(&pair, 1)?)?, last(&pair, 2).unwrap_or_default()))
    };
    of_number.map(entry).collect()
}

fn map(message: &[(u64, &[u8])], number: u64) -> Option<Map<String, Value>> {
    let all = entries(message, number)?.into_iter();
    all.map(|(key, text)| Some((key.into(), json!(utf8(text)?))))
        .collect()
}

fn utf8(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}
