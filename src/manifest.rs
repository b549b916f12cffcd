//! File sets as ConfigMap manifests, for `-dry-run`. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use crate::error::Error;
use crate::resource::{FileSet, ObjectName};

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
struct Metadata<'a> {
    name: &'a str,
    namespace: &'a str,
}

/// One YAML document for each ConfigMap that has a file in `set`, as `kubectl apply -f -` takes it.
pub fn manifests(set: &FileSet) -> Result<String, Error> {
    let mut manifests: BTreeMap<&ObjectName, Manifest> = BTreeMap::new();
    for (name, file) in set {
        let object = &file.origin.object;
        let manifest = manifests.entry(object).or_insert_with(|| Manifest {
            api_version: "v1",
            kind: "ConfigMap",
            metadata: Metadata {
                name: &object.name,
                namespace: &object.namespace,
            },
            data: BTreeMap::new(),
            binary_data: BTreeMap::new(),
        });
        match std::str::from_utf8(&file.bytes) {
            Ok(text) => drop(manifest.data.insert(name.as_str(), text)),
            Err(_) => {
                manifest
                    .binary_data
                    .insert(name.as_str(), BASE64.encode(&file.bytes));
            }
        }
    }
    let mut text = String::new();
    for manifest in manifests.values() {
        text += "---\n";
        text += &serde_yaml::to_string(manifest).map_err(|e| Error::System {
            what: "write a manifest",
            source: std::io::Error::other(e),
        })?;
    }
    Ok(text)
}
