//! Writes the files that came from a ConfigMap as a ConfigMap again: YAML for `-dry-run`, JSON for
//! the mirror in the cluster. Pure.
//!
//! The YAML is written by hand: kubectl reads YAML 1.1, where a bare `on`, `y` or `1_000` is not
//! a text, and serde_yaml leaves these bare. So all keys and values are quoted, or block literals.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::Value;

use crate::kube::api::Metadata;
use crate::snapshot::{ObjectName, Snapshot};
use crate::sorted::{SortedMap, SortedSet};

/// The ending of a mirror's name.
const SUFFIX: &str = "-gen";
/// The label that says whose an object is, and its value on ours.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const MANAGER: &str = "crossover";
/// The annotation that makes a mirror ours if its label says that another program manages it.
const MIRROR: &str = "crossover/mirror";

/// Returns the name of the mirror of `object`.
pub fn mirror_of(object: &ObjectName) -> ObjectName {
    ObjectName {
        namespace: object.namespace.clone(),
        name: format!("{}{SUFFIX}", object.name),
    }
}

/// Returns one YAML document for each ConfigMap that has a file in `set`, as `kubectl apply -f -`
/// takes it: the ConfigMap itself, or its mirror.
pub fn manifests(set: &Snapshot, mirrored: bool) -> String {
    let objects: SortedSet<&ObjectName> = set.values().map(|file| &file.origin.object).collect();
    let mut all = String::new();
    for object in objects {
        all += "---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n";
        let shown = if mirrored {
            mirror_of(object)
        } else {
            object.clone()
        };
        add(&mut all, "name", &shown.name);
        add(&mut all, "namespace", &shown.namespace);
        if mirrored {
            let _ = writeln!(all, "  labels: {{\"{MANAGED_BY}\": \"{MANAGER}\"}}");
        }
        let (data, binary) = contents(object, set);
        if !data.is_empty() {
            all += "data:\n";
            data.iter().for_each(|(key, text)| add(&mut all, key, text));
        }
        if !binary.is_empty() {
            all += "binaryData:\n";
            binary
                .iter()
                .for_each(|(key, text)| add(&mut all, key, text));
        }
    }
    all
}

/// Returns whether an object with this metadata is a mirror of ours.
pub fn is_ours(metadata: &Metadata) -> bool {
    let says = |field, key, text| metadata.get(field).is_some_and(|field| field[key] == text);
    says("labels", MANAGED_BY, MANAGER) || says("annotations", MIRROR, "true")
}

/// Makes an object ours, and leaves all that its metadata says.
fn mark(metadata: &mut Metadata) {
    if is_ours(metadata) {
        return;
    }
    let labels = metadata.get("labels");
    let (field, key, text) = match labels.is_some_and(|labels| labels[MANAGED_BY].is_string()) {
        false => ("labels", MANAGED_BY, MANAGER),
        true => ("annotations", MIRROR, "true"),
    };
    let entries = metadata.entry(field).or_insert(Value::Null);
    if !entries.is_object() {
        *entries = Value::Null;
    }
    entries[key] = text.into();
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigMap<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: &'a Metadata,
    data: Texts<'a, &'a str>,
    binary_data: Texts<'a, String>,
}

/// Returns the mirror of `object` as JSON, to be created, or to replace one that has this metadata:
/// its resourceVersion and uid are then the state that is replaced.
pub fn mirror(
    object: &ObjectName,
    set: &Snapshot,
    over: Option<Metadata>,
) -> serde_json::Result<Vec<u8>> {
    let mut metadata = over.unwrap_or_else(|| {
        let ObjectName { namespace, name } = mirror_of(object);
        // To collect them would sort first, which costs 5 KB of code.
        let mut metadata = Metadata::new();
        metadata.insert("name".to_owned(), name.into());
        metadata.insert("namespace".to_owned(), namespace.into());
        metadata
    });
    mark(&mut metadata);
    // The server keeps these itself.
    metadata.remove("managedFields");
    let (data, binary_data) = contents(object, set);
    serde_json::to_vec(&ConfigMap {
        api_version: "v1",
        kind: "ConfigMap",
        metadata: &metadata,
        data,
        binary_data,
    })
}

type Texts<'a, T> = SortedMap<&'a str, T>;

/// Returns `data` and `binaryData` of what came from `object`.
fn contents<'a>(object: &ObjectName, set: &'a Snapshot) -> (Texts<'a, &'a str>, Texts<'a, String>) {
    let (mut data, mut binary) = (SortedMap::new(), SortedMap::new());
    for (name, file) in set.iter().filter(|(_, file)| file.origin.object == *object) {
        match std::str::from_utf8(&file.bytes) {
            Ok(text) => {
                data.insert(name.as_str(), text);
            }
            Err(_) => {
                binary.insert(name.as_str(), BASE64.encode(&file.bytes));
            }
        }
    }
    (data, binary)
}

/// Adds an entry of a mapping one level deep.
fn add(out: &mut String, key: &str, text: &str) {
    *out += "  ";
    quote(out, key);
    if !is_literal(text) {
        *out += ": ";
        quote(out, text);
        *out += "\n";
        return;
    }
    let body = text.trim_end_matches('\n');
    *out += match text.len() - body.len() {
        0 => ": |-\n",
        1 => ": |\n",
        _ => ": |+\n",
    };
    for line in text.split_terminator('\n') {
        if !line.is_empty() {
            *out += "    ";
        }
        *out += line;
        *out += "\n";
    }
}

/// Returns whether a text has several lines that can stand as they are: the first one gives the
/// indentation.
fn is_literal(text: &str) -> bool {
    text.contains('\n')
        && !text.starts_with([' ', '\t', '\n'])
        && text
            .chars()
            .all(|c| is_plain(c) || matches!(c, '\n' | '\t'))
}

fn quote(out: &mut String, text: &str) {
    *out += "\"";
    for c in text.chars() {
        // A String takes whatever is written.
        let _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            '\n' => write!(out, "\\n"),
            '\t' => write!(out, "\\t"),
            '\r' => write!(out, "\\r"),
            c if is_plain(c) => write!(out, "{c}"),
            c => write!(out, "\\U{:08x}", u32::from(c)),
        };
    }
    *out += "\"";
}

/// Returns whether a character is printable and not a line break to any reader.
fn is_plain(c: char) -> bool {
    matches!(c, ' '..='~') || c.is_alphanumeric()
}
