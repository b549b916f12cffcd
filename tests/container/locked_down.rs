//! The container as PID 1, with every right removed that it does not need.

use crate::cluster::{ACCOUNT, Cluster, FOLLOW, LOCKED, RUNTIME, until_published};
use crate::engine::Container;
use crate::images::CROSSOVER;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use testkit::envoy_config::CONFIG_MAP;

const PAGE: &str = include_str!("../../docs/deploying.md");
const ALL_TO_ONE: [u32; 2] = [100, 0];

#[test]
fn a_locked_down_container_follows_and_writes_nothing_but_its_output() {
    let shown = format!("docker run {} ", LOCKED.join(" "));
    assert!(PAGE.contains(&shown), "the page does not show {shown}");
    let cluster = Cluster::start();
    cluster.shift("first", ALL_TO_ONE);
    let volume = cluster.empty_dir();
    let mut container = cluster.crossover(&volume, &FOLLOW);
    until_published(&volume, "first");
    for number in 1..=5 {
        let version = format!("v{number}");
        cluster.shift(&version, [0, number]);
        until_published(&volume, &version);
    }
    let process = testkit::crossover::measure(container.pid());
    assert_eq!(process.threads, 1);
    for line in container.changes().lines() {
        // The engine makes the directories that it mounts something on.
        let path = line.strip_prefix("A ").unwrap_or_else(|| panic!("{line}"));
        assert!(
            [ACCOUNT, RUNTIME].iter().any(|at| at.starts_with(path)),
            "{line}"
        );
    }
    let (finished, took) = container.stop();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    println!("it ended {took:?} after the signal");
    assert!(
        took < Duration::from_secs(1),
        "it ended {took:?} after the signal"
    );
    assert!(!finished.stderr.contains("WARN"), "{}", finished.stderr);
}

#[test]
fn without_a_place_to_write_once_ends_with_one_clear_error() {
    let cluster = Cluster::start();
    cluster.shift("first", ALL_TO_ONE);
    let once = ["-configmap", CONFIG_MAP, "-onetime"];
    let finished = Container::run("once", &cluster.options(&LOCKED), *CROSSOVER, &once);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    let errors: Vec<&str> = finished
        .stderr
        .lines()
        .filter(|l| l.contains("ERROR"))
        .collect();
    assert_eq!(errors.len(), 1, "{}", finished.stderr);
    let why = "failed to create /srv: Read-only file system";
    assert!(errors[0].contains(why), "{}", errors[0]);
}

#[test]
fn without_a_place_to_write_a_sidecar_tries_until_there_is_one() {
    let cluster = Cluster::start();
    cluster.shift("first", ALL_TO_ONE);
    let volume = cluster.volume("closed", 0, 0o755);
    let container = cluster.crossover(&volume, &FOLLOW);
    let line = container.wait_for_line(RUNTIME);
    assert!(line.contains("ermission denied"), "{line}");
    fs::set_permissions(&volume, Permissions::from_mode(0o777)).unwrap();
    until_published(&volume, "first");
}

/// Asks a hundred times whether it is ready; returns how each probe ended, and whether the
/// container is as it was.
#[track_caller]
fn probe_a_hundred_times(more: &[&str]) -> Vec<Option<i32>> {
    let cluster = Cluster::start();
    cluster.shift("first", ALL_TO_ONE);
    let volume = cluster.empty_dir();
    let mut options = cluster.locked(&volume);
    options.extend(more.iter().map(|option| option.to_string()));
    let container = Container::start("probed", &options, *CROSSOVER, &FOLLOW);
    until_published(&volume, "first");
    let probe = |_| container.exec(&["/crossover", "-ready"]).status.code();
    let codes = (0..100).map(probe).collect();
    cluster.shift("second", ALL_TO_ONE);
    until_published(&volume, "second");
    let lines = container.process().lines();
    assert!(lines.iter().all(|line| line.contains("INFO")), "{lines:?}");
    assert_eq!(container.inspect("{{.State.OOMKilled}}"), "false");
    codes
}

#[test]
fn a_hundred_exec_probes_with_room_for_the_engine_all_succeed() {
    // The engine's own program is in the container, with some threads, before it becomes the probe.
    let codes = probe_a_hundred_times(&["--pids-limit=16"]);
    assert!(codes.iter().all(|code| *code == Some(0)), "{codes:?}");
}

#[test]
fn a_hundred_exec_probes_without_room_for_the_engine_disturb_nothing() {
    // 126: the engine could not start the probe; 2: its runtime gave up for want of a thread.
    // Neither is the probe's own no, which is 1.
    let codes = probe_a_hundred_times(&[]);
    let known = [Some(0), Some(2), Some(126)];
    let engines_own = codes.iter().all(|code| known.contains(code));
    assert!(engines_own && codes.contains(&Some(0)), "{codes:?}");
}
