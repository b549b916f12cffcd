//! TrafficSplits merged into files: which ones count, and the way of a change from an event to
//! Envoy.

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::apiserver::faults::Fault;
use testkit::apiserver::request::Request;
use testkit::file_watch::FileWatch;
use testkit::objects::in_namespace;
use testkit::setup::{Setup, events_with};
use testkit::until;
use testkit::weights::{FILE, FOLLOW, about_splits, routes, routes_of, split_of, with};

/// Makes a set-up of two services, one in each of ConfigMaps `a` and `b`.
fn two_services() -> Setup {
    let setup = Setup::new();
    setup.put("a", &[("a.yaml", &routes_of("one", [100, 0]))]);
    setup.put("b", &[("b.yaml", &routes_of("two", [100, 0]))]);
    setup
}

/// Counts the lines that hold this.
fn count(stderr: &str, text: &str) -> usize {
    stderr.lines().filter(|line| line.contains(text)).count()
}

#[test]
fn several_splits_weigh_several_configmaps() {
    let setup = two_services();
    setup.server.create(split_of("x", "one", [60, 40]));
    setup.server.create(split_of("y", "two", [70, 30]));
    let flags = [
        "-watch",
        "-configmap=a",
        "-configmap=b",
        "-trafficsplit=x",
        "-trafficsplit=y",
    ];
    let _process = setup.start(&flags);
    let want = |two| {
        [
            ("a.yaml", routes_of("one", [60, 40])),
            ("b.yaml", routes_of("two", two)),
        ]
    };
    let until = |two| {
        let want = want(two);
        setup.until_found(&[(want[0].0, &want[0].1), (want[1].0, &want[1].1)]);
    };
    until([70, 30]);
    setup.server.apply(split_of("y", "two", [0, 100]));
    until([0, 100]);
}

#[test]
fn with_smi_alone_every_split_of_the_namespace_counts_and_no_other() {
    let setup = two_services();
    setup.server.create(split_of("x", "one", [60, 40]));
    let elsewhere = in_namespace("other", split_of("y", "two", [1, 1]));
    setup.server.create(elsewhere);
    let process = setup.start(&[
        "-watch",
        "-configmap=a",
        "-configmap=b",
        "-smi",
        "-publish=false",
    ]);
    let one = routes_of("one", [60, 40]);
    setup.until_found(&[("a.yaml", &one), ("b.yaml", &routes_of("two", [100, 0]))]);
    process.wait_for_line("INFO  published ");
    // One that comes later counts from then on.
    setup.server.create(split_of("y", "two", [70, 30]));
    setup.until_found(&[("a.yaml", &one), ("b.yaml", &routes_of("two", [70, 30]))]);
    let splits = |r: &Request| {
        r.place()
            .is_some_and(|place| place.plural == "trafficsplits")
    };
    let requests = setup.server.requests();
    assert!(
        requests
            .iter()
            .filter(|r| splits(r))
            .all(|r| !r.names("y") && !r.names("x"))
    );
}

#[test]
fn of_two_splits_for_a_service_the_first_named_counts_with_one_warning() {
    let setup = Setup::template();
    setup.server.create(split_of("later", "podinfo", [1, 9]));
    setup.server.create(split_of("first", "podinfo", [60, 40]));
    let flags = [
        "-watch",
        "-configmap=a",
        "-trafficsplit=first",
        "-trafficsplit=later",
    ];
    let process = setup.start(&flags);
    setup.until_weights([60, 40]);
    setup.server.apply(split_of("later", "podinfo", [2, 8]));
    setup.server.apply(split_of("first", "podinfo", [50, 50]));
    setup.until_weights([50, 50]);
    // No set follows from that.
    setup.server.apply(split_of("later", "blog", [2, 8]));
    process.wait_for_line("default/later applies to no route");
    let blog = ("blog.yaml", &*routes_of("blog", [1, 1]));
    setup.put("a", &[(FILE, &routes([100, 0])), blog]);
    let over = "warnings about this TrafficSplit are over trafficsplit=default/later lasted_s=";
    process.wait_for_line(over);
    let stderr = process.stop().stderr;
    let warning = "TrafficSplit default/later is not applied: default/first is for podinfo too";
    for once in [warning, over] {
        assert_eq!(count(&stderr, once), 1, "{stderr}");
    }
}

