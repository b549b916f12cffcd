//! A world that runs, and what becomes of replacements in it.

use super::super::clients::{Clients, Rate, STEADY, Tally};
use super::super::crossover::{Crossover, command_of, program};
use super::super::envoy::Envoy;
use super::super::file_watch::LengthWatch;
use super::super::stopwatch::Stopwatch;
use super::{DRAIN, DRAIN_FLAG, MAIN, Shape, World, version};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// A world in which everything runs, in the order in which it ends.
pub struct Running {
    pub clients: Clients,
    pub envoy: Envoy,
    pub crossover: Crossover,
    pub world: World,
    /// The number of the cluster.
    pub number: u32,
}

/// The outcome of some replacements.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Requests that were answered with a 200 meanwhile.
    pub ok: u64,
    /// The others, by what came instead.
    pub failed: BTreeMap<String, usize>,
    /// Replacements that no client saw.
    pub lost: usize,
    /// Updates that Envoy has refused.
    pub refused: u64,
    /// The time that each change of weights took from the cluster to the disk.
    pub weights: Vec<Duration>,
}

/// A replacement that no client sees for so long is lost, without the time for which the program
/// and Envoy waited for a processor.
const LOST_AFTER: Duration = Duration::from_secs(4);
/// The same with that time: before Envoy takes by itself, after 15 s, what has waited for a fetch.
const LOST_AT_LAST: Duration = Duration::from_secs(10);
/// After so many there is nothing more to be learned.
const MOST_LOST: usize = 3;

impl Outcome {
    /// Asserts that every request was answered and every replacement accepted.
    #[track_caller]
    pub fn assert_flawless(&self) {
        let is = self.failed.is_empty() && self.lost == 0 && self.refused == 0;
        assert!(is && self.ok > 0, "{self:?}");
    }

    /// Returns how many requests failed.
    pub fn failures(&self) -> usize {
        self.failed.values().sum()
    }
}

impl Running {
    /// Starts it with the program under test.
    #[track_caller]
    pub fn start(shape: Shape) -> Running {
        Running::with(shape, &program(), STEADY)
    }

    /// Starts it with another program, or other clients.
    #[track_caller]
    pub fn with(shape: Shape, program: &Path, rate: Rate) -> Running {
        let world = World::start(shape);
        let seconds = format!("{}s", DRAIN.as_secs());
        let drain = [DRAIN_FLAG, &seconds];
        let more: &[&str] = if knows(program, DRAIN_FLAG) {
            &drain
        } else {
            &[]
        };
        let crossover = Crossover::spawn(world.command(program, more));
        crossover.wait_for_line("INFO  published ");
        world.server.wait_for_watches(2);
        let envoy = world.envoy();
        let clients = Clients::start(envoy.listener(MAIN), rate);
        clients.wait_for_all(&version(0));
        Running {
            clients,
            envoy,
            crossover,
            world,
            number: 0,
        }
    }

    /// Ends crossover, by force, and starts another one; waits until it follows.
    #[track_caller]
    pub fn restart(&mut self, command: Command) {
        self.crossover.kill();
        self.world.server.wait_for_watches(0);
        self.crossover = Crossover::spawn(command);
        self.world.server.wait_for_watches(2);
    }

    /// Replaces the cluster and its route so many times, the next one when the last one is seen in
    /// an answer and this time has passed.
    pub fn replace(&mut self, times: u32, pause: Duration) -> Outcome {
        self.replace_and(times, pause, |_, _| None)
    }

    /// Does the same, with a change of weights in the middle of each replacement.
    pub fn replace_and_weigh(&mut self, times: u32, pause: Duration) -> Outcome {
        let lengths = LengthWatch::watch(self.world.dir(), "weights.yaml");
        self.replace_and(times, pause, |world, number| {
            Some(lengths.time(|| world.weigh(number)))
        })
    }

    fn replace_and(
        &mut self,
        times: u32,
        pause: Duration,
        meanwhile: impl Fn(&World, u32) -> Option<Duration>,
    ) -> Outcome {
        let (before, refused) = (self.clients.tally(), self.refused());
        let (mut lost, mut weights) = (0, Vec::new());
        for _ in 0..times {
            self.number += 1;
            self.world.replace(self.number);
            weights.extend(meanwhile(&self.world, self.number));
            lost += usize::from(!self.is_seen(&version(self.number)));
            if lost == MOST_LOST {
                break;
            }
            thread::sleep(pause);
        }
        Outcome {
            lost,
            refused: self.refused() - refused,
            weights,
            ..self.since(&before)
        }
    }

    /// Waits until a client sees a version. Returns false if it is lost.
    pub fn is_seen(&self, version: &str) -> bool {
        let watch = Stopwatch::start();
        loop {
            let left = LOST_AFTER.saturating_sub(watch.took());
            let seen = |tally: &Tally| tally.versions.contains_key(version);
            if self.clients.holds_within(left, seen) {
                return true;
            }
            if watch.took() >= LOST_AFTER || watch.elapsed() >= LOST_AT_LAST {
                return false;
            }
        }
    }

    /// Returns the outcome since an earlier tally.
    pub fn since(&self, before: &Tally) -> Outcome {
        let mut tally = self.clients.tally();
        tally.failures.drain(..before.failures.len());
        Outcome {
            ok: tally.ok() - before.ok(),
            failed: tally.kinds(),
            ..Outcome::default()
        }
    }

    /// Returns how many updates Envoy has refused so far.
    pub fn refused(&self) -> u64 {
        refused(&self.envoy)
    }
}

/// Returns how many updates of all kinds an Envoy has refused so far.
pub fn refused(envoy: &Envoy) -> u64 {
    let stats = envoy.get("/stats?usedonly&filter=update_(rejected|failure)$");
    let counts = stats.lines().filter_map(|line| line.rsplit_once(": "));
    counts
        .filter_map(|(_, count)| count.parse::<u64>().ok())
        .sum()
}

/// Returns whether a program has this flag.
pub fn knows(program: &Path, flag: &str) -> bool {
    let told = command_of(program, &["-h"]).output();
    let told = told.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let told = [told.stdout, told.stderr].concat();
    String::from_utf8_lossy(&told).contains(&format!("{flag} "))
}

/// Returns the bytes of the files of an output directory, each inode once.
pub fn bytes_on_disk(dir: &Path) -> u64 {
    fn visit(dir: &Path, found: &mut BTreeMap<u64, u64>) {
        // What is collected meanwhile is no longer there.
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => visit(&entry.path(), found),
                Ok(metadata) if metadata.is_file() => {
                    found.insert(metadata.ino(), metadata.len());
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
    let mut found = BTreeMap::new();
    visit(dir, &mut found);
    found.values().sum()
}
