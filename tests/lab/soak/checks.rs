//! The checks of the storm: both crossovers at rest, after the first changes and at the end.

use super::follower::{Follower, disk_use};
use super::manifests::{MAPS, SPLITS};
use super::model::Form;
use super::pause::PAUSE_WITHIN;
use super::report::{EQUAL, equal, minutes, percentile, seconds};
use super::storm::Storm;
use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};
use testkit::crossover::{Measured, until_asleep};

/// The mirrors are written within 5 s; then nothing is left to do.
const QUIET: Duration = Duration::from_secs(8);
const RSS_GROWTH_KIB: u64 = 200;
/// So many lists and watches has each follower.
const OBJECTS: usize = MAPS.len() + SPLITS.len();

/// Both followers, at rest.
pub struct Rest {
    measured: Vec<Measured>,
    disk: Vec<[u64; 2]>,
}

impl Storm {
    /// Everything good and of its first size, all watches new and used once: what is measured here
    /// can be compared with what is measured here at another time.
    pub(super) fn rest(&mut self) -> Rest {
        self.pause();
        self.server.end_watches();
        let began = Instant::now();
        let watches = OBJECTS * self.followers.len();
        for round in 0..3 {
            for (map, shape) in MAPS.iter().enumerate() {
                let object = self.world().restore_map(map);
                self.put("ConfigMap", shape.name, object);
            }
            for (split, name) in SPLITS.iter().enumerate() {
                let object = self.world().change_split(split, Form::Good);
                self.put("TrafficSplit", name, object);
            }
            self.pause();
            while round == 0 && self.server.watch_count() != watches && !self.stop.is_set() {
                if began.elapsed() > PAUSE_WITHIN {
                    let what = format!("{} of {watches}", self.server.watch_count());
                    self.report
                        .violated("storm", "all watches open again in time", what);
                    break;
                }
                thread::sleep(Duration::from_millis(5));
            }
            self.lively.extend(self.pauses.last().filter(|_| round > 0));
        }
        self.stop.pause(QUIET);
        let measure = |follower: &Follower| {
            until_asleep(follower.crossover().pid());
            for left in follower.leftovers() {
                self.report
                    .violated(follower.name, "nothing is left over", left);
            }
            follower.crossover().measure()
        };
        Rest {
            measured: self.followers.iter().map(measure).collect(),
            disk: self.followers.iter().map(|f| disk_use(&f.dir)).collect(),
        }
    }

    pub(super) fn judge(&self, time: Duration, after_first: usize, before: &Rest, after: &Rest) {
        let (report, long) = (&self.report, &self.followers[0]);
        let strikes: usize = self.struck.values().sum();
        report.row("storm", "changes", self.made, "");
        let followed = seconds(self.followed);
        report.row("storm", "  while they were followed", self.along, "");
        report.row("storm", "  time of that", followed, "");
        report.row("storm", "of them bad, empty, or a deletion", self.bad, "");
        report.row("storm", "time", minutes(time), "");
        report.row("storm", "faults", strikes, "");
        for (kind, count) in &self.struck {
            report.row("storm", &format!("  {kind:?}"), count, "");
        }
        let requests = self.server.count_requests(|_| true);
        report.row("storm", "requests of both crossovers", requests, "");
        report.row("storm", "pauses", self.pauses.len(), "");
        report.row(
            "storm",
            "  median",
            seconds(percentile(&self.pauses, 50)),
            "",
        );
        let worst = percentile(&self.pauses, 100);
        report.row("storm", "  longest", seconds(worst), &seconds(PAUSE_WITHIN));
        let worst = percentile(&self.lively, 100);
        report.row(
            "storm",
            "  changes to all objects, at rest",
            seconds(worst),
            "",
        );
        for follower in &self.followers {
            let (sets, moving) = follower.looks();
            report.row(follower.name, "looks that saw one whole set", sets, "");
            report.row(follower.name, "  that came while it moved", moving, "");
            report.row(follower.name, "lives", follower.lives, "");
            report.row(follower.name, "directories damaged", follower.damages, "");
        }
        let [old, new] = [&before.measured[0], &after.measured[0]];
        let figure = format!("RSS after {after_first} changes, KiB");
        report.row(long.name, &figure, old.rss_kib, "");
        report.row(long.name, "RSS at the end, KiB", new.rss_kib, "");
        let grown = new.rss_kib.saturating_sub(old.rss_kib);
        let holds = grown <= RSS_GROWTH_KIB;
        report.limit(long.name, "RSS grown by, KiB", grown, holds, "200");
        report.row(long.name, "RSS at its highest, KiB", new.peak_rss_kib, "");
        let descriptors = format!("{} and {}", old.descriptors, new.descriptors);
        report.limit(
            long.name,
            "descriptors",
            descriptors,
            equal(old, new),
            EQUAL,
        );
        report.limit(long.name, "threads", new.threads, new.threads == 1, "1");
        let cpu = Duration::from_nanos(new.cpu_ns - old.cpu_ns);
        report.row(long.name, "CPU", seconds(cpu), "");
        for (at, follower) in self.followers.iter().enumerate() {
            let ([old, _], [new, most]) = (before.disk[at], after.disk[at]);
            let text = format!("{} and {}", old >> 10, new >> 10);
            let goal = format!("{} at most", most >> 10);
            report.limit(follower.name, "disk use, KiB", text, new <= most, &goal);
        }
        for shape in &MAPS {
            let name = shape.name;
            let mirror = self.server.get("ConfigMap", &format!("{name}-gen"));
            let data = mirror
                .as_ref()
                .and_then(|mirror| mirror["data"].as_object());
            let equal = data.is_some_and(|data| {
                !data.is_empty()
                    && data.iter().all(|(key, text)| {
                        fs::read_to_string(long.dir.join("current").join(key))
                            .is_ok_and(|file| *text == file)
                    })
            });
            if !equal {
                report.violated("long", "the mirror shows what is on disk", name);
            }
        }
    }

    /// No error; a warning for what was bad in the cluster and for what struck, and not more.
    pub(super) fn judge_logs(&self) {
        for follower in &self.followers {
            let mut warnings: BTreeMap<String, usize> = BTreeMap::new();
            let lines = follower.lines();
            for line in &lines {
                let mut words = line.splitn(3, ' ');
                let (level, rest) = (words.nth(1), words.next().unwrap_or_default().trim());
                match level {
                    Some("WARN") => {
                        let message = rest.find('=').map_or(rest, |at| &rest[..at]);
                        let message = message.rsplit_once(' ').map_or(rest, |(text, _)| text);
                        *warnings.entry(message.to_owned()).or_default() += 1;
                    }
                    Some("INFO" | "DEBUG") => {}
                    _ => self
                        .report
                        .violated(follower.name, "no error in the log", line),
                }
            }
            let published = lines
                .iter()
                .filter(|line| line.contains("INFO  published "))
                .count();
            self.report
                .row(follower.name, "sets published", published, "");
            let count: usize = warnings.values().sum();
            let strikes: usize = self.struck.values().sum();
            let most = self.bad + strikes * OBJECTS;
            let goal = format!("{most}");
            self.report
                .limit(follower.name, "warnings", count, count <= most, &goal);
            for (message, count) in warnings {
                let message: String = message.chars().take(48).collect();
                self.report
                    .row(follower.name, &format!("  {message}"), count, "");
            }
        }
    }
}
