//! Encodes and decodes `N.sources`: which ConfigMap, and which state of it, each file of a set came
//! from, and a hash of the file. It is JSON with one file on each line, so that people can read it
//! with `cat`. Owns: that format. Must not: touch the disk.
//!
//! Other versions of crossover read and write the same directory: an unknown field is ignored, and
//! a field that a later version added may be missing.

use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::output::disk::{FullStamp, Inode, Stamp};
use crate::output::step::{Stage, Transient};
use crate::snapshot::{Bytes, FileName, ObjectName, Origin, ResourceVersion};
use crate::sorted::SortedMap;

/// A published file. Its content is on disk, and in memory only if something else holds it anyway.
#[derive(Clone, Debug)]
pub struct Source {
    pub origin: Rc<Origin>,
    pub size: u64,
    /// The hash of its content; `None` if an earlier version wrote the set.
    pub hash: Option<u64>,
    /// The bytes that the file was last found equal to, and its stamp at that time.
    pub seen: Option<(Bytes, Stamp)>,
    /// The stamp of the file when its content was last found to have that hash.
    pub intact: Option<FullStamp>,
    /// The inode of the file, where that is known. Sets share what they have in common.
    pub inode: Option<Inode>,
    /// The difference from the target's file; `None` in a set that is a target.
    pub mark: Option<Mark>,
}

/// The mark of a file in the set of an unfinished sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub stage: Stage,
    /// The bytes of a union that hold the clusters that vanish.
    pub inserted: Option<Range<u64>>,
    /// True if the target does not have it.
    pub vanishing: bool,
}

impl Mark {
    /// Returns the mark that `name` gets in a set.
    pub fn of(name: &FileName, transient: Option<&Transient>) -> Option<Mark> {
        transient.map(|transient| Mark {
            stage: transient.stage,
            inserted: transient.inserted.get(name).cloned(),
            vanishing: transient.vanishing.contains(name),
        })
    }
}

impl Source {
    /// Takes over what is known of the same file.
    pub fn recall(&mut self, known: &Source) {
        if self.size == known.size && self.hash.is_none_or(|hash| known.hash == Some(hash)) {
            *self = Source {
                origin: self.origin.clone(),
                mark: self.mark.clone(),
                ..known.clone()
            };
        }
    }

    /// Returns whether the target has no such file.
    pub fn is_extra(&self) -> bool {
        let mark = self.mark.as_ref();
        mark.is_some_and(|mark| mark.stage == Stage::Routes && mark.vanishing)
    }

    /// Returns the bytes of the file that the target does not have. In a set that shows new
    /// clusters to old routes, all of them stay: the set is not closer to the target without them.
    pub fn extra(&self) -> Option<&Range<u64>> {
        let mark = self.mark.as_ref()?;
        mark.inserted
            .as_ref()
            .filter(|_| mark.stage == Stage::Routes)
    }

    /// Cuts the target's content out of the file's. Returns `None` if the two do not fit.
    pub fn cut(&self, bytes: Bytes) -> Option<Bytes> {
        let Some(Range { start, end }) = self.extra() else {
            return Some(bytes);
        };
        let (start, end) = (usize::try_from(*start).ok()?, usize::try_from(*end).ok()?);
        let (head, tail) = (bytes.get(..start)?, bytes.get(end..)?);
        (start <= end).then(|| head.iter().chain(tail).copied().collect())
    }

    /// Returns how many bytes the target's file has.
    pub fn target_size(&self) -> u64 {
        let extra = self
            .extra()
            .map_or(0, |extra| extra.end.saturating_sub(extra.start));
        if self.is_extra() {
            0
        } else {
            self.size.saturating_sub(extra)
        }
    }
}

