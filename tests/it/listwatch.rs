//! List-watch as the API server sees it: what is asked, when, and what is not.

use crate::kit::apiserver::access::{Account, Rule};
use crate::kit::apiserver::faults::{Fault, Misbehaviour};
use crate::kit::apiserver::request::Request;
use crate::kit::apiserver::watches::Watch;
use crate::kit::objects::{config_map, in_namespace};
use crate::kit::{crossover::Crossover, until_file};
use crate::scene::Scene;
use serde_json::json;

/// The verbs of all requests so far, a look being another list.
fn asked(scene: &Scene) -> Vec<String> {
    let name = |request: &Request| match request.query("resourceVersion") {
        Some(version) => format!("watch {version}"),
        None if request.is_metadata_only() => "look".to_owned(),
        None => "list".to_owned(),
    };
    scene.server.requests().iter().map(name).collect()
}

fn about(name: &str) -> impl Fn(&Watch) -> bool {
    move |watch| watch.selection.name.as_deref() == Some(name)
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
    assert!((240..=360).contains(&seconds), "{seconds}");
}

#[test]
fn lists_by_name_then_watches_from_the_list_s_version() {
    lists_then_watches(Scene::http());
}

#[test]
fn lists_by_name_then_watches_from_the_list_s_version_over_tls() {
    lists_then_watches(Scene::https());
}

#[test]
fn an_event_s_object_is_the_observation() {
    for scene in [Scene::http(), Scene::https()] {
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
    let scene = Scene::http();
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
    let scene = Scene::http();
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
    let scene = Scene::http();
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
    let scene = Scene::http();
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
    let scene = Scene::http();
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
fn follows_an_object_that_was_deleted_and_made_anew() {
    let scene = Scene::http();
    let program = watching(&scene, &[]);
    scene.server.delete("ConfigMap", "a");
    program.wait_for_line("a ConfigMap is not there");
    scene.until_file_says("a.yaml", "a: 1\n");
    scene
        .server
        .create(config_map("a", &[("a.yaml", "a: 2\n")]));
    scene.until_file_says("a.yaml", "a: 2\n");
    assert_eq!(asked(&scene), ["list", "watch 1001"]);
}

#[test]
fn asks_for_nothing_but_the_named_objects() {
    let scene = Scene::http();
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
        assert_eq!(request.status, 200, "{}", request.line());
    }
    assert!(!scene.file("c.yaml").exists() && !scene.file("d.yaml").exists());
}

/// One MiB of data in a form that JSON stretches to near what etcd takes.
fn mebibyte(mark: &str) -> String {
    let line = format!("\"{mark}\": \"a\\b\"\t# {}\n", "x".repeat(8));
    line.repeat((1 << 20) / line.len())
}

#[test]
fn a_configmap_of_one_mebibyte_comes_by_list_and_by_event() {
    for scene in [Scene::http(), Scene::https()] {
        let (first, second) = (mebibyte("1"), mebibyte("2"));
        let escaped = json!(first).to_string().len();
        assert!((1_300_000..1_600_000).contains(&escaped), "{escaped}");
        scene.server.create(config_map("a", &[("a.txt", &first)]));
        let _program = scene.follow(&["a"], &[]);
        until_file(&scene.file("a.txt"), |bytes| bytes == first.as_bytes());
        scene.server.wait_for_watches(1);
        scene.server.replace(config_map("a", &[("a.txt", &second)]));
        until_file(&scene.file("a.txt"), |bytes| bytes == second.as_bytes());
        assert_eq!(asked(&scene), ["list", "watch 1001"]);
    }
}

#[test]
fn a_line_over_the_cap_is_an_error_of_its_object_alone() {
    let scene = Scene::http();
    scene
        .server
        .create(config_map("b", &[("b.yaml", "b: 1\n")]));
    scene
        .server
        .create(config_map("a", &[("a.yaml", "a: 1\n")]));
    let program = scene.follow(&["a", "b"], &[]);
    scene.server.wait_for_watches(2);
    scene.until_file_says("b.yaml", "b: 1\n");
    scene.server.inject(&vec![b'x'; (8 << 20) + 1], about("a"));
    let line = program.wait_for_line("8 MiB");
    assert!(line.contains("default/a"), "{line}");
    scene
        .server
        .replace(config_map("b", &[("b.yaml", "b: 2\n")]));
    scene.until_file_says("b.yaml", "b: 2\n");
    change(&scene, 2);
    scene.until_file_says("a.yaml", "a: 2\n");
    assert_eq!(
        scene.server.count_requests(|r| r.is_list() && r.names("b")),
        1
    );
    assert_eq!(
        program
            .lines()
            .iter()
            .filter(|line| line.contains("WARN"))
            .count(),
        1
    );
}

#[test]
fn a_list_over_the_cap_is_an_error_of_its_object_alone() {
    let scene = Scene::http();
    scene
        .server
        .create(config_map("b", &[("b.yaml", "b: 1\n")]));
    scene
        .server
        .create(config_map("a", &[("a.yaml", "a: 1\n")]));
    let huge = Fault::json(vec![b' '; (8 << 20) + 1]);
    let list_of_a = |request: &Request| request.is_list() && request.names("a");
    scene
        .server
        .misbehave(Misbehaviour::new(huge, list_of_a).times(1));
    let program = scene.follow(&["a", "b"], &[]);
    let line = program.wait_for_line("8 MiB");
    assert!(line.contains("default/a"), "{line}");
    scene.until_file_says("a.yaml", "a: 1\n");
    scene.until_file_says("b.yaml", "b: 1\n");
    assert_eq!(
        scene.server.count_requests(|r| r.is_list() && r.names("b")),
        1
    );
}

#[test]
fn thirty_watches_share_one_thread() {
    let scene = Scene::https();
    let names: Vec<String> = (0..30).map(|i| format!("c{i:02}")).collect();
    let object = |name: &str, number: u32| {
        config_map(
            name,
            &[(&format!("{name}.yaml"), &format!("a: {number}\n"))],
        )
    };
    scene.server.change(|cluster| {
        for name in &names {
            cluster.create(object(name, 0));
        }
    });
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    let program = scene.follow(&known, &[]);
    scene.server.wait_for_watches(30);
    for number in 1..4 {
        scene.server.change(|cluster| {
            for name in &names {
                cluster.replace(object(name, number));
            }
        });
        for name in &names {
            scene.until_file_says(&format!("{name}.yaml"), &format!("a: {number}\n"));
        }
    }
    assert_eq!(program.measure().threads, 1);
    assert_eq!(scene.server.count_requests(Request::is_list), 30);
    let watches = scene
        .server
        .requests()
        .into_iter()
        .filter(Request::is_watch);
    let mut seconds: Vec<u64> = watches
        .map(|watch| watch.query("timeoutSeconds").unwrap().parse().unwrap())
        .collect();
    assert_eq!(seconds.len(), 30);
    seconds.sort_unstable();
    assert!(seconds[0] >= 240 && seconds[29] <= 360, "{seconds:?}");
    seconds.dedup();
    assert!(seconds.len() > 15, "not spread: {seconds:?}");
}
