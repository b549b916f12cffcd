//! The part of order: requests through a real Envoy while everything that it is told changes in
//! every good way, and Envoy and crossover are killed and throttled. No request fails but by Envoy's
//! own death.

mod model;

use super::report::{Report, seconds};
use crate::stop::Stop;
use jiff::Timestamp;
use model::{INLINE, MAIN, MAP, Model};
use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use testkit::apiserver::{Options, Server};
use testkit::clients::{Clients, Failure, Rate, Tally};
use testkit::crossover::{Crossover, command_of, program};
use testkit::envoy::Envoy;
use testkit::throttle::Throttle;
use testkit::world::{DRAIN, knows};
use testkit::xds::Watching;

/// Of each of the two listeners.
const RATE: Rate = Rate {
    per_second: 800,
    clients: 12,
};
/// Between two changes, in milliseconds: from within the steps of the one before to after them.
const PAUSES: [u64; 2] = [1, 350];
/// A change is in the answers within this.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);
const WORD_EVERY: Duration = Duration::from_secs(30);

/// Everything that runs, in the order in which it ends.
struct Soak {
    clients: [Clients; 2],
    throttle: Option<(Throttle, Instant)>,
    envoy: Envoy,
    crossover: Crossover,
    model: Model,
    server: Server,
    rng: TestRng,
    report: Arc<Report>,
    stop: Stop,
    watching: Watching,
    /// When an Envoy was killed, and when all clients were served by the next one.
    deaths: Vec<[Instant; 2]>,
    refused: u64,
    /// What Envoy said of it.
    refusals: Vec<String>,
    /// What happened, and when by the wall clock; crossover's lines are among it.
    events: Vec<String>,
    changes: BTreeMap<&'static str, usize>,
    kills: usize,
    throttles: usize,
    dir: TempDir,
}

/// Runs until so many requests were answered.
pub fn run(seed: u64, requests: u64, report: &Arc<Report>, stop: Stop) {
    for (number, watching) in [Watching::PathOnly, Watching::Root].into_iter().enumerate() {
        let mut soak = Soak::start(seed + number as u64, watching, report, stop);
        soak.go_on(requests / 2);
        soak.judge();
    }
}

impl Soak {
    fn start(seed: u64, watching: Watching, report: &Arc<Report>, stop: Stop) -> Soak {
        let dir = tempfile::Builder::new().prefix("crossover-").tempdir();
        let dir = dir.expect("a directory can be made");
        let server = Server::start(Options::default());
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let model = Model::start(dir.path(), watching);
        server.create(model.object());
        let crossover = follow(&server, &dir);
        crossover.wait_for_line("INFO  published ");
        let envoy = model.envoy();
        let clients = [MAIN, INLINE].map(|name| Clients::start(envoy.listener(name), RATE));
        Soak {
            clients,
            throttle: None,
            envoy,
            crossover,
            model,
            server,
            rng: TestRng::from_seed(RngAlgorithm::ChaCha, &bytes),
            report: report.clone(),
            stop,
            watching,
            deaths: Vec::new(),
            refused: 0,
            refusals: Vec::new(),
            events: Vec::new(),
            changes: BTreeMap::new(),
            kills: 0,
            throttles: 0,
            dir,
        }
    }

    fn answered(&self) -> u64 {
        self.clients.iter().map(Clients::ok).sum()
    }

    fn go_on(&mut self, requests: u64) {
        let mut word = Instant::now() + WORD_EVERY;
        let mut turn = 0_u32;
        while self.answered() < requests && !self.stop.is_set() {
            turn += 1;
            for _ in 0..self.rng.random_range(1..=3) {
                let kind = self.model.change(&mut self.rng);
                self.note(&format!("turn {turn}: {kind}"));
                *self.changes.entry(kind).or_default() += 1;
            }
            self.server.apply(self.model.object());
            if turn.is_multiple_of(15) {
                self.strike();
            }
            if turn.is_multiple_of(20) {
                self.arrive();
            }
            if self
                .throttle
                .as_ref()
                .is_some_and(|(_, until)| *until < Instant::now())
            {
                self.throttle = None;
            }
            let [least, most] = PAUSES;
            let pause = Duration::from_millis(self.rng.random_range(least..=most));
            self.stop.pause(pause);
            if word < Instant::now() {
                word = Instant::now() + WORD_EVERY;
                let (answered, failed) = (self.answered(), self.failures().len());
                let rss = self.crossover.measure().rss_kib;
                self.report.say(
                    "order",
                    format!("{answered} answered, {failed} failed, {turn} changes; {rss} KiB"),
                );
            }
        }
        self.throttle = None;
        self.arrive();
    }

    /// The last change is in the answers of every client.
    fn arrive(&mut self) {
        for (clients, version) in self.clients.iter().zip(self.model.versions()) {
            let all = |tally: &Tally| tally.latest.iter().all(|latest| *latest == version);
            if !clients.holds_within(ARRIVES_WITHIN, all) && !self.stop.is_set() {
                let what = format!("{version} in none of {:?}", clients.tally().latest);
                self.report.violated("order", "a change arrives", what);
            }
        }
    }

    fn strike(&mut self) {
        match self.rng.random_range(0..4) {
            0 => self.kill_envoy(),
            1 => self.kill_crossover(),
            _ => {
                self.throttles += 1;
                let lasts = Duration::from_millis(self.rng.random_range(500..=4000));
                self.note(&format!("Envoy is throttled for {lasts:?}"));
                let throttle = Throttle::to_a_tenth(self.envoy.pid());
                self.throttle = Some((throttle, Instant::now() + lasts));
            }
        }
    }

