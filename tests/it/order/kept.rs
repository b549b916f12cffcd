//! A replaced cluster: for how long it is kept, and what that costs.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};
use testkit::PATIENCE;
use testkit::clients::Tally;
use testkit::crossover::{Crossover, program, until_asleep};
use testkit::envoy_config::Watching;
use testkit::file_watch::LengthWatch;
use testkit::objects::config_map;
use testkit::throttle::Throttle;
use testkit::until;
use testkit::world::{
    REPLACED, Running, Shape, Sort, WEIGHTS, World, bytes_on_disk, name, routes, version,
};

/// A vanished cluster is kept for this long after the routes were read.
const GRACE: Duration = Duration::from_secs(15);
/// What does not wait for an Envoy that stands still for most of a second, on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(200);
/// So many clusters are kept where the target has fewer.
const KEPT: u64 = 20;
/// Of the target: one that is replaced and two that stay.
const CLUSTERS: u64 = 3;

fn rds() -> Shape {
    Shape::rds(Sort::Static, Watching::PathOnly)
}

#[test]
fn two_hundred_replacements_take_no_more_clusters_disk_or_memory() {
    let running = Running::start(rds());
    // A target of some size, so that copies of it count.
    let padding = format!("# {:98}\n", "").repeat(3000);
    let mut target = 0;
    let mut rss = 0;
    let before = running.clients.tally();
    for number in 1..=200 {
        let mut files = running.world.files(number);
        files
            .entry("cds.yaml".into())
            .or_default()
            .push_str(&padding);
        target = files.values().map(String::len).sum();
        let files: Vec<_> = files
            .iter()
            .map(|(k, t)| (k.as_str(), t.as_str()))
            .collect();
        running.world.server.apply(config_map(REPLACED, &files));
        let version = version(number);
        let seen = |tally: &Tally| tally.versions.contains_key(&version);
        assert!(running.clients.holds_within(PATIENCE, seen), "{number}");
        if number % 10 == 0 {
            let active = running.envoy.stat("cluster_manager.active_clusters");
            assert!(active <= KEPT + CLUSTERS + 1, "{number}: {active} clusters");
            let bytes = bytes_on_disk(running.world.dir());
            let most = 8 * target as u64 + (1 << 20);
            assert!(bytes < most, "{number}: {bytes} bytes, not {most}");
        }
        if number == 60 {
            until_asleep(running.crossover.pid());
            rss = running.crossover.measure().rss_kib;
        }
    }
    until_asleep(running.crossover.pid());
    let grown = running.crossover.measure().rss_kib.saturating_sub(rss);
    println!("{target} bytes; {rss} KiB after 60, {grown} KiB more after 200");
    assert!(grown <= 512, "{rss} KiB grew by {grown} KiB");
    let outcome = running.since(&before);
    assert!(outcome.failed.is_empty(), "{outcome:?}");
    // Too many were kept: the oldest went before its time, which is said.
    running.crossover.wait_for_line(" WARN ");
}

#[test]
fn a_replaced_cluster_is_dropped_after_its_time_and_nothing_wakes_until_then() {
    let mut running = Running::start(rds());
    // From here on with its debug lines.
    let mut command = running.world.command(&program(), &[]);
    command.env("RUST_LOG", "debug");
    running.restart(command);
    let cds = running.world.file("cds.yaml");
    let outcome = running.replace(1, Duration::ZERO);
    outcome.assert_flawless();
    let began = Instant::now();
    let files = running.world.files(1);
    // What is owed to the disk is done by then.
    thread::sleep(Duration::from_secs(3));
    until_asleep(running.crossover.pid());
    let text = fs::read_to_string(&cds).unwrap();
    assert!(text.contains("name: c1\n") && text.contains("c0"), "{text}");
    let lines = running.crossover.lines().len();
    let before = running.crossover.measure().context_switches;
    thread::sleep(GRACE - Duration::from_secs(5));
    let switches = running.crossover.measure().context_switches - before;
    assert_eq!(switches, 0, "{:?}", &running.crossover.lines()[lines..]);
    let dropped = running.crossover.wait_for_line("dropped");
    let after = began.elapsed();
    assert!(dropped.contains("DEBUG"), "{dropped}");
    assert!(after > GRACE - Duration::from_millis(500), "{after:?}");
    assert!(after < GRACE + Duration::from_secs(3), "{after:?}");
    for (file, text) in files {
        let found = fs::read_to_string(running.world.file(&file)).unwrap();
        assert_eq!(found, text, "{file}");
    }
    let outcome = running.since(&Default::default());
    assert!(outcome.failed.is_empty(), "{outcome:?}");
    thread::sleep(Duration::from_secs(2));
    until_asleep(running.crossover.pid());
    let before = running.crossover.measure().context_switches;
    thread::sleep(Duration::from_secs(3));
    let switches = running.crossover.measure().context_switches - before;
    assert_eq!(switches, 0);
}

#[test]
fn a_cluster_that_another_file_names_is_kept_until_none_does() {
    let mut running = Running::start(rds());
    let other = |route: &str| {
        let text = routes(WEIGHTS, &format!("cluster: {route}"), "other");
        config_map(WEIGHTS, &[("weights.yaml", &text)])
    };
    running.world.server.apply(other(&name(0)));
    running
        .envoy
        .wait_for_stat("http.weights.rds.weights.update_success", "2");
    running.replace(1, Duration::ZERO).assert_flawless();
    thread::sleep(GRACE + Duration::from_secs(2));
    let known = || running.envoy.get("/clusters").contains("c0::");
    assert!(known(), "it was dropped");
    let warning = running.crossover.wait_for_line("WARN");
    assert!(
        warning.contains("c0") && warning.contains("weights.yaml"),
        "{warning}"
    );
    running.world.server.apply(other("always-a"));
    until("the cluster to go", || (!known()).then_some(()));
}

