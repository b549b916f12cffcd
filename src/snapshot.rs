//! Names, versions and files, as values. Owns: what a valid name is. Must not: do I/O or log.

use crate::sorted::SortedMap;
use std::fmt;
use std::rc::Rc;

/// The content of one file. Shared, so that observed, desired and published hold one copy.
pub type Bytes = Rc<[u8]>;

/// The namespace and the name of an object, both valid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    /// Its namespace, a DNS label.
    pub namespace: String,
    /// Its name, a DNS subdomain.
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
    /// Returns `None` if `key` could leave its directory or is too long for one.
    pub fn new(key: &str) -> Option<FileName> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let valid = (1..=253).contains(&key.len())
            && key.bytes().all(plain)
            && key != "."
            && !key.starts_with("..");
        valid.then(|| FileName(key.into()))
    }

    /// Returns the name as it stands in the ConfigMap and on disk.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns what follows the last dot, or an empty text.
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
    /// Returns `None` if `text` is empty, or not the plain text that every server gives.
    pub fn new(text: String) -> Option<ResourceVersion> {
        let plain = |b: u8| b.is_ascii_graphic();
        (!text.is_empty() && text.bytes().all(plain)).then_some(ResourceVersion(text))
    }
}

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Identifies an object of a name, and one state of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The `metadata.uid`, which changes when an object is deleted and made anew.
    pub uid: String,
    /// The `metadata.resourceVersion`, which changes with every write.
    pub resource_version: ResourceVersion,
}

/// Identifies the object, and the state of it, that a file came from.
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
    /// The object and the state of it that the file came from.
    pub origin: Rc<Origin>,
}

/// A whole set: what Envoy should find, and nothing else.
pub type Snapshot = SortedMap<FileName, File>;
