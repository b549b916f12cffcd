//! The parts of order and of the verdict: requests through a real Envoy while everything that it is
//! told changes in every good way, and Envoy and crossover are killed and throttled. In the part of
//! the verdict every third change has a slip that Envoy refuses, too. No request fails but by
//! Envoy's own death.

mod judge;
mod model;
mod slips;

use super::report::Report;
use crate::stop::Stop;
use jiff::Timestamp;
use model::{INLINE, MAIN, MAP, Model, object};
use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use slips::{KINDS, MARK, Slips};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use testkit::apiserver::{Options, Server};
use testkit::clients::{Clients, Rate, Tally};
use testkit::crossover::{Crossover, command_of, program};
use testkit::envoy::{Envoy, free_admin};
use testkit::envoy_config::Watching;
use testkit::throttle::Throttle;
use testkit::until;
use testkit::world::{DRAIN, knows};

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
/// A slip that stands is taken back within this, from the change on: Envoy may be throttled.
const TOLD_WITHIN: Duration = Duration::from_secs(20);
/// So many lines of crossover's are shown if a change does not arrive.
const LAST: usize = 12;
/// So many slips may follow each other: more new contents in a minute wait for 10 s.
const SLIPS_IN_A_ROW: usize = 2;

/// Which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Order,
    Verdict,
}

impl Part {
    pub fn name(self) -> &'static str {
        match self {
            Part::Order => "order",
            Part::Verdict => "verdict",
        }
    }
}

/// Everything that runs, in the order in which it ends.
struct Soak {
    part: Part,
    admin: SocketAddr,
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
    slips: Slips,
    /// How many stand since the last change without one.
    slipped: usize,
    /// From a slip that was left to stand to the word that it was taken back.
    taken_back: Vec<Duration>,
    dir: TempDir,
}

/// Runs until so many requests were answered.
pub fn run(part: Part, seed: u64, requests: u64, report: &Arc<Report>, stop: Stop) {
    for (number, watching) in [Watching::PathOnly, Watching::Root].into_iter().enumerate() {
        let mut soak = Soak::start(part, seed + number as u64, watching, report, stop);
        soak.go_on(requests / 2);
        soak.judge();
    }
}