#[test]
fn with_smi_alone_the_oldest_split_for_a_service_counts_then_the_first_by_name() {
    let setup = Setup::template();
    setup
        .server
        .create(split_of("z-oldest", "podinfo", [60, 40]));
    let created = |name: &str| {
        let object = setup.server.get("TrafficSplit", name).unwrap();
        object["metadata"]["creationTimestamp"].clone()
    };
    // Kubernetes knows whole seconds; these two are of the same one, and later than the first.
    until("another second", || {
        setup.server.create(split_of("m", "podinfo", [3, 7]));
        setup.server.create(split_of("b", "podinfo", [2, 8]));
        let same = created("m") == created("b") && created("b") != created("z-oldest");
        if !same {
            setup.server.delete("TrafficSplit", "m");
            setup.server.delete("TrafficSplit", "b");
        }
        same.then_some(())
    });
    let process = setup.start(&["-watch", "-configmap=a", "-smi", "-publish=false"]);
    setup.until_weights([60, 40]);
    process.wait_for_line("TrafficSplit default/b is not applied: default/z-oldest is for podinfo");
    process.wait_for_line("TrafficSplit default/m is not applied: default/z-oldest is for podinfo");
    setup.server.delete("TrafficSplit", "z-oldest");
    setup.until_weights([2, 8]);
    process.wait_for_line("TrafficSplit default/m is not applied: default/b is for podinfo too");
}

/// A split that says this is not applied, with a warning that gives the reason.
#[track_caller]
fn is_not_applied(spoil: impl Fn(Value) -> Value, reason: &str) {
    let setup = Setup::template();
    setup.split([60, 40]);
    let process = setup.start(&FOLLOW);
    setup.until_weights([60, 40]);
    let version = setup
        .server
        .apply(spoil(split_of("podinfo", "podinfo", [50, 50])));
    setup.until_weights([100, 0]);
    let warning = process.wait_for_line("TrafficSplit cannot be applied");
    for part in [" WARN ", "default/podinfo", reason, &version] {
        assert!(warning.contains(part), "{part}: {warning}");
    }
    setup.split([30, 70]);
    setup.until_weights([30, 70]);
    setup.split([20, 80]);
    setup.until_weights([20, 80]);
    let stderr = process.stop().stderr;
    assert!(all_clear(&stderr), "{stderr}");
}

/// Returns whether the all-clear of one split was given once, with how long the state lasted.
fn all_clear(stderr: &str) -> bool {
    let mut lines = stderr.lines().filter(|line| line.contains("is valid now"));
    let is_whole =
        |line: &str| line.contains("trafficsplit=default/") && line.contains("lasted_s=");
    lines.next().is_some_and(is_whole) && lines.next().is_none()
}

#[test]
fn a_split_with_matches_is_not_applied() {
    let matches = json!([{"kind": "HTTPRouteGroup", "name": "beta"}]);
    is_not_applied(
        |split| with(split, "matches", matches.clone()),
        "it has matches",
    );
}

#[test]
fn a_split_with_a_bad_weight_is_not_applied() {
    for weight in [json!(-1), json!("a lot"), json!(true)] {
        let backends = json!([{"service": "podinfo-primary", "weight": weight},
            {"service": "podinfo-canary", "weight": 1}]);
        let spoil = |split| with(split, "backends", backends.clone());
        is_not_applied(
            spoil,
            "the weight of podinfo-primary is not a number from 0 up",
        );
    }
}

#[test]
fn a_backend_without_a_weight_gets_nothing() {
    let setup = Setup::template();
    let (primary, canary) = ("podinfo-primary", "podinfo-canary");
    let split = |backends| with(split_of("podinfo", "podinfo", [1, 1]), "backends", backends);
    setup.server.create(split(
        json!([{"service": primary}, {"service": canary, "weight": 1}]),
    ));
    let _process = setup.start(&FOLLOW);
    setup.until_weights([0, 1]);
    let null = json!([{"service": primary, "weight": 7}, {"service": canary, "weight": null}]);
    setup.server.apply(split(null));
    setup.until_weights([7, 0]);
}

#[test]
fn a_split_that_applies_to_no_route_and_a_backend_without_a_cluster_are_reported_once() {
    let setup = Setup::template();
    setup.server.create(split_of("stray", "nobody", [1, 1]));
    let odd =
        json!([{"service": "podinfo-primary", "weight": 1}, {"service": "other", "weight": 1}]);
    setup.server.create(with(
        split_of("podinfo", "podinfo", [0, 0]),
        "backends",
        odd,
    ));
    let process = setup.start(&["-watch", "-configmap=a", "-smi", "-publish=false"]);
    setup.until_weights([1, 0]);
    setup.put("a", &[(FILE, &format!("{}# more\n", routes([100, 0])))]);
    setup.until_found(&[(FILE, &format!("{}# more\n", routes([1, 0])))]);
    let stderr = process.stop().stderr;
    for said in [
        "TrafficSplit default/stray applies to no route",
        "no route has a cluster for other",
    ] {
        assert_eq!(count(&stderr, said), 1, "{stderr}");
    }
}

