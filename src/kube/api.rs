//! Reads the API server's JSON into values, in one pass and only the fields we need. Pure.

#[cfg(test)]
mod tests;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::kube::http_route::HttpRouteSpec;
use crate::kube::object::{Body, Object, ObjectKind, Projection, TrafficSplitSpec, nullable};
use crate::snapshot::{Bytes, ResourceVersion, Version};
use crate::sorted::SortedMap;

/// A line of a watch.
#[derive(Debug)]
pub enum WatchEvent {
    /// ADDED or MODIFIED.
    Changed(Object),
    /// DELETED: the object's name and the resourceVersion of its end.
    Deleted(String, ResourceVersion),
    /// BOOKMARK: the stream has reached this resourceVersion.
    Bookmark(ResourceVersion),
    /// ERROR: a Status.
    Failed(Status),
    /// A type we do not know.
    Unknown(String),
}

/// A list's answer.
#[derive(Debug)]
pub struct List {
    /// The resourceVersion from which a watch goes on.
    pub at: ResourceVersion,
    /// The token of the next page; empty on the last page.
    pub next: String,
    /// The objects; their bodies are empty where metadata was asked for.
    pub items: Vec<Object>,
}

/// A Status object, with which the API server refuses a request.
#[derive(Debug)]
pub struct Status {
    /// The HTTP status; 0 if the answer is not a Status object.
    pub code: u16,
    /// The message for people.
    pub message: String,
}

/// Every field of every kind that we read; what is not here is skipped unread. As in Go, `null` is
/// the same as absent, in each of them; a value of another type than it should have is too.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawObject<'a> {
    kind: Value,
    #[serde(deserialize_with = "nullable")]
    metadata: RawMetadata,
    data: Value,
    binary_data: Value,
    #[serde(borrow)]
    spec: Option<&'a RawValue>,
    versions: Value,
    code: Value,
    message: Value,
}

/// The metadata that we read. Only `resourceVersion` has to be there.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawMetadata {
    name: Value,
    uid: Value,
    resource_version: Value,
    creation_timestamp: Value,
    /// The token of a list's next page.
    #[serde(rename = "continue")]
    next: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawList<'a> {
    kind: Value,
    #[serde(rename = "apiVersion")]
    api_version: Value,
    #[serde(deserialize_with = "nullable")]
    metadata: RawMetadata,
    #[serde(borrow)]
    items: Option<Vec<RawObject<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawEvent<'a> {
    #[serde(rename = "type")]
    kind: Value,
    #[serde(borrow, deserialize_with = "nullable")]
    object: RawObject<'a>,
}

/// Reads a list of objects of one kind, or of their metadata.
pub fn list(json: &[u8], kind: ObjectKind, extent: Projection) -> Result<List, String> {
    let mut raw: RawList = serde_json::from_slice(json).map_err(unreadable)?;
    let raw_kind = text(raw.kind);
    // What the list of a custom kind is called is up to who defines it.
    let api_version = raw.api_version.as_str().unwrap_or_default();
    let of_group = api_version.strip_prefix(kind.group());
    let of_group = of_group.is_some_and(|rest| rest.starts_with('/')) && raw.items.is_some();
    let of_kind = of_group || raw_kind.strip_suffix("List") == Some(kind.name());
    // A server that knows no metadata lists gives the objects.
    let of_metadata = extent == Projection::MetadataOnly && raw_kind == "PartialObjectMetadataList";
    if !of_kind && !of_metadata {
        return Err(format!("expected a {}List, got {raw_kind:?}", kind.name()));
    }
    let items = raw.items.unwrap_or_default().into_iter();
    let items = items.map(|item| item.into_object(kind));
    Ok(List {
        next: text(raw.metadata.next.take()),
        at: raw.metadata.version()?.resource_version,
        items: items.collect::<Result<_, _>>()?,
    })
}

/// Reads one line of a watch on objects of one kind.
pub fn event(json: &[u8], kind: ObjectKind) -> Result<WatchEvent, String> {
    let raw: RawEvent = serde_json::from_slice(json).map_err(unreadable)?;
    let (raw_kind, mut object) = (text(raw.kind), raw.object);
    if raw_kind == "ERROR" {
        return Ok(WatchEvent::Failed(object.into_status()));
    }
    let object_kind = text(object.kind.take());
    if object_kind != kind.name() {
        return Err(format!(
            "expected a {} in the event, got {object_kind:?}",
            kind.name()
        ));
    }
    Ok(match raw_kind.as_str() {
        "ADDED" | "MODIFIED" => WatchEvent::Changed(object.into_object(kind)?),
        "DELETED" => {
            let name = text(object.metadata.name.take());
            WatchEvent::Deleted(name, object.metadata.version()?.resource_version)
        }
        "BOOKMARK" => WatchEvent::Bookmark(object.metadata.version()?.resource_version),
        _ => WatchEvent::Unknown(raw_kind),
    })
}

