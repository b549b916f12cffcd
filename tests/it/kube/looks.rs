//! The safety look beside a watch, and alone: what it asks, when, and what it finds.

use crate::scene::Scene;
use std::time::{Duration, Instant};
use testkit::apiserver::faults::{Fault, Misbehaviour, Then};
use testkit::apiserver::request::Request;
use testkit::apiserver::watches::Delivery;
use testkit::crossover::Crossover;
use testkit::objects::config_map;
use testkit::stopwatch::Stopwatch;
use testkit::until;

fn looks(scene: &Scene) -> Vec<Request> {
    let requests = scene.server.requests();
    requests
        .into_iter()
        .filter(Request::is_metadata_only)
        .collect()
}

fn lists(scene: &Scene) -> usize {
    scene
        .server
        .count_requests(|request| request.is_list() && !request.is_metadata_only())
}

/// Waits for a look that is made after `since`.
#[track_caller]
fn until_looked_after(scene: &Scene, since: Instant) -> Request {
    scene.server.wait_for_request("a look", |request| {
        request.is_metadata_only() && request.at > since
    })
}

fn object(number: u32) -> serde_json::Value {
    config_map("a", &[("a.yaml", &format!("a: {number}\n"))])
}

/// A program that watches ConfigMap `a` and looks this often.
fn watching(scene: &Scene, interval: &str) -> Crossover {
    scene.server.create(object(1));
    let program = scene.follow(&["a"], &["-sync-interval", interval]);
    scene.server.wait_for_watches(1);
    scene.until_file_says("a.yaml", "a: 1\n");
    program
}

#[test]
fn a_silent_watch_is_looked_at_within_every_interval_by_metadata_alone() {
    let scene = Scene::http_for(module_path!());
    let watch = Stopwatch::start();
    let _program = watching(&scene, "200ms");
    scene
        .server
        .wait_for_requests("six looks", 6, Request::is_metadata_only);
    let looks = looks(&scene);
    for look in &looks {
        assert_eq!(
            look.accept,
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        );
        assert!(look.is_list() && look.names("a"), "{}", look.line());
    }
    // No more often than needed: three quarters of the interval pass at least.
    let span = looks[5].at - looks[0].at + watch.held_up();
    assert!(span > Duration::from_millis(5 * 150), "{span:?}");
    assert_eq!(lists(&scene), 1);
    assert_eq!(scene.server.count_requests(Request::is_watch), 1);
}

#[test]
fn a_look_leaves_no_connection_behind() {
    let scene = Scene::https();
    let program = watching(&scene, "1s");
    let before = program.measure().descriptors;
    let looked = |count| {
        scene
            .server
            .wait_for_requests("a look", count, Request::is_metadata_only);
        until("its connection to be closed", || {
            (program.measure().descriptors <= before).then_some(())
        });
    };
    (1..4).for_each(looked);
}

#[test]
fn a_watch_that_speaks_is_not_looked_at() {
    let scene = Scene::http_for(module_path!());
    scene.server.create(object(1));
    scene
        .server
        .create(config_map("b", &[("b.yaml", "b: 1\n")]));
    let _program = scene.follow(&["a", "b"], &["-sync-interval", "1s"]);
    scene.server.wait_for_watches(2);
    let bookmark = serde_json::json!({"type": "BOOKMARK", "object": {"kind": "ConfigMap",
        "apiVersion": "v1", "metadata": {"resourceVersion": "1002"}}});
    let bookmark = format!("{bookmark}\n");
    let look_at = |name: &'static str| move |r: &Request| r.is_metadata_only() && r.names(name);
    until("three looks at the silent one", || {
        let about_a = |watch: &testkit::apiserver::watches::Watch| {
            watch.selection.name.as_deref() == Some("a")
        };
        scene.server.inject(bookmark.as_bytes(), about_a);
        (scene.server.count_requests(look_at("b")) == 3).then_some(())
    });
    assert_eq!(scene.server.count_requests(look_at("a")), 0);
}

#[test]
fn a_look_finds_what_a_watch_keeps_silent_about_and_two_seconds_later_a_list_fetches_it() {
    for lie in [Delivery::Lost, Delivery::Held] {
        let scene = Scene::http_for(module_path!());
        let _program = watching(&scene, "300ms");
        scene.server.deliver(lie);
        let (changed, watch) = (Instant::now(), Stopwatch::start());
        scene.server.replace(object(2));
        let found = until_looked_after(&scene, changed);
        scene.until_file_says("a.yaml", "a: 2\n");
        assert_eq!(lists(&scene), 2);
        let list = scene.server.wait_for_request("a second list", |request| {
            request.is_list() && !request.is_metadata_only() && request.at > changed
        });
        let wait = list.at - found.at;
        assert!(wait >= Duration::from_secs(2), "{wait:?}");
        assert!(wait < Duration::from_secs(5) + watch.held_up(), "{wait:?}");
        scene.server.deliver(Delivery::Normal);
        scene.server.wait_for_watches(1);
        scene.server.replace(object(3));
        scene.until_file_says("a.yaml", "a: 3\n");
        assert_eq!(lists(&scene), 2);
    }
}

