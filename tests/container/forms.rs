//! The three forms in which it runs beside an Envoy, container for container as Kubernetes starts
//! them: traffic is shifted in each, and no request fails.

use crate::cluster::{
    Cluster, ENVOY_ARGUMENTS, FOLLOW, assert_no_failure, load, until_published, wait_for_answers,
};
use crate::engine::Container;
use crate::images::{CROSSOVER, EMBEDDED};
use crate::kit::site::BACKENDS;
use crate::kit::until;
use crate::kit::xds::CONFIG_MAP;
use std::time::Duration;

const READY: [&str; 2] = ["/crossover", "-ready"];

/// Shifts all traffic to and fro, and a part of it.
#[track_caller]
fn shifts_traffic(cluster: &Cluster, envoy: &Container) {
    let load = load(envoy);
    wait_for_answers(&load, "first", BACKENDS[0]);
    cluster.shift("second", [0, 100]);
    wait_for_answers(&load, "second", BACKENDS[1]);
    cluster.shift("third", [50, 50]);
    wait_for_answers(&load, "third", BACKENDS[0]);
    wait_for_answers(&load, "third", BACKENDS[1]);
    assert_no_failure(&load);
}

#[test]
fn an_init_container_then_envoy_and_a_sidecar() {
    let cluster = Cluster::start();
    cluster.shift("first", [100, 0]);
    let volume = cluster.empty_dir();
    let once = ["-configmap", CONFIG_MAP, "-onetime"];
    let init = Container::run("init", &cluster.locked(&volume), *CROSSOVER, &once);
    assert_eq!(init.code, Some(0), "{}", init.stderr);
    let envoy = cluster.envoy(&volume);
    let mut sidecar = cluster.crossover(&volume, &FOLLOW);
    cluster.server.wait_for_watches(1);
    shifts_traffic(&cluster, &envoy);
    assert_eq!(sidecar.stop().0.code, Some(0));
}

#[test]
fn a_native_sidecar_that_is_ready_then_envoy() {
    let cluster = Cluster::start();
    let volume = cluster.empty_dir();
    let mut sidecar = cluster.crossover(&volume, &FOLLOW);
    sidecar.wait_for_line("WARN"); // There is no ConfigMap.
    let early = sidecar.exec(&READY);
    assert_eq!(
        early.status.code(),
        Some(1),
        "ready without anything to be ready with"
    );
    cluster.shift("first", [100, 0]);
    until("the startup probe to succeed", || {
        sidecar.exec(&READY).status.success().then_some(())
    });
    until_published(&volume, "first");
    let mut envoy = cluster.envoy(&volume);
    shifts_traffic(&cluster, &envoy);
    // As Kubernetes ends a pod: the sidecar last.
    assert_eq!(envoy.stop().0.code, Some(0));
    assert_eq!(sidecar.stop().0.code, Some(0));
}

#[test]
fn one_container_that_starts_envoy_when_there_are_files() {
    let cluster = Cluster::start();
    let volume = cluster.empty_dir();
    let mut options = cluster.options(&["--read-only", "--cap-drop=ALL", "--user=65532"]);
    options.push(crate::cluster::mount(
        &volume,
        crate::cluster::RUNTIME,
        "rw",
    ));
    options.push(cluster.bootstrap());
    let mut arguments = vec!["-configmap", CONFIG_MAP, "-sync-interval=1h", "--"];
    arguments.push("/usr/local/bin/envoy");
    arguments.extend(ENVOY_ARGUMENTS);
    let mut pod = Container::start("embedded", &options, *EMBEDDED, &arguments);
    pod.wait_for_line("WARN"); // There is no ConfigMap, so there is no Envoy.
    assert!(
        pod.process()
            .lines()
            .iter()
            .all(|line| !line.contains("initializing epoch"))
    );
    cluster.shift("first", [100, 0]);
    shifts_traffic(&cluster, &pod);
    let (finished, took) = pod.stop();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(
        took < Duration::from_secs(8),
        "the signal was not passed on: {took:?}"
    );
}
