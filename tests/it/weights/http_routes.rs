//! HTTPRoutes merged into files, as Flagger and others write them: canaries, A/B tests, the
//! hand-over from a TrafficSplit, and what happens while nobody serves them or lets us read them.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use testkit::apiserver::access::{Account, Rule};
use testkit::apiserver::faults::Fault;
use testkit::apiserver::request::Request;
use testkit::crossover::Crossover;
use testkit::file_watch::FileWatch;
use testkit::objects::{http_route, http_route_crd};
use testkit::setup::Setup;
use testkit::until;
use testkit::weights::{FILE, routes, unserved};

const GROUP: &str = "/apis/gateway.networking.k8s.io";
/// Follows ConfigMap `a` and HTTPRoute `podinfo`, writes no mirror.
const FOLLOW: [&str; 5] = [
    "-watch",
    "-sync-interval=1h",
    "-configmap=a",
    "-httproute=podinfo",
    "-publish=false",
];
const TEN: Duration = Duration::from_secs(10);
const OWN: &str = "HTTPRoutes not available yet; publishing the weights in the ConfigMaps";

/// HTTPRoute `podinfo` with these weights, as Flagger writes it.
fn route_of([primary, canary]: [u64; 2]) -> Value {
    let rule = json!({
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "backendRefs": backends([primary, canary]),
    });
    http_route("podinfo", json!([rule]))
}

fn backends([primary, canary]: [u64; 2]) -> Value {
    let backend = |name: &str, weight| json!({"group": "", "kind": "Service", "name": name, "port": 9898, "weight": weight});
    json!([
        backend("podinfo-primary", primary),
        backend("podinfo-canary", canary)
    ])
}

/// A server of HTTPRoutes with ConfigMap `a`, whose own weights are 100 and 0.
fn template() -> Setup {
    let setup = Setup::template();
    setup.server.create(http_route_crd(&["v1", "v1beta1"]));
    setup
}

#[test]
fn a_canary_goes_from_0_to_100_and_back_as_flagger_writes_it() {
    let setup = template();
    setup.server.create(route_of([100, 0]));
    let process = setup.start(&FOLLOW);
    setup.until_weights([100, 0]);
    for canary in (10..=100).step_by(10) {
        setup.server.apply(route_of([100 - canary, canary]));
        setup.until_weights([100 - canary, canary]);
    }
    // Promoted; then a canary that fails.
    for weights in [[100, 0], [90, 10], [100, 0]] {
        setup.server.apply(route_of(weights));
        setup.until_weights(weights);
    }
    let stderr = process.stop().stderr;
    assert!(!stderr.contains(" WARN "), "{stderr}");
    let line = "HTTPRoute default/podinfo in rds.yaml, podinfo: podinfo-primary 100->90 \
                podinfo-canary 0->10";
    assert!(stderr.contains(line), "{stderr}");
    assert_eq!(stderr.matches("INFO  published ").count(), 14, "{stderr}");
}

#[test]
fn the_mirror_and_a_dry_run_show_the_weights_of_an_http_route() {
    let setup = template();
    setup.server.create(route_of([60, 40]));
    let dry = setup.succeed(&["-configmap=a", "-httproute=podinfo", "-dry-run"]);
    assert!(
        dry.stdout.contains("podinfo-canary, weight: 40"),
        "{}",
        dry.stdout
    );
    let _process = setup.start(&["-watch", "-configmap=a", "-httproute=podinfo"]);
    setup.until_mirrored([60, 40]);
    setup.server.apply(route_of([50, 50]));
    setup.until_mirrored([50, 50]);
}

#[test]
fn in_an_ab_test_only_the_route_with_the_condition_goes_to_the_canary() {
    let setup = template();
    let text = |tested: [u64; 2]| {
        let clusters = |[primary, canary]: [u64; 2]| {
            format!(
                "{{weighted_clusters: {{clusters: [{{name: podinfo-primary, weight: {primary}}}, \
                 {{name: podinfo-canary, weight: {canary}}}]}}}}"
            )
        };
        format!(
            "resources:\n- virtual_hosts:\n  - name: podinfo\n    domains: [\"*\"]\n    routes:\n    \
             - match: {{prefix: /, headers: [{{name: x-canary, string_match: {{exact: insider}}}}]}}\n      \
             route: {}\n    - match: {{prefix: /}}\n      route: {}\n",
            clusters(tested),
            clusters([100, 0]),
        )
    };
    setup.put("a", &[(FILE, &text([100, 0]))]);
    let ab = |weights| {
        let tested = json!({
            "matches": [{"path": {"type": "PathPrefix", "value": "/"},
                "headers": [{"type": "Exact", "name": "x-canary", "value": "insider"}]}],
            "backendRefs": backends(weights),
        });
        let others = json!({"backendRefs": [backends([100, 0])[0]]});
        http_route("podinfo", json!([tested, others]))
    };
    setup.server.create(ab([0, 100]));
    let process = setup.start(&FOLLOW);
    setup.until_found(&[(FILE, &text([0, 100]))]);
    setup.server.apply(ab([100, 0]));
    setup.until_found(&[(FILE, &text([100, 0]))]);
    let stderr = process.stop().stderr;
    assert!(!stderr.contains(" WARN "), "{stderr}");
}

