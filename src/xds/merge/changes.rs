//! The routes that follow an object, and a change of their weights in words for a log line.

use crate::snapshot::FileName;
use crate::xds::weights::{ClusterWeight, RouteWeights, WeightSource};

/// The routes that follow an object.
#[derive(Debug, Default)]
pub struct WeightTable {
    /// The first of each file.
    routes: Vec<(FileName, RouteWeights)>,
    /// The number of routes beyond these.
    more: usize,
}

impl WeightTable {
    /// Adds the routes of a file: the first of them, and how many `more` there are.
    pub fn add(&mut self, file: &FileName, first: Vec<RouteWeights>, more: usize) {
        let routes = first.into_iter().map(|change| (file.clone(), change));
        self.routes.extend(routes);
        self.more += more;
    }
}

/// Describes what changed from one set of weights to the next, for a log line; empty if nothing
/// did.
/// `inputs` are the objects that count now.
///
/// `TrafficSplit default/podinfo in rds.yaml, podinfo: podinfo-primary 100->75 podinfo-canary 0->25
/// (2 routes)`
pub fn describe(before: &WeightTable, after: &WeightTable, inputs: &[WeightSource]) -> String {
    let mut texts: Vec<(String, usize)> = Vec::new();
    let mut add = |text: String| match texts.iter_mut().find(|(known, _)| *known == text) {
        Some((_, count)) => *count += 1,
        None => texts.push((text, 1)),
    };
    let moved = |cluster: &ClusterWeight| cluster.old != Some(cluster.new);
    let mut left: Vec<&(FileName, RouteWeights)> = before.routes.iter().collect();
    for (file, change) in &after.routes {
        let mut change = change.clone();
        // Of equal routes in one virtual host the first was the first before, too.
        if let Some(at) = left.iter().position(|known| is_same(known, file, &change)) {
            let (_, known) = left.remove(at);
            for (cluster, known) in change.clusters.iter_mut().zip(&known.clusters) {
                cluster.old = Some(known.new);
            }
        }
        if change.clusters.iter().any(moved) {
            add(format!("{} in {file}, {change}", change.source));
        }
    }
    for (file, known) in left {
        let mut change = known.clone();
        for cluster in &mut change.clusters {
            let new = cluster.old.unwrap_or(cluster.new);
            (cluster.old, cluster.new) = (Some(cluster.new), new);
        }
        if inputs.contains(&known.source) {
            let host = &known.virtual_host;
            add(format!(
                "{} in {file}, {host}: no such route any more",
                known.source
            ));
        } else if change.clusters.iter().any(moved) {
            add(format!("{} no longer in {file}, {change}", change.source));
        }
    }
    let counted = |(text, count): (String, usize)| match count {
        1 => text,
        _ => format!("{text} ({count} routes)"),
    };
    let mut all: Vec<String> = texts.into_iter().map(counted).collect();
    if after.more > 0 && !all.is_empty() {
        all.push(format!("{} more routes follow an object", after.more));
    }
    all.join("; ")
}

/// Returns whether this is what a route was before, as far as a route can be told from others. It may
/// follow another object now.
fn is_same(
    (known_file, known): &(FileName, RouteWeights),
    file: &FileName,
    change: &RouteWeights,
) -> bool {
    let mut clusters = known.clusters.iter().zip(&change.clusters);
    (known_file, &known.virtual_host) == (file, &change.virtual_host)
        && known.clusters.len() == change.clusters.len()
        && clusters.all(|(known, cluster)| known.cluster == cluster.cluster)
}
