//! The three forms in which it runs beside an Envoy, by the manifests of `example/kubernetes/` and
//! in the order in which Kubernetes starts their containers: weights are shifted in each, and no
//! request fails.

use crate::cluster::{Cluster, assert_no_failure, load, until_all_from};
use crate::engine::Container;
use crate::manifest::{Pod, texts};
use testkit::testbed::BACKENDS;
use testkit::until;

/// Runs a probe of a container's until it succeeds.
#[track_caller]
fn until_probed(pod: &Pod<'_>, container: &Container, name: &str, probe: &str) {
    let command = texts(&pod.container(name)[probe]["exec"]["command"]);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    until(&format!("{command:?}"), || {
        container.exec(&command).status.success().then_some(())
    });
}

/// Shifts all traffic to and fro.
#[track_caller]
fn shifts_traffic(pod: &Pod<'_>, envoy: &Container) {
    let load = load(envoy);
    for weights in [[100, 0], [0, 100], [100, 0]] {
        pod.split(weights);
        until_all_from(&load, BACKENDS[usize::from(weights[0] == 0)]);
    }
    pod.split([50, 50]);
    let before = load.tally();
    load.wait_for("answers of both", &before, |tally| tally.answers.len() == 2);
    assert_no_failure(&load);
}

#[test]
fn an_init_container_then_envoy_and_a_sidecar() {
    let cluster = Cluster::start();
    let pod = Pod::install(&cluster, "classic.yaml");
    pod.publish();
    pod.split([100, 0]);
    let init = pod.start("crossover-init").finish();
    assert_eq!(init.code, Some(0), "{}", init.stderr);
    let envoy = pod.start("envoy");
    let mut sidecar = pod.start("crossover");
    cluster.server.wait_for_watches(2);
    until_probed(&pod, &sidecar, "crossover", "livenessProbe");
    shifts_traffic(&pod, &envoy);
    // The end of the pod: Envoy drains, and follows the weights. A second signal cuts that short.
    sidecar.signal("TERM");
    shifts_traffic(&pod, &envoy);
    sidecar.signal("TERM");
    let finished = sidecar.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}

#[test]
fn a_native_sidecar_that_is_ready_then_envoy() {
    let cluster = Cluster::start();
    let pod = Pod::install(&cluster, "native.yaml");
    let mut sidecar = pod.start("crossover");
    let line = sidecar.wait_for_line("WARN");
    assert!(line.contains("envoy-xds"), "{line}");
    let early = sidecar.exec(&["crossover", "-ready"]);
    let said = String::from_utf8_lossy(&early.stderr).into_owned();
    assert_eq!(early.status.code(), Some(1), "ready with nothing: {said}");
    pod.publish();
    until_probed(&pod, &sidecar, "crossover", "startupProbe");
    let mut envoy = pod.start("envoy");
    shifts_traffic(&pod, &envoy);
    until_probed(&pod, &sidecar, "crossover", "livenessProbe");
    // As Kubernetes ends a pod: the sidecar last.
    assert_eq!(envoy.stop().0.code, Some(0));
    assert_eq!(sidecar.stop().0.code, Some(0));
}

#[test]
fn one_container_that_starts_envoy_when_there_are_files() {
    let cluster = Cluster::start();
    let pod = Pod::install(&cluster, "embedded.yaml");
    let mut envoy = pod.start("envoy");
    let line = envoy.wait_for_line("WARN");
    assert!(line.contains("envoy-xds"), "{line}");
    let begun = |container: &Container| {
        container
            .process()
            .lines()
            .join("\n")
            .contains("initializing epoch")
    };
    assert!(!begun(&envoy), "Envoy runs without files");
    pod.publish();
    shifts_traffic(&pod, &envoy);
    assert!(begun(&envoy));
    // It drains, and answers all the while; a second signal cuts that short.
    let load = load(&envoy);
    envoy.signal("TERM");
    envoy.wait_for_line("drain");
    let before = load.tally();
    load.wait_for("answers while it drains", &before, |tally| {
        tally.total() >= 50
    });
    assert_no_failure(&load);
    drop(load);
    envoy.signal("TERM");
    let finished = envoy.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}
