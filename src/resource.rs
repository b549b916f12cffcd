//! The Kubernetes objects we read, as values. Owns: what a valid name is, and how JSON becomes an
//! object or a watch event. Must not: do I/O, log, or decide what an object means for Envoy.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

/// The content of one file. Shared, so that observed, desired and published hold one copy.
pub type Bytes = Rc<[u8]>;

/// Namespace and name of an object, both valid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    /// A DNS label.
    pub namespace: String,
    /// A DNS subdomain.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A ConfigMap key that is a plain file name: 1 to 253 of `[-._a-zA-Z0-9]`, neither `.` nor
/// beginning with `..` (the API server's own rule).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName(Rc<str>);

impl FileName {
    /// `None` where `key` could leave its directory or is too long for one.
    pub fn new(key: &str) -> Option<FileName> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let valid = (1..=253).contains(&key.len())
            && key.bytes().all(plain)
            && key != "."
            && !key.starts_with("..");
        valid.then(|| FileName(key.into()))
    }

    /// The name as it stands in the ConfigMap and on disk.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the last dot, or nothing.
    pub fn extension(&self) -> &str {
        self.0
            .rsplit_once('.')
            .map_or("", |(_, extension)| extension)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object's `metadata.resourceVersion`: opaque, compared for equality only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceVersion(pub String);

impl ResourceVersion {
    /// `None` where `text` is nothing, or nothing that can stand in a URL's query.
    pub fn new(text: String) -> Option<ResourceVersion> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        (!text.is_empty() && text.bytes().all(plain)).then_some(ResourceVersion(text))
    }
}

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which object of its name, and which state of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Changes when an object is deleted and made anew.
    pub uid: String,
    /// Changes with every write.
    pub resource_version: ResourceVersion,
}

/// Which object, and which state of it, a file came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The ConfigMap.
    pub object: ObjectName,
    /// Its `metadata.uid`.
    pub uid: String,
    /// The state of it that the file was read from.
    pub resource_version: ResourceVersion,
}

/// One file as it should stand on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its content, byte for byte.
    pub bytes: Bytes,
    /// Where it came from.
    pub origin: Rc<Origin>,
}

/// A whole set: what Envoy should find, and nothing else.
pub type FileSet = BTreeMap<FileName, File>;

/// A ConfigMap as the API server tells it: nothing in it is checked yet.
#[derive(Debug)]
pub struct ConfigMap {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid` and `metadata.resourceVersion`.
    pub version: Version,
    /// `data` and `binaryData`, or why they cannot be read.
    pub files: Result<BTreeMap<String, Bytes>, String>,
}

/// A line of a watch.
#[derive(Debug)]
pub enum WatchEvent {
    /// ADDED or MODIFIED.
    Changed(ConfigMap),
    /// DELETED: the object's name and the resourceVersion of its end.
    Deleted(String, ResourceVersion),
    /// BOOKMARK: the stream has come this far.
    Bookmark(ResourceVersion),
    /// ERROR: a Status.
    Failed(Status),
    /// A type we do not know.
    Unknown(String),
}

/// Why the API server will not.
#[derive(Debug, Default)]
pub struct Status {
    /// As an HTTP status.
    pub code: u16,
    /// For people.
    pub message: String,
}

/// A list's answer.
#[derive(Debug)]
pub struct List {
    /// Where a watch goes on.
    pub at: ResourceVersion,
    /// The objects, without `files` where metadata was asked for.
    pub items: Vec<ConfigMap>,
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

/// Reads a list of ConfigMaps, or of their metadata.
pub fn parse_list(json: &[u8]) -> Result<List, String> {
    let raw: RawObject = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    if !matches!(
        raw.kind.as_str(),
        "ConfigMapList" | "PartialObjectMetadataList"
    ) {
        return Err(format!(
            "the answer is no list of ConfigMaps but a {:?}",
            raw.kind
        ));
    }
    let items = raw
        .items
        .unwrap_or_default()
        .into_iter()
        .map(RawObject::into_configmap);
    Ok(List {
        at: raw.metadata.version()?.resource_version,
        items: items.collect::<Result<_, _>>()?,
    })
}

/// Reads one line of a watch on ConfigMaps.
pub fn parse_event(json: &[u8]) -> Result<WatchEvent, String> {
    let RawEvent { kind, object } = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    if kind == "ERROR" {
        return Ok(WatchEvent::Failed(Status {
            code: object.code,
            message: object.message,
        }));
    }
    if object.kind != "ConfigMap" {
        return Err(format!(
            "the event's object is no ConfigMap but a {:?}",
            object.kind
        ));
    }
    Ok(match kind.as_str() {
        "ADDED" | "MODIFIED" => WatchEvent::Changed(object.into_configmap()?),
        "DELETED" => {
            let name = object.metadata.name.clone();
            WatchEvent::Deleted(name, object.metadata.version()?.resource_version)
        }
        "BOOKMARK" => WatchEvent::Bookmark(object.metadata.version()?.resource_version),
        _ => WatchEvent::Unknown(kind),
    })
}

/// Reads a Status; an answer that is none has no code and its beginning as the message.
pub fn parse_status(body: &[u8]) -> Status {
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
    fn into_configmap(self) -> Result<ConfigMap, String> {
        let mut files = BTreeMap::new();
        for (key, text) in self.data.unwrap_or_default() {
            files.insert(key, Bytes::from(text.into_bytes()));
        }
        let mut unreadable = None;
        for (key, text) in self.binary_data.unwrap_or_default() {
            match BASE64.decode(text) {
                Ok(bytes) => drop(files.insert(key, bytes.into())),
                Err(e) => unreadable = Some(format!("binaryData of {key:?} is no base64: {e}")),
            }
        }
        Ok(ConfigMap {
            name: self.metadata.name.clone(),
            version: self.metadata.version()?,
            files: unreadable.map_or(Ok(files), Err),
        })
    }
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
