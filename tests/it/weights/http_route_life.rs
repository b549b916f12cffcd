//! Events in the middle of a canary by HTTPRoutes: the right to read them, their definition, a
//! version of it, the server and the watch go away, and come back. No weight moves by that.

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::apiserver::access::{Account, Rule};
use testkit::apiserver::faults::{Fault, Misbehaviour};
use testkit::apiserver::request::Request;
use testkit::crossover::Crossover;
use testkit::objects::{http_route, http_route_crd};
use testkit::setup::Setup;

/// Follows ConfigMap `a` and HTTPRoute `podinfo`, writes no mirror.
const FOLLOW: [&str; 5] = [
    "-watch",
    "-sync-interval=1h",
    "-configmap=a",
    "-httproute=podinfo",
    "-publish=false",
];
const CRD: &str = "httproutes.gateway.networking.k8s.io";

fn route_of([primary, canary]: [u64; 2]) -> Value {
    let backends = json!([{"name": "podinfo-primary", "port": 80, "weight": primary},
        {"name": "podinfo-canary", "port": 80, "weight": canary}]);
    http_route("podinfo", json!([{"backendRefs": backends}]))
}

fn is_list(request: &Request) -> bool {
    request.path().ends_with("/httproutes") && request.is_list()
}

/// A canary at 80 and 20, with both watches open.
fn in_mid_canary() -> (Setup, Crossover) {
    let setup = Setup::template();
    setup.server.create(http_route_crd(&["v1", "v1beta1"]));
    setup.server.create(route_of([80, 20]));
    let process = setup.start(&FOLLOW);
    setup.until_weights([80, 20]);
    setup.server.wait_for_watches(2);
    (setup, process)
}

/// Since the canary was at 80 and 20, one set has been published, and nothing was taken as deleted
/// for good.
#[track_caller]
fn has_published_one_more(process: Crossover) {
    let stderr = process.stop().stderr;
    assert_eq!(stderr.matches("INFO  published ").count(), 2, "{stderr}");
    assert!(!stderr.contains("still deleted"), "{stderr}");
    assert!(!stderr.contains("does not serve"), "{stderr}");
}

#[test]
fn the_right_to_read_them_may_go_and_come_back() {
    let (setup, process) = in_mid_canary();
    let rules = vec![Rule::new("", "configmaps", &["list", "watch"])];
    setup.server.set_accounts(vec![Account::anonymous(rules)]);
    setup.server.end_watches();
    process.wait_for_line("the API server refuses");
    setup.server.apply(route_of([70, 30]));
    let is_refused = |r: &Request| is_list(r) && r.status == 403;
    setup.server.wait_for_requests("refusals", 2, is_refused);
    setup.assert_weights([80, 20]);
    setup.server.set_accounts(Vec::new());
    setup.until_weights([70, 30]);
    setup.server.wait_for_watches(2);
    setup.server.bookmark();
    process.wait_for_line("requests succeed again");
    has_published_one_more(process);
}

#[test]
fn their_definition_may_be_deleted_and_installed_again_within_10_s() {
    let (setup, process) = in_mid_canary();
    setup.server.delete("HTTPRoute", "podinfo");
    setup.server.delete("CustomResourceDefinition", CRD);
    process.wait_for_line("HTTPRoute deleted; keeping its weights for 10 s");
    setup.server.create(http_route_crd(&["v1"]));
    setup.server.create(route_of([70, 30]));
    setup.until_weights([70, 30]);
    has_published_one_more(process);
}

#[test]
fn a_version_of_it_may_go() {
    let (setup, process) = in_mid_canary();
    setup.server.apply(http_route_crd(&["v1beta1"]));
    setup.server.end_watches();
    let mut route = route_of([70, 30]);
    route["apiVersion"] = json!("gateway.networking.k8s.io/v1beta1");
    setup.server.apply(route);
    setup.until_weights([70, 30]);
    has_published_one_more(process);
}

#[test]
fn the_watch_may_be_cut_at_every_step() {
    let (setup, process) = in_mid_canary();
    for canary in [30, 40, 50] {
        setup.server.reset_watches();
        setup.server.apply(route_of([100 - canary, canary]));
        setup.until_weights([100 - canary, canary]);
    }
    let stderr = process.stop().stderr;
    assert_eq!(stderr.matches("INFO  published ").count(), 4, "{stderr}");
}

#[test]
fn a_restart_while_the_server_is_away_leaves_them_as_they_are() {
    let (setup, process) = in_mid_canary();
    process.signal(Signal::KILL);
    process.finish();
    setup.server.go_away();
    let process = setup.start(&FOLLOW);
    process.wait_for_line("HTTPRoutes not available yet; keeping the published files");
    setup.assert_weights([80, 20]);
    setup.server.come_back();
    process.wait_for_line("HTTPRoutes are available now");
    setup.assert_weights([80, 20]);
    setup.server.apply(route_of([70, 30]));
    setup.until_weights([70, 30]);
    let stderr = process.stop().stderr;
    assert_eq!(stderr.matches("INFO  published ").count(), 1, "{stderr}");
}

#[test]
fn what_was_missing_is_named_when_it_is_there() {
    let setup = Setup::template();
    setup.server.create(http_route_crd(&["v1"]));
    let about_splits = |r: &Request| r.path().starts_with("/apis/split");
    setup
        .server
        .misbehave(Misbehaviour::new(Fault::status(500), about_splits));
    let process = setup.start(&[&FOLLOW[..], &["-trafficsplit=podinfo"]].concat());
    process.wait_for_line("TrafficSplits not available yet; publishing the weights");
    setup.server.behave();
    setup.split([80, 20]);
    setup.until_weights([80, 20]);
    process.wait_for_line("TrafficSplits are available now");
}

#[test]
fn a_status_that_others_write_repeats_no_warning() {
    let setup = Setup::template();
    setup.server.create(http_route_crd(&["v1"]));
    let mut route = http_route(
        "podinfo",
        json!([{"filters": [{"type": "RequestRedirect"}]}]),
    );
    setup.server.create(route.clone());
    let process = setup.start(&FOLLOW);
    let cannot = "HTTPRoute cannot be applied; using the weights in the ConfigMaps";
    process.wait_for_line(cannot);
    setup.server.wait_for_watches(2);
    for generation in 0..3 {
        route["status"] =
            json!({"parents": [{"conditions": [{"observedGeneration": generation}]}]});
        setup.server.apply(route.clone());
    }
    setup.server.apply(route_of([80, 20]));
    setup.until_weights([80, 20]);
    let stderr = process.stop().stderr;
    assert_eq!(stderr.matches(cannot).count(), 1, "{stderr}");
    assert_eq!(
        stderr.matches("HTTPRoute is valid now").count(),
        1,
        "{stderr}"
    );
}