/// Reads the versions that an API group serves.
pub fn group(json: &[u8]) -> Result<Vec<String>, String> {
    let raw: RawObject = serde_json::from_slice(json).map_err(unreadable)?;
    let kind = text(raw.kind);
    if kind != "APIGroup" {
        return Err(format!("expected an APIGroup, got {kind:?}"));
    }
    let versions = raw.versions.as_array().into_iter().flatten();
    let names = versions.filter_map(|version| version.get("version")?.as_str());
    Ok(names.map(str::to_owned).collect())
}

/// An object's metadata, as it stands there.
pub type Metadata = Map<String, Value>;

/// A ConfigMap that we may have written.
#[derive(Debug)]
pub struct Mirrored {
    /// The whole metadata.
    pub metadata: Metadata,
    /// `data` and `binaryData`.
    pub files: SortedMap<String, Bytes>,
}

/// Reads a single ConfigMap.
pub fn mirrored(json: &[u8]) -> Result<Mirrored, String> {
    let mut raw: Value = serde_json::from_slice(json).map_err(unreadable)?;
    let mut field = |name| raw.get_mut(name).map(Value::take).unwrap_or_default();
    let kind = text(field("kind"));
    if kind != "ConfigMap" {
        return Err(format!("expected a ConfigMap, got {kind:?}"));
    }
    Ok(Mirrored {
        metadata: match field("metadata") {
            Value::Object(metadata) => metadata,
            _ => Metadata::new(),
        },
        files: files(field("data"), field("binaryData"))?,
    })
}

/// Reads a Status. The message of any other answer is its beginning.
pub fn status(body: &[u8]) -> Status {
    match serde_json::from_slice::<RawObject>(body) {
        Ok(raw) if raw.kind == "Status" => raw.into_status(),
        _ => {
            let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
            Status {
                code: 0,
                message: text.trim().to_owned(),
            }
        }
    }
}

/// Describes an error without serde's words for a wrong type: they cite the value, which may be a
/// ConfigMap's.
fn unreadable(error: serde_json::Error) -> String {
    if error.is_data() {
        let (line, column) = (error.line(), error.column());
        format!("unexpected JSON type at line {line} column {column}")
    } else {
        error.to_string()
    }
}

impl RawObject<'_> {
    fn into_status(self) -> Status {
        let code = self.code.as_u64().and_then(|code| code.try_into().ok());
        Status {
            code: code.unwrap_or(0),
            message: text(self.message),
        }
    }

    fn into_object(mut self, kind: ObjectKind) -> Result<Object, String> {
        let body = match kind {
            ObjectKind::ConfigMap => Body::ConfigMap(files(self.data, self.binary_data)),
            ObjectKind::TrafficSplit => Body::TrafficSplit {
                created: text(self.metadata.creation_timestamp.take()),
                // A spec that is not one is this object's own fault, not the whole list's.
                spec: spec(self.spec),
            },
            ObjectKind::HttpRoute => Body::HttpRoute {
                created: text(self.metadata.creation_timestamp.take()),
                spec: http_route_spec(self.spec),
            },
        };
        Ok(Object {
            name: text(self.metadata.name.take()),
            version: self.metadata.version()?,
            body,
        })
    }
}

fn http_route_spec(raw: Option<&RawValue>) -> Result<HttpRouteSpec, String> {
    let text = raw.map_or("{}", |raw| raw.get());
    let spec: Value = serde_json::from_slice(text.as_bytes()).map_err(unreadable)?;
    HttpRouteSpec::read(&spec)
}

fn spec(raw: Option<&RawValue>) -> Result<TrafficSplitSpec, String> {
    let text = raw.map_or("{}", |raw| raw.get());
    serde_json::from_slice(text.as_bytes()).map_err(unreadable)
}

fn files(data: Value, binary_data: Value) -> Result<SortedMap<String, Bytes>, String> {
    let mut files = SortedMap::new();
    for (key, text) in texts("data", data)? {
        files.insert(key, Bytes::from(text.into_bytes()));
    }
    for (key, text) in texts("binaryData", binary_data)? {
        let bytes = BASE64
            .decode(text)
            .map_err(|e| format!("binaryData of {key:?} is not base64: {e}"))?;
        files.insert(key, bytes.into());
    }
    Ok(files)
}

/// Returns the entries of a map from text to text; `null` as a value is the empty text.
fn texts(field: &str, value: Value) -> Result<Vec<(String, String)>, String> {
    let entries = match value {
        Value::Object(entries) => entries,
        Value::Null => return Ok(Vec::new()),
        _ => return Err(format!("{field} is not a map")),
    };
    let text = |(key, value)| match value {
        Value::String(text) => Ok((key, text)),
        Value::Null => Ok((key, String::new())),
        _ => Err(format!("{field} of {key:?} is not a text")),
    };
    entries.into_iter().map(text).collect()
}

/// Returns the text, or an empty one for any other type.
fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        _ => String::new(),
    }
}

impl RawMetadata {
    fn version(self) -> Result<Version, String> {
        let resource_version = ResourceVersion::new(text(self.resource_version));
        let resource_version = resource_version.ok_or("metadata.resourceVersion is missing")?;
        Ok(Version {
            uid: text(self.uid),
            resource_version,
        })
    }
}