/// Returns what a set holds beyond its target; `None` if it is a target.
pub fn transient(sources: &Sources) -> Option<Transient> {
    let marks = sources
        .iter()
        .filter_map(|(name, source)| Some((name, source.mark.as_ref()?)));
    let mut transient = None;
    for (name, mark) in marks {
        let all = transient.get_or_insert_with(|| Transient {
            stage: mark.stage,
            inserted: Default::default(),
            vanishing: Default::default(),
        });
        if let Some(inserted) = &mark.inserted {
            all.inserted.insert(name.clone(), inserted.clone());
        }
        all.vanishing.extend(mark.vanishing.then(|| name.clone()));
    }
    transient
}

/// A whole set, without contents.
pub type Sources = SortedMap<FileName, Source>;

/// The most bytes that a line can have: key, namespace and name of at most 253 each, and a uid and
/// a resourceVersion of the server's choice.
pub const LONGEST_LINE: u64 = 4 << 10;

/// The stages as they are written down.
const CLUSTERS: &str = "clusters";
const ROUTES: &str = "routes";

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    namespace: String,
    name: String,
    uid: String,
    resource_version: String,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<u64>,
    /// The progress of the set's sequence; a target has neither this nor the fields that follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transient: Option<Cow<'static, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inserted_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inserted_len: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    vanishing: bool,
}

impl Line {
    fn mark(&self) -> Option<Mark> {
        let (at, len) = (self.inserted_at, self.inserted_len);
        let inserted = at.zip(len).map(|(at, len)| at..at.saturating_add(len));
        Some(Mark {
            // A stage that a later version knows is not the target, either.
            stage: match self.transient.as_deref()? {
                ROUTES => Stage::Routes,
                _ => Stage::Clusters,
            },
            inserted,
            vanishing: self.vanishing,
        })
    }
}

/// Returns the text of `N.sources`.
pub fn encode(sources: &Sources) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(32 + 224 * sources.len());
    let mut before = "{\n  ";
    for (name, source) in sources {
        let Source {
            origin,
            size,
            hash,
            mark,
            ..
        } = source;
        let mark = mark.as_ref();
        let inserted = mark.and_then(|mark| mark.inserted.as_ref());
        out.extend(before.bytes());
        serde_json::to_writer(&mut out, name.as_str())?;
        out.extend(b": ");
        let line = Line {
            namespace: origin.object.namespace.clone(),
            name: origin.object.name.clone(),
            uid: origin.uid.clone(),
            resource_version: origin.resource_version.0.clone(),
            size: *size,
            hash: *hash,
            transient: mark.map(|mark| match mark.stage {
                Stage::Clusters => CLUSTERS.into(),
                Stage::Routes => ROUTES.into(),
            }),
            inserted_at: inserted.map(|inserted| inserted.start),
            inserted_len: inserted.map(|inserted| inserted.end - inserted.start),
            vanishing: mark.is_some_and(|mark| mark.vanishing),
        };
        serde_json::to_writer(&mut out, &line)?;
        before = ",\n  ";
    }
    out.extend(if sources.is_empty() { "{}\n" } else { "\n}\n" }.bytes());
    Ok(out)
}

/// Reads the text of `N.sources`. Returns `None` if any of it is not in our format.
pub fn decode(text: &[u8]) -> Option<Sources> {
    let lines: SortedMap<String, Line> = serde_json::from_slice(text).ok()?;
    let mut sources = Sources::new();
    let mut last: Option<Rc<Origin>> = None;
    for (name, line) in lines {
        let mark = line.mark();
        let origin = Origin {
            object: ObjectName {
                namespace: line.namespace,
                name: line.name,
            },
            uid: line.uid,
            resource_version: ResourceVersion(line.resource_version),
        };
        // Files of one ConfigMap share one origin.
        let origin = match last {
            Some(same) if *same == origin => same,
            _ => Rc::new(origin),
        };
        last = Some(origin.clone());
        let source = Source {
            origin,
            size: line.size,
            hash: line.hash,
            seen: None,
            intact: None,
            inode: None,
            mark,
        };
        sources.insert(FileName::new(&name)?, source);
    }
    Some(sources)
}

/// Returns the origin of files that were there before crossover.
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
