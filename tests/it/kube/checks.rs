//! The consistency check, with a watch and without one: its request, its time, and what it finds.

use std::time::{Duration, Instant};
use testkit::apiserver::faults::{Fault, Misbehaviour, Then};
use testkit::apiserver::request::Request;
use testkit::apiserver::watches::Delivery;
use testkit::crossover::Crossover;
use testkit::objects::config_map;
use testkit::setup::Setup;
use testkit::stopwatch::Stopwatch;
use testkit::until;

fn checks(setup: &Setup) -> Vec<Request> {
    let requests = setup.server.requests();
    requests
        .into_iter()
        .filter(Request::is_metadata_only)
        .collect()
}

fn lists(setup: &Setup) -> usize {
    setup
        .server
        .count_requests(|request| request.is_list() && !request.is_metadata_only())
}

/// Waits for a check that is made after `since`.
#[track_caller]
fn until_checked(setup: &Setup, since: Instant) -> Request {
    setup.server.wait_for_request("a check", |request| {
        request.is_metadata_only() && request.at > since
    })
}

fn object(number: u32) -> serde_json::Value {
    config_map("a", &[("a.yaml", &format!("a: {number}\n"))])
}

/// A program that watches ConfigMap `a` and checks it this often.
fn watching(setup: &Setup, interval: &str) -> Crossover {
    setup.server.create(object(1));
    let program = setup.watch(&["a"], &["-sync-interval", interval]);
    setup.server.wait_for_watches(1);
    setup.until_file_says("a.yaml", "a: 1\n");
    program
}

#[test]
fn a_silent_watch_is_checked_within_every_interval_by_metadata_alone() {
    let setup = Setup::for_module(module_path!());
    let watch = Stopwatch::start();
    let _program = watching(&setup, "200ms");
    setup
        .server
        .wait_for_requests("six checks", 6, Request::is_metadata_only);
    let checks = checks(&setup);
    for check in &checks {
        assert_eq!(
            check.accept,
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        );
        assert!(check.is_list() && check.names("a"), "{}", check.line());
    }
    // No more often than needed: three quarters of the interval pass at least.
    let span = checks[5].at - checks[0].at + watch.held_up();
    assert!(span > Duration::from_millis(5 * 150), "{span:?}");
    assert_eq!(lists(&setup), 1);
    assert_eq!(setup.server.count_requests(Request::is_watch), 1);
}

#[test]
fn a_check_leaves_no_connection_behind() {
    let setup = Setup::https(false);
    let program = watching(&setup, "1s");
    let before = program.measure().descriptors;
    let checked = |count| {
        setup
            .server
            .wait_for_requests("a check", count, Request::is_metadata_only);
        until("its connection to be closed", || {
            (program.measure().descriptors <= before).then_some(())
        });
    };
    (1..4).for_each(checked);
}

#[test]
fn a_watch_that_delivers_is_not_checked() {
    let setup = Setup::for_module(module_path!());
    setup.server.create(object(1));
    setup
        .server
        .create(config_map("b", &[("b.yaml", "b: 1\n")]));
    let _program = setup.watch(&["a", "b"], &["-sync-interval", "1s"]);
    setup.server.wait_for_watches(2);
    let bookmark = serde_json::json!({"type": "BOOKMARK", "object": {"kind": "ConfigMap",
        "apiVersion": "v1", "metadata": {"resourceVersion": "1002"}}});
    let bookmark = format!("{bookmark}\n");
    let check_of = |name: &'static str| move |r: &Request| r.is_metadata_only() && r.names(name);
    until("three checks at the silent one", || {
        let about_a = |watch: &testkit::apiserver::watches::Watch| {
            watch.selection.name.as_deref() == Some("a")
        };
        setup.server.inject(bookmark.as_bytes(), about_a);
        (setup.server.count_requests(check_of("b")) >= 3).then_some(())
    });
    assert_eq!(setup.server.count_requests(check_of("a")), 0);
}

#[test]
fn a_check_finds_what_a_watch_does_not_deliver_and_two_seconds_later_a_list_fetches_it() {
    for lie in [Delivery::Lost, Delivery::Held] {
        let setup = Setup::for_module(module_path!());
        let _program = watching(&setup, "300ms");
        setup.server.deliver(lie);
        let (changed, watch) = (Instant::now(), Stopwatch::start());
        setup.server.replace(object(2));
        let found = until_checked(&setup, changed);
        setup.until_file_says("a.yaml", "a: 2\n");
        assert_eq!(lists(&setup), 2);
        let list = setup.server.wait_for_request("a second list", |request| {
            request.is_list() && !request.is_metadata_only() && request.at > changed
        });
        let wait = list.at - found.at;
        assert!(wait >= Duration::from_secs(2), "{wait:?}");
        assert!(wait < Duration::from_secs(5) + watch.held_up(), "{wait:?}");
        setup.server.deliver(Delivery::Normal);
        setup.server.wait_for_watches(1);
        setup.server.replace(object(3));
        setup.until_file_says("a.yaml", "a: 3\n");
        assert_eq!(lists(&setup), 2);
    }
}

