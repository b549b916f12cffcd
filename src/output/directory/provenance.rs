//! `N.sources`: which ConfigMap, and which state of it, each file of a set came from. JSON, one
//! file a line, for people with `cat` too. Owns: that format. Must not: touch the disk.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::Stamp;
use crate::snapshot::{Bytes, FileName, ObjectName, Origin, ResourceVersion};

/// What is remembered of a published file; its content stays on disk, but where it is held anyway.
#[derive(Clone, Debug)]
pub struct Source {
    pub origin: Rc<Origin>,
    pub size: u64,
    /// What the file was found equal to, and what it was then.
    pub seen: Option<(Bytes, Stamp)>,
}

/// A whole set, without contents.
pub type Sources = BTreeMap<FileName, Source>;

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    namespace: String,
    name: String,
    uid: String,
    resource_version: String,
    size: u64,
}

/// As it is written.
pub fn encode(sources: &Sources) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(32 + 192 * sources.len());
    let mut before = "{\n  ";
    for (name, Source { origin, size, .. }) in sources {
        out.extend(before.bytes());
        serde_json::to_writer(&mut out, name.as_str())?;
        out.extend(b": ");
        let line = Line {
            namespace: origin.object.namespace.clone(),
            name: origin.object.name.clone(),
            uid: origin.uid.clone(),
            resource_version: origin.resource_version.0.clone(),
            size: *size,
        };
        serde_json::to_writer(&mut out, &line)?;
        before = ",\n  ";
    }
    out.extend(if sources.is_empty() { "{}\n" } else { "\n}\n" }.bytes());
    Ok(out)
}

/// `None` where anything is not as we write it.
pub fn decode(text: &[u8]) -> Option<Sources> {
    let lines: BTreeMap<String, Line> = serde_json::from_slice(text).ok()?;
    let mut sources = Sources::new();
    let mut last: Option<Rc<Origin>> = None;
    for (name, line) in lines {
        let origin = Origin {
            object: ObjectName {
                namespace: line.namespace,
                name: line.name,
            },
            uid: line.uid,
            resource_version: ResourceVersion(line.resource_version),
        };
        // Files of one ConfigMap share what is said of it.
        let origin = match last {
            Some(same) if *same == origin => same,
            _ => Rc::new(origin),
        };
        last = Some(origin.clone());
        let size = line.size;
        let seen = None;
        sources.insert(FileName::new(&name)?, Source { origin, size, seen });
    }
    Some(sources)
}

/// Of files that were there before us.
pub fn unknown() -> Rc<Origin> {
    Rc::new(Origin {
        object: ObjectName {
            namespace: String::new(),
            name: String::new(),
        },
        uid: String::new(),
        resource_version: ResourceVersion(String::new()),
    })
}
