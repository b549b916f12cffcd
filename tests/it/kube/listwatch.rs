//! List-watch as the API server sees it: what is asked, when, and what is not.

use serde_json::json;
use std::time::Duration;
use testkit::apiserver::access::{Account, Rule};
use testkit::apiserver::faults::{Fault, Misbehaviour};
use testkit::apiserver::request::Request;
use testkit::crossover::Crossover;
use testkit::objects::{config_map, in_namespace};
use testkit::setup::Setup;
use testkit::stopwatch::Stopwatch;

/// Returns the verbs of all requests so far, in which a check is another list.
fn asked(setup: &Setup) -> Vec<String> {
    let name = |request: &Request| match request.query("resourceVersion") {
        Some(version) => format!("watch {version}"),
        None if request.is_metadata_only() => "look".to_owned(),
        None => "list".to_owned(),
    };
    setup.server.requests().iter().map(name).collect()
}

/// A program that watches ConfigMap `a`, whose key `a.yaml` says `a: 1`.
fn watching(setup: &Setup, more: &[&str]) -> Crossover {
    setup
        .server
        .create(config_map("a", &[("a.yaml", "a: 1\n")]));
    let program = setup.watch(&["a"], more);
    setup.server.wait_for_watches(1);
    setup.until_file_says("a.yaml", "a: 1\n");
    program
}

fn change(setup: &Setup, number: u32) -> String {
    setup
        .server
        .replace(config_map("a", &[("a.yaml", &format!("a: {number}\n"))]))
}

#[track_caller]
fn lists_then_watches(setup: Setup) {
    setup.server.skip_to(4711);
    let _program = watching(&setup, &[]);
    let requests = setup.server.requests();
    let [list, watch] = requests.as_slice() else {
        panic!("{:?}", asked(&setup));
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
    lists_then_watches(Setup::for_module(module_path!()));
}

#[test]
fn lists_by_name_then_watches_from_the_list_s_version_over_tls() {
    lists_then_watches(Setup::https(false));
}

#[test]
fn an_event_s_object_is_the_observation() {
    for setup in [Setup::for_module(module_path!()), Setup::https(false)] {
        let _program = watching(&setup, &[]);
        for number in 2..12 {
            change(&setup, number);
            setup.until_file_says("a.yaml", &format!("a: {number}\n"));
        }
        assert_eq!(asked(&setup), ["list", "watch 1001"]);
    }
}

#[test]
fn a_watch_that_ends_is_reopened_where_a_bookmark_said() {
    let setup = Setup::for_module(module_path!());
    let _program = watching(&setup, &[]);
    setup.server.skip_to(5000);
    setup.server.end_watches(); // With a last bookmark, as a real server does.
    setup
        .server
        .wait_for_requests("a second watch", 3, |_| true);
    assert_eq!(asked(&setup), ["list", "watch 1001", "watch 5000"]);
    change(&setup, 2);
    setup.until_file_says("a.yaml", "a: 2\n");
}

#[test]
fn a_watch_that_breaks_is_reopened_where_its_last_event_said() {
    let setup = Setup::for_module(module_path!());
    let _program = watching(&setup, &[]);
    let version = change(&setup, 2);
    setup.until_file_says("a.yaml", "a: 2\n");
    setup.server.reset_connections();
    setup
        .server
        .wait_for_requests("a second watch", 3, |_| true);
    assert_eq!(
        asked(&setup),
        ["list", "watch 1001", &format!("watch {version}")]
    );
}

#[test]
fn what_changed_while_a_watch_was_closed_arrives_without_a_list() {
    let setup = Setup::for_module(module_path!());
    let program = watching(&setup, &[]);
    setup.server.go_away();
    program.wait_for_line("the API server is away");
    change(&setup, 2);
    setup.server.come_back();
    setup.until_file_says("a.yaml", "a: 2\n");
    program.wait_for_line("the API server answers again");
    assert_eq!(asked(&setup), ["list", "watch 1001", "watch 1001"]);
}

#[test]
fn lists_again_after_410_as_a_status() {
    let setup = Setup::for_module(module_path!());
    let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410,
        "reason": "Expired", "message": "too old resource version: 1001 (2000)"});
    let fault = Fault::Answer {
        status: 410,
        headers: vec![("Content-Type".into(), "application/json".into())],
        body: gone.to_string().into_bytes(),
    };
    setup
        .server
        .misbehave(Misbehaviour::new(fault, Request::is_watch).times(1));
    let _program = watching(&setup, &[]);
    assert_eq!(asked(&setup), ["list", "watch 1001", "list", "watch 1001"]);
}

#[test]
fn lists_again_after_410_as_an_event() {
    let setup = Setup::for_module(module_path!());
    let program = watching(&setup, &[]);
    setup.server.go_away();
    program.wait_for_line("the API server is away");
    let version = change(&setup, 2);
    setup.server.compact();
    setup.server.come_back();
    setup.until_file_says("a.yaml", "a: 2\n");
    setup.server.wait_for_watches(1);
    let want = [
        "list",
        "watch 1001",
        "watch 1001",
        "list",
        &format!("watch {version}"),
    ];
    assert_eq!(asked(&setup), want);
    change(&setup, 3);
    setup.until_file_says("a.yaml", "a: 3\n");
}

