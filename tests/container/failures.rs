//! Containers that are killed and started again, with traffic flowing and changes going on.

use crate::cluster::{
    Cluster, FOLLOW, assert_no_failure, load, until_all_from, until_published, wait_for_answers,
};
use crate::manifest::Pod;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use testkit::load::Tally;
use testkit::testbed::BACKENDS;

#[test]
fn a_killed_sidecar_is_back_while_changes_go_on() {
    let cluster = Cluster::start();
    cluster.shift("first", [100, 0]);
    let volume = cluster.empty_dir();
    let mut sidecar = cluster.crossover(&volume, &FOLLOW);
    until_published(&volume, "first");
    let envoy = cluster.envoy(&volume);
    let load = load(&envoy);
    wait_for_answers(&load, "first", BACKENDS[0]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..3000 {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                cluster.shift(&format!("v{number}"), [number % 101, 100 - number % 101]);
                thread::sleep(Duration::from_millis(20));
            }
        });
        for _ in 0..3 {
            let before = load.tally();
            load.wait_for("new routes to be followed", &before, |tally| {
                tally
                    .versions
                    .values()
                    .filter(|v| !v.answers.is_empty())
                    .count()
                    > 3
            });
            sidecar.kill();
            sidecar.start_again();
            cluster.server.wait_for_watches(1);
        }
        done.store(true, Ordering::Relaxed);
    });
    cluster.shift("last", [0, 100]);
    wait_for_answers(&load, "last", BACKENDS[1]);
    assert_no_failure(&load);
}

#[test]
fn a_sidecar_that_restarts_while_the_api_server_is_away_follows_when_it_is_back() {
    let cluster = Cluster::start();
    cluster.shift("first", [100, 0]);
    let volume = cluster.empty_dir();
    let mut sidecar = cluster.crossover(&volume, &FOLLOW);
    until_published(&volume, "first");
    let envoy = cluster.envoy(&volume);
    let load = load(&envoy);
    wait_for_answers(&load, "first", BACKENDS[0]);
    cluster.api.refuse();
    cluster.api.reset();
    cluster.server.wait_for_watches(0);
    cluster.shift("second", [0, 100]);
    sidecar.kill();
    sidecar.start_again();
    sidecar.wait_for_line("WARN");
    let before = load.tally();
    load.wait_for("answers by the last files", &before, |tally| {
        tally.total() > 100
    });
    until_published(&volume, "first");
    cluster.api.accept();
    wait_for_answers(&load, "second", BACKENDS[1]);
    assert_no_failure(&load);
}

#[test]
fn an_envoy_that_restarts_runs_on_the_newest_files() {
    let cluster = Cluster::start();
    cluster.shift("first", [100, 0]);
    let volume = cluster.empty_dir();
    let _sidecar = cluster.crossover(&volume, &FOLLOW);
    until_published(&volume, "first");
    let mut envoy = cluster.envoy(&volume);
    wait_for_answers(&load(&envoy), "first", BACKENDS[0]);
    envoy.kill();
    cluster.shift("second", [0, 100]);
    until_published(&volume, "second");
    envoy.start_again();
    let load = load(&envoy);
    wait_for_answers(&load, "second", BACKENDS[1]);
    cluster.shift("third", [100, 0]);
    wait_for_answers(&load, "third", BACKENDS[0]);
    let tally = load.tally().since(&Tally::default());
    assert!(!tally.versions.contains_key("first"), "{tally:?}");
    assert_no_failure(&load);
}

#[test]
fn one_container_that_restarts_while_the_api_server_is_away_runs_on_the_files_it_has() {
    let cluster = Cluster::start();
    let pod = Pod::install(&cluster, "embedded.yaml");
    pod.publish();
    pod.split([100, 0]);
    let mut envoy = pod.start("envoy");
    until_all_from(&load(&envoy), BACKENDS[0]);
    cluster.api.refuse();
    cluster.api.reset();
    envoy.kill();
    pod.split([0, 100]);
    envoy.start_again();
    let load = load(&envoy);
    until_all_from(&load, BACKENDS[0]);
    cluster.api.accept();
    until_all_from(&load, BACKENDS[1]);
    assert_no_failure(&load);
}
