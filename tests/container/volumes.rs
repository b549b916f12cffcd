//! The owners of files in a volume, as Kubernetes sets them: an Envoy of any user can read them.

use crate::cluster::{
    Cluster, FOLLOW, LOCKED, RUNTIME, assert_no_failure, load, mount, until_published,
    wait_for_answers,
};
use crate::engine::Container;
use crate::images::{CROSSOVER, SHELL};
use std::path::Path;
use testkit::testbed::BACKENDS;

#[track_caller]
fn envoy_follows(cluster: &Cluster, volume: &Path) {
    until_published(volume, "first");
    let envoy = cluster.envoy(volume);
    let load = load(&envoy);
    wait_for_answers(&load, "first", BACKENDS[0]);
    cluster.shift("second", [0, 100]);
    wait_for_answers(&load, "second", BACKENDS[1]);
    assert_no_failure(&load);
}

#[test]
fn an_envoy_of_another_user_reads_an_empty_dir() {
    let cluster = Cluster::start();
    cluster.shift("first", [100, 0]);
    let volume = cluster.empty_dir();
    let _crossover = cluster.crossover(&volume, &FOLLOW);
    envoy_follows(&cluster, &volume);
}

#[test]
fn an_envoy_of_another_user_reads_a_volume_of_a_group() {
    let cluster = Cluster::start();
    cluster.shift("first", [100, 0]);
    // What `fsGroup: 2000` makes of a volume: the group owns it, and what is made in it.
    let volume = cluster.volume("group", 2000, 0o2775);
    let mut options = cluster.locked(&volume);
    options.push("--group-add=2000".into());
    let _crossover = Container::start("crossover", &options, *CROSSOVER, &FOLLOW);
    envoy_follows(&cluster, &volume);
}

#[test]
fn an_envoy_of_another_user_reads_what_was_written_under_any_umask() {
    let cluster = Cluster::start();
    cluster.shift("first", [100, 0]);
    let volume = cluster.empty_dir();
    let mut options = cluster.options(&LOCKED);
    options.push(mount(&volume, RUNTIME, "rw"));
    let script = format!("umask 077; exec /crossover {}", FOLLOW.join(" "));
    let _crossover = Container::start("crossover", &options, *SHELL, &["-c", &script]);
    envoy_follows(&cluster, &volume);
}
