//! TrafficSplits that nobody serves, or that one server knows and another does not; and that the
//! trouble of one thing is not another's.

use std::time::{Duration, Instant};
use testkit::apiserver::faults::Fault;
use testkit::apiserver::request::Request;
use testkit::crossover::Crossover;
use testkit::file_watch::FileWatch;
use testkit::objects::traffic_split_crd;
use testkit::setup::Setup;
use testkit::stopwatch::Stopwatch;
use testkit::weights::{FILE, GROUP, about_splits, routes, routes_of, split_of, unserved};

const GONE: &str = "TrafficSplit deleted; keeping its weights for 10 s";
/// A split that is gone counts for so long.
const TEN: Duration = Duration::from_secs(10);
const VERSIONS: [&str; 4] = ["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"];

/// Follows ConfigMap `a` and TrafficSplits `other` and `podinfo`.
fn both<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let flags = [
        "-watch",
        "-sync-interval=1h",
        "-configmap=a",
        "-trafficsplit=other",
        "-trafficsplit=podinfo",
        "-publish=false",
    ];
    flags.into_iter().chain(more.iter().copied()).collect()
}

/// Makes a set-up with TrafficSplit `podinfo` at 60 and 40.
fn weighed() -> Setup {
    let setup = Setup::template();
    setup.split([60, 40]);
    setup
}

/// The open watch of `other` ends.
fn end_other(setup: &Setup) {
    let requests = setup.server.requests();
    let mut requests = requests.iter();
    let other = requests.find(|r| r.is_watch() && r.names("other"));
    setup.server.end_watch(&other.unwrap().target);
}

#[test]
fn a_404_for_one_split_takes_nothing_from_another_whose_stream_is_open() {
    let setup = weighed();
    let process = setup.start(&both(&["-trafficsplit-api-version=v1alpha2"]));
    setup.until_weights([60, 40]);
    setup.server.wait_for_watches(3);
    setup.fail_next(1, unserved(), |r| r.is_watch() && r.names("other"));
    end_other(&setup);
    let refused = |r: &Request| r.names("other") && r.status == 404;
    setup.server.wait_for_request("a 404", refused);
    setup.server.wait_for_watches(3);
    setup.split([50, 50]);
    setup.until_weights([50, 50]);
    let said = process.stop().stderr;
    assert!(!said.contains(GONE), "{said}");
}

#[test]
fn a_group_that_only_another_server_knows_is_not_taken_from_an_open_stream() {
    let setup = weighed();
    setup.server.create(split_of("other", "other", [1, 1]));
    let process = setup.start(&both(&[]));
    setup.until_weights([60, 40]);
    setup.server.wait_for_watches(3);
    setup.fail_next(usize::MAX, unserved(), about_splits);
    end_other(&setup);
    let said = process.wait_for_line(GONE);
    assert!(said.contains("default/other"), "{said}");
    setup.server.behave();
    setup.server.wait_for_watches(3);
    setup.server.apply(split_of("other", "other", [2, 1]));
    setup.split([50, 50]);
    setup.until_weights([50, 50]);
    let said = process.stop().stderr;
    assert_eq!(said.matches(GONE).count(), 1, "{said}");
    assert!(!said.contains("still deleted"), "{said}");
}

/// The definition and its split are gone, and anew once that is believed: in time.
#[track_caller]
fn is_back_in_time(flags: &[&str]) {
    let setup = weighed();
    let process = setup.start(&[flags, &["-configmap=a", "-publish=false"]].concat());
    setup.until_weights([60, 40]);
    let mut arrivals = FileWatch::watch(&setup.output(), FILE);
    let (begin, watch) = (Instant::now(), Stopwatch::start());
    setup.server.serve_splits(&[]);
    process.wait_for_line(GONE);
    setup.server.create(traffic_split_crd(&VERSIONS));
    setup.split([50, 50]);
    let back = routes([50, 50]);
    arrivals.wait_for(|bytes| bytes == back.as_bytes());
    assert!(watch.took() < TEN, "{:?}", watch.took());
    let own = routes([100, 0]);
    let fell = arrivals.first(begin, |bytes| bytes == own.as_bytes());
    assert_eq!(fell, None);
    setup.split([30, 70]);
    setup.until_weights([30, 70]);
}