/// Follows both kinds.
fn both(setup: &Setup) -> Crossover {
    setup.start(&[&FOLLOW[..], &["-trafficsplit=podinfo"]].concat())
}

#[test]
fn a_hand_over_in_mid_canary_moves_no_weight() {
    let setup = template();
    setup.split([70, 30]);
    let process = both(&setup);
    setup.until_weights([70, 30]);
    setup.server.wait_for_watches(3);
    // The Canary is suspended, and the HTTPRoute made by hand with the current weights.
    let set = setup.set();
    setup.server.create(route_of([70, 30]));
    process.wait_for_line("HTTPRoute is valid now");
    // Flagger goes on from there, and the TrafficSplit stays what it was.
    setup.server.apply(route_of([60, 40]));
    setup.until_weights([60, 40]);
    assert_eq!(setup.set(), set + 1);
    let warning = "TrafficSplit default/podinfo is not applied to virtual host podinfo: HTTPRoute \
                   default/podinfo comes first";
    process.wait_for_line(warning);
    setup.server.delete("TrafficSplit", "podinfo");
    process.wait_for_line("TrafficSplit still deleted");
    setup.server.apply(route_of([50, 50]));
    setup.until_weights([50, 50]);
    assert_eq!(setup.set(), set + 2);
}

#[test]
fn a_hand_over_while_idle_moves_no_weight_and_the_way_back_is_a_deletion() {
    let setup = template();
    setup.split([100, 0]);
    let process = both(&setup);
    setup.until_weights([100, 0]);
    setup.server.wait_for_watches(3);
    let set = setup.set();
    setup.server.create(route_of([100, 0]));
    process.wait_for_line("HTTPRoute is valid now");
    setup.server.apply(route_of([95, 5]));
    setup.until_weights([95, 5]);
    assert_eq!(setup.set(), set + 1);
    setup.split([80, 20]);
    let mut arrivals = FileWatch::watch(&setup.output(), FILE);
    let deleted = Instant::now();
    setup.server.delete("HTTPRoute", "podinfo");
    let of_split = routes([80, 20]);
    let arrived = arrivals.wait_for(|bytes| bytes == of_split.as_bytes());
    assert!(arrived - deleted >= TEN, "{:?}", arrived - deleted);
    assert_eq!(setup.set(), set + 2);
    process.wait_for_line("HTTPRoute still deleted");
    // The log has the weights that requests had before.
    process.wait_for_line(
        "weights=\"TrafficSplit default/podinfo in rds.yaml, podinfo: podinfo-primary 95->80 \
         podinfo-canary 5->20\"",
    );
}

#[test]
fn nothing_goes_out_before_both_kinds_are_known() {
    let setup = template();
    setup.split([70, 30]);
    setup.server.create(route_of([60, 40]));
    let is_list = |r: &Request| r.path().ends_with("/httproutes");
    setup.fail_next(2, Fault::status(503), is_list);
    let process = both(&setup);
    setup.until_weights([60, 40]);
    let stderr = process.stop().stderr;
    assert_eq!(stderr.matches("INFO  published ").count(), 1, "{stderr}");
}

#[test]
fn without_the_definition_the_own_weights_go_out_and_http_routes_count_once_it_is_there() {
    let setup = Setup::template();
    let started = Instant::now();
    let flags = [
        "-watch",
        "-sync-interval=200ms",
        "-configmap=a",
        "-httproute=podinfo",
        "-publish=false",
    ];
    let process = setup.start(&flags);
    setup.until_weights([100, 0]);
    assert!(started.elapsed() < TEN, "absent is not unknown");
    process.wait_for_line("the API server does not serve HTTPRoutes");
    setup.server.create(http_route_crd(&["v1beta1"]));
    let mut route = route_of([60, 40]);
    route["apiVersion"] = json!("gateway.networking.k8s.io/v1beta1");
    setup.server.create(route);
    setup.until_weights([60, 40]);
    process.wait_for_line("the API server serves HTTPRoutes now");
}

#[test]
fn a_version_that_the_group_has_for_other_kinds_is_not_the_routes() {
    let setup = Setup::template();
    setup.server.create(http_route_crd(&["v1", "v1beta1"]));
    setup.server.create(route_of([60, 40]));
    let is_v1 = |r: &Request| r.path().starts_with(&format!("{GROUP}/v1/"));
    setup.fail_next(usize::MAX, unserved(), is_v1);
    let _process = setup.start(&FOLLOW);
    setup.until_weights([60, 40]);
}

