//! The log: what a publish says of itself, that nothing else is said while nothing happens, and
//! what is never said.

use serde_json::{Value, json};
use std::fs;
use testkit::apiserver::access::Account;
use testkit::apiserver::faults::{Fault, Misbehaviour};
use testkit::crossover::Crossover;
use testkit::setup::{Setup, events, events_with};

/// Checks one `published` line against configmap, resourceVersion, files and set.
#[track_caller]
fn check(line: &str, want: [&str; 3], set: u64) {
    let event = &events(line)[0];
    let fields =
        ["configmap", "resource_version", "files"].map(|field| event[field].as_str().unwrap());
    assert_eq!(fields, want, "{line}");
    assert_eq!(
        (&event["set"], &event["level"]),
        (&json!(set), &json!("info"))
    );
    let latency = event["latency_us"].as_u64().unwrap();
    assert!(latency > 0 && latency < 10_000_000, "{line}");
}

#[test]
fn a_publish_is_one_line_that_says_what_changed() {
    let setup = Setup::new();
    let first = setup.put("a", &[("a.yaml", "a: 1\n"), ("b.yaml", "b: 1\n")]);
    let process = setup.start(&["-watch", "-configmap=a", "-log-format=json"]);
    check(
        &process.wait_for_line("\"set\":1,"),
        ["default/a", &first, "a.yaml,b.yaml"],
        1,
    );
    setup.server.wait_for_watches(1);
    let second = setup.put("a", &[("a.yaml", "a: 2\n"), ("b.yaml", "b: 1\n")]);
    check(
        &process.wait_for_line("\"set\":2,"),
        ["default/a", &second, "a.yaml"],
        2,
    );
    let third = setup.put("a", &[("b.yaml", "b: 2\n"), ("c.yaml", "c: 1\n")]);
    check(
        &process.wait_for_line("\"set\":3,"),
        ["default/a", &third, "b.yaml,c.yaml,-a.yaml"],
        3,
    );
    let stderr = process.stop().stderr;
    let said: Vec<Value> = events(&stderr)
        .iter()
        .map(|event| event["message"].clone())
        .collect();
    let gone = "file removed; Envoy will fail to start if its bootstrap refers to it";
    let want = [
        "started",
        "published",
        "published",
        "published",
        gone,
        "stopped by a signal",
    ];
    assert_eq!(said, want, "{stderr}");
}

#[test]
fn a_publish_that_only_removes_files_says_whose_they_were() {
    let setup = Setup::new();
    setup.put("a", &[("a.yaml", "a: 1\n"), ("b.yaml", "b: 1\n")]);
    setup.put("c", &[("c.yaml", "c: 1\n")]);
    let process = setup.start(&["-watch", "-configmap=a", "-configmap=c", "-log-format=json"]);
    process.wait_for_line("published");
    setup.server.wait_for_watches(2);
    let version = setup.put("a", &[("a.yaml", "a: 1\n")]);
    check(
        &process.wait_for_line("\"set\":2,"),
        ["default/a", &version, "-b.yaml"],
        2,
    );
}

#[test]
fn a_publish_of_several_configmaps_names_them_all() {
    let setup = Setup::new();
    let a = setup.put("a", &[("a.yaml", "a: 1\n"), ("c.yaml", "c: 1\n")]);
    let b = setup.put("b", &[("b.yaml", "b: 1\n")]);
    let finished = setup.succeed(&[
        "-onetime",
        "-configmap=b",
        "-configmap=a",
        "-log-format=json",
    ]);
    let line = finished
        .stderr
        .lines()
        .find(|line| line.contains("published"))
        .unwrap();
    check(
        line,
        [
            "default/a,default/b",
            &format!("{a},{b}"),
            "a.yaml,b.yaml,c.yaml",
        ],
        1,
    );
}

#[test]
fn nothing_is_logged_at_info_while_nothing_changes() {
    for mode in ["-watch", "-watch=false"] {
        let setup = Setup::new();
        setup.put("a", &[("a.yaml", "a: 1\n")]);
        let process = setup.start(&[mode, "-sync-interval=100ms", "-configmap=a"]);
        process.wait_for_line("INFO  published ");
        let said = process.lines().len();
        setup
            .server
            .wait_for_requests("looks", 5, |request| request.is_metadata_only());
        if mode == "-watch" {
            setup.server.bookmark();
            setup.server.end_watches();
            setup
                .server
                .wait_for_requests("watches", 2, |request| request.is_watch());
            setup
                .server
                .wait_for_requests("looks", 10, |request| request.is_metadata_only());
        }
        let lines = process.stop().stderr.lines().count();
        assert_eq!(lines, said + 1, "only that it was stopped");
    }
}

/// Checks which lines are logged with this in `RUST_LOG`.
#[track_caller]
fn said(setup: &Setup, rust_log: &str, flags: &[&str]) -> String {
    let mut command = setup.command(flags);
    command.env("RUST_LOG", rust_log);
    Crossover::spawn(command).finish().stderr
}

#[test]
fn rust_log_sets_the_level() {
    let setup = Setup::new();
    setup.put("a", &[("a.json", "[1]")]);
    let levels = |rust_log: &str| {
        let said = said(
            &setup,
            rust_log,
            &["-onetime", "-configmap=a", "-log-format=json"],
        );
        let mut levels: Vec<String> = events(&said)
            .iter()
            .map(|event| event["level"].as_str().unwrap().to_string())
            .collect();
        levels.sort();
        levels.dedup();
        fs::remove_dir_all(setup.output()).unwrap();
        levels
    };
    assert_eq!(levels("off"), [""; 0]);
    assert_eq!(levels("error"), [""; 0]);
    assert_eq!(levels("warn"), ["warn"]);
    assert_eq!(levels("info"), ["info", "warn"]);
    assert_eq!(levels("debug"), ["debug", "info", "warn"]);
    assert_eq!(levels("crossover=debug"), ["debug", "info", "warn"]);
}

