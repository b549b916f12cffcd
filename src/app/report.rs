//! The log line of a publish.

use std::rc::Rc;
use std::time::{Duration, Instant};

use log::kv::{ToValue, Value};
use log::{Level, Record, debug, warn};

use super::sequence::Dropped;
use crate::output::directory::Published;
use crate::snapshot::{FileName, Origin, Snapshot};
use crate::sorted::{SortedMap, SortedSet};
use crate::xds::sequence::kind_of;

/// The part of a change that is visible before its routes are.
pub struct Progress {
    /// The time at which the change was seen.
    pub since: Instant,
    /// The time that the new clusters have waited to be read.
    pub clusters: Clusters,
    /// The files that it has changed so far.
    pub changed: SortedSet<FileName>,
    /// The files that it removes.
    pub removed: SortedSet<FileName>,
    /// The items that are not kept any more since then.
    pub dropped: Dropped,
}

/// The time that new clusters have had before the routes.
pub enum Clusters {
    /// The routes have waited since this time.
    Waiting(Instant),
    /// They have waited for so long.
    Waited(Duration),
}

impl Progress {
    /// Returns how long Envoy had for the clusters before the routes.
    pub fn clusters_took(&self, now: Instant) -> Duration {
        match self.clusters {
            Clusters::Waiting(since) => now.saturating_duration_since(since),
            Clusters::Waited(took) => took,
        }
    }
}

/// A set that has become visible.
pub struct Report {
    number: u64,
    changed: SortedSet<FileName>,
    removed: SortedSet<FileName>,
    dropped: Dropped,
    latency: Duration,
    /// The time between new clusters and their routes; `None` if all was published at once.
    clusters: Option<Duration>,
}

impl Report {
    /// Reports what was `published` last of a change that was seen at `since`, or when its
    /// `progress` began. `gone` are the files that it removes, and what has been kept and is not
    /// any more.
    pub fn new(
        published: &Published,
        progress: Option<Progress>,
        gone: (Vec<FileName>, Dropped),
        since: Instant,
    ) -> Report {
        let (removed, dropped) = gone;
        let is_new = |name: &&FileName| !dropped.files.contains(*name);
        let mut report = Report {
            number: published.number,
            changed: published.changed.iter().cloned().collect(),
            removed: published.removed.iter().filter(is_new).cloned().collect(),
            latency: published.committed.saturating_duration_since(since),
            clusters: None,
            dropped,
        };
        report.removed.extend(removed);
        if let Some(progress) = progress {
            let committed = published.committed;
            report.clusters = Some(progress.clusters_took(committed));
            report.latency = committed.saturating_duration_since(progress.since);
            report.changed.extend(progress.changed);
            report.removed.extend(progress.removed);
            report.dropped.clusters.extend(progress.dropped.clusters);
            report.dropped.files.extend(progress.dropped.files);
        }
        report
    }

    /// Returns whether nothing but what was kept has changed. `is_news`: a ConfigMap has, too, and
    /// perhaps the same file.
    fn is_drop(&self, is_news: bool) -> bool {
        let files = &self.dropped.clusters;
        let of_drop = |name: &FileName| files.iter().any(|(file, _)| file == name);
        !self.dropped.is_empty()
            && !is_news
            && self.clusters.is_none()
            && self.removed.is_empty()
            && self.changed.iter().all(of_drop)
    }

    /// Logs a line for the set, and a warning for each file that an Envoy may miss: not for one that
    /// `went_along` with what referred to it. The origin of a removed file is not known any more, so
    /// the line names all `new` versions then.
    pub fn log<'a>(
        &self,
        set: &'a Snapshot,
        new: impl Iterator<Item = &'a Rc<Origin>>,
        weights: &str,
        went_along: impl Fn(&FileName) -> bool,
    ) {
        self.log_dropped();
        let mut new = new.peekable();
        if !self.is_drop(new.peek().is_some()) {
            self.log_published(set, new, weights);
        }
        for name in self.removed.iter().filter(|name| !went_along(name)) {
            warn!(file:% = name;
                "file removed; Envoy will fail to start if its bootstrap refers to it");
        }
    }

    /// Logs a line for the routes of the `released` set, if there are any. Clusters that are
    /// visible with them are logged with the routes that wait for them.
    pub fn log_released(mut self, released: &Snapshot, weights: &str) {
        let is_route = |name: &FileName| {
            let file = released.get(name);
            file.is_some_and(|file| !kind_of(name, &file.bytes).goes_first())
        };
        self.changed.retain(is_route);
        if !self.changed.is_empty() {
            self.log_published(released, std::iter::empty(), weights);
        }
    }

    fn log_dropped(&self) {
        if self.dropped.is_empty() {
            return;
        }
        let clusters = join(self.dropped.clusters.iter().map(|(_, cluster)| cluster));
        let files = join(&self.dropped.files);
        debug!(clusters, files, set = self.number; "dropped");
    }

    fn log_published<'a>(
        &self,
        set: &'a Snapshot,
        new: impl Iterator<Item = &'a Rc<Origin>>,
        weights: &str,
    ) {
        let of_changed = self
            .changed
            .iter()
            .filter_map(|name| Some(&set.get(name)?.origin));
        let origins = new.filter(|_| !self.removed.is_empty()).chain(of_changed);
        let origins: SortedMap<_, _> = origins
            .map(|origin| (&origin.object, &origin.resource_version))
            .collect();
        let gone = self.removed.iter().map(|name| format!("-{name}"));
        let files = self.changed.iter().map(ToString::to_string).chain(gone);
        let (configmap, resource_version) = (join(origins.keys()), join(origins.values()));
        let files = join(files);
        let latency_us = in_us(self.latency);
        let mut fields: Vec<(&str, Value)> = vec![
            ("configmap", configmap.to_value()),
            ("resource_version", resource_version.to_value()),
            ("files", files.to_value()),
        ];
        if !weights.is_empty() {
            fields.push(("weights", weights.to_value()));
        }
        fields.push(("set", self.number.to_value()));
        let clusters_us = self.clusters.map(in_us);
        if let Some(clusters_us) = &clusters_us {
            fields.push(("steps", "clusters,routes".to_value()));
            fields.push(("clusters_us", clusters_us.to_value()));
        }
        fields.push(("latency_us", latency_us.to_value()));
        let fields = fields.as_slice();
        let args = format_args!("published");
        let mut record = Record::builder();
        record.level(Level::Info).target(module_path!());
        log::logger().log(&record.args(args).key_values(&fields).build());
    }
}

fn join(texts: impl IntoIterator<Item = impl ToString>) -> String {
    let texts: Vec<String> = texts.into_iter().map(|text| text.to_string()).collect();
    texts.join(",")
}

fn in_us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_file_that_a_cluster_is_dropped_from_is_not_taken_for_the_drop() {
        let cds = FileName::new("cds.yaml").unwrap();
        let key = (cds.clone(), "c1".to_owned());
        let mut report = Report {
            number: 2,
            changed: SortedSet::from([cds]),
            removed: SortedSet::new(),
            dropped: Dropped {
                clusters: vec![key],
                ..Dropped::default()
            },
            latency: Duration::ZERO,
            clusters: None,
        };
        assert!(report.is_drop(false) && !report.is_drop(true));
        report.changed.insert(FileName::new("rds.yaml").unwrap());
        assert!(!report.is_drop(false));
    }
}
