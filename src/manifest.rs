//! The files that came from a ConfigMap, as a ConfigMap again: YAML for `-dry-run`, JSON for the
//! mirror in the cluster. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use crate::decode::MANAGED_BY;
use crate::error::Error;
use crate::resource::{FileSet, ObjectName, ResourceVersion};

/// What a mirror's name ends in.
const SUFFIX: &str = "-gen";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    data: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    binary_data: BTreeMap<&'a str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    name: String,
    namespace: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'static str, &'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<&'a str>,
}

/// The object that mirrors what is published of `object`.
pub fn mirror_of(object: &ObjectName) -> ObjectName {
    ObjectName {
        namespace: object.namespace.clone(),
        name: format!("{}{SUFFIX}", object.name),
    }
}

/// One YAML document for each ConfigMap that has a file in `set`, as `kubectl apply -f -` takes it:
/// the ConfigMap itself, or its mirror.
pub fn manifests(set: &FileSet, mirrored: bool) -> Result<String, Error> {
    let mut objects: Vec<&ObjectName> = set.values().map(|file| &file.origin.object).collect();
    objects.sort();
    objects.dedup();
    let mut text = String::new();
    for object in objects {
        let mut manifest = manifest(object, set);
        if mirrored {
            manifest.mirror(None);
        }
        text += "---\n";
        text += &serde_yaml::to_string(&manifest).map_err(|e| failed(std::io::Error::other(e)))?;
    }
    Ok(text)
}

/// The mirror of `object` as JSON, to replace the state `over` or to be created.
pub fn mirror(
    object: &ObjectName,
    set: &FileSet,
    over: Option<&ResourceVersion>,
) -> Result<Vec<u8>, Error> {
    let mut manifest = manifest(object, set);
    manifest.mirror(over.map(|version| version.0.as_str()));
    serde_json::to_vec(&manifest).map_err(|e| failed(e.into()))
}

fn failed(source: std::io::Error) -> Error {
    Error::System {
        what: "write a manifest",
        source,
    }
}

fn manifest<'a>(object: &'a ObjectName, set: &'a FileSet) -> Manifest<'a> {
    let metadata = Metadata {
        name: object.name.clone(),
        namespace: &object.namespace,
        labels: BTreeMap::new(),
        resource_version: None,
    };
    let (mut data, mut binary_data) = (BTreeMap::new(), BTreeMap::new());
    for (name, file) in set.iter().filter(|(_, file)| file.origin.object == *object) {
        match std::str::from_utf8(&file.bytes) {
            Ok(text) => drop(data.insert(name.as_str(), text)),
            Err(_) => drop(binary_data.insert(name.as_str(), BASE64.encode(&file.bytes))),
        }
    }
    Manifest {
        api_version: "v1",
        kind: "ConfigMap",
        metadata,
        data,
        binary_data,
    }
}

impl<'a> Manifest<'a> {
    fn mirror(&mut self, over: Option<&'a str>) {
        self.metadata.name += SUFFIX;
        self.metadata.labels.insert(MANAGED_BY, "crossover");
        self.metadata.resource_version = over;
    }
}
