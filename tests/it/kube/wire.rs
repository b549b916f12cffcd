//! Bytes of answers in every form that a network, or another program than a server, can give them.

use serde_json::{Value, json};
use std::time::Duration;
use testkit::apiserver::faults::{Fault, Misbehaviour, Then};
use testkit::apiserver::request::Request;
use testkit::apiserver::watches::Watch;
use testkit::crossover::Crossover;
use testkit::objects::config_map;
use testkit::setup::Setup;
use testkit::stalling_proxy::StallingProxy;
use testkit::stopwatch::Stopwatch;

fn object(name: &str, number: u32) -> Value {
    config_map(
        name,
        &[(&format!("{name}.yaml"), &format!("a: {number}\n"))],
    )
}

/// ConfigMaps `a` and `b`, watched by way of a proxy that can tear.
struct Pair {
    setup: Setup,
    tear: StallingProxy,
    program: Crossover,
    number: u32,
}

impl Pair {
    fn start(setup: Setup) -> Pair {
        setup.server.create(object("a", 0));
        setup.server.create(object("b", 0));
        let tear = StallingProxy::start(setup.server.address());
        let scheme = setup.server.url();
        let (scheme, _) = scheme.split_once(':').unwrap();
        let program = Crossover::spawn(setup.watch_command_by(&tear.url(scheme), &["a", "b"], &[]));
        setup.server.wait_for_watches(2);
        let mut pair = Pair {
            setup,
            tear,
            program,
            number: 0,
        };
        // Both watches have spoken: their answers' heads are through.
        pair.setup.server.replace(object("a", 1));
        pair.setup.until_file_says("a.yaml", "a: 1\n");
        pair.change_b();
        pair
    }

    /// Changes `b` and waits for its file: it comes although `a` is torn, or not at all.
    #[track_caller]
    fn change_b(&mut self) -> Duration {
        self.number += 1;
        let watch = Stopwatch::start();
        self.setup.server.replace(object("b", self.number));
        self.setup
            .until_file_says("b.yaml", &format!("a: {}\n", self.number));
        watch.took()
    }

    #[track_caller]
    fn assert_undisturbed(&self) {
        assert_eq!(
            self.setup.server.requests().len(),
            4,
            "two lists and two watches"
        );
        let lines = self.program.lines();
        assert!(
            !lines.iter().any(|line| line.contains("WARN")),
            "{lines:#?}"
        );
    }
}

#[track_caller]
fn drips_beside_a_busy_watch(setup: Setup) {
    let mut pair = Pair::start(setup);
    pair.tear.arm(0);
    pair.setup.server.replace(object("a", 7));
    let mut left = pair.tear.wait_until_torn();
    assert!(left > 300, "{left}");
    let mut waits = Vec::new();
    while left > 0 {
        // In clear text the line is whole before its chunk is.
        if left % 32 == 3 {
            waits.push(pair.change_b());
            pair.setup.until_file_says("a.yaml", "a: 1\n");
        }
        left = pair.tear.let_go(1);
    }
    pair.setup.until_file_says("a.yaml", "a: 7\n");
    pair.assert_undisturbed();
    waits.sort_unstable();
    let median = waits[waits.len() / 2];
    assert!(median < Duration::from_millis(100), "{median:?}");
}

#[test]
fn a_line_of_one_byte_at_a_time_delays_no_other_watch() {
    drips_beside_a_busy_watch(Setup::new());
}

#[test]
fn a_tls_record_of_one_byte_at_a_time_delays_no_other_watch() {
    drips_beside_a_busy_watch(Setup::https(false));
}

#[test]
fn a_tls_record_torn_in_two_delays_no_other_watch() {
    let mut pair = Pair::start(Setup::https(false));
    for (round, cut) in [1, 3, 5, 6, 200].into_iter().enumerate() {
        pair.tear.arm(cut);
        let number = 100 + round as u32;
        pair.setup.server.replace(object("a", number));
        let left = pair.tear.wait_until_torn();
        for _ in 0..5 {
            pair.change_b();
        }
        let came = std::fs::read_to_string(pair.setup.file("a.yaml")).unwrap();
        assert_ne!(came, format!("a: {number}\n"), "the tear at {cut} is none");
        assert_eq!(pair.tear.let_go(left), 0);
        pair.setup
            .until_file_says("a.yaml", &format!("a: {number}\n"));
    }
    pair.assert_undisturbed();
}

fn watch_of_a(watch: &Watch) -> bool {
    watch.selection.name.as_deref() == Some("a")
}

/// ConfigMaps `a` and `b`, watched.
fn watching(setup: &Setup) -> Crossover {
    setup.server.create(object("a", 1));
    setup.server.create(object("b", 1));
    let program = setup.watch(&["a", "b"], &[]);
    setup.server.wait_for_watches(2);
    setup.until_file_says("a.yaml", "a: 1\n");
    program
}

fn event(kind: &str, mut object: Value) -> String {
    object["metadata"]["uid"] = json!("u1");
    object["metadata"]["resourceVersion"] = json!("1100");
    let event = json!({"type": kind, "object": object});
    format!("{event}\n")
}

