//! The contents of ConfigMaps that a set is made of, and what stands in for those that are held
//! back.

use std::hash::{DefaultHasher, Hasher};
use std::rc::Rc;
use std::time::Instant;

use super::Verdicts;
use crate::envoy::acceptance::{Content, Hold};
use crate::snapshot::{Bytes, FileName, ObjectName, Origin, Snapshot};
use crate::sorted::SortedMap;
use crate::xds::content::ConfigMapFiles;
use crate::xds::desired::SourceView;

/// The contents of a set.
#[derive(Debug, Default)]
pub struct Contents {
    /// The contents of all ConfigMaps as the cluster has them.
    pub observed: Vec<Content>,
    /// Those that the set has. What stands in for one that is held is among them.
    pub published: Vec<Content>,
    /// The ConfigMaps whose content is held back.
    pub held: Vec<ObjectName>,
    /// The texts, before weights.
    pub texts: Snapshot,
}

impl Contents {
    /// Returns the content that a ConfigMap's files in the set are of.
    pub fn of(&self, object: &ObjectName) -> Content {
        let known = self.find(object).cloned();
        known.unwrap_or_else(|| Content {
            object: object.clone(),
            hash: 0,
        })
    }

    fn find(&self, object: &ObjectName) -> Option<&Content> {
        let mut published = self.published.iter();
        published.find(|content| content.object == *object)
    }

    /// Reads what a set of an earlier run was made of.
    pub fn of_set(texts: Snapshot) -> Contents {
        let mut published: Vec<Content> = Vec::new();
        for file in texts.values() {
            let object = &file.origin.object;
            if !published.iter().any(|known| known.object == *object)
                && let Some(files) = ConfigMapFiles::from_last_run(object, &texts)
            {
                published.push(content(object, &files.files));
            }
        }
        Contents {
            observed: Vec::new(),
            published,
            held: Vec::new(),
            texts,
        }
    }
}

/// The content of each ConfigMap, as far as it was hashed before.
#[derive(Debug, Default)]
pub struct Hashes(Vec<(Rc<Origin>, Content)>);

impl Hashes {
    fn of(&mut self, object: &ObjectName, files: &ConfigMapFiles) -> Content {
        let known = self
            .0
            .iter()
            .find(|(origin, _)| Rc::ptr_eq(origin, &files.origin));
        if let Some((_, content)) = known {
            return content.clone();
        }
        let content = content(object, &files.files);
        self.0.retain(|(origin, _)| origin.object != *object);
        self.0.push((files.origin.clone(), content.clone()));
        content
    }
}

fn content(object: &ObjectName, files: &SortedMap<FileName, Bytes>) -> Content {
    let mut hasher = DefaultHasher::new();
    for (name, bytes) in files {
        for part in [name.as_str().as_bytes(), bytes] {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
    }
    Content {
        object: object.clone(),
        hash: hasher.finish(),
    }
}

impl Verdicts {
    /// Puts the last accepted files in the place of what is held back. Returns what a set of it is
    /// made of, but for the texts, and the files that stand in, by their place.
    pub fn contents(
        &mut self,
        known: &[SourceView],
        now: Instant,
    ) -> (Contents, Vec<(usize, Option<ConfigMapFiles>)>) {
        let (mut contents, mut stand_ins) = (Contents::default(), Vec::new());
        self.hold_ends = None;
        for (place, source) in known.iter().enumerate() {
            let Some(files) = source.content else {
                continue;
            };
            let content = self.hashes.of(source.object, files);
            contents.observed.push(content.clone());
            let acceptance = self.acceptance.as_ref();
            let hold = acceptance.map_or(Hold::No, |it| it.holds(&content, now));
            let until = match hold {
                Hold::No => None,
                Hold::Until(at) => Some(Some(at)),
                Hold::ForEver => Some(None),
            };
            let Some((until, accepted)) = until.zip(self.accepted.as_ref()) else {
                contents.published.push(content);
                continue;
            };
            contents
                .published
                .extend(accepted.find(source.object).cloned());
            contents.held.push(source.object.clone());
            stand_ins.push((
                place,
                ConfigMapFiles::from_last_run(source.object, &accepted.texts),
            ));
            // The acceptance itself says when one is due that has been.
            let ends = until.filter(|at| *at > now);
            self.hold_ends = self.hold_ends.into_iter().chain(ends).min();
        }
        (contents, stand_ins)
    }

    /// Returns whether a ConfigMap's content in a set is another than the one that was accepted.
    pub fn is_new(&self, content: &Content, held: &[ObjectName]) -> bool {
        let accepted = self.accepted.as_ref();
        let is_known = accepted.is_some_and(|accepted| accepted.published.contains(content));
        !is_known && !held.contains(&content.object)
    }
}
