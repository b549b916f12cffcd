//! TrafficSplits that are missing or not known yet; ConfigMaps that are held while
//! splits move on.

use rustix::process::Signal;
use std::time::{Duration, Instant};
use testkit::apiserver::Options;
use testkit::apiserver::access::{Account, Rule};
use testkit::apiserver::faults::{Fault, Then};
use testkit::apiserver::request::Request;
use testkit::crossover::Crossover;
use testkit::file_watch::FileWatch;
use testkit::objects::traffic_split_crd;
use testkit::setup::Setup;
use testkit::stopwatch::Stopwatch;
use testkit::weights::{FILE, FOLLOW, GROUP, about_splits, routes, routes_of, split_of, unserved};

const OWN: &str = "TrafficSplits not available yet; publishing the weights in the ConfigMaps";
const STAYS: &str = "TrafficSplits not available yet; keeping the published files";
const GONE: &str = "TrafficSplit still deleted; restoring the weights in the ConfigMaps";
/// The time for which a deleted split counts, and for which the first publish waits for splits.
const TEN: Duration = Duration::from_secs(10);

/// Makes a set-up with 60 and 40 published, and nothing to do.
fn weighed() -> (Setup, Crossover) {
    let setup = Setup::template();
    setup.split([60, 40]);
    let process = setup.start(&FOLLOW);
    setup.until_weights([60, 40]);
    setup.server.wait_for_watches(2);
    (setup, process)
}

#[test]
fn a_split_that_is_not_there_leaves_the_own_weights_and_counts_once_it_is() {
    let setup = Setup::template();
    let watch = Stopwatch::start();
    let process = setup.start(&FOLLOW);
    setup.until_weights([100, 0]);
    assert!(watch.took() < TEN, "absent is not unknown");
    process.wait_for_line("TrafficSplit not found; using the weights in the ConfigMaps");
    setup.split([60, 40]);
    let found = process.wait_for_line("TrafficSplit is valid now");
    assert!(found.contains("trafficsplit=default/podinfo") && found.contains("lasted_s="));
    setup.until_weights([60, 40]);
    setup.split([50, 50]);
    setup.until_weights([50, 50]);
    let stderr = process.stop().stderr;
    assert!(!stderr.contains(" WARN "), "{stderr}");
    assert_eq!(stderr.matches("is valid now").count(), 1, "{stderr}");
}

#[test]
fn a_deleted_split_counts_for_10_s_more_and_on_if_it_is_back_by_then() {
    let (setup, process) = weighed();
    let gone = "TrafficSplit deleted; keeping its weights for 10 s";
    setup.server.delete("TrafficSplit", "podinfo");
    process.wait_for_line(gone);
    setup.split([60, 40]);
    setup.split([50, 50]);
    setup.until_weights([50, 50]);
    let mut arrivals = FileWatch::watch(&setup.output(), FILE);
    let deleted = Instant::now();
    setup.server.delete("TrafficSplit", "podinfo");
    process.wait_for_lines(2, gone);
    let own = routes([100, 0]);
    let arrived = arrivals.wait_for(|bytes| bytes == own.as_bytes());
    assert!(arrived - deleted >= TEN, "{:?}", arrived - deleted);
    let warning = process.wait_for_line(GONE);
    assert!(warning.contains(" WARN ") && warning.contains("default/podinfo"));
    setup.split([30, 70]);
    setup.until_weights([30, 70]);
}

/// While every request for splits fails like this, nothing goes out for 10 s, then the own weights.
#[track_caller]
fn is_unknown(fault: Fault) {
    let setup = Setup::template();
    setup.split([60, 40]);
    setup.fail_next(usize::MAX, fault, |r| about_splits(r) && r.path() != GROUP);
    let started = Instant::now();
    let process = setup.start(&FOLLOW);
    let warning = process.wait_for_line(OWN);
    assert!(warning.contains(" WARN "), "{warning}");
    assert!(started.elapsed() >= TEN, "{:?}", started.elapsed());
    setup.until_weights([100, 0]);
}

