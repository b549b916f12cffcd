//! A steady rate of changes for a long time: many small objects, then one of the largest. Changes
//! that wait go into one set, the last one is soon there, and nothing grows.

use super::follower::{disk_use, leftovers};
use super::report::{EQUAL, Report, equal, ms, percentile};
use crate::stop::Stop;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use testkit::budgets::LARGEST;
use testkit::candidate::{Bench, Candidate};
use testkit::crossover::{Crossover, Measured, until_asleep};
use testkit::envoy_config;
use testkit::objects::config_map;

const PER_SECOND: u32 = 50;
const OBJECTS: usize = 100;
const SMALL: usize = 4 << 10;
/// From when the API server has the last change to when the disk has it.
const LAST_WITHIN: Duration = Duration::from_millis(50);
const RSS_GROWTH_KIB: u64 = 200;
/// The writer of the largest object is never more changes ahead of the disk than this: a real API
/// server closes the watch of a client that is too slow for it.
const AHEAD: usize = 20;
const MINUTE: Duration = Duration::from_secs(60);
/// What is not there by then never comes.
const HOPELESS: Duration = Duration::from_secs(30);

/// Objects that change in turn, each file with its change's number in its first line.
struct Stream {
    part: &'static str,
    bench: Bench,
    who: Candidate,
    crossover: Crossover,
    names: Vec<String>,
    body: String,
    /// By object: the number of its last change.
    last: Vec<usize>,
    made: usize,
    began: Instant,
    /// At the end of each minute, what the last change took, and for how long of that the program
    /// waited for a processor.
    lasts: Vec<Duration>,
    delays: Vec<Duration>,
    /// At the end of each minute, at rest.
    measured: Vec<(Measured, [u64; 2])>,
}

/// 100 objects of 4 KiB.
pub fn many_small(report: &Report, stop: Stop, time: Duration) {
    let names = (0..OBJECTS).map(|at| format!("object-{at}")).collect();
    let mut stream = Stream::start("small", names, SMALL);
    stream.flow(report, stop, time, usize::MAX);
    // All at once, too.
    let sets = stream.sets();
    let numbers: Vec<usize> = (0..OBJECTS).map(|at| stream.made + at + 1).collect();
    let began = Instant::now();
    stream.bench.server.change(|cluster| {
        for (name, number) in stream.names.iter().zip(&numbers) {
            cluster.replace(object(name, *number, &stream.body));
        }
    });
    stream.last = numbers;
    stream.made += OBJECTS;
    stream.until_all(report);
    let took = began.elapsed();
    let sets = stream.sets() - sets;
    let part = stream.part;
    report.row(
        part,
        "100 changes at once: until the last is there",
        ms(took),
        "",
    );
    report.limit(part, "  in so many sets", sets, sets <= 10, "few");
    stream.judge(report);
}

/// One object of 1 MiB.
pub fn one_large(report: &Report, stop: Stop, time: Duration) {
    let mut stream = Stream::start("large", vec!["large".into()], LARGEST - 64);
    stream.flow(report, stop, time, AHEAD);
    stream.until_all(report);
    stream.judge(report);
}

fn object(name: &str, number: usize, body: &str) -> serde_json::Value {
    let text = format!("# {number:>9}\n{body}");
    config_map(name, &[(&format!("{name}.yaml"), &text)])
}

impl Stream {
    fn start(part: &'static str, names: Vec<String>, bytes: usize) -> Stream {
        let bench = Bench::start();
        let who = Candidate::ours().within("default");
        let body = envoy_config::large_routes(bytes - 12, 1);
        bench.server.change(|cluster| {
            for name in &names {
                cluster.create(object(name, 0, &body));
            }
        });
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let crossover = bench.follow(&who, &known, None);
        Stream {
            part,
            bench,
            who,
            crossover,
            last: vec![0; names.len()],
            names,
            body,
            made: 0,
            began: Instant::now(),
            lasts: Vec::new(),
            delays: Vec::new(),
            measured: Vec::new(),
        }
    }

    /// Changes at the rate, for so long; at the end of each minute a moment of rest.
    fn flow(&mut self, report: &Report, stop: Stop, time: Duration, ahead: usize) {
        let interval = Duration::from_secs(1) / PER_SECOND;
        let end = self.began + time;
        while Instant::now() < end && !stop.is_set() {
            let minute = (Instant::now() + MINUTE).min(end);
            let mut next = Instant::now();
            let (mut changed, mut delay) = (next, Duration::ZERO);
            while next < minute && !stop.is_set() {
                thread::sleep(next.saturating_duration_since(Instant::now()));
                let at = self.made % self.names.len();
                self.change(at);
                (changed, delay) = (Instant::now(), self.delay());
                while self.made - self.visible(at).unwrap_or(0) >= ahead && !stop.is_set() {
                    thread::sleep(Duration::from_millis(1));
                }
                next = (next + interval).max(Instant::now());
            }
            let at = (self.made - 1) % self.names.len();
            self.until_visible(at, report);
            self.lasts.push(changed.elapsed());
            self.delays.push(self.delay() - delay);
            self.until_all(report);
            self.rest(report);
        }
    }