#[test]
fn a_group_without_the_kind_is_as_no_group_at_all() {
    let setup = template();
    setup.fail_next(usize::MAX, unserved(), |r| {
        r.path().ends_with("/httproutes")
    });
    let started = Instant::now();
    let process = setup.start(&FOLLOW);
    setup.until_weights([100, 0]);
    assert!(started.elapsed() < TEN, "{:?}", started.elapsed());
    process.wait_for_line("the API server does not serve HTTPRoutes");
}

#[test]
fn without_the_right_to_read_them_a_first_start_waits_and_names_the_rule() {
    let setup = template();
    setup.server.create(route_of([60, 40]));
    let rules = vec![Rule::new("", "configmaps", &["list", "watch"])];
    setup.server.set_accounts(vec![Account::anonymous(rules)]);
    let process = setup.start(&FOLLOW);
    let refusal = process.wait_for_line("the API server refuses");
    assert!(refusal.contains("gateway.networking.k8s.io"), "{refusal}");
    let started = Instant::now();
    let rule = "apiGroups [\"gateway.networking.k8s.io\"], resources [\"httproutes\"], verbs \
                [\"list\", \"watch\"], resourceNames [\"podinfo\"]";
    // Longer than for a split.
    until("12 s", || {
        (started.elapsed() > TEN + Duration::from_secs(2)).then_some(())
    });
    assert_eq!(setup.found(), None);
    let probe = Crossover::run(&["-ready", "-output-dir", setup.output().to_str().unwrap()]);
    assert_eq!(probe.code, Some(1));
    assert!(probe.stderr.contains(rule), "{}", probe.stderr);
    setup.server.set_accounts(Vec::new());
    setup.until_weights([60, 40]);
    let stderr = process.stop().stderr;
    assert_eq!(stderr.matches("INFO  published ").count(), 1, "{stderr}");
}

/// While HTTPRoutes may not be read, a first start with this flag is unready and names what is
/// missing for 60 s from the first refusal, then the own weights go out.
#[track_caller]
fn is_denied_for_60_s(flag: &str, names: &str) {
    let setup = template();
    let mut route = route_of([60, 40]);
    route["spec"]["parentRefs"] = json!([{"group": "", "kind": "ConfigMap", "name": "a"}]);
    setup.server.create(route);
    let rules = vec![Rule::new("", "configmaps", &["list", "watch"])];
    setup.server.set_accounts(vec![Account::anonymous(rules)]);
    // A refusal that comes seconds after the start counts from there.
    let is_list = |r: &Request| r.path().ends_with("/httproutes");
    setup.fail_next(3, Fault::status(503), is_list);
    let process = setup.start(&["-watch", "-configmap=a", flag, "-publish=false"]);
    let is_refused = |r: &Request| r.path().ends_with("/httproutes") && r.status == 403;
    let refused = setup.server.wait_for_request("a refusal", is_refused).at;
    process.wait_for_line("the API server refuses");
    let rule = format!(
        "apiGroups [\"gateway.networking.k8s.io\"], resources [\"httproutes\"], verbs [\"list\", \
         \"watch\"]{names}"
    );
    let minute = Duration::from_secs(60);
    let probe = || Crossover::run(&["-ready", "-output-dir", setup.output().to_str().unwrap()]);
    until("the rule to be named", || {
        probe().stderr.contains(&rule).then_some(())
    });
    let ready = || {
        let probe = probe();
        let at = Instant::now();
        if probe.code == Some(0) {
            return Some(at);
        }
        assert!(probe.stderr.contains(&rule), "{}", probe.stderr);
        std::thread::sleep(Duration::from_millis(100));
        None
    };
    // Most of the time, without an end that depends on how busy the machine is.
    until("50 s", || {
        assert_eq!((setup.found(), ready()), (None, None));
        (refused.elapsed() > minute - TEN).then_some(())
    });
    let ready = until("the pod to be ready", ready);
    assert!(ready - refused >= minute, "{:?}", ready - refused);
    setup.until_weights([100, 0]);
    let warning = process.wait_for_line(OWN);
    assert!(warning.contains(" WARN "), "{warning}");
    // The right that comes later still counts.
    setup.server.set_accounts(Vec::new());
    setup.until_weights([60, 40]);
}

#[test]
fn without_the_right_to_read_them_the_own_weights_go_out_after_60_s() {
    // Side by side, as each takes its 60 s.
    std::thread::scope(|scope| {
        scope.spawn(|| is_denied_for_60_s("-httproute=podinfo", ", resourceNames [\"podinfo\"]"));
        scope.spawn(|| is_denied_for_60_s("-gateway-api", ""));
    });
}

