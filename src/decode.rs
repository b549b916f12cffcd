//! JSON of the API server into values, in one pass and only the fields we need. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::gather;
use crate::resource::{Body, Bytes, Extent, Object, ObjectKind, ResourceVersion, Version};
use crate::route::Spec;

/// A line of a watch.
#[derive(Debug)]
pub enum WatchEvent {
    /// ADDED or MODIFIED.
    Changed(Object),
    /// DELETED: the object's name and the resourceVersion of its end.
    Deleted(String, ResourceVersion),
    /// BOOKMARK: the stream has come this far.
    Bookmark(ResourceVersion),
    /// ERROR: a Status.
    Failed(Status),
    /// A type we do not know.
    Unknown(String),
}

/// A list's answer.
#[derive(Debug)]
pub struct List {
    /// Where a watch goes on.
    pub at: ResourceVersion,
    /// The objects; their bodies are empty where metadata was asked for.
    pub items: Vec<Object>,
}

/// Why the API server will not.
#[derive(Debug)]
pub struct Status {
    /// As an HTTP status; 0 where the answer is no Status object.
    pub code: u16,
    /// For people.
    pub message: String,
}

/// The label that says whose an object is.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Every field of every kind that we read; what is not here is skipped unread.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawObject {
    kind: String,
    metadata: RawMetadata,
    data: Option<BTreeMap<String, String>>,
    binary_data: Option<BTreeMap<String, String>>,
    spec: Option<Box<RawValue>>,
    versions: Option<Vec<RawVersion>>,
    items: Option<Vec<RawObject>>,
    code: u16,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawMetadata {
    name: String,
    uid: String,
    resource_version: String,
    creation_timestamp: String,
    labels: Option<BTreeMap<String, String>>,
}

/// One of an APIGroup's versions.
#[derive(Deserialize)]
struct RawVersion {
    version: String,
}

#[derive(Deserialize)]
struct RawEvent {
    #[serde(rename = "type")]
    kind: String,
    object: RawObject,
}

/// Reads a list of objects of one kind, or of their metadata.
pub fn list(json: &[u8], kind: ObjectKind, extent: Extent) -> Result<List, String> {
    let raw: RawObject = serde_json::from_slice(json).map_err(unreadable)?;
    let of_kind = raw.kind.strip_suffix("List") == Some(kind.name());
    // A server that knows no metadata lists gives the objects.
    let of_metadata = extent == Extent::Metadata && raw.kind == "PartialObjectMetadataList";
    if !of_kind && !of_metadata {
        return Err(format!(
            "the answer is no list of {}s but a {:?}",
            kind.name(),
            raw.kind
        ));
    }
    let items = raw
        .items
        .unwrap_or_default()
        .into_iter()
        .map(|item| item.into_object(kind));
    Ok(List {
        at: raw.metadata.version()?.resource_version,
        items: items.collect::<Result<_, _>>()?,
    })
}

/// Reads one line of a watch on objects of one kind.
pub fn event(json: &[u8], kind: ObjectKind) -> Result<WatchEvent, String> {
    let raw: RawEvent = serde_json::from_slice(json).map_err(unreadable)?;
    let object = raw.object;
    if raw.kind == "ERROR" {
        return Ok(WatchEvent::Failed(Status {
            code: object.code,
            message: object.message,
        }));
    }
    if object.kind != kind.name() {
        return Err(format!(
            "the event's object is no {} but a {:?}",
            kind.name(),
            object.kind
        ));
    }
    Ok(match raw.kind.as_str() {
        "ADDED" | "MODIFIED" => WatchEvent::Changed(object.into_object(kind)?),
        "DELETED" => {
            let name = object.metadata.name.clone();
            WatchEvent::Deleted(name, object.metadata.version()?.resource_version)
        }
        "BOOKMARK" => WatchEvent::Bookmark(object.metadata.version()?.resource_version),
        _ => WatchEvent::Unknown(raw.kind),
    })
}

