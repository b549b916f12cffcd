//! The version of split.smi-spec.io that is used, and how it is found.

use serde_json::json;
use std::time::{Duration, Instant};
use testkit::apiserver::Options;
use testkit::apiserver::faults::Fault;
use testkit::apiserver::request::Request;
use testkit::setup::Setup;
use testkit::weights::{FILE, FOLLOW, GROUP, about_splits, routes, split_of, unserved, with};

#[test]
fn every_version_is_used_if_it_is_the_only_one() {
    for version in ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"] {
        let setup = Setup::with(Options {
            splits: vec![version],
            ..Options::default()
        });
        setup.put("a", &[(FILE, &routes([100, 0]))]);
        let weight = |text: &str| {
            if version == "v1alpha1" {
                json!(text)
            } else {
                json!(1)
            }
        };
        let backends = json!([{"service": "podinfo-primary", "weight": weight("1500m")},
            {"service": "podinfo-canary", "weight": weight("500m")}]);
        let mut split = with(split_of("podinfo", "podinfo", [0, 0]), "backends", backends);
        split["apiVersion"] = json!(format!("split.smi-spec.io/{version}"));
        setup.server.create(split);
        let process = setup.start(&FOLLOW);
        setup.until_weights(if version == "v1alpha1" {
            [1500, 500]
        } else {
            [1, 1]
        });
        setup.server.wait_for_watches(2);
        let stderr = process.stop().stderr;
        assert!(!stderr.contains(" WARN "), "{stderr}");
    }
}

#[test]
fn where_asking_for_the_group_is_refused_every_version_is_tried() {
    let setup = Setup::with(Options {
        splits: vec!["v1alpha1"],
        ..Options::default()
    });
    setup.put("a", &[(FILE, &routes([100, 0]))]);
    let mut split = split_of("podinfo", "podinfo", [60, 40]);
    split["apiVersion"] = json!("split.smi-spec.io/v1alpha1");
    setup.server.create(split);
    setup.fail_next(usize::MAX, Fault::status(403), |r| r.path() == GROUP);
    let _process = setup.start(&FOLLOW);
    setup.until_weights([60, 40]);
    setup.server.wait_for_watches(2);
    let place = |r: &Request| r.place().filter(|p| p.plural == "trafficsplits");
    let requests = setup.server.requests();
    let tried: Vec<String> = requests
        .iter()
        .filter_map(|r| Some(place(r)?.version))
        .collect();
    assert_eq!(
        tried,
        ["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1", "v1alpha1"]
    );
}

#[test]
fn a_version_given_by_flag_is_used_without_asking_for_the_group() {
    let setup = Setup::template();
    setup.split([60, 40]);
    let flags: Vec<&str> = FOLLOW
        .into_iter()
        .chain(["-trafficsplit-api-version=v1alpha2"])
        .collect();
    let _process = setup.start(&flags);
    setup.until_weights([60, 40]);
    setup.server.wait_for_watches(2);
    for request in setup.server.requests().iter().filter(|r| about_splits(r)) {
        assert_eq!(
            request.place().unwrap().version,
            "v1alpha2",
            "{}",
            request.line()
        );
    }
}

#[test]
fn a_version_that_is_no_longer_served_is_looked_up_again() {
    let setup = Setup::template();
    setup.split([60, 40]);
    let _process = setup.start(&FOLLOW);
    setup.until_weights([60, 40]);
    setup.server.wait_for_watches(2);
    setup.server.serve_splits(&["v1alpha2", "v1alpha1"]);
    setup.server.end_watches();
    let again = |r: &Request| r.is_watch() && r.path().contains("v1alpha2");
    setup
        .server
        .wait_for_request("a watch of another version", again);
    setup.server.wait_for_watches(2);
    setup.split([50, 50]);
    setup.until_weights([50, 50]);
    let groups = |r: &Request| r.path() == GROUP;
    assert_eq!(setup.server.count_requests(groups), 2);
}

#[test]
fn a_group_that_contradicts_itself_is_not_asked_in_a_circle() {
    let setup = Setup::template();
    setup.split([60, 40]);
    let listing = |r: &Request| about_splits(r) && r.path() != GROUP;
    setup.fail_next(usize::MAX, unserved(), listing);
    let process = setup.start(&FOLLOW);
    let started = Instant::now();
    process.wait_for_line("the API server does not serve TrafficSplits");
    setup.until_weights([100, 0]);
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "it is taken for absent"
    );
    let asked = setup.server.count_requests(about_splits);
    assert!(asked < 20, "{asked} requests");
    setup.server.behave();
    setup.until_weights([60, 40]);
}