#[test]
fn events_that_come_together_are_one_set_with_the_last_state() {
    let setup = Setup::new();
    let program = watching(&setup);
    let events: String = (0..100)
        .map(|i| event("MODIFIED", object("a", 100 + i)))
        .collect();
    setup.server.inject(events.as_bytes(), watch_of_a);
    setup.until_file_says("a.yaml", "a: 199\n");
    setup.server.change(|cluster| {
        for number in 200..300 {
            cluster.replace(object("a", number));
            cluster.replace(object("b", number));
        }
    });
    setup.until_file_says("a.yaml", "a: 299\n");
    setup.until_file_says("b.yaml", "a: 299\n");
    let lines = program.lines();
    let sets = lines
        .iter()
        .filter(|line| line.contains("INFO  published "))
        .count();
    // How many depends on how fast the machine makes the changes; one for each would be 300.
    assert!(sets < 60, "{sets} sets for 300 events");
}

/// Checks a line that is not a good event: nothing of it is published, one warning says so, the
/// other watch goes on, and so does this one, after a list or without.
#[track_caller]
fn check_bad_line(line: &str, warning: &str, lists: usize) {
    let setup = Setup::new();
    let program = watching(&setup);
    setup.server.inject(line.as_bytes(), watch_of_a);
    let said = program.wait_for_line(warning);
    assert!(
        said.contains("WARN") && said.contains("default/a"),
        "{said}"
    );
    let of_a = |r: &Request| r.is_list() && r.names("a");
    setup
        .server
        .wait_for_requests("lists of it", 1 + lists, of_a);
    setup.server.wait_for_watches(2);
    setup.server.replace(object("a", 3));
    setup.until_file_says("a.yaml", "a: 3\n");
    setup.server.replace(object("b", 3));
    setup.until_file_says("b.yaml", "a: 3\n");
    assert_eq!(setup.server.count_requests(of_a), 1 + lists);
    assert_eq!(
        setup.server.count_requests(|r| r.is_list() && r.names("b")),
        1
    );
    program.wait_for_lines(3, "INFO  published ");
    let lines = program.lines();
    let count = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!(
        (count("WARN"), count("INFO  published ")),
        (1, 3),
        "{lines:#?}"
    );
}

#[test]
fn a_truncated_object_is_listed_again() {
    let line = event("MODIFIED", object("a", 666));
    check_bad_line(
        &format!("{}\n", &line[..line.len() - 4]),
        "while parsing a string",
        1,
    );
}

#[test]
fn after_a_line_that_is_not_json_the_object_is_listed_again() {
    check_bad_line("upstream connect error\n", "expected value", 1);
    check_bad_line("\n", "EOF while parsing", 1);
}

#[test]
fn an_event_without_a_resource_version_is_listed_again() {
    let line = event("MODIFIED", object("a", 666)).replace("\"1100\"", "\"\"");
    check_bad_line(&line, "metadata.resourceVersion is missing", 1);
}

#[test]
fn an_object_of_another_kind_is_listed_again() {
    let mut secret = object("a", 666);
    secret["kind"] = json!("Secret");
    check_bad_line(
        &event("MODIFIED", secret),
        "expected a ConfigMap in the event, got",
        1,
    );
}

#[test]
fn an_event_of_unknown_type_is_skipped() {
    let line = event("RENAMED", object("a", 666));
    check_bad_line(&line, "event of unknown type", 0);
}

#[test]
fn an_event_of_another_object_is_skipped() {
    check_bad_line(
        &event("MODIFIED", object("c", 666)),
        "the watch sent another object",
        0,
    );
    check_bad_line(
        &event("DELETED", object("c", 666)),
        "the watch sent another object",
        0,
    );
}

#[test]
fn an_error_event_is_listed_again() {
    let status = json!({"kind": "Status", "metadata": {}, "code": 500, "message": "etcd is ill"});
    let line = format!("{}\n", json!({"type": "ERROR", "object": status}));
    check_bad_line(&line, "etcd is ill", 1);
}

#[test]
fn half_an_event_is_nothing() {
    let setup = Setup::new();
    let program = watching(&setup);
    let line = event("MODIFIED", object("a", 666));
    setup
        .server
        .inject(&line.as_bytes()[..line.len() - 1], watch_of_a);
    setup.server.close_connections();
    setup
        .server
        .wait_for_requests("reopened watches", 4, Request::is_watch);
    setup.server.replace(object("a", 2));
    setup.until_file_says("a.yaml", "a: 2\n");
    eprintln!(
        "{:#?} {:#?}",
        program.lines(),
        setup
            .server
            .requests()
            .iter()
            .map(Request::line)
            .collect::<Vec<_>>()
    );
    assert_eq!(setup.server.count_requests(Request::is_list), 2);
    program.wait_for_lines(2, "INFO  published ");
    assert!(
        !program
            .lines()
            .iter()
            .any(|line| line.contains("resource_version=1100"))
    );
}

#[test]
fn half_a_list_is_nothing() {
    for then in [Then::Close, Then::Reset] {
        let setup = Setup::new();
        let fault = Fault::After {
            body_bytes: 150,
            then,
        };
        setup
            .server
            .misbehave(Misbehaviour::new(fault, Request::is_list).times(1));
        let program = watching(&setup);
        program.wait_for_line("the API server cannot answer now");
        setup.until_file_says("b.yaml", "a: 1\n");
    }
}