#[test]
fn after_10_s_without_a_usable_answer_about_splits_the_own_weights_are_published() {
    let half = Fault::After {
        body_bytes: 30,
        then: Then::Close,
    };
    let statuses = [401, 403, 500, 503].map(Fault::status);
    // Side by side, as each takes its 10 s.
    std::thread::scope(|scope| {
        for fault in statuses.into_iter().chain([Fault::Freeze, half]) {
            scope.spawn(|| is_unknown(fault));
        }
    });
}

#[test]
fn with_a_set_on_disk_it_stays_while_no_split_is_known() {
    let (setup, process) = weighed();
    process.signal(Signal::KILL);
    process.finish();
    let rules = vec![Rule::new("", "configmaps", &["list", "watch"])];
    setup.server.set_accounts(vec![Account::anonymous(rules)]);
    setup.put("a", &[(FILE, &(routes([100, 0]) + "# more\n"))]);
    let process = setup.start(&FOLLOW);
    let refusal = process.wait_for_line("the API server refuses");
    for word in [
        "\"split.smi-spec.io\"",
        "\"trafficsplits\"",
        "\"list\", \"watch\"",
        "\"podinfo\"",
    ] {
        assert!(
            refusal.contains(word) || refusal.contains(&word.replace('"', "\\\"")),
            "{refusal}"
        );
    }
    process.wait_for_line(STAYS);
    setup.assert_weights([60, 40]);
    setup.server.set_accounts(Vec::new());
    process.wait_for_line("INFO  published ");
    setup.until_found(&[(FILE, &(routes([60, 40]) + "# more\n"))]);
    let known = process.wait_for_line("TrafficSplits are available now; merging their weights");
    assert!(known.contains(" lasted_s="), "{known}");
}

#[test]
fn an_unknown_split_does_not_fail_onetime() {
    let setup = Setup::template();
    let rules = vec![Rule::new("", "configmaps", &["list", "watch"])];
    setup.server.set_accounts(vec![Account::anonymous(rules)]);
    let finished = setup.succeed(&["-onetime", "-configmap=a", "-trafficsplit=podinfo"]);
    assert!(finished.stderr.contains(OWN), "{}", finished.stderr);
    setup.assert_weights([100, 0]);
}

#[test]
fn a_definition_that_comes_later_is_found_and_its_splits_count() {
    for named in ["-trafficsplit=podinfo", "-smi"] {
        let setup = Setup::with(Options {
            splits: Vec::new(),
            ..Options::default()
        });
        setup.put("a", &[(FILE, &routes([100, 0]))]);
        let watch = Stopwatch::start();
        let flags = [
            "-watch",
            "-sync-interval=300ms",
            "-configmap=a",
            named,
            "-publish=false",
        ];
        let process = setup.start(&flags);
        setup.until_weights([100, 0]);
        assert!(watch.took() < TEN, "absent is not unknown");
        process.wait_for_line("the API server does not serve TrafficSplits");
        setup
            .server
            .wait_for_requests("looks for the group", 3, |r| r.path() == GROUP);
        setup
            .server
            .create(traffic_split_crd(&["v1alpha2", "v1alpha1"]));
        setup.split([60, 40]);
        setup.until_weights([60, 40]);
        let served = process.wait_for_line("the API server serves TrafficSplits now");
        assert!(served.contains("lasted_s="), "{served}");
        let said = process.stop().stderr;
        assert_eq!(
            said.matches("the API server does not serve TrafficSplits")
                .count(),
            1,
            "{said}"
        );
    }
}

#[test]
fn a_group_that_vanishes_for_a_moment_is_not_believed() {
    let (setup, process) = weighed();
    // The watch, and the first look.
    setup.fail_next(2, unserved(), about_splits);
    setup.server.end_watches();
    setup
        .server
        .wait_for_requests("a second look", 3, |r| r.path() == GROUP);
    setup.server.wait_for_watches(2);
    setup.split([50, 50]);
    setup.until_weights([50, 50]);
    let stderr = process.stop().stderr;
    assert!(!stderr.contains("deleted"), "{stderr}");
}

