//! JSON of the API server into values, in one pass and only the fields we need. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use crate::resource::{Body, Bytes, Object, ObjectKind, ResourceVersion, Version};

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

/// Every field of every kind that we read; what is not here is skipped unread.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawObject {
    kind: String,
    metadata: RawMetadata,
    data: Option<BTreeMap<String, String>>,
    binary_data: Option<BTreeMap<String, String>>,
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
}

#[derive(Deserialize)]
struct RawEvent {
    #[serde(rename = "type")]
    kind: String,
    object: RawObject,
}

/// Reads a list of objects of one kind, or of their metadata.
pub fn list(json: &[u8], kind: ObjectKind) -> Result<List, String> {
    let raw: RawObject = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let of_kind = raw.kind.strip_suffix("List") == Some(kind.name());
    if !of_kind && raw.kind != "PartialObjectMetadataList" {
        return Err(format!(
            "the answer is no list of {} but a {:?}",
            kind.plural(),
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
    let raw: RawEvent = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let object = raw.object;
    if raw.kind == "ERROR" {
        return Ok(WatchEvent::Failed(Status {
            code: object.code,
            message: object.message,
        }));
    }
    if object.kind != kind.name() {
        return Err(format!(
            "an event tells of a {:?}, not of a {}",
            object.kind,
            kind.name()
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

impl RawObject {
    fn into_object(self, kind: ObjectKind) -> Result<Object, String> {
        let body = match kind {
            ObjectKind::ConfigMap => Body::ConfigMap(files(self.data, self.binary_data)),
        };
        Ok(Object {
            name: self.metadata.name.clone(),
            version: self.metadata.version()?,
            body,
        })
    }
}

type Texts = Option<BTreeMap<String, String>>;

fn files(data: Texts, binary_data: Texts) -> Result<BTreeMap<String, Bytes>, String> {
    let texts = data.unwrap_or_default().into_iter();
    let mut files: BTreeMap<String, Bytes> = texts
        .map(|(key, text)| (key, Bytes::from(text.into_bytes())))
        .collect();
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
