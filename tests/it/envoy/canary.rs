//! A canary end to end: weights step, a real Envoy shares requests out, and none fails.

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::crossover::Crossover;
use testkit::envoy::Envoy;
use testkit::envoy_config::{SERVICE, STATS, Watching};
use testkit::load::{Load, Tally, share};
use testkit::objects::{http_route, http_route_crd, traffic_split};
use testkit::testbed::{BACKENDS, Testbed};

/// Answers at the end of a long step; enough for a bound of a tenth or so.
const ANSWERS: u64 = 1500;

/// Only the split is followed.
const SPLIT: [&str; 1] = ["-trafficsplit"];

/// Weights for both backends.
fn split(weights: [u64; 2]) -> Value {
    let backends: Vec<(&str, u64)> = BACKENDS.into_iter().zip(weights).collect();
    traffic_split(SERVICE, SERVICE, &backends)
}

/// Follows the objects of these kinds, too.
#[track_caller]
fn crossover(testbed: &Testbed, kinds: &[&str]) -> Crossover {
    let mut arguments = testbed.arguments();
    arguments.extend(
        kinds
            .iter()
            .flat_map(|kind| [kind, SERVICE].map(str::to_owned)),
    );
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Crossover::start(&arguments)
}

/// Routes whose own weights send everything to the first backend, under a split.
fn start(weights: [u64; 2]) -> (Testbed, Crossover, Envoy, Load) {
    start_on(
        Testbed::start(Watching::PathOnly),
        [100, 0],
        weights,
        &SPLIT,
    )
}

/// Routes with weights of their own under a split; an HTTPRoute is followed, too, and yet to come.
fn start_with_both(own: [u32; 2], weights: [u64; 2]) -> (Testbed, Crossover, Envoy, Load) {
    let testbed = Testbed::start(Watching::PathOnly);
    testbed.server.create(http_route_crd(&["v1", "v1beta1"]));
    start_on(testbed, own, weights, &["-trafficsplit", "-httproute"])
}

fn start_on(
    testbed: Testbed,
    own: [u32; 2],
    weights: [u64; 2],
    kinds: &[&str],
) -> (Testbed, Crossover, Envoy, Load) {
    testbed.shift("first", own);
    testbed.server.create(split(weights));
    let crossover = crossover(&testbed, kinds);
    crossover.wait_for_line("INFO  published ");
    let envoy = testbed.envoy();
    envoy.wait_for_stat(&format!("{}.version_text", STATS[0]), "first");
    let load = testbed.load(&envoy, 2000);
    (testbed, crossover, envoy, load)
}

/// Counts the route updates that Envoy has taken.
fn taken(envoy: &Envoy) -> u64 {
    envoy.stat(&format!("{}.update_success", STATS[0]))
}

/// Changes an object's weights and waits until Envoy has taken them.
#[track_caller]
fn step(testbed: &Testbed, envoy: &Envoy, object: Value) {
    let before = taken(envoy);
    testbed.server.replace(object);
    testkit::until("Envoy to take the routes", || {
        (taken(envoy) > before).then_some(())
    });
}

/// Asserts that the second backend's share from now on is that of its weight, within 5 sigma.
#[track_caller]
fn check_share(load: &Load, canary: u64) {
    // What is under way was routed before: one request, on the load's one connection.
    let under_way = load.tally();
    load.wait_for("what is under way", &under_way, |tally| tally.total() >= 2);
    let since = load.tally();
    let tally = load.wait_for("answers", &since, |tally| tally.total() >= ANSWERS);
    let (want, found) = (canary as f64 / 100.0, share(&tally.answers, BACKENDS[1]));
    let sigma = (want * (1.0 - want) / tally.total() as f64).sqrt();
    assert!(
        (found - want).abs() <= 5.0 * sigma,
        "{found} for {want}, sigma {sigma}"
    );
}

#[test]
fn fifty_steps_under_load_fail_no_request_and_share_it_by_weight() {
    let (testbed, _crossover, envoy, load) = start([100, 0]);
    check_share(&load, 0);
    for number in 1..=50 {
        let canary = number * 2;
        step(&testbed, &envoy, split([100 - canary, canary]));
        if [10, 25, 50].contains(&number) {
            check_share(&load, canary);
        }
    }
    assert_eq!(load.tally().failures, Vec::<String>::new());
    assert_eq!(envoy.stat(&format!("{}.update_rejected", STATS[0])), 0);
}

/// HTTPRoute with weights for both backends, as Flagger writes it.
fn route(weights: [u64; 2]) -> Value {
    let backends: Vec<Value> = BACKENDS
        .into_iter()
        .zip(weights)
        .map(|(name, weight)| json!({"name": name, "port": 9898, "weight": weight}))
        .collect();
    http_route(SERVICE, json!([{"backendRefs": backends}]))
}