/// Reads the versions that an API group serves.
pub fn group(json: &[u8]) -> Result<Vec<String>, String> {
    let raw: RawObject = serde_json::from_slice(json).map_err(unreadable)?;
    if raw.kind != "APIGroup" {
        return Err(format!("the answer is no APIGroup but a {:?}", raw.kind));
    }
    Ok(raw
        .versions
        .unwrap_or_default()
        .into_iter()
        .map(|v| v.version)
        .collect())
}

/// A ConfigMap that we may have written.
#[derive(Debug)]
pub struct Mirrored {
    /// Its state.
    pub version: Version,
    /// Its label `app.kubernetes.io/managed-by`.
    pub managed_by: Option<String>,
    /// `data` and `binaryData`.
    pub files: BTreeMap<String, Bytes>,
}

/// Reads a single ConfigMap.
pub fn mirrored(json: &[u8]) -> Result<Mirrored, String> {
    let mut raw: RawObject = serde_json::from_slice(json).map_err(unreadable)?;
    if raw.kind != "ConfigMap" {
        return Err(format!("the answer is no ConfigMap but a {:?}", raw.kind));
    }
    let labels = raw.metadata.labels.take();
    Ok(Mirrored {
        managed_by: labels.and_then(|mut labels| labels.remove(MANAGED_BY)),
        files: files(raw.data, raw.binary_data)?,
        version: raw.metadata.version()?,
    })
}

/// Reads a Status. Of an answer that is none, the beginning is the message.
pub fn status(body: &[u8]) -> Status {
    match serde_json::from_slice::<RawObject>(body) {
        Ok(raw) if raw.kind == "Status" => Status {
            code: raw.code,
            message: raw.message,
        },
        _ => {
            let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
            Status {
                code: 0,
                message: text.trim().to_owned(),
            }
        }
    }
}

/// serde cites a value that has another type than it should; it may be a ConfigMap's.
fn unreadable(error: serde_json::Error) -> String {
    if error.is_data() {
        let (line, column) = (error.line(), error.column());
        format!("it has another shape than expected at line {line} column {column}")
    } else {
        error.to_string()
    }
}

impl RawObject {
    fn into_object(self, kind: ObjectKind) -> Result<Object, String> {
        let body = match kind {
            ObjectKind::ConfigMap => Body::ConfigMap(files(self.data, self.binary_data)),
            ObjectKind::TrafficSplit => Body::TrafficSplit {
                created: self.metadata.creation_timestamp.clone(),
                // A spec that is not one is this object's own fault, not the whole list's.
                spec: spec(self.spec),
            },
        };
        Ok(Object {
            name: self.metadata.name.clone(),
            version: self.metadata.version()?,
            body,
        })
    }
}

fn spec(raw: Option<Box<RawValue>>) -> Result<Spec, String> {
    let text = raw.as_ref().map_or("{}", |raw| raw.get());
    serde_json::from_str(text).map_err(unreadable)
}

type Texts = Option<BTreeMap<String, String>>;

fn files(data: Texts, binary_data: Texts) -> Result<BTreeMap<String, Bytes>, String> {
    let texts = data.unwrap_or_default().into_iter();
    let mut files: BTreeMap<String, Bytes> =
        gather(texts.map(|(key, text)| (key, Bytes::from(text.into_bytes()))));
    for (key, text) in binary_data.unwrap_or_default() {
        let bytes = BASE64
            .decode(text)
            .map_err(|e| format!("binaryData of {key:?} is no base64: {e}"))?;
        files.insert(key, bytes.into());
    }
    Ok(files)
}

impl RawMetadata {
    fn version(self) -> Result<Version, String> {
        let resource_version = ResourceVersion::new(self.resource_version);
        let resource_version = resource_version.ok_or("there is no resourceVersion in it")?;
        Ok(Version {
            uid: self.uid,
            resource_version,
        })
    }
}
