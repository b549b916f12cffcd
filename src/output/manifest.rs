//! The files that came from a ConfigMap, as a ConfigMap again: YAML for `-dry-run`, JSON for the
//! mirror in the cluster. Pure.
//!
//! The YAML is written by hand: kubectl reads YAML 1.1, where a bare `on`, `y` or `1_000` is no
//! text, and serde_yaml leaves these bare. So all keys and values are quoted, or block literals.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::gather;
use crate::kube::api::MANAGED_BY;
use crate::snapshot::{FileSet, ObjectName, ResourceVersion};

/// What a mirror's name ends in.
const SUFFIX: &str = "-gen";
/// What the label of an object of ours says.
pub const MANAGER: &str = "crossover";

/// The object that mirrors what is published of `object`.
pub fn mirror_of(object: &ObjectName) -> ObjectName {
    ObjectName {
        namespace: object.namespace.clone(),
        name: format!("{}{SUFFIX}", object.name),
    }
}

/// One YAML document for each ConfigMap that has a file in `set`, as `kubectl apply -f -` takes it:
/// the ConfigMap itself, or its mirror.
pub fn manifests(set: &FileSet, mirrored: bool) -> String {
    let objects: BTreeSet<&ObjectName> = gather(set.values().map(|file| &file.origin.object));
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

/// The mirror of `object` as JSON, to replace the state `over` or to be created.
pub fn mirror(
    object: &ObjectName,
    set: &FileSet,
    over: Option<&ResourceVersion>,
) -> serde_json::Result<Vec<u8>> {
    let ObjectName { namespace, name } = mirror_of(object);
    // Names and versions are of letters that need no escape.
    let mut head = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"{name}\",\
         \"namespace\":\"{namespace}\",\"labels\":{{\"{MANAGED_BY}\":\"{MANAGER}\"}}"
    );
    if let Some(version) = over {
        let _ = write!(head, ",\"resourceVersion\":\"{version}\"");
    }
    let (data, binary) = contents(object, set);
    let mut json = (head + "},\"data\":").into_bytes();
    serde_json::to_writer(&mut json, &data)?;
    json.extend_from_slice(b",\"binaryData\":");
    serde_json::to_writer(&mut json, &binary)?;
    json.push(b'}');
    Ok(json)
}

type Texts<'a, T> = BTreeMap<&'a str, T>;

/// `data` and `binaryData` of what came from `object`.
fn contents<'a>(object: &ObjectName, set: &'a FileSet) -> (Texts<'a, &'a str>, Texts<'a, String>) {
    let (mut data, mut binary) = (BTreeMap::new(), BTreeMap::new());
    for (name, file) in set.iter().filter(|(_, file)| file.origin.object == *object) {
        match std::str::from_utf8(&file.bytes) {
            Ok(text) => drop(data.insert(name.as_str(), text)),
            Err(_) => drop(binary.insert(name.as_str(), BASE64.encode(&file.bytes))),
        }
    }
    (data, binary)
}

/// An entry of a mapping one level deep.
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

/// Several lines that can stand as they are: the first one gives the indentation.
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

/// Printable and no line break to any reader.
fn is_plain(c: char) -> bool {
    matches!(c, ' '..='~') || c.is_alphanumeric()
}
