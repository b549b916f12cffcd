//! The containers of those who come from the Go program, as their manifests have them.

use crate::cluster::{Cluster, RUNTIME, mount, until_published};
use crate::engine::Container;
use crate::images::CROSSOVER;
use std::fs;
use testkit::envoy_config::{CONFIG_MAP, SERVICE};
use testkit::objects::traffic_split;
use testkit::testbed::BACKENDS;
use testkit::until;

/// `command: [crossover]` with these `args`, as Kubernetes runs it.
#[track_caller]
fn start(what: &str, cluster: &Cluster, options: &[String], flags: &[&str]) -> Container {
    let mut options = [
        cluster.options(&["--env=POD_NAMESPACE=default"]),
        options.to_vec(),
    ]
    .concat();
    options.push("--entrypoint=crossover".into());
    Container::start(what, &options, *CROSSOVER, flags)
}

#[test]
fn the_go_programs_containers_run_unchanged() {
    let cluster = Cluster::start();
    cluster.shift("first", [50, 50]);
    let volume = cluster.empty_dir();
    let volumes = [mount(&volume, RUNTIME, "rw")];
    let map = format!("--configmap={CONFIG_MAP}");
    let init = [&map, "--onetime", "--insecure"];
    let finished = start("init", &cluster, &volumes, &init).finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    until_published(&volume, "first");
    let flags = [&map, "--sync-interval=30s", "--watch", "--insecure"];
    let mut sidecar = start("sidecar", &cluster, &volumes, &flags);
    cluster.server.wait_for_watches(1);
    cluster.shift("second", [25, 75]);
    until_published(&volume, "second");
    assert_eq!(sidecar.stop().0.code, Some(0));
}

#[test]
fn the_go_programs_containers_for_traffic_splits_run_unchanged() {
    let cluster = Cluster::start();
    cluster.shift("first", [50, 50]);
    let split = |weights: [u64; 2]| {
        let backends = [(BACKENDS[0], weights[0]), (BACKENDS[1], weights[1])];
        cluster
            .server
            .apply(traffic_split(SERVICE, SERVICE, &backends))
    };
    split([100, 0]);
    let volume = cluster.empty_dir();
    let volumes = [mount(&volume, RUNTIME, "rw")];
    let (map, split_flag) = (
        format!("--configmap={CONFIG_MAP}"),
        format!("--trafficsplit={SERVICE}"),
    );
    let version = "--trafficsplit-api-version=v1alpha2";
    let until_weights = |weights: [u64; 2]| {
        let lines = [0, 1].map(|at| format!("{{name: {}, weight: {}}}", BACKENDS[at], weights[at]));
        until(&format!("{lines:?}"), || {
            let text = fs::read_to_string(volume.join("current/rds.yaml")).ok()?;
            lines.iter().all(|line| text.contains(line)).then_some(())
        });
    };
    let common = [
        "--apiserver=https://kubernetes",
        "--namespace=default",
        "--insecure",
        "--smi",
    ];
    let token = "--token-file=/var/run/secrets/kubernetes.io/serviceaccount/token";
    let flags = [&[map.as_str(), &split_flag, version, token], &common[..]].concat();
    let output = format!("--output-dir={RUNTIME}");
    let init = [&flags[..], &["--onetime", &output]].concat();
    let finished = start("init", &cluster, &volumes, &init).finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    until_weights([100, 0]);
    let more = [
        "--watch",
        "--sync-interval=1m",
        "--dry-run=false",
        "--onetime=false",
        &output,
    ];
    let sidecar = [&flags[..], &more].concat();
    let mut sidecar = start("sidecar", &cluster, &volumes, &sidecar);
    cluster.server.wait_for_watches(2);
    split([25, 75]);
    until_weights([25, 75]);
    assert_eq!(sidecar.stop().0.code, Some(0));
}