#[test]
fn a_rollback_is_on_disk_at_once_while_envoy_is_slow() {
    let mut running = Running::start(rds());
    // Two numbers whose files are of different lengths.
    let (one, other) = (9, 10);
    for number in [one, other, one] {
        running.world.replace(number);
        running.clients.wait_for_all(&version(number));
    }
    let lengths = LengthWatch::watch(running.world.dir(), "rds.yaml");
    let throttle = Throttle::to_a_crawl(running.envoy.pid());
    let mut times = Vec::new();
    for turn in 0..20 {
        running.number = [other, one][turn % 2];
        let length = running.world.files(running.number)["rds.yaml"].len();
        times.push(lengths.time(|| {
            running.world.replace(running.number);
            length
        }));
        thread::sleep(Duration::from_millis(137));
    }
    drop(throttle);
    times.sort();
    println!("{times:?}");
    assert!(times[times.len() / 2] < AT_ONCE, "{times:?}");
    running.clients.wait_for_all(&version(running.number));
    let kinds = running.clients.tally().kinds();
    assert!(kinds.is_empty(), "{kinds:?}");
}

#[test]
fn a_crossover_killed_in_mid_sequence_fails_no_request() {
    let mut running = Running::start(rds());
    for round in 0..12_u32 {
        running.number += 1;
        running.world.replace(running.number);
        // From before the first step until after the last.
        thread::sleep(Duration::from_millis(u64::from(round) / 2));
        running.restart(running.world.command(&program(), &[]));
        running.clients.wait_for_all(&version(running.number));
    }
    let kinds = running.clients.tally().kinds();
    assert!(kinds.is_empty(), "{kinds:?}");
    assert_eq!(running.refused(), 0);
}

#[test]
fn a_restart_does_not_forget_how_long_connections_of_a_listener_may_go_on() {
    const DRAINS: Duration = Duration::from_secs(24);
    let mut running = Running::start(rds());
    let restart = |running: &mut Running| {
        let drains = format!("{}s", DRAINS.as_secs());
        let more = ["-envoy-drain-time", &drains];
        running.restart(running.world.command(&program(), &more));
    };
    let apply = |running: &Running, number| {
        let mut files = running.world.files(number);
        files
            .entry("lds.yaml".into())
            .or_default()
            .push_str("# changed\n");
        let files: Vec<_> = files
            .iter()
            .map(|(k, t)| (k.as_str(), t.as_str()))
            .collect();
        running.world.server.apply(config_map(REPLACED, &files));
    };
    restart(&mut running);
    // The listener changes alone; no route leads to c0 from the next change on.
    apply(&running, 0);
    let published = running.crossover.wait_for_line("INFO  published ");
    assert!(published.contains("files=lds.yaml "), "{published}");
    let began = Instant::now();
    restart(&mut running);
    apply(&running, 1);
    running.clients.wait_for_all(&version(1));
    restart(&mut running);
    let left = (DRAINS - Duration::from_secs(3)).saturating_sub(began.elapsed());
    assert!(left > GRACE + Duration::from_secs(2), "{left:?}");
    thread::sleep(left);
    let known = || running.envoy.get("/clusters").contains("c0::");
    assert!(known(), "it was dropped after {:?}", began.elapsed());
    until("the cluster to go", || (!known()).then_some(()));
    let after = began.elapsed();
    assert!(
        after >= DRAINS && after < DRAINS + Duration::from_secs(5),
        "{after:?}"
    );
    let kinds = running.clients.tally().kinds();
    assert!(kinds.is_empty(), "{kinds:?}");
}

#[test]
fn the_log_says_the_steps_of_a_replacement_and_their_times() {
    let mut running = Running::start(rds());
    let lines = running.crossover.lines().len();
    running
        .replace(1, Duration::from_millis(100))
        .assert_flawless();
    let all = running.crossover.lines();
    let published: Vec<&String> = all[lines..]
        .iter()
        .filter(|line| line.contains("INFO  published "))
        .collect();
    let [published] = published[..] else {
        panic!("one line for one change, not {published:?}");
    };
    let steps = published.contains(" steps=clusters,routes ");
    let us = |field: &str| -> u64 {
        let value = published.split_once(field).expect(field).1;
        value.split(' ').next().unwrap().parse().unwrap()
    };
    let (clusters, all) = (us(" clusters_us="), us(" latency_us="));
    assert!(steps && 0 < clusters && clusters < all, "{published}");
    // A change of weights alone is one set, as ever: it has no steps.
    running.world.weigh(1);
    running.crossover.wait_for_lines(3, "INFO  published ");
    let all = running.crossover.lines();
    let last = all.iter().rfind(|line| line.contains("INFO  published "));
    assert!(!last.unwrap().contains("steps="), "{last:?}");
}

#[test]
fn a_file_that_no_one_reads_is_named_once() {
    let world = World::start(rds());
    let crossover = Crossover::spawn(world.command(&program(), &[]));
    crossover.wait_for_line("INFO  published ");
    world.server.wait_for_watches(2);
    for number in 1..=6 {
        world.replace(number);
        crossover.wait_for_lines(1 + number as usize, "INFO  published ");
    }
    let lines = crossover.lines();
    let unread = |line: &&String| line.contains("no one reads") && line.contains("cds.yaml");
    let unread: Vec<&String> = lines.iter().filter(unread).collect();
    assert_eq!(unread.len(), 1, "{lines:#?}");
    assert!(unread[0].contains("INFO"), "{unread:?}");
}
