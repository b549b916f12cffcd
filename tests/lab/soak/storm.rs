//! The storm: changes as fast as they are followed, faults between and within them, a pause now and
//! then in which the disk has to become what the cluster says. One crossover lives through all of
//! it, so that its memory can be compared; another one is killed, and its directory damaged.

use super::faults::{self, Field, Strike, Tokens};
use super::follower::Follower;
use super::kind::{self, Kind};
use super::manifests::{MAPS, SPLITS, file_name};
use super::model::{Form, Snapshot, World};
use super::report::{Report, seconds};
use crate::stop::Stop;
use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use testkit::apiserver::{Options, Server};

/// After so many changes the memory is measured that the end is compared with.
const FIRST: usize = 1000;
const CALM_EVERY: usize = 10_000;
const WORD_EVERY: Duration = Duration::from_secs(30);
/// How long the next changes wait for the last ones.
const FOLLOW_WITHIN: Duration = Duration::from_millis(40);

pub struct Storm {
    pub(super) report: Arc<Report>,
    pub(super) stop: Stop,
    pub(super) rng: TestRng,
    pub(super) server: Server,
    pub(super) world: Arc<Mutex<World>>,
    pub(super) followers: Vec<Follower>,
    pub(super) tokens: Tokens,
    pub(super) strikes: Vec<(Strike, Instant)>,
    /// When so many changes were followed.
    next_strike: usize,
    pub(super) struck: BTreeMap<Kind, usize>,
    /// Kinds that have yet to strike for the first time.
    pub(super) untried: Vec<Kind>,
    /// The last pause's.
    pub(super) floors: Vec<Snapshot>,
    pub(super) pauses: Vec<Duration>,
    /// From a change in a pause to the disk.
    pub(super) lively: Vec<Duration>,
    pub(super) made: usize,
    /// How many of them are bad, empty or a deletion.
    pub(super) bad: usize,
    /// How many were made while they were followed, and how long that took.
    pub(super) along: usize,
    pub(super) followed: Duration,
    last_good: Option<(usize, usize)>,
    /// Each object's resourceVersions: see `stamp`.
    pub(super) stamps: HashSet<(String, String)>,
    pub(super) next_word: Instant,
    _dir: TempDir,
}

impl Storm {
    pub fn start(seed: u64, report: Arc<Report>, stop: Stop) -> Storm {
        let dir = tempfile::Builder::new().prefix("crossover-").tempdir();
        let dir = dir.expect("a directory can be made");
        let server = Server::start(Options::tls(dir.path()));
        let world = Arc::new(Mutex::new(World::new()));
        let tokens = Tokens::new(dir.path().join("token"), &server);
        for object in world.lock().expect("no panic").objects() {
            server.create(object);
        }
        let follow = |name, mortal| {
            Follower::start(
                name,
                mortal,
                &server,
                dir.path(),
                world.clone(),
                report.clone(),
            )
        };
        let followers = vec![follow("long", false), follow("mortal", true)];
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Storm {
            report,
            stop,
            rng: TestRng::from_seed(RngAlgorithm::ChaCha, &bytes),
            server,
            world,
            floors: vec![Snapshot::default(); followers.len()],
            followers,
            tokens,
            strikes: Vec::new(),
            next_strike: 0,
            struck: BTreeMap::new(),
            untried: kind::ALL.map(|(kind, ..)| kind).to_vec(),
            pauses: Vec::new(),
            lively: Vec::new(),
            made: 0,
            bad: 0,
            along: 0,
            followed: Duration::ZERO,
            last_good: None,
            stamps: HashSet::new(),
            next_word: Instant::now(),
            _dir: dir,
        }
    }

    /// Makes so many changes, and says what was seen.
    pub fn run(mut self, total: usize) {
        self.pause();
        let began = Instant::now();
        // Every kind of fault has struck once before memory is measured.
        while (self.made < FIRST || !self.untried.is_empty()) && !self.stop.is_set() {
            self.turns(self.made + 2 * FIRST, total);
        }
        let after_first = self.made;
        let before = self.rest();
        while self.made < total && !self.stop.is_set() {
            self.turns(total.min(self.made + CALM_EVERY), total);
        }
        let after = self.rest();
        self.judge(began.elapsed(), after_first, &before, &after);
        self.judge_logs();
    }

    /// Changes and faults until so many changes are made, and the pause after them.
    fn turns(&mut self, until: usize, total: usize) {
        while self.made < until && !self.stop.is_set() {
            self.turn();
            if self.next_word <= Instant::now() {
                self.next_word = Instant::now() + WORD_EVERY;
                self.progress(total);
            }
        }
        self.pause();
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no panic")
    }

    fn progress(&self, total: usize) {
        let strikes: usize = self.struck.values().sum();
        let rss = self.followers[0].crossover().measure().rss_kib;
        let (pauses, worst) = (self.pauses.len(), self.pauses.iter().max());
        let worst = seconds(worst.copied().unwrap_or_default());
        let (made, along) = (self.made, self.along);
        let what = format!(
            "{made} of {total} changes, {along} while followed, {strikes} faults, {pauses} pauses, the longest {worst}; {rss} KiB"
        );
        self.report.say("storm", what);
    }

