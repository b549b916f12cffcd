//! List-watch as the API server sees it: what is asked, when, and what is not.

use crate::scene::Scene;
use serde_json::json;
use std::time::Duration;
use testkit::apiserver::access::{Account, Rule};
use testkit::apiserver::faults::{Fault, Misbehaviour};
use testkit::apiserver::request::Request;
use testkit::crossover::Crossover;
use testkit::objects::{config_map, in_namespace};
use testkit::stopwatch::Stopwatch;

/// The verbs of all requests so far, a look being another list.
fn asked(scene: &Scene) -> Vec<String> {
    let name = |request: &Request| match request.query("resourceVersion") {
        Some(version) => format!("watch {version}"),
        None if request.is_metadata_only() => "look".to_owned(),
        None => "list".to_owned(),
    };
    scene.server.requests().iter().map(name).collect()
}

/// A program that watches ConfigMap `a`, whose key `a.yaml` says `a: 1`.
fn watching(scene: &Scene, more: &[&str]) -> Crossover {
    scene
        .server
        .create(config_map("a", &[("a.yaml", "a: 1\n")]));
    let program = scene.follow(&["a"], more);
    scene.server.wait_for_watches(1);
    scene.until_file_says("a.yaml", "a: 1\n");
    program
}

fn change(scene: &Scene, number: u32) -> String {
    scene
        .server
        .replace(config_map("a", &[("a.yaml", &format!("a: {number}\n"))]))
}

#[track_caller]
fn lists_then_watches(scene: Scene) {
    scene.server.skip_to(4711);
    let _program = watching(&scene, &[]);
    let requests = scene.server.requests();
    let [list, watch] = requests.as_slice() else {
        panic!("{:?}", asked(&scene));
    };
    for request in [list, watch] {
        assert_eq!(request.path(), "/api/v1/namespaces/default/configmaps");
        assert_eq!(request.query("fieldSelector").unwrap(), "metadata.name=a");
        assert_eq!(request.accept, "application/json");
        assert!(
            request.user_agent.starts_with("crossover/"),
            "{}",
            request.user_agent
        );
    }
    assert!(
        list.is_list() && list.query("resourceVersion").is_none(),
        "{}",
        list.line()
    );
    assert!(
        watch.is_watch() && watch.flag("allowWatchBookmarks"),
        "{}",
        watch.line()
    );
    assert_eq!(watch.query("resourceVersion").unwrap(), "4712");
    let seconds: u64 = watch.query("timeoutSeconds").unwrap().parse().unwrap();
    assert!((480..=720).contains(&seconds), "{seconds}");
}

#[test]
fn lists_by_name_then_watches_from_the_list_s_version() {
    lists_then_watches(Scene::http_for(module_path!()));
}

#[test]
fn lists_by_name_then_watches_from_the_list_s_version_over_tls() {
    lists_then_watches(Scene::https());
}

#[test]
fn an_event_s_object_is_the_observation() {
    for scene in [Scene::http_for(module_path!()), Scene::https()] {
        let _program = watching(&scene, &[]);
        for number in 2..12 {
            change(&scene, number);
            scene.until_file_says("a.yaml", &format!("a: {number}\n"));
        }
        assert_eq!(asked(&scene), ["list", "watch 1001"]);
    }
}

#[test]
fn a_watch_that_ends_is_reopened_where_a_bookmark_said() {
    let scene = Scene::http_for(module_path!());
    let _program = watching(&scene, &[]);
    scene.server.skip_to(5000);
    scene.server.end_watches(); // With a last bookmark, as a real server does.
    scene
        .server
        .wait_for_requests("a second watch", 3, |_| true);
    assert_eq!(asked(&scene), ["list", "watch 1001", "watch 5000"]);
    change(&scene, 2);
    scene.until_file_says("a.yaml", "a: 2\n");
}