    fn change(&mut self, at: usize) {
        self.made += 1;
        self.last[at] = self.made;
        let object = object(&self.names[at], self.made, &self.body);
        self.bench.server.replace(object);
    }

    fn file(&self, at: usize) -> PathBuf {
        let name = format!("{}.yaml", self.names[at]);
        self.bench.output(&self.who).join("current").join(name)
    }

    /// The number of the change that a file shows.
    fn visible(&self, at: usize) -> Option<usize> {
        first_number(&self.file(at))
    }

    fn until_visible(&self, at: usize, report: &Report) {
        let deadline = Instant::now() + HOPELESS;
        while self.visible(at) != Some(self.last[at]) {
            if Instant::now() > deadline {
                let what = format!(
                    "{}: {:?} of {}",
                    self.names[at],
                    self.visible(at),
                    self.last[at]
                );
                return report.violated(self.part, "the last state is on disk", what);
            }
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// Waits until every object's last state is on disk, whole.
    fn until_all(&self, report: &Report) {
        for at in 0..self.names.len() {
            self.until_visible(at, report);
            let want = object(&self.names[at], self.last[at], &self.body);
            let key = format!("{}.yaml", self.names[at]);
            let file = fs::read_to_string(self.file(at)).unwrap_or_default();
            if want["data"][&key] != file {
                report.violated(self.part, "the last state is on disk, whole", key);
            }
        }
    }

    fn rest(&mut self, report: &Report) {
        // What is published is synced after a moment.
        thread::sleep(Duration::from_secs(1));
        until_asleep(self.crossover.pid());
        for left in leftovers(&self.bench.output(&self.who)) {
            report.violated(self.part, "nothing is left over", left);
        }
        let measured = self.crossover.measure();
        let (made, rss) = (self.made, measured.rss_kib);
        let last = self.lasts.last().copied().unwrap_or_default();
        let sets = self.sets();
        let what = format!(
            "{made} changes in {sets} sets, the last in {}; {rss} KiB",
            ms(last)
        );
        report.say(self.part, what);
        self.measured
            .push((measured, disk_use(&self.bench.output(&self.who))));
    }

    /// For how long the program has waited for a processor.
    fn delay(&self) -> Duration {
        let path = format!("/proc/{}/schedstat", self.crossover.pid());
        let text = fs::read_to_string(path).unwrap_or_default();
        let waited = text.split(' ').nth(1).and_then(|ns| ns.parse().ok());
        Duration::from_nanos(waited.unwrap_or_default())
    }

    fn sets(&self) -> usize {
        let lines = self.crossover.lines();
        lines
            .iter()
            .filter(|line| line.contains("INFO  published "))
            .count()
    }

    fn judge(&self, report: &Report) {
        let part = self.part;
        let (Some(first), Some(last)) = (self.measured.first(), self.measured.last()) else {
            return report.violated(part, "it lasts a minute", "nothing was measured");
        };
        let time = self.began.elapsed();
        let rate = self.made as f64 / time.as_secs_f64();
        report.row(part, "changes", self.made, "");
        report.row(part, "  a second", format!("{rate:.1}"), "");
        report.row(part, "sets published", self.sets(), "");
        let median = percentile(&self.lasts, 50);
        let figure = "each minute's last change, median";
        report.limit(part, figure, ms(median), median <= LAST_WITHIN, "50 ms");
        let delay = percentile(&self.delays, 50);
        let figure = "  of that without a processor, median";
        report.row(part, figure, ms(delay), "");
        report.row(part, "  slowest", ms(percentile(&self.lasts, 100)), "");
        let cpu = Duration::from_nanos(last.0.cpu_ns - first.0.cpu_ns);
        let each = cpu / u32::try_from(self.made.max(1)).unwrap_or(u32::MAX);
        report.row(part, "CPU for each change", ms(each), "");
        let minutes = self.measured.len();
        report.row(part, "RSS after a minute, KiB", first.0.rss_kib, "");
        let figure = format!("RSS after {minutes} minutes, KiB");
        let flat = last.0.rss_kib <= first.0.rss_kib + RSS_GROWTH_KIB;
        report.limit(part, &figure, last.0.rss_kib, flat, "flat");
        report.row(part, "RSS at its highest, KiB", last.0.peak_rss_kib, "");
        let text = format!("{} and {}", first.0.descriptors, last.0.descriptors);
        report.limit(part, "descriptors", text, equal(&first.0, &last.0), EQUAL);
        let ([old, _], [new, most]) = (first.1, last.1);
        let text = format!("{} and {}", old >> 10, new >> 10);
        let goal = format!("{} at most", most >> 10);
        report.limit(part, "disk use, KiB", text, new <= most, &goal);
        let lines = self.crossover.lines();
        let other = lines
            .iter()
            .find(|line| line.contains("WARN") || line.contains("ERROR"));
        if let Some(line) = other {
            report.violated(part, "no warning in the log", line);
        }
    }
}

fn first_number(path: &Path) -> Option<usize> {
    let mut head = [0; 11];
    File::open(path).ok()?.read_exact(&mut head).ok()?;
    let text = std::str::from_utf8(&head).ok()?;
    text.strip_prefix('#')?.trim().parse().ok()
}
