//! JSON as the API server writes it: key order, Go's escapes, the newline at the end. Must not
//! decide what is in an answer.

use super::Dialect;
use super::kinds::Kind;
use super::store::Page;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json, ser::Formatter};
use std::io;

/// The order of keys: those that come first, and the order of the values under a key. All else is
/// sorted.
struct Shape {
    first: &'static [&'static str],
    inner: &'static [(&'static str, &'static Shape)],
}

static SORTED: Shape = Shape {
    first: &[],
    inner: &[],
};
/// A built-in object, a list of them, a Status or a discovery answer.
static TYPED: Shape = Shape {
    first: &[
        "kind",
        "apiVersion",
        "groupVersion",
        "name",
        "versions",
        "preferredVersion",
        "metadata",
        "status",
        "message",
        "reason",
        "details",
    ],
    inner: &[
        ("metadata", &METADATA),
        ("items", &TYPED),
        ("details", &DETAILS),
        ("versions", &SORTED),
        ("groups", &TYPED),
        ("resources", &TYPED),
    ],
};
static METADATA: Shape = Shape {
    first: &[
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "labels",
        "annotations",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ],
    inner: &[("managedFields", &MANAGED)],
};
static MANAGED: Shape = Shape {
    first: &[
        "manager",
        "operation",
        "apiVersion",
        "time",
        "fieldsType",
        "fieldsV1",
    ],
    inner: &[],
};
static DETAILS: Shape = Shape {
    first: &["name", "group", "kind", "uid", "causes"],
    inner: &[("causes", &CAUSE)],
};
static CAUSE: Shape = Shape {
    first: &["reason", "message", "field"],
    inner: &[],
};
static TYPED_EVENT: Shape = Shape {
    first: &["type"],
    inner: &[("object", &TYPED)],
};
static CUSTOM_EVENT: Shape = Shape {
    first: &["type"],
    inner: &[],
};

/// The form in which a client asked for objects.
#[derive(Clone, Debug)]
pub struct View {
    /// Their kind.
    pub kind: Kind,
    /// The version of the kind.
    pub version: String,
    /// True if only their metadata is sent.
    pub metadata_only: bool,
    /// The wire format.
    pub dialect: Dialect,
}

impl View {
    fn custom(&self) -> bool {
        self.kind.custom && !self.metadata_only
    }

    /// One object, as GET answers it.
    pub fn object(&self, stored: &Value) -> Vec<u8> {
        line(
            &self.seen(stored),
            if self.custom() { &SORTED } else { &TYPED },
        )
    }

    /// Returns a list, or a page of one.
    pub fn list(&self, page: &Page) -> Vec<u8> {
        let mut items: Vec<Value> = page.items.iter().map(|object| self.seen(object)).collect();
        let mut metadata = json!({"resourceVersion": page.at.to_string()});
        let (mut kind, mut api_version) = (
            format!("{}List", self.kind.kind),
            self.kind.api_version(&self.version),
        );
        if self.metadata_only {
            (kind, api_version) = (
                "PartialObjectMetadataList".into(),
                "meta.k8s.io/v1".to_string(),
            );
        } else if self.kind.custom {
            metadata["continue"] = json!("");
        } else {
            for fields in items.iter_mut().filter_map(Value::as_object_mut) {
                fields.retain(|key, _| key != "kind" && key != "apiVersion");
            }
        }
        if let Some(next) = &page.next {
            metadata["continue"] = json!(next.token());
        }
        if let Some(remaining) = page.remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
        let none = self.dialect == Dialect::V1_20 && self.metadata_only && items.is_empty();
        let items = (!none).then_some(items);
        let list = json!({
            "kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items,
        });
        line(&list, if self.custom() { &SORTED } else { &TYPED })
    }

    /// Returns a line of a watch.
    pub fn event(&self, event: &str, stored: &Value) -> Vec<u8> {
        let event = json!({"type": event, "object": self.seen(stored)});
        line(
            &event,
            if self.custom() {
                &CUSTOM_EVENT
            } else {
                &TYPED_EVENT
            },
        )
    }

    /// Returns the line that carries a resourceVersion alone.
    pub fn bookmark(&self, resource_version: u64) -> Vec<u8> {
        let mut object = json!({"metadata": {"resourceVersion": resource_version.to_string()}});
        if self.dialect == Dialect::V1_20 && !self.custom() {
            object["metadata"]["creationTimestamp"] = Value::Null;
        }
        self.event("BOOKMARK", &object)
    }

    fn seen(&self, stored: &Value) -> Value {
        if self.metadata_only {
            return json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": stored["metadata"],
            });
        }
        let mut object = stored.clone();
        object["kind"] = json!(self.kind.kind);
        object["apiVersion"] = json!(self.kind.api_version(&self.version));
        object
    }
}

/// Returns a Status or a discovery answer.
pub fn answer(value: &Value) -> Vec<u8> {
    line(value, &TYPED)
}

/// Returns the line with which a watch tells an error.
pub fn error_event(status: &Value) -> Vec<u8> {
    line(&json!({"type": "ERROR", "object": status}), &TYPED_EVENT)
}

fn line(value: &Value, shape: &'static Shape) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Go);
    Ordered { value, shape }
        .serialize(&mut serializer)
        .expect("a Value can be written");
    bytes.push(b'\n');
    bytes
}

struct Ordered<'a> {
    value: &'a Value,
    shape: &'static Shape,
}

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Ordered { value, shape } = self;
        match value {
            Value::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (key, value) in in_order(fields, shape) {
                    let inner = shape.inner.iter().find(|(name, _)| name == key);
                    let shape = inner.map_or(&SORTED, |(_, shape)| shape);
                    map.serialize_entry(key, &Ordered { value, shape })?;
                }
                map.end()
            }
            Value::Array(items) => {
                serializer.collect_seq(items.iter().map(|value| Ordered { value, shape }))
            }
            scalar => scalar.serialize(serializer),
        }
    }
}

fn in_order<'a>(
    fields: &'a Map<String, Value>,
    shape: &'static Shape,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let first = shape
        .first
        .iter()
        .filter_map(|key| fields.get_key_value(*key));
    let rest = fields
        .iter()
        .filter(|(key, _)| !shape.first.contains(&key.as_str()));
    first.chain(rest)
}

/// Go's encoding/json escapes what HTML and JavaScript could trip over.
struct Go;

impl Formatter for Go {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let special = |c: char| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        // Nearly all have none, and without optimization this search is fast and the other one
        // slow.
        let may_be = |first| fragment.as_bytes().contains(&first);
        if ![b'<', b'>', b'&', 0xe2].into_iter().any(may_be) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some(at) = rest.find(special) {
            let (plain, tail) = rest.split_at(at);
            let c = tail.chars().next().unwrap_or_default();
            write!(writer, "{plain}\\u{:04x}", u32::from(c))?;
            rest = &tail[c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}
