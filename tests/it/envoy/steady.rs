//! Envoy under a steady load, and crossover killed: no request fails, no set is seen in part.

use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::time::Instant;
use testkit::PATIENCE;
use testkit::crossover::Crossover;
use testkit::envoy::Envoy;
use testkit::envoy_config::{self, STATS, Watching};
use testkit::load::{Load, Tally, share};
use testkit::testbed::{BACKENDS, Testbed};

/// Enough for the share of a backend to be told from its neighbours' by chance.
const MANY: u64 = 400;

/// Waits for so many answers to one version of the routes.
#[track_caller]
fn wait_for_version(load: &Load, version: &str, answers: u64) -> Tally {
    load.wait_for(version, &Tally::default(), |tally| {
        let version = tally.versions.get(version);
        version.is_some_and(|v| v.answers.values().sum::<u64>() >= answers)
    })
}

fn started(watching: Watching) -> (Testbed, Crossover, Envoy) {
    let testbed = Testbed::start(watching);
    testbed.shift("0", [100, 0]);
    let crossover = testbed.crossover();
    crossover.wait_for_line("INFO  published ");
    let envoy = testbed.envoy();
    (testbed, crossover, envoy)
}

#[test]
fn no_request_fails_while_the_weights_change_forty_times() {
    let (testbed, crossover, envoy) = started(Watching::PathOnly);
    let load = testbed.load(&envoy, 1000);
    for number in 1..=40_u32 {
        let weight = number * 5 % 101;
        testbed.shift(&number.to_string(), [100 - weight, weight]);
        wait_for_version(&load, &number.to_string(), 5);
    }
    testbed.shift("last", [25, 75]);
    let tally = wait_for_version(&load, "last", MANY);
    assert_eq!(tally.failures, Vec::<String>::new());
    // Six standard deviations of chance: once in a billion runs.
    let share = share(&tally.versions["last"].answers, BACKENDS[1]);
    let chance = 6.0 * (0.75 * 0.25 / MANY as f64).sqrt();
    assert!((share - 0.75).abs() < chance, "{share}");
    crossover.wait_for_lines(42, "INFO  published ");
}

#[test]
fn crossover_killed_during_changes_converges_after_a_restart() {
    let (testbed, mut crossover, envoy) = started(Watching::PathOnly);
    let load = testbed.load(&envoy, 1000);
    let mut number = 0_u32;
    for round in 0..10_u64 {
        // Each change is sent at once after the one before: the kill strikes somewhere in them.
        for _ in 0..=round {
            number += 1;
            let weight = number * 7 % 101;
            testbed.shift(&number.to_string(), [100 - weight, weight]);
        }
        crossover.signal(Signal::KILL);
        assert_eq!(crossover.finish().code, None);
        number += 1;
        testbed.shift(&number.to_string(), [50, 50]);
        crossover = testbed.crossover();
        wait_for_version(&load, &number.to_string(), 1);
    }
    assert_eq!(load.tally().failures, Vec::<String>::new());
    assert_eq!(crossover.stop().code, Some(0));
}

/// All three files in one version, which routes to a cluster that no other version has.
fn publish(testbed: &Testbed, number: u32) {
    let (version, name) = (number.to_string(), format!("only-in-{number}"));
    testbed.server.apply(envoy_config::set(
        &testbed.listeners(&version),
        &envoy_config::clusters(&version, &[(&name, testbed.address(0))]),
        &envoy_config::routes(&version, &[(&name, 1)]),
    ));
}

#[test]
fn an_envoy_started_after_a_kill_at_any_moment_finds_one_whole_set() {
    let testbed = Testbed::start(Watching::PathOnly);
    publish(&testbed, 0);
    let sets = testbed.dir().join(".sets");
    // What a publish does, in this order, of the set with the new cluster and of the one with its
    // route: a kill at each strikes in the middle of it.
    let has = |name: String| sets.join(name).exists();
    let leads = |name: &str, number: u64| {
        fs::read_link(sets.join(name)).is_ok_and(|to| to.as_os_str() == &*number.to_string())
    };
    let moments: [&dyn Fn(u64) -> bool; 5] = [
        &|number| has(number.to_string()),
        &|number| has(format!("{number}/rds.yaml")),
        &|number| has(format!("{number}.sources")),
        &|number| leads("active", number),
        &|number| leads("done", number),
    ];
    // Only the last set of a change is synced.
    let of_clusters = moments[..4].iter().map(|moment| (0, moment));
    let of_routes = moments.iter().map(|moment| (1, moment));
    for (round, (set, moment)) in of_clusters.chain(of_routes).enumerate() {
        let crossover = testbed.crossover();
        let number = next_set(&sets);
        publish(&testbed, round as u32 + 1);
        let deadline = Instant::now() + PATIENCE;
        while !moment(number + set) {
            assert!(Instant::now() < deadline, "waited for set {number}");
        }
        crossover.signal(Signal::KILL);
        assert_eq!(crossover.finish().code, None);
        let envoy = testbed.envoy();
        let versions = STATS.map(|name| envoy.text_stat(&format!("{name}.version_text")));
        let [listeners, clusters, routes] = &versions;
        assert_eq!(listeners, routes, "{versions:?}");
        // They may be ahead of their routes.
        let number = |version: &String| version.parse::<usize>().unwrap();
        let span = number(routes)..=round + 1;
        assert!(span.contains(&number(clusters)), "{versions:?}");
        let any = |tally: &Tally| !(tally.answers.is_empty() && tally.failures.is_empty());
        let tally = testbed
            .load(&envoy, 500)
            .wait_for("an answer", &Tally::default(), any);
        assert_eq!(tally.failures, Vec::<String>::new());
    }
}

/// The number that the next set will have; its directory may have been made ahead.
fn next_set(sets: &Path) -> u64 {
    let entries = fs::read_dir(sets).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    let numbers = names.filter_map(|name| name.to_str()?.parse().ok());
    let newest: u64 = numbers.max().unwrap();
    let is_ahead = || fs::read_dir(sets.join(newest.to_string())).is_ok_and(|d| d.count() == 0);
    newest + u64::from(!is_ahead())
}

#[test]
fn an_envoy_started_during_changes_ends_with_the_newest_set() {
    let testbed = Testbed::start(Watching::PathOnly);
    publish(&testbed, 0);
    let crossover = testbed.crossover();
    crossover.wait_for_line("INFO  published ");
    let mut number = 0;
    for _ in 0..3 {
        let envoy = std::thread::scope(|scope| {
            let starting = scope.spawn(|| testbed.envoy());
            while !starting.is_finished() {
                number += 1;
                publish(&testbed, number);
                crossover.wait_for_lines(number as usize + 1, "INFO  published ");
            }
            starting.join().expect("Envoy starts")
        });
        for name in STATS {
            envoy.wait_for_stat(&format!("{name}.version_text"), &number.to_string());
        }
        let load = testbed.load(&envoy, 500);
        wait_for_version(&load, &number.to_string(), 1);
    }
}
