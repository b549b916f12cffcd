//! The first publish of a directory that holds nothing: no weight of a ConfigMap goes out before
//! the objects with weights are known, however long the API server was away.

use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};
use testkit::apiserver::faults::{Fault, Misbehaviour};
use testkit::apiserver::request::Request;
use testkit::crossover::Crossover;
use testkit::objects::{http_route, http_route_crd};
use testkit::setup::Setup;
use testkit::until;
use testkit::weights::{FILE, routes, split_of};

/// Follows ConfigMap `a` and the object with weights that a flag names.
const FOLLOW: [&str; 4] = [
    "-watch",
    "-sync-interval=1h",
    "-configmap=a",
    "-publish=false",
];
/// Longer than the first publish waits for objects with weights.
const AWAY: Duration = Duration::from_secs(12);

/// The flag for a kind of objects with weights, and one of them at 60 and 40.
type Weights = (&'static str, fn() -> Value);

const BOTH: [Weights; 2] = [
    ("-httproute=podinfo", || {
        let backends = json!([{"name": "podinfo-primary", "port": 80, "weight": 60},
            {"name": "podinfo-canary", "port": 80, "weight": 40}]);
        http_route("podinfo", json!([{"backendRefs": backends}]))
    }),
    ("-trafficsplit=podinfo", || {
        split_of("podinfo", "podinfo", [60, 40])
    }),
];

/// Runs a test for each kind, side by side, as each waits for more than 10 s.
fn for_both(test: impl Fn(Weights) + Sync) {
    let test = &test;
    thread::scope(|scope| {
        for weights in BOTH {
            scope.spawn(move || test(weights));
        }
    });
}

fn template(weights: fn() -> Value) -> Setup {
    let setup = Setup::template();
    setup.server.create(http_route_crd(&["v1"]));
    setup.server.create(weights());
    setup
}

fn about_weights(request: &Request) -> bool {
    request.path().starts_with("/apis/")
}

/// The first set that is published has the weights of the object, and no set follows.
#[track_caller]
fn publishes_once(setup: &Setup, process: Crossover) {
    until("something to be published", || setup.found());
    setup.assert_weights([60, 40]);
    let stderr = process.stop().stderr;
    assert_eq!(stderr.matches("INFO  published ").count(), 1, "{stderr}");
    assert!(!stderr.contains("not available yet"), "{stderr}");
}

#[test]
fn a_server_that_refused_connections_gives_both_before_anything_goes_out() {
    for_both(|(flag, weights)| {
        let setup = template(weights);
        // What comes back last are the weights.
        setup.fail_next(2, Fault::status(503), about_weights);
        setup.server.go_away();
        let process = setup.start(&[&FOLLOW[..], &[flag]].concat());
        let started = Instant::now();
        until("12 s", || (started.elapsed() > AWAY).then_some(()));
        setup.server.come_back();
        publishes_once(&setup, process);
    });
}

#[test]
fn a_server_that_said_not_now_gives_both_before_anything_goes_out() {
    for_both(|(flag, weights)| {
        let setup = template(weights);
        setup
            .server
            .misbehave(Misbehaviour::new(Fault::status(503), |_| true));
        let process = setup.start(&[&FOLLOW[..], &[flag]].concat());
        // What holds everything up is told all the same.
        let told = process.wait_for_line("nothing can be published; waiting");
        assert!(told.contains("configmaps"), "{told}");
        setup.server.behave();
        // The weights are asked for again when their own back-off ends, which is up to 26 s later.
        setup
            .server
            .misbehave(Misbehaviour::new(Fault::status(503), about_weights));
        let is_read = |r: &Request| r.is_list() && !about_weights(r) && r.status == 200;
        setup.server.wait_for_request("the ConfigMap", is_read);
        setup.server.behave();
        publishes_once(&setup, process);
    });
}

#[test]
fn a_configmap_that_comes_late_waits_for_weights_that_are_not_known() {
    for_both(|(flag, weights)| {
        let setup = template(weights);
        setup.server.delete("ConfigMap", "a");
        setup
            .server
            .misbehave(Misbehaviour::new(Fault::status(503), about_weights));
        let process = setup.start(&[&FOLLOW[..], &[flag]].concat());
        let started = Instant::now();
        until("12 s", || (started.elapsed() > AWAY).then_some(()));
        setup.put("a", &[(FILE, &routes([100, 0]))]);
        process.wait_for_line("ConfigMap is valid now");
        setup.server.behave();
        publishes_once(&setup, process);
    });
}

#[test]
fn weights_that_stay_unknown_are_waited_for_from_the_return_of_the_configmaps_on() {
    for_both(|(flag, weights)| {
        let setup = template(weights);
        setup
            .server
            .misbehave(Misbehaviour::new(Fault::status(500), about_weights));
        setup
            .server
            .misbehave(Misbehaviour::new(Fault::status(503), |r| !about_weights(r)).times(5));
        let process = setup.start(&[&FOLLOW[..], &[flag]].concat());
        let is_read = |r: &Request| r.is_list() && r.status == 200;
        let read = setup.server.wait_for_request("the ConfigMap", is_read).at;
        setup.until_weights([100, 0]);
        assert!(
            read.elapsed() >= Duration::from_secs(10),
            "{:?}",
            read.elapsed()
        );
        process.wait_for_line("not available yet; publishing the weights in the ConfigMaps");
    });
}
