//! ConfigMaps' contents with the weights of TrafficSplits. Pure. Owns: which splits count, what is
//! said about them, and how a change of weights is put in words.

use std::collections::BTreeSet;

use crate::gather;
use crate::reconcile::Content;
use crate::resource::{Bytes, FileName, ObjectName};
use crate::route::{self, Applied, Change, ClusterChange, Split, first_for_each_service};

/// The routes that follow a split.
#[derive(Debug, Default)]
pub struct Changes {
    /// The first of each file.
    routes: Vec<(FileName, Change)>,
    /// Beyond these.
    more: usize,
}

/// Splits on their way into contents, and what comes to light on it.
pub struct Merge<'s> {
    splits: Vec<&'s Split>,
    /// For each split, what it found in all contents so far.
    applied: Vec<Applied>,
    changes: Changes,
    warnings: BTreeSet<String>,
    /// A content goes without: what a split found is not all there is for it.
    incomplete: bool,
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
            changes: Changes::default(),
            warnings: gather(later.into_iter().map(message)),
            incomplete: false,
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
            self.changes.more += merged.more_changes;
            self.changes.routes.extend(
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

    /// A content is used without weights.
    pub fn leave_out(&mut self) {
        self.incomplete = true;
    }

    /// Adds a warning of the caller's.
    pub fn warn(&mut self, warning: String) {
        self.warnings.insert(warning);
    }

    /// After the last content: the routes that follow a split, and all that should be said.
    pub fn finish(mut self) -> (Changes, BTreeSet<String>) {
        let judged = self.splits.iter().filter(|_| !self.incomplete);
        for (split, applied) in judged.zip(&self.applied) {
            self.warnings
                .extend(applied.warnings(split).iter().map(ToString::to_string));
        }
        (self.changes, self.warnings)
    }
}

/// What changed from one set of weights to the next, for a log line; empty where nothing did.
/// `splits`: those that count now.
///
/// `default/podinfo in rds.yaml, podinfo: podinfo-primary 100->75 podinfo-canary 0->25 (2 routes)`
pub fn describe(before: &Changes, after: &Changes, splits: &[ObjectName]) -> String {
    let mut texts: Vec<(String, usize)> = Vec::new();
    let mut add = |text: String| match texts.iter_mut().find(|(known, _)| *known == text) {
        Some((_, count)) => *count += 1,
        None => texts.push((text, 1)),
    };
    let moved = |cluster: &ClusterChange| cluster.old.map(u64::from) != Some(cluster.new);
    let mut left: Vec<&(FileName, Change)> = before.routes.iter().collect();
    for (file, change) in &after.routes {
        let mut change = change.clone();
        // Of equal routes in one virtual host the first was the first before, too.
        if let Some(at) = left.iter().position(|known| is_same(known, file, &change)) {
            let (_, known) = left.remove(at);
            for (cluster, known) in change.clusters.iter_mut().zip(&known.clusters) {
                cluster.old = u32::try_from(known.new).ok();
            }
        }
        if change.clusters.iter().any(moved) {
            add(format!("{} in {file}, {change}", change.split));
        }
    }
    for (file, known) in left {
        let mut change = known.clone();
        for cluster in &mut change.clusters {
            let new = cluster.old.map_or(cluster.new, u64::from);
            (cluster.old, cluster.new) = (u32::try_from(cluster.new).ok(), new);
        }
        if splits.contains(&known.split) {
            let host = &known.virtual_host;
            add(format!(
                "{} in {file}, {host}: no such route any more",
                known.split
            ));
        } else if change.clusters.iter().any(moved) {
            add(format!("{} no longer in {file}, {change}", change.split));
        }
    }
    let counted = |(text, count): (String, usize)| match count {
        1 => text,
        _ => format!("{text} ({count} routes)"),
    };
    let mut all: Vec<String> = texts.into_iter().map(counted).collect();
    if after.more > 0 && !all.is_empty() {
        all.push(format!("{} more routes follow a split", after.more));
    }
    all.join("; ")
}

/// Whether this is what a route was before, as far as a route can be told from others.
fn is_same((known_file, known): &(FileName, Change), file: &FileName, change: &Change) -> bool {
    let mut clusters = known.clusters.iter().zip(&change.clusters);
    (known_file, &known.split, &known.virtual_host) == (file, &change.split, &change.virtual_host)
        && known.clusters.len() == change.clusters.len()
        && clusters.all(|(known, cluster)| known.cluster == cluster.cluster)
}