#[test]
fn a_watch_that_breaks_is_reopened_where_its_last_event_said() {
    let scene = Scene::http_for(module_path!());
    let _program = watching(&scene, &[]);
    let version = change(&scene, 2);
    scene.until_file_says("a.yaml", "a: 2\n");
    scene.server.reset_connections();
    scene
        .server
        .wait_for_requests("a second watch", 3, |_| true);
    assert_eq!(
        asked(&scene),
        ["list", "watch 1001", &format!("watch {version}")]
    );
}

#[test]
fn what_changed_while_a_watch_was_closed_arrives_without_a_list() {
    let scene = Scene::http_for(module_path!());
    let program = watching(&scene, &[]);
    scene.server.go_away();
    program.wait_for_line("the API server is away");
    change(&scene, 2);
    scene.server.come_back();
    scene.until_file_says("a.yaml", "a: 2\n");
    program.wait_for_line("the API server answers again");
    assert_eq!(asked(&scene), ["list", "watch 1001", "watch 1001"]);
}

#[test]
fn lists_again_after_410_as_a_status() {
    let scene = Scene::http_for(module_path!());
    let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410,
        "reason": "Expired", "message": "too old resource version: 1001 (2000)"});
    let fault = Fault::Answer {
        status: 410,
        headers: vec![("Content-Type".into(), "application/json".into())],
        body: gone.to_string().into_bytes(),
    };
    scene
        .server
        .misbehave(Misbehaviour::new(fault, Request::is_watch).times(1));
    let _program = watching(&scene, &[]);
    assert_eq!(asked(&scene), ["list", "watch 1001", "list", "watch 1001"]);
}

#[test]
fn lists_again_after_410_as_an_event() {
    let scene = Scene::http_for(module_path!());
    let program = watching(&scene, &[]);
    scene.server.go_away();
    program.wait_for_line("the API server is away");
    let version = change(&scene, 2);
    scene.server.compact();
    scene.server.come_back();
    scene.until_file_says("a.yaml", "a: 2\n");
    scene.server.wait_for_watches(1);
    let want = [
        "list",
        "watch 1001",
        "watch 1001",
        "list",
        &format!("watch {version}"),
    ];
    assert_eq!(asked(&scene), want);
    change(&scene, 3);
    scene.until_file_says("a.yaml", "a: 3\n");
}

#[test]
fn follows_an_etcd_that_was_restored_within_a_sync_interval() {
    let scene = Scene::http_for(module_path!());
    let _program = watching(&scene, &["-sync-interval", "500ms"]);
    for number in 2..5 {
        change(&scene, number);
        scene.until_file_says("a.yaml", &format!("a: {number}\n"));
    }
    // What is watched from has not happened yet.
    scene.server.rewind(500);
    change(&scene, 5);
    scene.until_file_says("a.yaml", "a: 5\n");
    change(&scene, 6);
    scene.until_file_says("a.yaml", "a: 6\n");
}

#[test]
fn a_watch_that_ends_at_once_again_and_again_is_reopened_ever_more_slowly() {
    let scene = Scene::http_for(module_path!());
    let fault = Misbehaviour::new(Fault::EndAtOnce, Request::is_watch);
    scene.server.misbehave(fault.times(3));
    let watch = Stopwatch::start();
    let _program = watching(&scene, &[]);
    scene
        .server
        .wait_for_requests("watches", 4, Request::is_watch);
    // The first time is free; then the waits are drawn from 1.6 s, and from 3.2 s.
    let asked = scene.server.requests();
    let span = asked[4].at - asked[1].at + watch.held_up();
    assert!(span > Duration::from_millis(100), "{span:?}");
    change(&scene, 2);
    scene.until_file_says("a.yaml", "a: 2\n");
    assert_eq!(scene.server.requests().len(), 5);
}

#[test]
fn follows_an_object_that_was_deleted_and_made_anew() {
    let scene = Scene::http_for(module_path!());
    let program = watching(&scene, &[]);
    scene.server.delete("ConfigMap", "a");
    program.wait_for_line("ConfigMap not found");
    scene.until_file_says("a.yaml", "a: 1\n");
    scene
        .server
        .create(config_map("a", &[("a.yaml", "a: 2\n")]));
    scene.until_file_says("a.yaml", "a: 2\n");
    assert_eq!(asked(&scene), ["list", "watch 1001"]);
}

