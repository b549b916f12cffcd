//! File sets as ConfigMap manifests, for `-dry-run`. Pure.
//!
//! Written by hand: kubectl reads YAML 1.1, where a bare `on`, `y` or `1_000` is no text, and
//! serde_yaml leaves these bare. So all keys and values are quoted, or block literals.

use std::collections::BTreeMap;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::resource::{FileSet, ObjectName};

/// One YAML document for each ConfigMap that has a file in `set`, as `kubectl apply -f -` takes it.
pub fn manifests(set: &FileSet) -> String {
    let mut manifests: BTreeMap<&ObjectName, [String; 2]> = BTreeMap::new();
    for (name, file) in set {
        let [data, binary] = manifests.entry(&file.origin.object).or_default();
        match std::str::from_utf8(&file.bytes) {
            Ok(text) => add(data, name.as_str(), text),
            Err(_) => add(binary, name.as_str(), &BASE64.encode(&file.bytes)),
        }
    }
    let mut all = String::new();
    for (object, [data, binary]) in manifests {
        all += "---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n";
        add(&mut all, "name", &object.name);
        add(&mut all, "namespace", &object.namespace);
        for (field, entries) in [("data:\n", data), ("binaryData:\n", binary)] {
            if !entries.is_empty() {
                all += field;
                all += &entries;
            }
        }
    }
    all
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
