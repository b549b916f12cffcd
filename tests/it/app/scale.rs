//! Large objects, objects that are too large, and many watches.

use serde_json::json;
use testkit::apiserver::faults::{Fault, Misbehaviour};
use testkit::apiserver::request::Request;
use testkit::apiserver::watches::Watch;
use testkit::objects::config_map;
use testkit::setup::Setup;
use testkit::until_file;

fn about(name: &str) -> impl Fn(&Watch) -> bool {
    move |watch| watch.selection.name.as_deref() == Some(name)
}

/// Counts the lists of an object.
fn lists_of(setup: &Setup, name: &str) -> usize {
    setup
        .server
        .count_requests(|request| request.is_list() && request.names(name))
}

/// A server with two small ConfigMaps.
fn two() -> Setup {
    let setup = Setup::new();
    setup.put("b", &[("b.yaml", "b: 1\n")]);
    setup.put("a", &[("a.yaml", "a: 1\n")]);
    setup
}

/// One MiB of data in a form that JSON stretches to near what etcd takes.
fn mebibyte(mark: &str) -> String {
    let line = format!("\"{mark}\": \"a\\b\"\t# {}\n", "x".repeat(8));
    line.repeat((1 << 20) / line.len())
}

#[test]
fn a_configmap_of_one_mebibyte_comes_by_list_and_by_event() {
    for setup in [Setup::new(), Setup::https(false)] {
        let (first, second) = (mebibyte("1"), mebibyte("2"));
        let escaped = json!(first).to_string().len();
        assert!((1_300_000..1_600_000).contains(&escaped), "{escaped}");
        setup.server.create(config_map("a", &[("a.txt", &first)]));
        let _program = setup.watch(&["a"], &[]);
        until_file(&setup.file("a.txt"), |bytes| bytes == first.as_bytes());
        setup.server.wait_for_watches(1);
        setup.server.replace(config_map("a", &[("a.txt", &second)]));
        until_file(&setup.file("a.txt"), |bytes| bytes == second.as_bytes());
        assert_eq!(
            (lists_of(&setup, "a"), setup.server.requests().len()),
            (1, 2)
        );
    }
}

#[test]
fn a_line_over_the_cap_is_an_error_of_its_object_alone() {
    let setup = two();
    let program = setup.watch(&["a", "b"], &[]);
    setup.server.wait_for_watches(2);
    setup.until_file_says("b.yaml", "b: 1\n");
    setup.server.inject(&vec![b'x'; (8 << 20) + 1], about("a"));
    let line = program.wait_for_line("8 MiB");
    assert!(line.contains("default/a"), "{line}");
    setup.put("b", &[("b.yaml", "b: 2\n")]);
    setup.until_file_says("b.yaml", "b: 2\n");
    setup.put("a", &[("a.yaml", "a: 2\n")]);
    setup.until_file_says("a.yaml", "a: 2\n");
    assert_eq!(lists_of(&setup, "b"), 1);
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
    let setup = two();
    let huge = Fault::json(vec![b' '; (8 << 20) + 1]);
    let list_of_a = |request: &Request| request.is_list() && request.names("a");
    setup
        .server
        .misbehave(Misbehaviour::new(huge, list_of_a).times(1));
    let program = setup.watch(&["a", "b"], &[]);
    let line = program.wait_for_line("8 MiB");
    assert!(line.contains("default/a"), "{line}");
    setup.until_file_says("a.yaml", "a: 1\n");
    setup.until_file_says("b.yaml", "b: 1\n");
    assert_eq!(lists_of(&setup, "b"), 1);
}

#[test]
fn thirty_watches_share_one_thread() {
    let setup = Setup::https(false);
    let names: Vec<String> = (0..30).map(|i| format!("c{i:02}")).collect();
    let object = |name: &str, number: u32| {
        config_map(
            name,
            &[(&format!("{name}.yaml"), &format!("a: {number}\n"))],
        )
    };
    setup.server.change(|cluster| {
        for name in &names {
            cluster.create(object(name, 0));
        }
    });
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    let program = setup.watch(&known, &[]);
    setup.server.wait_for_watches(30);
    for number in 1..4 {
        setup.server.change(|cluster| {
            for name in &names {
                cluster.replace(object(name, number));
            }
        });
        for name in &names {
            setup.until_file_says(&format!("{name}.yaml"), &format!("a: {number}\n"));
        }
    }
    assert_eq!(program.measure().threads, 1);
    assert_eq!(setup.server.count_requests(Request::is_list), 30);
    let watches = setup
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