#[test]
fn a_look_sees_that_an_object_was_made_anew() {
    let scene = Scene::http_for(module_path!());
    let _program = watching(&scene, "300ms");
    scene.server.deliver(Delivery::Lost);
    scene.server.change(|cluster| {
        cluster.delete("ConfigMap", "default", "a");
        cluster.create(object(2));
    });
    scene.until_file_says("a.yaml", "a: 2\n");
}

#[test]
fn a_bookmark_does_not_cover_up_a_lost_event() {
    let scene = Scene::http_for(module_path!());
    let _program = watching(&scene, "1s");
    scene.server.deliver(Delivery::LostButBookmarks);
    let changed = Instant::now();
    scene.server.replace(object(2));
    until_looked_after(&scene, changed);
    scene.server.bookmark();
    scene.until_file_says("a.yaml", "a: 2\n");
}

#[test]
fn a_watch_that_delivers_late_is_not_listed() {
    let scene = Scene::http_for(module_path!());
    let _program = watching(&scene, "300ms");
    scene.server.deliver(Delivery::Held);
    let changed = Instant::now();
    scene.server.replace(object(2));
    until_looked_after(&scene, changed);
    scene.server.deliver(Delivery::Normal);
    scene.until_file_says("a.yaml", "a: 2\n");
    // Past the time when it would have been condemned.
    until_looked_after(&scene, changed + Duration::from_secs(3));
    assert_eq!(lists(&scene), 1);
    assert_eq!(scene.server.count_requests(Request::is_watch), 1);
}

#[test]
fn without_watch_only_looks_follow_and_a_list_when_they_differ() {
    let scene = Scene::http_for(module_path!());
    scene.server.create(object(1));
    let more = ["-watch=false", "-sync-interval", "200ms"];
    let _program = scene.follow(&["a"], &more);
    scene.until_file_says("a.yaml", "a: 1\n");
    scene
        .server
        .wait_for_requests("looks", 3, Request::is_metadata_only);
    assert_eq!(lists(&scene), 1);
    scene.server.replace(object(2));
    scene.until_file_says("a.yaml", "a: 2\n");
    assert_eq!(lists(&scene), 2);
    let seen = looks(&scene).len();
    scene
        .server
        .wait_for_requests("more looks", seen + 3, Request::is_metadata_only);
    assert_eq!(lists(&scene), 2);
    assert_eq!(scene.server.count_requests(Request::is_watch), 0);
}

#[test]
fn a_look_that_the_server_fails_is_made_again_as_soon_as_it_may_be() {
    let scene = Scene::http_for(module_path!());
    let fault = Fault::retry_after(503, "1");
    scene
        .server
        .misbehave(Misbehaviour::new(fault, Request::is_metadata_only).times(1));
    scene.server.create(object(1));
    let watch = Stopwatch::start();
    let program = scene.follow(&["a"], &["-watch=false", "-sync-interval", "5s"]);
    program.wait_for_line("the API server cannot answer now");
    scene
        .server
        .wait_for_requests("looks", 2, Request::is_metadata_only);
    let looks = looks(&scene);
    let wait = looks[1].at - looks[0].at;
    assert!(wait >= Duration::from_secs(1), "{wait:?}");
    assert!(wait < Duration::from_secs(4) + watch.held_up(), "{wait:?}");
}

#[test]
fn a_watch_that_freezes_within_an_event_is_replaced() {
    let scene = Scene::https();
    let stall = Fault::After {
        body_bytes: 100,
        then: Then::Stall,
    };
    scene
        .server
        .misbehave(Misbehaviour::new(stall, Request::is_watch).times(1));
    let _program = watching(&scene, "300ms");
    scene.server.replace(object(2));
    scene.until_file_says("a.yaml", "a: 2\n");
    assert_eq!(lists(&scene), 2);
    scene.server.replace(object(3));
    scene.until_file_says("a.yaml", "a: 3\n");
    assert_eq!(lists(&scene), 2);
}

/// While lists are answered and watches are not, or do not live, a change arrives all the same.
#[track_caller]
fn is_looked_after(fault: Fault) {
    let scene = Scene::http();
    scene
        .server
        .misbehave(Misbehaviour::new(fault, Request::is_watch));
    scene.server.create(object(1));
    let _program = scene.follow(&["a"], &["-sync-interval", "1s"]);
    scene.until_file_says("a.yaml", "a: 1\n");
    scene
        .server
        .wait_for_request("a watch that fails", Request::is_watch);
    scene.server.replace(object(2));
    scene.until_file_says("a.yaml", "a: 2\n");
}

#[test]
fn a_watch_that_cannot_be_opened_is_looked_after_by_lists() {
    let statuses = [429, 500, 504].map(Fault::status);
    // Side by side, as each has its back-off.
    std::thread::scope(|scope| {
        for fault in statuses
            .into_iter()
            .chain([Fault::Freeze, Fault::EndAtOnce])
        {
            scope.spawn(|| is_looked_after(fault));
        }
    });
}