    fn note(&mut self, what: &str) {
        self.events.push(format!("{:.3} {what}", Timestamp::now()));
    }

    /// Counts what this Envoy has refused, and takes down why.
    fn note_refusals(&mut self) {
        let log = self.envoy.log();
        // A file may be gone, with all that refers to it, before Envoy reads it once more: that is told,
        // and refuses nothing.
        let rejects = |line: &&str| line.contains("config update rejected");
        self.refused += log.lines().filter(rejects).count() as u64;
        let is_refusal = |line: &&str| line.contains("config update");
        let told = log.lines().filter(is_refusal).map(|line| {
            let at = line.get(1..24).unwrap_or_default().replace(' ', "T");
            format!(
                "{at}Z envoy: {}",
                line.chars().skip(24).take(300).collect::<String>()
            )
        });
        self.refusals.extend(told);
    }

    fn kill_envoy(&mut self) {
        self.kills += 1;
        self.throttle = None;
        self.note_refusals();
        self.note("Envoy is killed");
        let killed = Instant::now();
        self.envoy.kill();
        self.envoy = self.model.envoy();
        self.note("Envoy is there again");
        for (clients, name) in self.clients.iter().zip([MAIN, INLINE]) {
            clients.aim(self.envoy.listener(name));
        }
        self.arrive();
        self.deaths.push([killed, Instant::now()]);
    }

    fn kill_crossover(&mut self) {
        self.kills += 1;
        self.note("crossover is killed");
        self.events.extend(self.crossover.lines());
        self.crossover.kill();
        self.crossover = follow(&self.server, &self.dir);
    }

    /// What failed, but by Envoy's own death: that gives no answer at all.
    fn failures(&self) -> Vec<Failure> {
        let excused = |failure: &Failure| {
            let without_answer = !failure.what.starts_with(|c: char| c.is_ascii_digit());
            let within =
                |[killed, back]: &[Instant; 2]| failure.ended >= *killed && failure.sent <= *back;
            without_answer && self.deaths.iter().any(within)
        };
        let tallies = self.clients.iter().map(Clients::tally);
        let failures = tallies.flat_map(|tally| tally.failures);
        failures.filter(|failure| !excused(failure)).collect()
    }

    fn judge(mut self) {
        if self.stop.is_set() {
            return;
        }
        self.note_refusals();
        self.events.extend(self.crossover.lines());
        let rule = format!("{:?}: requests that failed", self.watching);
        let (answered, failures) = (self.answered(), self.failures());
        self.events.extend(self.refusals.iter().cloned());
        self.events.sort();
        if let Some(first) = failures.first() {
            let at = Timestamp::now() - first.sent.elapsed();
            self.report
                .say("order", format!("{at:.3} failed: {}", first.what));
            self.tell_around(at);
        }
        for refusal in self.refusals.iter().take(3) {
            self.report.say("order", format!("refused: {refusal}"));
            let at = refusal.split(' ').next().unwrap_or_default();
            if let Ok(at) = at.parse() {
                self.tell_around(at);
            }
        }
        let said = format!("{} of {answered}", failures.len());
        self.report
            .limit("order", &rule, said, failures.is_empty(), "0");
        let rule = format!("{:?}: updates that Envoy refused", self.watching);
        let refused = self.refused;
        self.report
            .limit("order", &rule, refused, refused == 0, "0");
        let changes: Vec<String> = self
            .changes
            .iter()
            .map(|(kind, n)| format!("{n} {kind}"))
            .collect();
        self.report.say(
            "order",
            format!("{:?}: {}", self.watching, changes.join(", ")),
        );
        let faults = format!("{} kills, {} throttles", self.kills, self.throttles);
        self.report
            .row("order", &format!("{:?}: faults", self.watching), faults, "");
        self.settle();
    }

    /// Says what happened around this time.
    fn tell_around(&self, at: Timestamp) {
        let [from, to] = [at - Duration::from_secs(4), at + Duration::from_secs(2)];
        let [from, to] = [from, to].map(|at| format!("{at:.3}"));
        let around = self
            .events
            .iter()
            .filter(|event| (&from..&to).contains(event));
        for event in around {
            self.report.say("order", event);
        }
    }

    /// Once everything that was kept is dropped, the target stands byte for byte.
    fn settle(&self) {
        let began = Instant::now();
        let files = self.model.files();
        let current = self.dir.path().join("current");
        let stands = || {
            let same = |(name, text): (&String, &String)| {
                fs::read_to_string(current.join(name)).is_ok_and(|found| found == *text)
            };
            files.iter().all(same)
        };
        let longest = Duration::from_secs(30);
        while !stands() && began.elapsed() < longest && self.stop.pause(Duration::from_millis(50)) {
        }
        let rule = format!("{:?}: the target stands after", self.watching);
        let took = began.elapsed();
        self.report
            .limit("order", &rule, seconds(took), stands(), "30 s at most");
    }
}

fn follow(server: &Server, dir: &TempDir) -> Crossover {
    let program = program();
    let mut command = command_of(&program, &["-apiserver", &server.url()]);
    command
        .args(["-namespace", "default", "-watch", "-sync-interval", "1h"])
        .args(["-configmap", MAP, "-output-dir"])
        .arg(dir.path());
    if knows(&program, "-envoy-drain-time") {
        command.args(["-envoy-drain-time", &format!("{}s", DRAIN.as_secs())]);
    }
    Crossover::spawn(command)
}