    /// A few changes, and what strikes with them.
    fn turn(&mut self) {
        let began = Instant::now();
        let visible = self.followers[0].visible();
        let (before, count) = (self.made, self.rng.random_range(1..=12));
        for _ in 0..count {
            self.change();
        }
        let at_once = self.follow();
        if at_once || self.followers[0].visible() != visible {
            self.along += self.made - before;
            self.followed += began.elapsed();
        }
        for follower in &mut self.followers {
            follower.look_again(&self.world);
        }
        self.strike();
    }

    /// One change of any object.
    fn change(&mut self) {
        let rng = &mut self.rng;
        let dice = rng.random_range(0..100);
        let form = |is: Form| match (is, dice) {
            (_, 0..80) => Form::Good,
            (Form::Gone, _) => Form::Good,
            (_, 80..86) => Form::Gone,
            _ => Form::Bad(0),
        };
        let mut world = self.world.lock().expect("no panic");
        let is_split = rng.random_range(0..100) < 10;
        let (which, form) = if is_split {
            let split = rng.random_range(0..SPLITS.len());
            (split, form(world.split(split)))
        } else {
            let map = rng.random_range(0..MAPS.len());
            (map, form(world.map(map)))
        };
        let form = if form == Form::Bad(0) {
            World::bad(rng)
        } else {
            form
        };
        self.bad += usize::from(form != Form::Good);
        let (kind, name, object) = if is_split {
            let object = world.change_split(which, form);
            ("TrafficSplit", SPLITS[which], object)
        } else {
            let object = world.change_map(which, form, rng);
            if form == Form::Good {
                self.last_good = Some((which, world.count(which) - 1));
            }
            ("ConfigMap", MAPS[which].name, object)
        };
        drop(world);
        self.put(kind, name, object);
    }

    /// Brings an object into its new state.
    pub(super) fn put(&mut self, kind: &str, name: &str, object: Option<Value>) {
        self.made += 1;
        let Some(object) = object else {
            return self.server.delete(kind, name);
        };
        // After a restore a number may come again: two states of one object that nobody could tell
        // apart by it are not what is tested.
        let mut number = 0;
        while !self.stamp(name, object.clone(), number) {
            number += 1;
        }
    }

    /// True: this object never had this resourceVersion before. What is the same as before gets no
    /// new one, so each state is marked.
    fn stamp(&mut self, name: &str, mut object: Value, number: usize) -> bool {
        object["metadata"]["annotations"]["soak"] = json!(format!("{} {number}", self.made));
        let version = self.server.apply(object);
        self.stamps.insert((name.to_owned(), version))
    }

    /// Gives the long-lived one time to publish the last good change; whether it did.
    fn follow(&self) -> bool {
        let deadline = Instant::now() + FOLLOW_WITHIN;
        let Some((map, state)) = self.last_good else {
            return true;
        };
        let file = self.followers[0]
            .dir
            .join("current")
            .join(file_name(map, 0));
        let head = format!("# soak {map} 0 {state}\n");
        let shows = || {
            let mut found = vec![0; head.len()];
            let read = File::open(&file).and_then(|mut file| file.read_exact(&mut found));
            read.is_ok() && found == head.as_bytes()
        };
        while !shows() {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Ends the faults whose time is over, and begins others once enough was followed since: most
    /// strike what works, and troubles come together, too.
    fn strike(&mut self) {
        let now = Instant::now();
        while let Some(over) = self.strikes.iter().position(|(_, until)| *until <= now) {
            self.heal(over);
        }
        if self.along < self.next_strike {
            return;
        }
        let most = if self.untried.is_empty() { 1500 } else { 50 };
        self.next_strike = self.along + self.rng.random_range(20..=most);
        for _ in 0..self.rng.random_range(1..=3) {
            self.begin(now);
        }
    }

    fn begin(&mut self, now: Instant) {
        let kind = match self.untried.last() {
            Some(kind) => *kind,
            None => kind::ALL[self.rng.random_range(0..kind::ALL.len())].0,
        };
        let busy = |(strike, _): &(Strike, _)| strike.kind.place() == kind.place();
        // Eight MiB at a time are seldom sent.
        let seldom = kind == Kind::LongLine && self.rng.random_bool(0.8);
        if self.strikes.iter().any(busy) || (seldom && self.untried.is_empty()) {
            return;
        }
        let mut field = Field {
            server: &self.server,
            followers: &mut self.followers,
            tokens: &mut self.tokens,
        };
        if let Some(strike) = faults::begin(kind, &mut field, &mut self.rng) {
            let [least, most] = kind.lasts();
            let lasts = Duration::from_millis(self.rng.random_range(least..=most));
            self.strikes.push((strike, now + lasts));
            *self.struck.entry(kind).or_default() += 1;
            self.untried.retain(|untried| *untried != kind);
        } else if self.untried.last() == Some(&kind) {
            // Another one first; this one's time comes.
            self.untried.rotate_right(1);
        }
    }

    pub(super) fn heal(&mut self, at: usize) {
        let (strike, _) = self.strikes.swap_remove(at);
        let mut field = Field {
            server: &self.server,
            followers: &mut self.followers,
            tokens: &mut self.tokens,
        };
        faults::heal(&strike, &mut field);
    }
}
