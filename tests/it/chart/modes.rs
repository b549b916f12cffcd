//! The forms of the pod, run in the order that a kubelet would start and stop their containers in,
//! also while there is no API server.

use crate::chart::mode;
use crate::chart::run::{BACKENDS, chart, fetch, upgrade, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::Duration;
use testkit::apiserver::request::Request;
use testkit::helm::Rendering;
use testkit::objects::{config_map, traffic_split};
use testkit::pod::{Pod, merge};
use testkit::until;

/// A container's probe, as its command.
fn probe(rendering: &Rendering, container: &str, name: &str) -> Value {
    rendering.container(container)[name]["exec"]["command"].clone()
}

#[test]
fn in_native_mode_an_upgrade_shifts_the_traffic_and_fails_nothing() {
    let pod = Pod::new(&BACKENDS);
    let native = mode("native");
    let first = chart(&pod, [100, 0], &native);
    pod.install(&first);
    let (sidecar, envoy) = pod.start_native(&first);
    let load = pod.load(500);
    wait_for(&load, "one");
    let second = chart(&pod, [0, 100], &native);
    upgrade(&pod, &load, &first, &second, "two");
    // The sidecar is killed and restarted, as it may be at any time: Envoy does not notice.
    drop(sidecar);
    let sidecar = pod.crossover(&second, "crossover");
    upgrade(&pod, &load, &second, &chart(&pod, [100, 0], &native), "one");
    assert_eq!(load.tally().failures, Vec::<String>::new());
    pod.assert_within_role();
    // The order of the end: Envoy, then the sidecar.
    drop(load);
    drop(envoy);
    assert_eq!(sidecar.stop().code, Some(0));
}

#[test]
fn no_probe_restarts_crossover_because_the_api_server_is_away() {
    let pod = Pod::new(&BACKENDS);
    let rendering = chart(&pod, [1, 1], &mode("native"));
    pod.install(&rendering);
    pod.server.go_away();
    let sidecar = pod.crossover(&rendering, "crossover");
    sidecar.wait_for_line("WARN");
    let exec = |name: &str| {
        let command = probe(&rendering, "crossover", name);
        pod.exec(&rendering, "crossover", &command)
    };
    // It is alive and not ready, and the startupProbe may fail for an hour.
    let (liveness, startup) = (exec("livenessProbe"), exec("startupProbe"));
    assert_eq!(liveness.code, Some(0), "{}", liveness.stderr);
    assert_eq!(startup.code, Some(1));
    assert!(!startup.stderr.is_empty());
    pod.server.come_back();
    until("the startupProbe to be content", || {
        (exec("startupProbe").code == Some(0)).then_some(())
    });
    pod.server.go_away();
    sidecar.wait_for_lines(2, "WARN");
    assert_eq!(exec("livenessProbe").code, Some(0));
    assert_eq!(exec("startupProbe").code, Some(0));
    pod.server.come_back();
    pod.server.wait_for_watches(1);
}

#[test]
fn in_classic_mode_a_configmap_that_comes_late_starts_the_pod_without_a_restart() {
    let pod = Pod::new(&BACKENDS);
    let rendering = chart(&pod, [1, 1], &mode("classic"));
    let mut early = rendering.clone();
    early
        .files
        .retain(|name, _| !name.ends_with("xds.configmap.yaml"));
    pod.install(&early);
    let init = pod.crossover(&rendering, "crossover-init");
    let asked = |request: &Request| request.names("envoy-xds");
    let first = pod.server.wait_for_request("a look for it", asked);
    // Without the flags it gives up after 5 s, with -stale-ok=10s alone after 10.
    let late = |request: &Request| request.at > first.at + Duration::from_millis(10_500);
    pod.server
        .wait_for_request("a late look for it", |it| asked(it) && late(it));
    pod.install(&rendering);
    let finished = init.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    pod.assert_within_role();
}

#[test]
fn in_classic_mode_a_pod_starts_on_its_earlier_files_while_the_api_server_is_away() {
    let pod = Pod::new(&BACKENDS);
    let rendering = chart(&pod, [1, 1], &mode("classic"));
    pod.install(&rendering);
    let run = || pod.crossover(&rendering, "crossover-init").finish();
    let first = run();
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    pod.server.go_away();
    let second = run();
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    assert!(second.stderr.contains("WARN"), "{}", second.stderr);
}

#[test]
fn in_classic_mode_an_envoy_that_drains_goes_on_to_follow_the_weights() {
    let pod = Pod::new(&BACKENDS);
    let classic = merge(&mode("classic"), &json!({"drainSeconds": 8}));
    let first = chart(&pod, [100, 0], &classic);
    pod.install(&first);
    let init = pod.crossover(&first, "crossover-init").finish();
    assert_eq!(init.code, Some(0), "{}", init.stderr);
    let _envoy = pod.envoy(&first);
    let sidecar = pod.crossover(&first, "crossover");
    pod.server.wait_for_watches(1);
    let load = pod.load(500);
    wait_for(&load, "one");
    // The end of the pod: both containers are told at once.
    sidecar.signal(Signal::TERM);
    upgrade(&pod, &load, &first, &chart(&pod, [0, 100], &classic), "two");
    let finished = sidecar.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(load.tally().failures, Vec::<String>::new());
}

#[test]
fn beside_pods_of_the_go_program_their_configmap_is_left_alone() {
    let pod = Pod::new(&BACKENDS);
    let more = json!({"upstreams": {"podinfo": {"smi": {"enabled": true}}}});
    let rendering = chart(&pod, [1, 0], &merge(&mode("native"), &more));
    let arguments = &rendering.container("crossover")["args"];
    assert!(
        arguments
            .as_array()
            .unwrap()
            .contains(&json!("-publish=false")),
        "{arguments}"
    );
    pod.install(&rendering);
    // What the Go program made of another split, and reads its own files from.
    let gen_name = "envoy-xds-gen";
    let theirs = config_map(gen_name, &[("rds.yaml", "resources: []\n")]);
    let version = pod.server.create(theirs);
    pod.server
        .create(traffic_split("podinfo", "podinfo", &[("two", 1)]));
    let (_sidecar, _envoy) = pod.start_native(&rendering);
    let load = pod.load(500);
    wait_for(&load, "two");
    pod.server
        .replace(traffic_split("podinfo", "podinfo", &[("one", 1)]));
    wait_for(&load, "one");
    let theirs = pod.server.get("ConfigMap", gen_name).unwrap();
    assert_eq!(theirs["metadata"]["resourceVersion"], version);
    let about = |request: &Request| request.target.contains(gen_name);
    assert_eq!(pod.server.count_requests(about), 0);
    pod.assert_within_role();
}

#[test]
fn in_embedded_mode_one_process_publishes_starts_envoy_and_drains_it() {
    let pod = Pod::new(&BACKENDS);
    let embedded = merge(&mode("embedded"), &json!({"drainSeconds": 1}));
    let first = chart(&pod, [100, 0], &embedded);
    pod.install(&first);
    let both = pod.crossover(&first, "envoy");
    until("Envoy to be ready", || {
        let (status, _) = fetch(&format!("http://{}:9902/ready", pod.address), "status")?;
        (status == 200).then_some(())
    });
    let load = pod.load(500);
    wait_for(&load, "one");
    let second = chart(&pod, [0, 100], &embedded);
    upgrade(&pod, &load, &first, &second, "two");
    // SIGTERM: clients are told to go while all is still served, and only then does Envoy end.
    let stats = format!(
        "http://{}:9901/stats?filter=http.http.downstream_cx_drain_close",
        pod.address
    );
    let closed = || {
        let (_, text) = fetch(&stats, "admin")?;
        text.trim().rsplit(' ').next()?.parse::<u64>().ok()
    };
    assert_eq!(closed(), Some(0));
    both.signal(Signal::TERM);
    until("connections to be drained", || {
        closed().filter(|it| *it > 10)
    });
    let tally = load.tally();
    assert_eq!(tally.failures, Vec::<String>::new());
    drop(load);
    let finished = both.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    pod.assert_within_role();
}