#[test]
fn an_event_is_one_line_whatever_is_in_it() {
    let key = "a\nlevel=error\r\u{1b}[31m \"x\"\u{85}\u{2028}";
    let list = json!({
        "kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"},
        "items": [{"metadata": {"name": "a", "uid": "u", "resourceVersion": "7"}, "data": {key: "x"}}],
    });
    let setup = Setup::new();
    setup
        .server
        .misbehave(Misbehaviour::new(Fault::json(list.to_string()), |_| true));
    let finished = setup.run(&["-onetime", "-configmap=a"]);
    assert_eq!(finished.stderr.lines().count(), 3, "{}", finished.stderr);
    let printable = |c: char| c == '\n' || !c.is_control();
    assert!(
        finished.stderr.chars().all(printable),
        "{:?}",
        finished.stderr
    );
    let finished = setup.run(&["-onetime", "-configmap=a", "-log-format=json"]);
    assert_eq!(events(&finished.stderr).len(), 3);
    let warned = &events_with(&finished.stderr, "ConfigMap is invalid")[0];
    assert!(warned["error"].as_str().unwrap().contains(key), "{warned}");
}

/// Everything that is said while all sorts of things go wrong with ConfigMaps full of `hunter2`.
fn all_that_is_said(rust_log: &str, format: &str) -> String {
    let setup = Setup::https(false);
    fs::write(setup.path("token"), "sesame").unwrap();
    let secret = "password: hunter2\n";
    setup.put(
        "a",
        &[
            ("a.yaml", secret),
            ("a.json", "{\"password\": \"hunter2\"}"),
            ("a", "hunter2"),
        ],
    );
    let (ca, token) = (
        format!("-ca-file={}", setup.path("ca.crt")),
        setup.path("token"),
    );
    let flags = ["-watch", "-configmap=a", &ca, "-token-file", &token, format];
    let mut command = setup.command(&flags);
    command.env("RUST_LOG", rust_log);
    let process = Crossover::spawn(command);
    process.wait_for_line("published");
    for (text, json) in [
        ("hunter2", "{}"),
        ("a: hunter2: b", "{}"),
        ("a: \"hunter2", "{}"),
        ("a: *hunter2", "{}"),
        ("- hunter2", "{}"),
        ("a: [hunter2", "{}"),
        ("{}", "\"hunter2\""),
        ("{}", "[\"hunter2\"]"),
        ("{}", "{'a': 'hunter2'"),
        ("!hunter2!a b", "{}"),
        ("a: !<hunter2 b", "{}"),
    ] {
        let version = setup.put("a", &[("a.yaml", text), ("a.json", json)]);
        // It was observed or refused: both lines name the version.
        process.wait_for_line(&version);
        // A doubt is said too, of what is published.
        setup.put(
            "a",
            &[
                ("a.yaml", &format!("%FOO hunter2\n---\na: {version}\n")),
                ("a.json", "{'a': 'hunter2'}"),
            ],
        );
        process.wait_for_line("Envoy may not accept a file");
    }
    setup.server.delete("ConfigMap", "a");
    process.wait_for_line("ConfigMap not found; keeping its published files");
    setup.server.set_accounts(vec![Account::admin("another")]);
    setup.server.end_watches();
    process.wait_for_line("401");
    process.stop().stderr
}

#[test]
fn no_value_and_no_token_is_ever_logged() {
    // The libraries' own words, too.
    let modules =
        "trace,ureq=trace,ureq::run=trace,ureq_proto=trace,ureq_proto::client=trace,rustls=trace";
    for (rust_log, format) in [("debug", "-log-format=text"), (modules, "-log-format=json")] {
        let said = all_that_is_said(rust_log, format);
        for secret in ["hunter2", "sesame", "Bearer"] {
            let lines: Vec<&str> = said.lines().filter(|line| line.contains(secret)).collect();
            assert!(lines.is_empty(), "{secret}:\n{}", lines.join("\n"));
        }
    }
}

#[test]
fn an_answer_that_makes_no_sense_is_not_cited() {
    let list = |items: Value| {
        json!({"kind": "ConfigMapList", "metadata": {"resourceVersion": "7"}, "items": items})
            .to_string()
    };
    let item = |field: &str, value: Value| json!([{"metadata": {"name": "a", "resourceVersion": "7"}, field: value}]);
    for body in [
        list(json!("hunter2")),
        list(item("data", json!("hunter2"))),
        list(item("data", json!({"a": ["hunter2"]}))),
        list(item("binaryData", json!({"a": "hunter2!"}))),
        "hunter2".to_string(),
        "{\"hunter2".to_string(),
    ] {
        let setup = Setup::new();
        setup
            .server
            .misbehave(Misbehaviour::new(Fault::json(body.clone()), |_| true));
        let process = setup.start(&["-watch", "-configmap=a"]);
        process.wait_for_line(" WARN ");
        let stderr = process.stop().stderr;
        assert!(!stderr.contains("hunter2"), "{body}: {stderr}");
    }
}