#[test]
fn a_group_that_stays_away_takes_its_splits_with_it() {
    let (setup, process) = weighed();
    let gone = Instant::now();
    setup.fail_next(usize::MAX, unserved(), about_splits);
    setup.server.end_watches();
    process.wait_for_line("TrafficSplit deleted; keeping its weights for 10 s");
    assert_eq!(
        setup.server.count_requests(|r| r.path() == GROUP),
        3,
        "a second look"
    );
    setup.until_weights([100, 0]);
    assert!(gone.elapsed() >= TEN);
    process.wait_for_line(GONE);
}

/// Lasting trouble of ConfigMap `a` does not hold up its splits, in this life and in the next.
#[track_caller]
fn still_follows_its_split(spoil: fn(&Setup), said: &str) {
    let (setup, process) = weighed();
    spoil(&setup);
    process.wait_for_line(said);
    setup.split([0, 100]);
    setup.until_weights([0, 100]);
    process.signal(Signal::KILL);
    process.finish();
    setup.split([10, 90]);
    let process = setup.start(&FOLLOW);
    setup.until_weights([10, 90]);
    process.wait_for_line(said);
    setup.split([40, 60]);
    setup.until_weights([40, 60]);
}

#[test]
fn a_configmap_held_for_bad_yaml_still_follows_its_split() {
    let spoil = |setup: &Setup| drop(setup.put("a", &[(FILE, "a: [1\n")]));
    still_follows_its_split(spoil, "ConfigMap is invalid; keeping its published files");
}

#[test]
fn a_deleted_configmap_still_follows_its_split() {
    let spoil = |setup: &Setup| setup.server.delete("ConfigMap", "a");
    still_follows_its_split(spoil, "ConfigMap not found; keeping its published files");
}

/// Makes routes in which no weight can be written without changing something else.
fn unsafe_routes() -> String {
    routes([100, 0]).replace("weight: 100", "weight: &all 100") + "all: *all\n"
}

const UNSAFE: &str = "weights cannot be merged into default/a rds.yaml: line 13: the weight is part \
                      of what an alias repeats";

#[test]
fn a_configmap_held_for_an_unsafe_edit_still_follows_its_split() {
    let spoil = |setup: &Setup| drop(setup.put("a", &[(FILE, &unsafe_routes())]));
    still_follows_its_split(spoil, &format!("{UNSAFE}: the file's last good text stays"));
}

#[test]
fn an_unsafe_edit_with_no_last_good_publishes_the_routes_own_weights() {
    let setup = Setup::new();
    setup.put("a", &[(FILE, &unsafe_routes())]);
    setup.split([60, 40]);
    let mut process = setup.start(&FOLLOW);
    setup.until_found(&[(FILE, &unsafe_routes())]);
    let said = format!("{UNSAFE}: such a route keeps its text's weights");
    process.wait_for_line(&said);
    // That was no last good: the next one is published, too, and in the next life.
    for more in ["# 1\n", "# 2\n"] {
        setup.put("a", &[(FILE, &(unsafe_routes() + more))]);
        setup.until_found(&[(FILE, &(unsafe_routes() + more))]);
        process.stop();
        process = setup.start(&FOLLOW);
        process.wait_for_line(&said);
    }
    let all = process.lines().join("\n");
    assert!(
        !all.contains("applies to no route"),
        "what was not read is not judged: {all}"
    );
    setup.put("a", &[(FILE, &routes([100, 0]))]);
    setup.until_weights([60, 40]);
    let over = process.wait_for_line("warnings about the weights of this file are over");
    for field in ["configmap=default/a", "file=rds.yaml", "lasted_s="] {
        assert!(over.contains(field), "{over}");
    }
}