#[test]
fn asks_for_nothing_but_the_named_objects() {
    let scene = Scene::http_for(module_path!());
    let rule = Rule::new("", "configmaps", &["list", "watch"]).named(&["a", "b"]);
    scene
        .server
        .set_accounts(vec![Account::anonymous(vec![rule])]);
    scene.server.change(|cluster| {
        for (name, other) in [("a", "b"), ("c", "d")] {
            cluster.create(config_map(name, &[(&format!("{name}.yaml"), "a: 1\n")]));
            let object = config_map(other, &[(&format!("{other}.yaml"), "b: 1\n")]);
            cluster.create(in_namespace("other", object));
        }
    });
    let _program = scene.follow(&["a", "other/b"], &["-sync-interval", "100ms"]);
    scene.until_file_says("a.yaml", "a: 1\n");
    scene.until_file_says("b.yaml", "b: 1\n");
    for name in ["a", "b"] {
        let look = |request: &Request| request.is_metadata_only() && request.names(name);
        scene.server.wait_for_requests("looks", 3, look);
    }
    for request in scene.server.requests() {
        let place = request.place().unwrap();
        let about = (
            place.namespace.as_str(),
            request.selected_name().unwrap().unwrap(),
        );
        let known = [("default", "a".to_owned()), ("other", "b".to_owned())];
        assert!(
            known.contains(&about) && place.plural == "configmaps",
            "{}",
            request.line()
        );
        assert!(
            request.is_list() || request.is_watch(),
            "{}",
            request.line()
        );
        // 0: it is being answered.
        assert!([0, 200].contains(&request.status), "{}", request.line());
    }
    assert!(!scene.file("c.yaml").exists() && !scene.file("d.yaml").exists());
}

#[test]
fn a_watch_that_is_cut_again_and_again_is_told_once_and_changes_arrive_within_five_seconds() {
    let scene = Scene::http();
    let program = watching(&scene, &[]);
    for number in 2..7 {
        let opened = number as usize - 1;
        scene
            .server
            .wait_for_requests("watches", opened, Request::is_watch);
        scene.server.wait_for_watches(1);
        let watch = Stopwatch::start();
        scene.server.reset_watches();
        change(&scene, number);
        scene.until_file_says("a.yaml", &format!("a: {number}\n"));
        let took = watch.took();
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    let stderr = program.stop().stderr;
    let told = "INFO  the watch is cut again and again";
    let told: Vec<&str> = stderr.lines().filter(|l| l.contains(told)).collect();
    let [line] = told.as_slice() else {
        panic!("not told once: {stderr}");
    };
    assert!(line.contains("watch configmaps default/a"), "{line}");
    assert!(line.contains("Peer disconnected"), "{line}");
    assert!(!stderr.contains(" WARN "), "{stderr}");
}

#[test]
fn watches_that_are_forbidden_while_lists_work_are_warned_of_once() {
    let scene = Scene::http();
    let rules = |verbs: &[&str]| {
        let rule = Rule::new("", "configmaps", verbs);
        scene
            .server
            .set_accounts(vec![Account::anonymous(vec![rule])]);
    };
    rules(&["list"]);
    scene
        .server
        .create(config_map("a", &[("a.yaml", "a: 1\n")]));
    let program = scene.follow(&["a"], &[]);
    let refused = |request: &Request| request.status == 403;
    scene.server.wait_for_requests("refusals", 4, refused);
    let refusals = || {
        let lines = program.lines();
        lines.iter().filter(|l| l.contains(" WARN ")).count()
    };
    assert_eq!(refusals(), 1);
    // Another time is another line.
    rules(&["list", "watch"]);
    scene.server.wait_for_watches(1);
    change(&scene, 2);
    scene.until_file_says("a.yaml", "a: 2\n");
    rules(&["list"]);
    scene.server.reset_watches();
    program.wait_for_lines(2, " WARN ");
}