#[test]
fn splits_that_are_back_within_10_s_are_seen_in_time() {
    let split = "-trafficsplit=podinfo";
    let fixed = "-trafficsplit-api-version=v1alpha2";
    let cases: [&[&str]; 4] = [
        &["-watch", "-sync-interval=1h", split],
        &["-watch", "-sync-interval=1h", "-smi"],
        &["-watch", "-sync-interval=1h", split, fixed],
        // Polling notices it by a look.
        &["-sync-interval=200ms", split],
    ];
    std::thread::scope(|scope| {
        for flags in cases {
            scope.spawn(|| is_back_in_time(flags));
        }
    });
}

/// Polls, and its TrafficSplit is 60 and 40.
fn polling(more: &[&str]) -> (Setup, Crossover) {
    let setup = weighed();
    let flags = [
        "-sync-interval=200ms",
        "-configmap=a",
        "-trafficsplit=podinfo",
        "-publish=false",
    ];
    let process = setup.start(&[&flags, more].concat());
    setup.until_weights([60, 40]);
    (setup, process)
}

#[test]
fn polling_notices_that_the_definition_is_gone() {
    for more in [&[][..], &["-trafficsplit-api-version=v1alpha2"]] {
        let (setup, process) = polling(more);
        setup.server.serve_splits(&[]);
        process.wait_for_line("TrafficSplit still deleted");
        setup.until_weights([100, 0]);
    }
}

#[test]
fn polling_notices_that_a_version_is_no_longer_served() {
    let (setup, process) = polling(&[]);
    setup.server.serve_splits(&["v1alpha2", "v1alpha1"]);
    setup.split([50, 50]);
    setup.until_weights([50, 50]);
    let said = process.stop().stderr;
    assert!(!said.contains(GONE), "{said}");
}

#[test]
fn a_group_that_asks_for_a_pause_delays_no_configmap() {
    let setup = weighed();
    let wish = Fault::retry_after(503, "60");
    setup.fail_next(usize::MAX, wish, |r: &Request| r.path() == GROUP);
    let flags = ["-watch", "-configmap=a", "-smi", "-publish=false"];
    let process = setup.start(&flags);
    let refusal = process.wait_for_line("the API server cannot answer now; retrying");
    assert!(refusal.contains(" request=") && refusal.contains(" error="));
    setup.server.wait_for_watches(1);
    setup.server.end_watches();
    let watch = |r: &Request| r.is_watch();
    setup.server.wait_for_requests("it to open again", 2, watch);
    let said = process.stop().stderr;
    assert!(!said.contains("is away"), "{said}");
}

/// So many ConfigMaps are checked so often that one request follows another.
#[test]
fn configmaps_that_are_always_asked_for_starve_neither_splits_nor_mirrors() {
    let setup = Setup::new();
    let names: Vec<String> = (0..10).map(|i| format!("cm-{i}")).collect();
    for name in &names[1..] {
        setup.put(name, &[(&format!("{name}.txt"), "x")]);
    }
    setup.put("cm-0", &[(FILE, &routes_of("podinfo", [100, 0]))]);
    setup.split([60, 40]);
    let slow = Fault::Delay(Duration::from_millis(60));
    setup.fail_next(usize::MAX, slow, |r| r.is_list() && !about_splits(r));
    let named: Vec<String> = names.iter().map(|n| format!("-configmap={n}")).collect();
    let mut flags = vec!["-sync-interval=500ms", "-trafficsplit=podinfo"];
    flags.extend(named.iter().map(String::as_str));
    let _process = setup.start(&flags);
    let mirrored = |r: &Request| r.method == "POST" && r.status == 201;
    setup.server.wait_for_requests("all mirrors", 10, mirrored);
    setup.split([50, 50]);
    let moved = |r: &Request| r.method == "PUT" && r.status == 200;
    setup.server.wait_for_request("a mirror that moves", moved);
}
