//! The rendered chart is run: the real Envoy on the rendered bootstrap, crossover with the rendered
//! arguments, and an API server that allows exactly what the rendered Role says.

use crate::chart::mode;
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::{Duration, Instant};
use testkit::envoy::Envoy;
use testkit::helm::{Job, Rendering, render};
use testkit::load::{Load, Tally, share};
use testkit::pod::{Pod, merge};
use testkit::until;

pub const BACKENDS: [&str; 2] = ["one", "two"];

/// The chart with two backends of these weights and more values, fitted to the pod.
#[track_caller]
pub fn chart(pod: &Pod, weights: [u32; 2], more: &Value) -> Rendering {
    let mut values = merge(&pod.values(), more);
    for (name, weight) in BACKENDS.into_iter().zip(weights) {
        let backend = json!({"port": 9898, "weight": weight, "cluster": pod.cluster(name)});
        values["upstreams"]["podinfo"]["backends"][name] = backend;
    }
    render(Job::of(values))
}

/// Waits until an Envoy has loaded each of its files, and has refused none.
#[track_caller]
pub fn wait_until_loaded(envoy: &Envoy) {
    for name in ["cluster_manager.cds", "http.http.rds.http"] {
        until(name, || {
            (envoy.stat(&format!("{name}.update_success")) > 0).then_some(())
        });
    }
    assert_no_refusal(envoy);
}

/// Asks the pod's port once; the status and the body.
#[track_caller]
pub fn ask(pod: &Pod, host: &str, path: &str) -> (u16, String) {
    let url = format!("http://{}:10000{path}", pod.address);
    until("the listener", || fetch(&url, host))
}

/// `None`: nobody listens.
pub fn fetch(url: &str, host: &str) -> Option<(u16, String)> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .build();
    let agent = ureq::Agent::new_with_config(config);
    let mut answer = agent.get(url).header("host", host).call().ok()?;
    let body = answer.body_mut().read_to_string().unwrap();
    Some((answer.status().as_u16(), body))
}

#[track_caller]
fn assert_no_refusal(envoy: &Envoy) {
    let refused = |line: &&str| {
        (line.contains(".update_rejected: ") || line.contains(".update_failure: "))
            && !line.ends_with(": 0")
    };
    let stats = envoy.get("/stats");
    let refused: Vec<&str> = stats.lines().filter(refused).collect();
    assert_eq!(refused, Vec::<&str>::new(), "{}", envoy.log());
}

#[track_caller]
pub fn wait_for(load: &Load, backend: &str) {
    load.wait_for(backend, &load.tally(), |tally| {
        tally.answers.contains_key(backend)
    });
}

/// An upgrade with other weights: the objects that it changes are applied, and the traffic follows.
#[track_caller]
pub fn upgrade(pod: &Pod, load: &Load, before: &Rendering, after: &Rendering, to: &str) {
    let old = before.objects();
    let changed: Vec<Value> = after
        .objects()
        .into_iter()
        .filter(|it| !old.contains(it))
        .collect();
    assert_eq!(changed.len(), 1);
    pod.install(after);
    wait_for(load, to);
}

#[test]
fn in_classic_mode_an_upgrade_shifts_the_traffic_and_fails_nothing() {
    let pod = Pod::new(&BACKENDS);
    let classic = mode("classic");
    let first = chart(&pod, [100, 0], &classic);
    pod.install(&first);
    let init = pod.crossover(&first, "crossover-init").finish();
    assert_eq!(init.code, Some(0), "{}", init.stderr);
    let envoy = pod.envoy(&first);
    let _sidecar = pod.crossover(&first, "crossover");
    pod.server.wait_for_watches(1);
    let load = pod.load(500);
    wait_for(&load, "one");
    let second = chart(&pod, [0, 7], &classic);
    upgrade(&pod, &load, &first, &second, "two");
    // Relative weights: 30 and 10 are three quarters and one.
    upgrade(
        &pod,
        &load,
        &second,
        &chart(&pod, [30, 10], &classic),
        "one",
    );
    let since = load.tally();
    let tally = load.wait_for("answers", &since, |tally| tally.total() >= 1000);
    let part = share(&tally.answers, "one");
    assert!((part - 0.75).abs() < 0.08, "{part}");
    assert_eq!(load.tally().failures, Vec::<String>::new());
    wait_until_loaded(&envoy);
    pod.assert_within_role();
}

#[test]
fn what_envoy_shows_of_itself_is_its_health_and_its_statistics() {
    let pod = Pod::new(&BACKENDS);
    let rendering = chart(&pod, [1, 1], &mode("classic"));
    pod.install(&rendering);
    assert_eq!(
        pod.crossover(&rendering, "crossover-init").finish().code,
        Some(0)
    );
    let envoy = pod.envoy(&rendering);
    let status = |path: &str| {
        let url = format!("http://{}:9902{path}", pod.address);
        fetch(&url, "status").unwrap()
    };
    assert_eq!(status("/ready"), (200, "LIVE\n".into()));
    assert_eq!(status("/live").0, 200);
    assert!(status("/stats/prometheus").1.contains("envoy_server_live"));
    for closed in [
        "/",
        "/quitquitquit",
        "/config_dump",
        "/ready/../quitquitquit",
        "/stats",
    ] {
        assert_eq!(status(closed).0, 404, "{closed}");
    }
    // Taken out of service by hand: it gets no traffic, and is not restarted.
    let fail = ureq::post(format!("http://{}:9901/healthcheck/fail", pod.address));
    assert_eq!(fail.send_empty().unwrap().status().as_u16(), 200);
    assert_eq!((status("/ready").0, status("/live").0), (503, 200));
    drop(envoy);
}

