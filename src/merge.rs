//! ConfigMaps' contents with the weights of TrafficSplits. Pure. Owns: which splits count, what is
//! said about them, and how a change of weights is put in words.

use std::collections::BTreeSet;

use crate::gather;
use crate::reconcile::Content;
use crate::resource::{Bytes, FileName};
use crate::route::{self, Applied, Change, ClusterChange, Split, first_for_each_service};

/// The routes that follow a split, with the file they are in.
pub type Changes = Vec<(FileName, Change)>;

/// Splits on their way into contents, and what comes to light on it.
pub struct Merge<'s> {
    splits: Vec<&'s Split>,
    /// For each split, what it found in all contents so far.
    applied: Vec<Applied>,
    changes: Changes,
    warnings: BTreeSet<String>,
}

impl<'s> Merge<'s> {
    /// Of several splits for one service, the first in `splits` counts.
    pub fn new(splits: &[&'s Split]) -> Merge<'s> {
        let (first, later) = first_for_each_service(splits);
        let message = |(loser, winner): (usize, usize)| {
            let Split { name, service, .. } = splits[loser];
            format!(
                "TrafficSplit {name} is not applied: {} is for {service} too",
                splits[winner].name
            )
        };
        Merge {
            applied: first.iter().map(|split| Applied::none(split)).collect(),
            splits: first,
            changes: Changes::new(),
            warnings: gather(later.into_iter().map(message)),
        }
    }

    /// `content` with the splits' weights; an error where an edit would not be safe.
    pub fn content(&mut self, content: &Content) -> Result<Content, String> {
        if self.splits.is_empty() {
            return Ok(content.clone());
        }
        let object = &content.origin.object;
        let (mut files, mut merges) = (content.files.clone(), Vec::new());
        for (name, bytes) in &content.files {
            let Ok(text) = std::str::from_utf8(bytes) else {
                continue;
            };
            let mut merged = route::merge(name, text, &self.splits)
                .map_err(|refused| format!("{object} {name}: {refused}"))?;
            if let Some(text) = merged.text.take() {
                files.insert(name.clone(), Bytes::from(text.into_bytes()));
            }
            merges.push((name, merged));
        }
        // Only now is it sure that the content is used.
        for (name, merged) in merges {
            for (sum, found) in self.applied.iter_mut().zip(&merged.applied) {
                sum.add(found);
            }
            let warnings = merged
                .warnings
                .iter()
                .map(|w| format!("{object} {name}: {w}"));
            self.warnings.extend(warnings);
            if merged.more_warnings > 0 {
                let more = merged.more_warnings;
                self.warnings
                    .insert(format!("{object} {name}: {more} more warnings of the kind"));
            }
            self.changes.extend(
                merged
                    .changes
                    .into_iter()
                    .map(|change| (name.clone(), change)),
            );
        }
        Ok(Content {
            origin: content.origin.clone(),
            files,
        })
    }

    /// Adds a warning of the caller's.
    pub fn warn(&mut self, warning: String) {
        self.warnings.insert(warning);
    }

    /// After the last content: the routes that follow a split, and all that should be said.
    pub fn finish(mut self) -> (Changes, BTreeSet<String>) {
        for (split, applied) in self.splits.iter().zip(&self.applied) {
            self.warnings
                .extend(applied.warnings(split).iter().map(ToString::to_string));
        }
        (self.changes, self.warnings)
    }
}

/// What changed from one set of weights to the next, for a log line; empty where nothing did.
pub fn describe(before: &Changes, after: &Changes) -> String {
    let same_route = |a: &(FileName, Change), b: &(FileName, Change)| {
        let names = |change: &Change| -> Vec<String> {
            change
                .clusters
                .iter()
                .map(|cluster| cluster.cluster.clone())
                .collect()
        };
        (&a.0, &a.1.split, &a.1.virtual_host) == (&b.0, &b.1.split, &b.1.virtual_host)
            && names(&a.1) == names(&b.1)
    };
    let mut texts = Vec::new();
    for (file, change) in after {
        let mut change = change.clone();
        let entry = (file.clone(), change.clone());
        if let Some((_, known)) = before.iter().find(|known| same_route(known, &entry)) {
            for (cluster, known) in change.clusters.iter_mut().zip(&known.clusters) {
                cluster.old = u32::try_from(known.new).ok();
            }
        }
        let moved = |cluster: &ClusterChange| cluster.old.map(u64::from) != Some(cluster.new);
        if change.clusters.iter().any(moved) {
            texts.push(format!("{} {file} {change}", change.split));
        }
    }
    for known in before
        .iter()
        .filter(|known| !after.iter().any(|entry| same_route(known, entry)))
    {
        let (
            file,
            Change {
                split,
                virtual_host,
                ..
            },
        ) = known;
        texts.push(format!(
            "{split} {file} {virtual_host}: as in the ConfigMap"
        ));
    }
    texts.dedup();
    texts.join("; ")
}