#[test]
fn follows_an_etcd_that_was_restored_within_a_sync_interval() {
    let setup = Setup::for_module(module_path!());
    let _program = watching(&setup, &["-sync-interval", "500ms"]);
    for number in 2..5 {
        change(&setup, number);
        setup.until_file_says("a.yaml", &format!("a: {number}\n"));
    }
    // What is watched from has not happened yet.
    setup.server.rewind(500);
    change(&setup, 5);
    setup.until_file_says("a.yaml", "a: 5\n");
    change(&setup, 6);
    setup.until_file_says("a.yaml", "a: 6\n");
}

#[test]
fn a_watch_that_ends_at_once_again_and_again_is_reopened_ever_more_slowly() {
    let setup = Setup::for_module(module_path!());
    let fault = Misbehaviour::new(Fault::EndAtOnce, Request::is_watch);
    setup.server.misbehave(fault.times(3));
    let watch = Stopwatch::start();
    let _program = watching(&setup, &[]);
    setup
        .server
        .wait_for_requests("watches", 4, Request::is_watch);
    // The first time is free; then the waits are drawn from 1.6 s, and from 3.2 s.
    let asked = setup.server.requests();
    let span = asked[4].at - asked[1].at + watch.held_up();
    assert!(span > Duration::from_millis(100), "{span:?}");
    change(&setup, 2);
    setup.until_file_says("a.yaml", "a: 2\n");
    assert_eq!(setup.server.requests().len(), 5);
}

#[test]
fn follows_an_object_that_was_deleted_and_created_again() {
    let setup = Setup::for_module(module_path!());
    let program = watching(&setup, &[]);
    setup.server.delete("ConfigMap", "a");
    program.wait_for_line("ConfigMap not found");
    setup.until_file_says("a.yaml", "a: 1\n");
    setup
        .server
        .create(config_map("a", &[("a.yaml", "a: 2\n")]));
    setup.until_file_says("a.yaml", "a: 2\n");
    assert_eq!(asked(&setup), ["list", "watch 1001"]);
}

#[test]
fn asks_for_nothing_but_the_named_objects() {
    let setup = Setup::for_module(module_path!());
    let rule = Rule::new("", "configmaps", &["list", "watch"]).named(&["a", "b"]);
    setup
        .server
        .set_accounts(vec![Account::anonymous(vec![rule])]);
    setup.server.change(|cluster| {
        for (name, other) in [("a", "b"), ("c", "d")] {
            cluster.create(config_map(name, &[(&format!("{name}.yaml"), "a: 1\n")]));
            let object = config_map(other, &[(&format!("{other}.yaml"), "b: 1\n")]);
            cluster.create(in_namespace("other", object));
        }
    });
    let _program = setup.watch(&["a", "other/b"], &["-sync-interval", "100ms"]);
    setup.until_file_says("a.yaml", "a: 1\n");
    setup.until_file_says("b.yaml", "b: 1\n");
    for name in ["a", "b"] {
        let look = |request: &Request| request.is_metadata_only() && request.names(name);
        setup.server.wait_for_requests("looks", 3, look);
    }
    for request in setup.server.requests() {
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
    assert!(!setup.file("c.yaml").exists() && !setup.file("d.yaml").exists());
}

#[test]
fn a_watch_that_is_cut_again_and_again_is_reported_once_and_changes_arrive_within_five_seconds() {
    let setup = Setup::new();
    let program = watching(&setup, &[]);
    for number in 2..7 {
        let opened = number as usize - 1;
        setup
            .server
            .wait_for_requests("watches", opened, Request::is_watch);
        setup.server.wait_for_watches(1);
        let watch = Stopwatch::start();
        setup.server.reset_watches();
        change(&setup, number);
        setup.until_file_says("a.yaml", &format!("a: {number}\n"));
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
    let setup = Setup::new();
    let rules = |verbs: &[&str]| {
        let rule = Rule::new("", "configmaps", verbs);
        setup
            .server
            .set_accounts(vec![Account::anonymous(vec![rule])]);
    };
    rules(&["list"]);
    setup
        .server
        .create(config_map("a", &[("a.yaml", "a: 1\n")]));
    let program = setup.watch(&["a"], &[]);
    let refused = |request: &Request| request.status == 403;
    setup.server.wait_for_requests("refusals", 4, refused);
    let refusals = || {
        let lines = program.lines();
        lines.iter().filter(|l| l.contains(" WARN ")).count()
    };
    assert_eq!(refusals(), 1);
    // Another time is another line.
    rules(&["list", "watch"]);
    setup.server.wait_for_watches(1);
    change(&setup, 2);
    setup.until_file_says("a.yaml", "a: 2\n");
    rules(&["list"]);
    setup.server.reset_watches();
    program.wait_for_lines(2, " WARN ");
}