#[test]
fn a_deleted_route_counts_for_10_s_more_and_one_without_weights_too() {
    let setup = template();
    setup.server.create(route_of([80, 20]));
    let process = setup.start(&FOLLOW);
    setup.until_weights([80, 20]);
    setup.server.wait_for_watches(2);
    let set = setup.set();
    // A sync from git applies the manifest without weights, which are 1 by default; the tool that
    // owns them writes them again.
    setup.server.apply(route_of([1, 1]));
    process.wait_for_line("all weights of the HTTPRoute are 1, the default; keeping the last ones");
    setup.server.apply(route_of([80, 20]));
    setup.server.apply(route_of([70, 30]));
    setup.until_weights([70, 30]);
    assert_eq!(setup.set(), set + 1);
    // If nobody does, they are meant.
    let mut arrivals = FileWatch::watch(&setup.output(), FILE);
    let reset = Instant::now();
    setup.server.apply(route_of([1, 1]));
    let even = routes([1, 1]);
    let arrived = arrivals.wait_for(|bytes| bytes == even.as_bytes());
    assert!(arrived - reset >= TEN, "{:?}", arrived - reset);
    let deleted = Instant::now();
    setup.server.delete("HTTPRoute", "podinfo");
    process.wait_for_line("HTTPRoute deleted; keeping its weights for 10 s");
    let own = routes([100, 0]);
    let arrived = arrivals.wait_for(|bytes| bytes == own.as_bytes());
    assert!(arrived - deleted >= TEN, "{:?}", arrived - deleted);
    process.wait_for_line("HTTPRoute still deleted");
}

#[test]
fn with_gateway_api_only_routes_for_us_count_and_a_status_is_not_a_change() {
    let setup = template();
    let parents = |mut route: Value, parents: Value| {
        route["spec"]["parentRefs"] = parents;
        route
    };
    let gateway = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw"}]);
    setup
        .server
        .create(parents(route_of([1, 9]), gateway.clone()));
    let other = json!([{"group": "", "kind": "ConfigMap", "name": "b"}]);
    let ours = json!([{"group": "", "kind": "ConfigMap", "name": "a"}]);
    let service = json!([{"group": "core", "kind": "Service", "name": "podinfo"}]);
    let process = setup.start(&["-watch", "-configmap=a", "-gateway-api", "-publish=false"]);
    setup.until_weights([100, 0]);
    setup.server.apply(parents(route_of([2, 8]), other));
    setup.server.apply(parents(route_of([60, 40]), service));
    setup.until_weights([60, 40]);
    setup
        .server
        .apply(parents(route_of([50, 50]), ours.clone()));
    setup.until_weights([50, 50]);
    let set = setup.set();
    for generation in 0..3 {
        let mut route = parents(route_of([50, 50]), ours.clone());
        route["status"] = json!({"parents": [{"parentRef": ours[0],
            "conditions": [{"type": "Accepted", "observedGeneration": generation}]}]});
        setup.server.apply(route);
    }
    setup.server.apply(parents(route_of([40, 60]), ours));
    setup.until_weights([40, 60]);
    assert_eq!(setup.set(), set + 1);
    // It is a Gateway's again.
    setup.server.apply(parents(route_of([40, 60]), gateway));
    process.wait_for_line("HTTPRoute deleted; keeping its weights for 10 s");
}

/// Resident memory in KiB.
fn resident(process: &Crossover) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_thousand_routes_of_gateways_cost_no_memory_and_no_publish() {
    let setup = template();
    let other = |number: usize, weight: u64| {
        let mut route = http_route(
            &format!("other-{number}"),
            json!([{"backendRefs": backends([100 - weight, weight])}]),
        );
        route["spec"]["parentRefs"] = json!([{"name": "gw"}]);
        route
    };
    let flags = ["-watch", "-configmap=a", "-gateway-api", "-publish=false"];
    let before = {
        let process = setup.start(&flags);
        setup.until_weights([100, 0]);
        setup.server.wait_for_watches(2);
        resident(&process)
    };
    for number in 0..1000 {
        setup.server.create(other(number, 10));
    }
    let process = setup.start(&flags);
    setup.server.wait_for_watches(2);
    for number in 0..50 {
        setup.server.apply(other(number, 20));
    }
    setup.server.create(route_of([60, 40]));
    let mut ours = route_of([60, 40]);
    ours["spec"]["parentRefs"] = json!([{"group": "", "kind": "ConfigMap", "name": "a"}]);
    setup.server.apply(ours);
    setup.until_weights([60, 40]);
    let after = resident(&process);
    assert!(after <= before + 1024, "{before} KiB, then {after} KiB");
    println!("{before} KiB, with 1,000 HTTPRoutes of others {after} KiB");
    let stderr = process.stop().stderr;
    assert_eq!(stderr.matches("INFO  published ").count(), 1, "{stderr}");
}