#[test]
fn a_check_sees_that_an_object_was_created_again() {
    let setup = Setup::for_module(module_path!());
    let _program = watching(&setup, "300ms");
    setup.server.deliver(Delivery::Lost);
    setup.server.change(|cluster| {
        cluster.delete("ConfigMap", "default", "a");
        cluster.create(object(2));
    });
    setup.until_file_says("a.yaml", "a: 2\n");
}

#[test]
fn a_bookmark_does_not_cover_up_a_lost_event() {
    let setup = Setup::for_module(module_path!());
    let _program = watching(&setup, "1s");
    setup.server.deliver(Delivery::LostButBookmarks);
    let changed = Instant::now();
    setup.server.replace(object(2));
    until_checked(&setup, changed);
    setup.server.bookmark();
    setup.until_file_says("a.yaml", "a: 2\n");
}

#[test]
fn a_watch_that_delivers_late_is_not_listed() {
    let setup = Setup::for_module(module_path!());
    let _program = watching(&setup, "300ms");
    setup.server.deliver(Delivery::Held);
    let changed = Instant::now();
    setup.server.replace(object(2));
    until_checked(&setup, changed);
    setup.server.deliver(Delivery::Normal);
    setup.until_file_says("a.yaml", "a: 2\n");
    // Past the time when it would have been condemned.
    until_checked(&setup, changed + Duration::from_secs(3));
    assert_eq!(lists(&setup), 1);
    assert_eq!(setup.server.count_requests(Request::is_watch), 1);
}

#[test]
fn without_watch_only_checks_follow_and_a_list_if_they_differ() {
    let setup = Setup::for_module(module_path!());
    setup.server.create(object(1));
    let more = ["-watch=false", "-sync-interval", "200ms"];
    let _program = setup.watch(&["a"], &more);
    setup.until_file_says("a.yaml", "a: 1\n");
    setup
        .server
        .wait_for_requests("checks", 3, Request::is_metadata_only);
    assert_eq!(lists(&setup), 1);
    setup.server.replace(object(2));
    setup.until_file_says("a.yaml", "a: 2\n");
    assert_eq!(lists(&setup), 2);
    let seen = checks(&setup).len();
    setup
        .server
        .wait_for_requests("more checks", seen + 3, Request::is_metadata_only);
    assert_eq!(lists(&setup), 2);
    assert_eq!(setup.server.count_requests(Request::is_watch), 0);
}

#[test]
fn a_check_that_failed_is_made_again_as_soon_as_the_server_allows() {
    let setup = Setup::for_module(module_path!());
    let fault = Fault::retry_after(503, "1");
    setup
        .server
        .misbehave(Misbehaviour::new(fault, Request::is_metadata_only).times(1));
    setup.server.create(object(1));
    let watch = Stopwatch::start();
    let program = setup.watch(&["a"], &["-watch=false", "-sync-interval", "5s"]);
    program.wait_for_line("the API server cannot answer now");
    setup
        .server
        .wait_for_requests("checks", 2, Request::is_metadata_only);
    let checks = checks(&setup);
    let wait = checks[1].at - checks[0].at;
    assert!(wait >= Duration::from_secs(1), "{wait:?}");
    assert!(wait < Duration::from_secs(4) + watch.held_up(), "{wait:?}");
}

#[test]
fn a_watch_that_freezes_within_an_event_is_replaced() {
    let setup = Setup::https(false);
    let stall = Fault::After {
        body_bytes: 100,
        then: Then::Stall,
    };
    setup
        .server
        .misbehave(Misbehaviour::new(stall, Request::is_watch).times(1));
    let _program = watching(&setup, "300ms");
    setup.server.replace(object(2));
    setup.until_file_says("a.yaml", "a: 2\n");
    assert_eq!(lists(&setup), 2);
    setup.server.replace(object(3));
    setup.until_file_says("a.yaml", "a: 3\n");
    assert_eq!(lists(&setup), 2);
}

/// While lists are answered and watches are not, or do not live, a change arrives all the same.
#[track_caller]
fn is_checked(fault: Fault) {
    let setup = Setup::new();
    setup
        .server
        .misbehave(Misbehaviour::new(fault, Request::is_watch));
    setup.server.create(object(1));
    let _program = setup.watch(&["a"], &["-sync-interval", "1s"]);
    setup.until_file_says("a.yaml", "a: 1\n");
    setup
        .server
        .wait_for_request("a watch that fails", Request::is_watch);
    setup.server.replace(object(2));
    setup.until_file_says("a.yaml", "a: 2\n");
}

#[test]
fn a_watch_that_cannot_be_opened_is_replaced_by_lists() {
    let statuses = [429, 500, 504].map(Fault::status);
    // Side by side, as each has its back-off.
    std::thread::scope(|scope| {
        for fault in statuses
            .into_iter()
            .chain([Fault::Freeze, Fault::EndAtOnce])
        {
            scope.spawn(|| is_checked(fault));
        }
    });
}
