//! The texts with what is kept in them. Owns: making each once. Must not: decide what is kept.

use std::ops::Range;
use std::rc::Rc;

use super::{Kept, KeptCluster};
use crate::snapshot::{Bytes, FileName, Snapshot};
use crate::sorted::SortedMap;
use crate::xds::sequence::{Union, union};

/// The text of a file with the clusters that are kept.
#[derive(Debug)]
pub struct Merged {
    pub target: Bytes,
    lines: Vec<Rc<str>>,
    union: Union,
}

impl Kept {
    /// Puts the kept clusters into the target's texts. Returns where they stand in each. Fails with
    /// the file, and why, where that cannot be done.
    pub fn merge_into(
        &mut self,
        target: &Snapshot,
        set: &mut Snapshot,
    ) -> Result<SortedMap<FileName, Range<u64>>, (FileName, String)> {
        let clusters = &self.clusters;
        let lines_of = |name: &FileName| -> Vec<Rc<str>> {
            let mine = clusters.iter().filter(|kept| kept.item.file == *name);
            mine.map(|kept| kept.item.line.clone()).collect()
        };
        self.merged.retain(|name, _| !lines_of(name).is_empty());
        let mut inserted = SortedMap::new();
        for KeptCluster { item, .. } in clusters {
            let name = &item.file;
            let Some(file) = target.get(name).filter(|_| inserted.get(name).is_none()) else {
                continue;
            };
            let lines = lines_of(name);
            let is_current =
                |merged: &&Merged| merged.target == file.bytes && merged.lines == lines;
            if self.merged.get(name).filter(is_current).is_none() {
                let texts: Vec<&str> = lines.iter().map(|line| &**line).collect();
                let union = union(name, &file.bytes, &texts)
                    .map_err(|declined| (name.clone(), declined.0))?;
                let target = file.bytes.clone();
                let merged = Merged {
                    target,
                    lines,
                    union,
                };
                self.merged.insert(name.clone(), merged);
            }
            let Some(merged) = self.merged.get(name) else {
                continue;
            };
            if let Some(file) = set.get_mut(name) {
                file.bytes = merged.union.bytes.clone();
            }
            inserted.insert(name.clone(), merged.union.inserted.clone());
        }
        Ok(inserted)
    }
}