/// A route that cannot be edited does not undo what another's split has come to.
#[test]
fn a_split_that_cannot_be_merged_leaves_all_others_where_they_are() {
    let blog = routes_of("blog", [100, 0]).replace("weight: 100", "weight: &all 100");
    let blog = blog.replace("weight: 0", "weight: &none 0") + "both: [*all, *none]\n";
    let hosts = |shop| {
        let host = routes_of("shop", shop);
        blog.replace(
            "  virtual_hosts:\n",
            &format!(
                "  virtual_hosts:\n{}",
                &host[host.find("  - name").unwrap()..]
            ),
        )
    };
    let setup = Setup::new();
    setup.put(
        "a",
        &[
            (FILE, &hosts([50, 50])),
            ("other.yaml", &routes_of("shop", [50, 50])),
        ],
    );
    let split = |service, weights| setup.server.apply(split_of(service, service, weights));
    split("shop", [95, 5]);
    split("blog", [100, 0]);
    let until = |shop| {
        setup.until_found(&[
            ("other.yaml", &routes_of("shop", shop)),
            (FILE, &hosts(shop)),
        ]);
    };
    let flags = [
        "-watch",
        "-sync-interval=1h",
        "-configmap=a",
        "-smi",
        "-publish=false",
    ];
    let process = setup.start(&flags);
    until([95, 5]);
    setup.server.wait_for_watches(2);
    split("blog", [90, 10]);
    let warning = process.wait_for_line("such a route keeps its text's weights");
    assert!(warning.contains("default/a rds.yaml: line "), "{warning}");
    assert_eq!(setup.set(), 1, "nothing else was published");
    split("shop", [94, 6]);
    until([94, 6]);
    process.signal(Signal::KILL);
    process.finish();
    split("shop", [93, 7]);
    let process = setup.start(&flags);
    process.wait_for_line("such a route keeps its text's weights");
    until([93, 7]);
    let said = process.stop().stderr;
    assert!(!said.contains("no such route"), "{said}");
}

#[test]
fn a_file_that_no_split_touches_is_never_held_back() {
    let odd = routes_of("other", [100, 0]).replace("weight: 100", "weight: &all 100");
    let odder = "%FOO bar\n---\nweighted_clusters: podinfo\n";
    let setup = Setup::new();
    let put = |weights, more: &str| {
        let files = [(FILE, routes(weights)), ("odd.yaml", odd.clone() + more)];
        let [first, second] = &files;
        let odder = format!("{odder}{more}");
        setup.put(
            "a",
            &[
                (first.0, &first.1),
                (second.0, &second.1),
                ("odder.yaml", &odder),
            ],
        );
    };
    let until = |weights, more: &str| {
        let (odd, odder) = (odd.clone() + more, format!("{odder}{more}"));
        setup.until_found(&[
            (FILE, &routes(weights)),
            ("odd.yaml", &odd),
            ("odder.yaml", &odder),
        ]);
    };
    put([100, 0], "");
    setup.split([60, 40]);
    let process = setup.start(&FOLLOW);
    until([60, 40], "");
    put([100, 0], "# more\n");
    until([60, 40], "# more\n");
    setup.split([0, 100]);
    until([0, 100], "# more\n");
    assert!(!process.stop().stderr.contains("cannot be merged"));
}

#[test]
fn a_directory_that_another_holds_is_not_taken_for_an_empty_one() {
    let (setup, process) = weighed();
    setup.fail_next(usize::MAX, Fault::status(403), |r: &Request| {
        about_splits(r)
    });
    let second = setup.start(&FOLLOW);
    second.wait_for_line("is locked by another crossover");
    setup
        .server
        .wait_for_requests("a split's list", 2, |r| r.is_list() && about_splits(r));
    // Until its patience with the splits has ended.
    let (began, found) = (Instant::now(), setup.found());
    while began.elapsed() < TEN + Duration::from_millis(500) {
        assert_eq!(setup.found(), found);
        std::thread::sleep(Duration::from_millis(50));
    }
    process.signal(Signal::KILL);
    process.finish();
    second.wait_for_line(STAYS);
    setup.assert_weights([60, 40]);
}