#[test]
fn the_stop_hook_drains_envoy_and_then_ends() {
    let pod = Pod::new(&BACKENDS);
    let rendering = chart(
        &pod,
        [1, 1],
        &merge(&mode("classic"), &json!({"drainSeconds": 1})),
    );
    pod.install(&rendering);
    assert_eq!(
        pod.crossover(&rendering, "crossover-init").finish().code,
        Some(0)
    );
    let envoy = pod.envoy(&rendering);
    let load = pod.load(200);
    load.wait_for("answers", &Tally::default(), |tally| tally.total() > 20);
    let closed = || envoy.stat("http.http.downstream_cx_drain_close");
    assert_eq!(closed(), 0);
    let started = Instant::now();
    let mut hook = pod.hook(&rendering).stdin(Stdio::null()).spawn().unwrap();
    // Clients are told to go, and yet whoever comes is served.
    until("connections to be drained", || {
        (closed() > 10).then_some(())
    });
    let status = until("the hook to end", || hook.try_wait().unwrap());
    assert!(status.success(), "{status}");
    assert!(started.elapsed() >= Duration::from_secs(1));
    let since = load.tally();
    load.wait_for("answers", &since, |tally| tally.total() > 20);
    assert_eq!(load.tally().failures, Vec::<String>::new());
}

#[test]
fn a_traffic_split_sets_the_weights_and_the_mirror_is_within_the_role() {
    let pod = Pod::new(&BACKENDS);
    let more = json!({
        "upstreams": {"podinfo": {"smi": {"enabled": true}}}, "crossover": {"publish": true},
    });
    let rendering = chart(&pod, [100, 0], &merge(&mode("classic"), &more));
    pod.install(&rendering);
    assert_eq!(
        pod.crossover(&rendering, "crossover-init").finish().code,
        Some(0)
    );
    let envoy = pod.envoy(&rendering);
    let _sidecar = pod.crossover(&rendering, "crossover");
    let load = pod.load(500);
    wait_for(&load, "one");
    let split = |weights: [u64; 2]| {
        let backends: Vec<(&str, u64)> = BACKENDS.into_iter().zip(weights).collect();
        testkit::objects::traffic_split("podinfo", "podinfo", &backends)
    };
    pod.server.create(split([0, 1]));
    wait_for(&load, "two");
    pod.server.replace(split([1, 0]));
    wait_for(&load, "one");
    // The chart made it, crossover fills it, and it stays the chart's.
    let name = "envoy-xds-gen";
    let mirror = until("the mirror", || {
        let mirror = pod.server.get("ConfigMap", name)?;
        mirror["data"]["rds.yaml"].is_string().then_some(mirror)
    });
    let made = rendering.object("ConfigMap", name);
    for field in ["labels", "annotations"] {
        assert_eq!(mirror["metadata"][field], made["metadata"][field]);
    }
    assert_eq!(load.tally().failures, Vec::<String>::new());
    assert_no_refusal(&envoy);
    pod.assert_within_role();
}

#[test]
fn what_the_role_does_not_name_is_refused_by_the_api_server() {
    let pod = Pod::new(&BACKENDS);
    let rendering = chart(&pod, [1, 1], &mode("classic"));
    pod.install(&rendering);
    let mut other = rendering.clone();
    for text in other.files.values_mut() {
        *text = text.replace("-configmap=envoy-xds", "-configmap=another");
    }
    let init = pod.crossover(&other, "crossover-init");
    let line = init.wait_for_line("answered 403");
    assert!(line.contains("another"), "{line}");
    assert!(!pod.file("rds.yaml").exists());
}

#[test]
fn upstreams_of_one_domain_are_distinguished_by_the_longest_prefix() {
    let pod = Pod::new(&BACKENDS);
    let upstream = |name: &str, prefix: &str| {
        json!({
            "domains": ["api.example.com"], "prefix": prefix,
            "backends": {name: {"port": 9898, "cluster": pod.cluster(name)}},
        })
    };
    let upstreams = json!({"all": upstream("one", "/"), "users": upstream("two", "/users/")});
    let values = merge(
        &merge(&pod.values(), &mode("classic")),
        &json!({"upstreams": upstreams}),
    );
    let rendering = render(Job::of(values));
    pod.install(&rendering);
    assert_eq!(
        pod.crossover(&rendering, "crossover-init").finish().code,
        Some(0)
    );
    let envoy = pod.envoy(&rendering);
    wait_until_loaded(&envoy);
    let ask = |host: &str, path: &str| ask(&pod, host, path);
    assert_eq!(ask("api.example.com", "/orders"), (200, "one".into()));
    assert_eq!(ask("api.example.com", "/users/7"), (200, "two".into()));
    assert_eq!(ask("other.example.com", "/users/7").0, 404);
}

#[test]
fn an_lds_yaml_of_the_values_stands_in_for_the_listener() {
    let pod = Pod::new(&BACKENDS);
    let listeners = "{{ include \"envoy.lds\" . }}";
    let more = merge(&mode("classic"), &json!({"xds": {"lds.yaml": listeners}}));
    let rendering = chart(&pod, [1, 0], &more);
    pod.install(&rendering);
    let init = pod.crossover(&rendering, "crossover-init").finish();
    assert_eq!(init.code, Some(0), "{}", init.stderr);
    let envoy = pod.envoy(&rendering);
    wait_until_loaded(&envoy);
    assert_eq!(ask(&pod, "podinfo", "/"), (200, "one".into()));
    assert_eq!(envoy.stat("listener_manager.lds.update_success"), 1);
}
