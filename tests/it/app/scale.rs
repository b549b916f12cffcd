//! Large objects, objects that are too large, and many watches.

use crate::scene::Scene;
use serde_json::json;
use testkit::apiserver::faults::{Fault, Misbehaviour};
use testkit::apiserver::request::Request;
use testkit::apiserver::watches::Watch;
use testkit::objects::config_map;
use testkit::until_file;

fn about(name: &str) -> impl Fn(&Watch) -> bool {
    move |watch| watch.selection.name.as_deref() == Some(name)
}

/// Counts the lists of an object.
fn lists_of(scene: &Scene, name: &str) -> usize {
    scene
        .server
        .count_requests(|request| request.is_list() && request.names(name))
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
        assert_eq!(
            (lists_of(&scene, "a"), scene.server.requests().len()),
            (1, 2)
        );
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
    scene
        .server
        .replace(config_map("a", &[("a.yaml", "a: 2\n")]));
    scene.until_file_says("a.yaml", "a: 2\n");
    assert_eq!(lists_of(&scene, "b"), 1);
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
    assert_eq!(lists_of(&scene, "b"), 1);
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
    assert!(seconds[0] >= 480 && seconds[29] <= 720, "{seconds:?}");
    seconds.dedup();
    assert!(seconds.len() > 15, "not spread: {seconds:?}");
}
