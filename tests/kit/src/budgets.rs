//! The budgets of the project, each measured in one place: `make bench` prints the measurements,
//! and the tests fail above the limits.

use super::candidate::{Bench, Candidate};
use super::crossover::{Crossover, Measured, until_asleep};
use super::file_watch::FileWatch;
use super::objects::{config_map, traffic_split};
use super::{envoy_config, until};
use serde_json::Value;
use std::thread;
use std::time::Duration;

/// The goal for the bytes of the release binary for amd64.
pub const BINARY_GOAL: u64 = 2_120_000;
/// The most bytes that it may have: the goal, and 2 % more.
pub const BINARY_MAX: u64 = BINARY_GOAL / 100 * 102;
/// The goal for the memory of a process with three idle TLS watches, in KiB.
pub const IDLE_GOAL: u64 = 2_350;

/// The size that Kubernetes allows for one ConfigMap.
pub const LARGEST: usize = 1 << 20;

/// Has a program follow so many small ConfigMaps over TLS, the first with a `rds.yaml`: what is
/// measured is the watches.
pub fn follow_small(bench: &Bench, who: &Candidate, count: u32) -> Crossover {
    let names: Vec<String> = (0..count).map(|number| format!("small-{number}")).collect();
    for (name, number) in names.iter().zip(0..) {
        let key = match number {
            0 => "rds.yaml".to_string(),
            _ => format!("{name}.yaml"),
        };
        let text = envoy_config::large_routes(1 << 10, number);
        bench.apply(who, config_map(name, &[(&key, &text)]));
    }
    bench.follow(who, &names, None)
}

/// Starts the release binary with three TLS watches, of which the server tells nothing of its own
/// accord.
pub fn three_tls_watches() -> (Bench, Crossover) {
    let bench = Bench::with_bookmarks(Duration::from_secs(3600));
    let crossover = follow_small(&bench, &Candidate::ours(), 3);
    (bench, crossover)
}

/// Waits until a process has done what it had put off: a second passes in which it does not run.
#[track_caller]
pub fn until_at_rest(crossover: &Crossover) {
    until("a second of rest", || {
        let second = idle_for(Duration::from_secs(1), crossover);
        (second.cpu_ns == 0).then_some(())
    });
}

/// Returns what an idle process took of the machine while `time` passed. The time is the measure
/// here, so that it is not a wait for a condition.
pub fn idle_for(time: Duration, crossover: &Crossover) -> Measured {
    let before = crossover.measure();
    thread::sleep(time);
    since(before, crossover)
}

/// Returns what a process took of the machine since it was measured.
pub fn since(before: Measured, crossover: &Crossover) -> Measured {
    let after = crossover.measure();
    Measured {
        context_switches: after.context_switches - before.context_switches,
        cpu_ns: after.cpu_ns - before.cpu_ns,
        ..after
    }
}

/// The place at which a text of 1 MiB is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Its first line.
    AtItsBeginning,
    /// Its last line.
    AtItsEnd,
}

/// Peak memory over a ConfigMap of 1 MiB, read, changed ten times, once of them bad, over TLS; and
/// memory at the end. Of the release binary.
pub fn largest_config_map(broken: Broken) -> Measured {
    let (bench, ours) = (Bench::start(), Candidate::ours());
    let apply = |text: &str| bench.apply(&ours, config_map("large", &[("rds.yaml", text)]));
    apply(&envoy_config::large_routes(LARGEST, 0));
    let crossover = bench.follow(&ours, &["large"], None);
    for change in 1..=10 {
        if change == 5 {
            apply(&bad(broken));
            crossover.wait_for_line("ConfigMap is invalid");
        } else {
            let version = apply(&envoy_config::large_routes(LARGEST, change));
            crossover.wait_for_line(&format!("resource_version={version} "));
        }
    }
    until_asleep(crossover.pid());
    crossover.measure()
}

/// Returns the split of one of the services in [`envoy_config::large_routes`], and what a file
/// holds only by its first weight, be it YAML or JSON.
pub fn split_of_a_service(change: u32) -> (Value, String) {
    let [first, other] = [700_000 + change, 300_000 - change].map(u64::from);
    let backends = [("service-0-primary", first), ("service-0-canary", other)];
    let split = traffic_split("service-0", "service-0", &backends);
    (split, first.to_string())
}

/// Peak memory over merges of a TrafficSplit's weights into a ConfigMap of this size (1 MiB is the
/// largest) whose mirror is written, over TLS; and memory at the end. `None`: it does not follow
/// what is so large.
pub fn merge_into(who: &Candidate, bytes: usize, changes: u32) -> Option<Measured> {
    let bench = Bench::start();
    // The mirror, with longer weights, is not larger than what Kubernetes takes.
    let text = envoy_config::large_routes(bytes - 64, 0);
    bench.apply(who, config_map("large", &[("rds.yaml", &text)]));
    bench.apply(who, split_of_a_service(0).0);
    let process = bench.follow(who, &["large"], Some("service-0"));
    let mut arrivals = FileWatch::watch(&bench.output(who), "rds.yaml");
    for change in 1..=changes {
        let (split, mark) = split_of_a_service(change);
        bench.apply(who, split);
        arrivals.may_arrive(|bytes| holds(bytes, &mark))?;
    }
    if who.shows_splits() {
        let (_, mark) = split_of_a_service(changes);
        until("the mirror to be written", || {
            let mirror = bench.config_map(who, "large-gen")?;
            let text = mirror["data"]["rds.yaml"].as_str()?;
            text.contains(&mark).then_some(())
        });
    }
    until_asleep(process.pid());
    Some(process.measure())
}

/// Returns whether a text is somewhere in a file.
pub fn holds(bytes: &[u8], mark: &str) -> bool {
    bytes
        .windows(mark.len())
        .any(|part| part == mark.as_bytes())
}

fn bad(broken: Broken) -> String {
    let text = envoy_config::large_routes(LARGEST - 8, 5);
    match broken {
        Broken::AtItsBeginning => format!("a: [b\n{text}"),
        Broken::AtItsEnd => format!("{text}\na: [b"),
    }
}
