//! `metadata.managedFields`: who wrote which field. Enough of the real rules for the shapes that
//! clients see, and for the conflicts of server-side apply.

use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// A path of `f:` steps.
type Path = Vec<String>;

/// A manager of fields: who writes, how and when.
#[derive(Clone, Debug)]
pub struct Writer {
    /// The `fieldManager`.
    pub manager: String,
    /// `Update` or `Apply`.
    pub operation: &'static str,
    /// The version of the object as sent.
    pub api_version: String,
    /// RFC 3339, seconds.
    pub time: String,
}

struct Entry {
    writer: Value,
    fields: BTreeSet<Path>,
}

/// Returns the managedFields of `new`, which `writer` made out of `old`. For an apply, `applied` is
/// what was sent.
pub fn after_write(old: Option<&Value>, new: &Value, applied: &Value, writer: &Writer) -> Value {
    let now = leaves(new, true);
    let before = old.map(|old| leaves(old, true)).unwrap_or_default();
    let changed = |path: &Path| old.is_none_or(|old| at(old, path) != at(new, path));
    let mine: BTreeSet<Path> = if writer.operation == "Apply" {
        leaves(applied, false)
    } else {
        let is_leaf = |path: &Path| {
            !now.iter()
                .any(|p| p.len() > path.len() && p.starts_with(path))
        };
        let own = |path: &&Path| !before.contains(*path) || (is_leaf(path) && changed(path));
        now.iter().filter(own).cloned().collect()
    };
    let mut entries = read(old);
    for entry in &mut entries {
        let held = entry.fields.len();
        let same = is_by(&entry.writer, writer);
        entry
            .fields
            .retain(|path| now.contains(path) && (same || !mine.contains(path) || !changed(path)));
        if held != entry.fields.len() {
            entry.writer["time"] = json!(writer.time);
        }
    }
    let stamp = json!({
        "manager": writer.manager, "operation": writer.operation,
        "apiVersion": writer.api_version, "time": writer.time, "fieldsType": "FieldsV1",
    });
    match entries
        .iter_mut()
        .find(|entry| is_by(&entry.writer, writer))
    {
        Some(entry) => {
            entry.writer = stamp;
            if writer.operation == "Apply" {
                entry.fields = mine;
            } else {
                entry.fields.extend(mine);
            }
        }
        None => entries.push(Entry {
            writer: stamp,
            fields: mine,
        }),
    }
    entries.retain(|entry| !entry.fields.is_empty());
    entries.sort_by_key(|entry| {
        ["operation", "time", "manager"].map(|key| entry.writer[key].to_string())
    });
    entries.into_iter().map(write).collect()
}

/// Fields of `applied` that another manager owns with another value: manager and `.path` each.
pub fn conflicts(old: &Value, applied: &Value, manager: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in leaves(applied, false) {
        if at(old, &path) == at(applied, &path) {
            continue;
        }
        for entry in read(Some(old)) {
            let owner = entry.writer["manager"]
                .as_str()
                .unwrap_or_default()
                .to_string();
            let self_applied = owner == manager && entry.writer["operation"] == json!("Apply");
            if entry.fields.contains(&path) && !self_applied {
                let dotted: String = path.iter().map(|step| format!(".{}", &step[2..])).collect();
                found.push((owner, dotted));
            }
        }
    }
    found
}

/// Returns the fields that `manager` applied before and does not apply any more, and nobody else
/// owns.
pub fn given_up(old: &Value, applied: &Value, manager: &str) -> Vec<Vec<String>> {
    let still = leaves(applied, false);
    let entries = read(Some(old));
    let is_mine = |entry: &Entry| {
        entry.writer["manager"] == json!(manager) && entry.writer["operation"] == json!("Apply")
    };
    let mine = entries
        .iter()
        .filter(|e| is_mine(e))
        .flat_map(|entry| entry.fields.iter());
    let shared = |path: &Path| {
        entries
            .iter()
            .any(|e| !is_mine(e) && e.fields.contains(path))
    };
    mine.filter(|path| !still.contains(*path) && !shared(path))
        .map(|path| path.iter().map(|step| step[2..].to_string()).collect())
        .collect()
}

fn is_by(entry: &Value, writer: &Writer) -> bool {
    entry["manager"] == json!(writer.manager) && entry["operation"] == json!(writer.operation)
}

/// Returns the paths of an object's fields: of `data`, `spec` and the like, and of labels and
/// annotations. Lists are one leaf. With `inner`, maps count as well as what they hold.
fn leaves(object: &Value, inner: bool) -> BTreeSet<Path> {
    let mut found = BTreeSet::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        match key.as_str() {
            "kind" | "apiVersion" | "status" => {}
            "metadata" => {
                for key in ["labels", "annotations"] {
                    if let Some(value) = value.get(key) {
                        let path = vec!["f:metadata".to_string(), format!("f:{key}")];
                        walk(value, path, inner, &mut found);
                    }
                }
            }
            _ => walk(value, vec![format!("f:{key}")], inner, &mut found),
        }
    }
    found
}

fn walk(value: &Value, path: Path, inner: bool, found: &mut BTreeSet<Path>) {
    let fields = value.as_object().filter(|fields| !fields.is_empty());
    for (key, value) in fields.into_iter().flatten() {
        let mut path = path.clone();
        path.push(format!("f:{key}"));
        walk(value, path, inner, found);
    }
    if inner || fields.is_none() {
        found.insert(path);
    }
}

fn at<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter()
        .try_fold(object, |value, step| value.get(&step[2..]))
}

fn read(object: Option<&Value>) -> Vec<Entry> {
    let managed = object.and_then(|object| object["metadata"]["managedFields"].as_array());
    managed
        .into_iter()
        .flatten()
        .map(|entry| {
            let mut fields = BTreeSet::new();
            collect(&entry["fieldsV1"], &mut Vec::new(), &mut fields);
            Entry {
                writer: entry.clone(),
                fields,
            }
        })
        .collect()
}

fn collect(node: &Value, path: &mut Path, fields: &mut BTreeSet<Path>) {
    let children = node.as_object();
    if !path.is_empty() && children.is_none_or(|c| c.is_empty() || c.contains_key(".")) {
        fields.insert(path.clone());
    }
    for (step, child) in children
        .into_iter()
        .flatten()
        .filter(|(step, _)| *step != ".")
    {
        path.push(step.clone());
        collect(child, path, fields);
        path.pop();
    }
}

fn write(entry: Entry) -> Value {
    let mut root = json!({});
    for path in &entry.fields {
        let mut node = &mut root;
        for step in path {
            node = &mut node[step.as_str()];
            if node.is_null() {
                *node = json!({});
            }
        }
    }
    mark(&mut root, &mut Vec::new(), &entry.fields);
    let mut value = entry.writer;
    value["fieldsV1"] = root;
    value
}

/// A map that is owned itself, not only what it holds, says so with `.`.
fn mark(node: &mut Value, path: &mut Path, fields: &BTreeSet<Path>) {
    let Some(children) = node.as_object_mut().filter(|children| !children.is_empty()) else {
        return;
    };
    for (step, child) in children.iter_mut() {
        path.push(step.clone());
        mark(child, path, fields);
        path.pop();
    }
    if fields.contains(path) {
        children.insert(".".into(), Value::Object(Map::new()));
    }
}