impl Soak {
    fn start(part: Part, seed: u64, watching: Watching, report: &Arc<Report>, stop: Stop) -> Soak {
        let dir = tempfile::Builder::new().prefix("crossover-").tempdir();
        let dir = dir.expect("a directory can be made");
        let server = Server::start(Options::default());
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let model = Model::start(dir.path(), watching);
        server.create(object(&model.files()));
        let admin = free_admin();
        let crossover = follow(part, &server, &dir, admin);
        crossover.wait_for_line("INFO  published ");
        let envoy = model.envoy(admin);
        let nowhere = watching.source(dir.path(), "nowhere.yaml");
        if part == Part::Verdict {
            until_accepted(&dir);
        }
        let clients = [MAIN, INLINE].map(|name| Clients::start(envoy.listener(name), RATE));
        Soak {
            part,
            admin,
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
            slips: Slips::new(nowhere),
            slipped: 0,
            taken_back: Vec::new(),
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
            self.tell(turn);
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
                    self.part.name(),
                    format!("{answered} answered, {failed} failed, {turn} changes; {rss} KiB"),
                );
            }
        }
        self.throttle = None;
        self.arrive();
    }

    /// Tells the cluster what there is now, perhaps with a slip in it.
    fn tell(&mut self, turn: u32) {
        let slips = self.part == Part::Verdict && self.slipped < SLIPS_IN_A_ROW;
        if !slips || self.rng.random_range(0..3) > 0 {
            self.slipped = 0;
            self.server.apply(object(&self.model.files()));
            return;
        }
        // Half of them are overtaken by the next change.
        let stands = self.rng.random_range(0..2) == 0;
        if stands {
            // What is told from now on is told of this one.
            self.arrive();
            let kind = self.model.change(&mut self.rng);
            *self.changes.entry(kind).or_default() += 1;
        }
        let mut files = self.model.files();
        let kind = self.rng.random_range(0..KINDS);
        let what = self.slips.make(kind, &mut files);
        self.note(&format!("turn {turn}: {what}"));
        *self.changes.entry(what).or_default() += 1;
        self.slipped += 1;
        let told = self.count_refusals();
        let began = Instant::now();
        self.server.apply(object(&files));
        while stands && self.count_refusals() == told {
            if began.elapsed() > TOLD_WITHIN {
                return self.violated("a slip is told", what);
            }
            if !self.stop.pause(Duration::from_millis(2)) {
                return;
            }
        }
        if stands {
            self.taken_back.push(began.elapsed());
            self.check_taken_back(what);
        }
    }

    /// No file of the slip that Envoy may ask for is left, and the pod stays ready.
    fn check_taken_back(&self, what: &str) {
        let current = self.dir.path().join("current");
        let read = |name: &str| fs::read_to_string(current.join(name)).unwrap_or_default();
        let listeners = read("lds.yaml");
        for file in fs::read_dir(&current).into_iter().flatten().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            // What a refused set has brought stays for a while, as what is removed does.
            let is_asked_for = !name.starts_with("rds") || listeners.contains(&name);
            if is_asked_for && read(&name).contains(MARK) {
                self.violated("a slip is taken back", &format!("{what}: {name}"));
            }
        }
        if let Err(said) = accepted(&self.dir) {
            self.violated("a pod that has taken a set stays ready", &said);
        }
    }

    fn count_refusals(&self) -> usize {
        let lines = self.crossover.lines();
        let told = lines
            .iter()
            .filter(|line| line.contains("refused by Envoy; restored"));
        told.count()
    }

    fn violated(&self, rule: &str, what: &str) {
        self.report.violated(self.part.name(), rule, what);
    }

    /// The last change is in the answers of every client.
    fn arrive(&mut self) {
        if self.part == Part::Verdict {
            self.slipped = 0;
            self.server.apply(object(&self.model.files()));
        }
        for (clients, version) in self.clients.iter().zip(self.model.versions()) {
            let all = |tally: &Tally| tally.latest.iter().all(|latest| *latest == version);
            if !clients.holds_within(ARRIVES_WITHIN, all) && !self.stop.is_set() {
                let what = format!("{version} in none of {:?}", clients.tally().latest);
                self.violated("a change arrives", &what);
                let lines = self.crossover.lines();
                for line in lines.iter().rev().take(LAST).rev() {
                    self.report.say(self.part.name(), line);
                }
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
        // A file may be gone, with all that refers to it, before Envoy reads it once more: that is
        // told, and refuses nothing.
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
        self.envoy = self.model.envoy(self.admin);
        self.note("Envoy is there again");
        for (clients, name) in self.clients.iter().zip([MAIN, INLINE]) {
            clients.aim(self.envoy.listener(name));
        }
        self.arrive();
        if self.part == Part::Verdict {
            until_accepted(&self.dir);
        }
        self.deaths.push([killed, Instant::now()]);
    }

    fn kill_crossover(&mut self) {
        self.kills += 1;
        self.note("crossover is killed");
        self.events.extend(self.crossover.lines());
        self.crossover.kill();
        self.crossover = follow(self.part, &self.server, &self.dir, self.admin);
    }
}

/// What the probe says.
fn accepted(dir: &TempDir) -> Result<(), String> {
    let mut probe = command_of(&program(), &["-accepted", "-output-dir"]);
    let probe = probe.arg(dir.path()).output().expect("it can be run");
    let said = String::from_utf8_lossy(&probe.stderr).into_owned();
    probe.status.success().then_some(()).ok_or(said)
}

/// Waits until there is a set to go back to.
fn until_accepted(dir: &TempDir) {
    until("a set to be accepted", || accepted(dir).ok());
}

fn follow(part: Part, server: &Server, dir: &TempDir, admin: SocketAddr) -> Crossover {
    let program = program();
    let mut command = command_of(&program, &["-apiserver", &server.url()]);
    command
        .args(["-namespace", "default", "-watch", "-sync-interval", "1h"])
        .args(["-configmap", MAP, "-output-dir"])
        .arg(dir.path());
    if knows(&program, "-envoy-drain-time") {
        command.args(["-envoy-drain-time", &format!("{}s", DRAIN.as_secs())]);
    }
    if part == Part::Verdict {
        command.args(["-on-refusal", "restore"]);
        command.args(["-envoy-admin", &format!("http://{admin}")]);
    }
    Crossover::spawn(command)
}