#[test]
fn nothing_is_published_before_each_named_split_is_known() {
    let setup = Setup::template();
    setup.split([60, 40]);
    setup.server.create(split_of("other", "other", [1, 1]));
    let stall = Fault::After {
        body_bytes: 20,
        then: testkit::apiserver::faults::Then::Stall,
    };
    setup.fail_next(1, stall, |r| {
        r.is_list() && about_splits(r) && r.names("other")
    });
    let flags = [
        "-watch",
        "-configmap=a",
        "-trafficsplit=podinfo",
        "-trafficsplit=other",
    ];
    let _process = setup.start(&flags);
    // The ConfigMap and the first split are known, and followed.
    setup.server.wait_for_watches(2);
    let lists = |r: &Request| r.is_list() && r.names("other");
    setup
        .server
        .wait_for_requests("the other split's list", 1, lists);
    assert_eq!(setup.found(), None);
    setup.server.reset_connections();
    setup.until_weights([60, 40]);
}

#[test]
fn a_change_reaches_the_file_without_a_request() {
    let setup = Setup::template();
    setup.split([60, 40]);
    let _process = setup.start(&FOLLOW);
    setup.until_weights([60, 40]);
    setup.server.wait_for_watches(2);
    let before = setup.server.requests().len();
    for canary in 1..20 {
        setup.split([100 - canary, canary]);
        setup.until_weights([100 - canary, canary]);
    }
    assert_eq!(setup.server.requests().len(), before);
}

#[test]
fn a_publish_names_the_split_with_old_and_new_weights_and_the_routes() {
    let setup = Setup::template();
    setup.split([75, 25]);
    let flags: Vec<&str> = FOLLOW.into_iter().chain(["-log-format=json"]).collect();
    let process = setup.start(&flags);
    let weights = |count: usize| {
        process.wait_for_lines(count, "\"published\"");
        let stderr = process.lines().join("\n");
        events_with(&stderr, "published")[count - 1]["weights"].clone()
    };
    let route = "TrafficSplit default/podinfo in rds.yaml, podinfo:";
    let step = |a: &str, b: &str| json!(format!("{route} podinfo-primary {a} podinfo-canary {b}"));
    assert_eq!(weights(1), step("100->75", "0->25"));
    setup.split([50, 50]);
    assert_eq!(weights(2), step("75->50", "25->50"));
    // To the ConfigMap's own weights is a step like all others.
    setup.split([100, 0]);
    assert_eq!(weights(3), step("50->100", "50->0"));
    setup.put("a", &[(FILE, &format!("{}# more\n", routes([100, 0])))]);
    assert_eq!(weights(4), Value::Null, "the weights stay");
    setup.split([90, 10]);
    assert_eq!(weights(5), step("100->90", "0->10"));
    setup.server.apply(with(
        split_of("podinfo", "podinfo", [1, 1]),
        "matches",
        json!([{}]),
    ));
    let gone = "TrafficSplit default/podinfo no longer in rds.yaml, podinfo: podinfo-primary 90->100 \
                podinfo-canary 10->0";
    assert_eq!(weights(6), gone);
}

#[test]
fn a_restart_in_mid_canary_never_shows_the_template_s_weights() {
    let setup = Setup::template();
    setup.split([50, 50]);
    let mut process = setup.start(&FOLLOW);
    setup.until_weights([50, 50]);
    let begin = std::time::Instant::now();
    let mut arrivals = FileWatch::watch(&setup.output(), FILE);
    for life in 0..8 {
        process.signal(Signal::KILL);
        process.finish();
        let more = format!("# {life}\n");
        setup.put("a", &[(FILE, &(routes([100, 0]) + &more))]);
        let asked = setup.server.count_requests(about_splits);
        process = setup.start(&FOLLOW);
        // Every other life ends as soon as it has asked for the splits in some way.
        if life % 2 == 0 {
            let wanted = asked + 1 + life / 2 % 3;
            setup
                .server
                .wait_for_requests("splits", wanted, about_splits);
        } else {
            let want = routes([50, 50]) + &more;
            arrivals.wait_for(|bytes| bytes == want.as_bytes());
        }
        assert!(!setup.says(FILE).contains("weight: 100"));
    }
    assert_eq!(
        arrivals.first(begin, |bytes| !bytes
            .windows(10)
            .any(|w| w == b"weight: 50")),
        None
    );
}