#[test]
fn a_hand_over_to_an_http_route_and_its_canary_fail_no_request() {
    let (testbed, crossover, envoy, load) = start_with_both([100, 0], [70, 30]);
    // In mid-canary, with the weights that it has; then on, promoted, and another one rolled back.
    let before = taken(&envoy);
    testbed.server.create(route([70, 30]));
    crossover.wait_for_line("HTTPRoute is valid now");
    check_share(&load, 30);
    assert_eq!(taken(&envoy), before);
    for canary in (40..=100).step_by(10) {
        step(&testbed, &envoy, route([100 - canary, canary]));
    }
    check_share(&load, 100);
    for canary in [0, 10, 20, 0] {
        step(&testbed, &envoy, route([100 - canary, canary]));
    }
    check_share(&load, 0);
    // Back to the TrafficSplit, which has the same weights by now.
    testbed.server.replace(split([100, 0]));
    testbed.server.delete("HTTPRoute", SERVICE);
    crossover.wait_for_line("HTTPRoute still deleted");
    check_share(&load, 0);
    assert_eq!(load.tally().failures, Vec::<String>::new());
    assert_eq!(envoy.stat(&format!("{}.update_rejected", STATS[0])), 0);
}

#[test]
fn a_hand_over_while_idle_sends_the_canary_nothing_before_the_first_step() {
    // By the template, the canary gets everything: whenever neither kind counted, it would show.
    let (testbed, crossover, envoy, load) = start_with_both([0, 100], [100, 0]);
    check_share(&load, 0);
    // Flagger's provider is switched: it makes the HTTPRoute, and the TrafficSplit is deleted.
    let before = taken(&envoy);
    testbed.server.create(route([100, 0]));
    crossover.wait_for_line("HTTPRoute is valid now");
    check_share(&load, 0);
    testbed.server.delete("TrafficSplit", SERVICE);
    crossover.wait_for_line("TrafficSplit still deleted");
    check_share(&load, 0);
    let idle = load.tally();
    assert_eq!(taken(&envoy), before);
    let names: Vec<&String> = idle.answers.keys().collect();
    assert_eq!(names, [BACKENDS[0]]);
    for canary in (10..=100).step_by(10) {
        step(&testbed, &envoy, route([100 - canary, canary]));
        if [10, 100].contains(&canary) {
            check_share(&load, canary);
        }
    }
    step(&testbed, &envoy, route([100, 0]));
    check_share(&load, 0);
    assert_eq!(load.tally().failures, Vec::<String>::new());
    assert_eq!(envoy.stat(&format!("{}.update_rejected", STATS[0])), 0);
}

#[test]
fn a_template_and_a_split_that_change_together_both_arrive() {
    let (testbed, _crossover, _envoy, load) = start([100, 0]);
    for number in 1..=10 {
        let canary = number % 2 * 100;
        let version = format!("v{number}");
        let template = testbed.config_map(&version, [100, 0]);
        testbed.server.change(|cluster| {
            if number % 3 == 0 {
                cluster.replace(split([100 - canary, canary]));
                cluster.replace(template);
            } else {
                cluster.replace(template);
                cluster.replace(split([100 - canary, canary]));
            }
        });
        // Whatever stood between the two, this is where it ends.
        let wanted = BACKENDS[canary as usize / 100];
        let since = load.tally();
        load.wait_for("answers by both", &since, |tally| {
            let answers = tally.versions.get(&version).map(|v| &v.answers);
            answers.is_some_and(|answers| answers.get(wanted).is_some_and(|count| *count >= 20))
        });
        let since = load.tally();
        let tally = load.wait_for("answers", &since, |tally| tally.total() >= 20);
        assert_eq!(share(&tally.answers, wanted), 1.0, "{tally:?}");
    }
    assert_eq!(load.tally().failures, Vec::<String>::new());
}

#[test]
fn a_restart_in_mid_canary_sends_no_request_by_the_template() {
    // By the template, the first backend gets everything; by the split, nothing.
    let (testbed, mut crossover_now, envoy, load) = start([0, 100]);
    for number in 1..=6 {
        crossover_now.signal(Signal::KILL);
        assert_eq!(crossover_now.finish().code, None);
        let version = format!("v{number}");
        testbed.shift(&version, [100, 0]);
        let since = load.tally();
        crossover_now = crossover(&testbed, &SPLIT);
        load.wait_for("answers by new routes", &since, |tally| {
            tally.versions.contains_key(&version)
        });
    }
    // And an Envoy that begins with what is on disk.
    drop(crossover_now);
    let other = testbed.envoy();
    let fresh = testbed.load(&other, 500);
    fresh.wait_for("answers", &Tally::default(), |tally| tally.total() >= 50);
    for tally in [load.tally(), fresh.tally()] {
        assert_eq!(tally.failures, Vec::<String>::new());
        let names: Vec<&String> = tally.answers.keys().collect();
        assert_eq!(names, [BACKENDS[1]]);
    }
    drop(envoy);
}
