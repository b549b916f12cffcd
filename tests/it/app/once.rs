//! `-onetime`, the init container: what is tried again and for how long, and how each failure ends.
//! Lower bounds of time are the issue's; upper bounds leave room for what else is done.

use std::fs;
use std::time::{Duration, Instant};
use testkit::apiserver::Options;
use testkit::apiserver::access::{Account, Rule};
use testkit::apiserver::faults::{Fault, Misbehaviour};
use testkit::setup::{Setup, finish_within};
use testkit::stopwatch::Stopwatch;

const ONCE: [&str; 2] = ["-onetime", "-configmap=a"];
const GOOD: [(&str, &str); 1] = [("a.yaml", "a: 1\n")];
const BAD: [(&str, &str); 1] = [("a.yaml", "a: 1\nb: [1\n")];
/// How long it would wait for what may change.
const FIVE: Duration = Duration::from_secs(5);

fn with_a() -> Setup {
    let setup = Setup::new();
    setup.put("a", &GOOD);
    setup
}

/// A server on which only these rules hold, for who sends no token.
fn with_rules(rules: Vec<Rule>) -> Setup {
    let setup = Setup::with(Options {
        accounts: vec![Account::anonymous(rules)],
        ..Options::default()
    });
    setup.put("a", &GOOD);
    setup
}

#[test]
fn publishes_a_whole_set_and_exits_0() {
    let setup = with_a();
    let watch = Stopwatch::start();
    let (finished, took) = setup.start(&ONCE).finish_timed(&watch);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(took < FIVE, "{took:?}");
    setup.assert_found(&GOOD);
    // It is whole only once it is synced.
    let done = fs::read_link(setup.output().join(".sets/done")).unwrap();
    assert_eq!(done.to_str(), Some("1"));
    let requests = setup.server.requests();
    assert_eq!(requests.len(), 1, "one list is all that it takes");
    assert!(requests[0].is_list() && requests[0].names("a"));
}

#[test]
fn a_refused_connection_is_tried_again() {
    let setup = with_a();
    setup.server.go_away();
    let process = setup.start(&ONCE);
    process.wait_for_line("Connection refused");
    setup.server.come_back();
    assert_eq!(process.finish().code, Some(0));
    setup.assert_found(&GOOD);
}

#[test]
fn an_answer_that_does_not_come_is_asked_for_again() {
    let setup = with_a();
    setup
        .server
        .misbehave(Misbehaviour::new(Fault::Freeze, |_| true).times(1));
    let finished = setup.succeed(&ONCE);
    assert!(
        finished.stderr.contains("no answer in time"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_429_or_a_5xx_is_tried_again() {
    for status in [429, 500, 502, 503, 504] {
        let setup = with_a();
        setup
            .server
            .misbehave(Misbehaviour::new(Fault::status(status), |_| true).times(1));
        let finished = setup.succeed(&ONCE);
        assert!(
            finished.stderr.contains(&format!("answered {status}")),
            "{}",
            finished.stderr
        );
        assert_eq!(setup.server.requests().len(), 2);
    }
}

/// A first answer with these headers is waited for two seconds.
#[track_caller]
fn waits_two_seconds(status: u16, headers: &[(&str, &str)]) {
    let setup = with_a();
    let headers = headers.iter().map(|(k, v)| (k.to_string(), v.to_string()));
    let fault = Fault::Answer {
        status,
        headers: headers.collect(),
        body: b"try again later\n".to_vec(),
    };
    setup
        .server
        .misbehave(Misbehaviour::new(fault, |_| true).times(1));
    let watch = Stopwatch::start();
    setup.succeed(&ONCE);
    let requests = setup.server.requests();
    let wait = requests[1].at - requests[0].at;
    assert!(wait >= Duration::from_secs(2), "{wait:?}");
    assert!(wait < FIVE + watch.held_up(), "{wait:?}");
}

#[test]
fn retry_after_is_waited_for() {
    waits_two_seconds(429, &[("Retry-After", "2")]);
}

#[test]
fn retry_after_as_a_date_is_waited_for_by_the_server_s_own_clock() {
    let date = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT");
    waits_two_seconds(
        503,
        &[date, ("Retry-After", "Sun, 06 Nov 1994 08:49:39 GMT")],
    );
}

/// Ends with exit 1; returns the last line, and how long it took.
#[track_caller]
fn fail_timed(setup: &Setup, flags: &[&str], watch: &Stopwatch) -> (String, Duration) {
    let (finished, took) = setup.start(flags).finish_timed(watch);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    (finished.stderr.lines().last().unwrap().to_string(), took)
}

/// Ends with exit 1 not before five seconds are over; returns the last line.
#[track_caller]
fn fails_after_five_seconds(setup: &Setup, flags: &[&str]) -> String {
    let watch = Stopwatch::start();
    let (line, took) = fail_timed(setup, flags, &watch);
    assert!(watch.elapsed() >= FIVE, "{line}");
    assert!(took < Duration::from_secs(15), "{line}");
    assert_eq!(setup.found(), None);
    line
}

#[test]
fn a_missing_configmap_ends_it_after_five_seconds() {
    let setup = with_a();
    let line = fails_after_five_seconds(&setup, &["-onetime", "-configmap=a", "-configmap=b"]);
    let want = "default/b: it does not exist (create it, or correct the name or -namespace)";
    assert!(line.contains(want), "{line}");
}

#[test]
fn a_configmap_that_comes_late_is_published() {
    let setup = Setup::new();
    let process = setup.start(&ONCE);
    // It is asked for every half second: half of the five are over.
    setup
        .server
        .wait_for_requests("lists", 6, |request| request.is_list());
    setup.put("a", &GOOD);
    let finished = process.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    setup.assert_found(&GOOD);
}

#[test]
fn a_403_ends_it_after_five_seconds_and_names_what_to_grant() {
    let setup = with_rules(vec![Rule::new("", "configmaps", &["get", "watch"])]);
    let line = fails_after_five_seconds(&setup, &ONCE);
    for part in [
        "failed to list configmaps default/a",
        "403",
        "Role in namespace default",
        "apiGroups [\"\"]",
        "resources [\"configmaps\"]",
        "resourceNames [\"a\"]",
        "\"list\", \"watch\"",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[test]
fn a_403_that_is_granted_late_is_forgiven() {
    let setup = with_rules(Vec::new());
    let process = setup.start(&ONCE);
    setup
        .server
        .wait_for_requests("lists", 6, |request| request.is_list());
    let rule = Rule::new("", "configmaps", &["list", "watch"]).named(&["a"]);
    setup
        .server
        .set_accounts(vec![Account::anonymous(vec![rule])]);
    let finished = process.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    setup.assert_found(&GOOD);
}

#[test]
fn a_401_ends_it_after_five_seconds() {
    let setup = with_a();
    setup.server.set_accounts(vec![Account::admin("another")]);
    let line = fails_after_five_seconds(&setup, &ONCE);
    assert!(line.contains("401"), "{line}");
    assert!(
        line.contains("check that the token has not expired and was issued by this cluster"),
        "{line}"
    );
}

#[test]
fn a_401_that_ends_late_is_forgiven() {
    let setup = with_a();
    setup.server.set_accounts(vec![Account::admin("another")]);
    let process = setup.start(&ONCE);
    setup
        .server
        .wait_for_requests("lists", 6, |request| request.is_list());
    setup.server.set_accounts(Vec::new());
    let finished = process.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    setup.assert_found(&GOOD);
}

#[test]
fn a_refusal_that_becomes_a_failure_is_reported_as_a_failure() {
    // Side by side, as each takes seven seconds.
    std::thread::scope(|scope| {
        let refusals = [401, 403].map(Fault::status);
        let nothing =
            r#"{"kind": "ConfigMapList", "metadata": {"resourceVersion": "1"}, "items": []}"#;
        for refusal in refusals.into_iter().chain([Fault::json(nothing)]) {
            scope.spawn(|| {
                let setup = with_a();
                for fault in [refusal, Fault::retry_after(503, "7")] {
                    let script = Misbehaviour::new(fault, |_| true).times(1);
                    setup.server.misbehave(script);
                }
                setup.succeed(&ONCE);
                assert_eq!(setup.server.requests().len(), 3);
                setup.assert_found(&GOOD);
            });
        }
    });
}

#[test]
fn a_missing_configmap_has_its_five_seconds_once_the_server_is_back() {
    let setup = Setup::new();
    let process = setup.start(&ONCE);
    setup.server.wait_for_request("a list", |r| r.is_list());
    setup.server.go_away();
    let began = Instant::now();
    process.wait_for_line("the API server is away");
    while began.elapsed() < Duration::from_secs(7) {
        assert!(!process.lines().iter().any(|line| line.contains("ERROR")));
        std::thread::sleep(Duration::from_millis(50));
    }
    setup.put("a", &GOOD);
    setup.server.come_back();
    assert_eq!(process.finish().code, Some(0));
    setup.assert_found(&GOOD);
}

#[test]
fn bad_yaml_ends_it_at_once_and_is_named() {
    let setup = Setup::new();
    setup.put("a", &GOOD);
    setup.put(
        "b",
        &[("good.yaml", "a: 1\n"), ("bad.yaml", "a: 1\nb: \"c\" d\n")],
    );
    let watch = Stopwatch::start();
    let flags = ["-onetime", "-configmap=a", "-configmap=b"];
    let (line, took) = fail_timed(&setup, &flags, &watch);
    assert!(took < FIVE, "{line}");
    for part in ["default/b", "bad.yaml", "line 2", "column 8"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(setup.found(), None);
}

#[test]
fn a_configmap_without_keys_ends_it_at_once() {
    let setup = Setup::new();
    setup.put("a", &[]);
    let line = setup.fail(&ONCE);
    assert!(
        line.contains("default/a") && line.contains("it has no keys"),
        "{line}"
    );
}

#[test]
fn bad_yaml_after_an_earlier_whole_set_keeps_that_and_exits_0() {
    let setup = with_a();
    setup.succeed(&ONCE);
    setup.put("a", &BAD);
    let finished = setup.succeed(&ONCE);
    assert!(
        finished.stderr.contains("ConfigMap is invalid"),
        "{}",
        finished.stderr
    );
    setup.assert_found(&GOOD);
    assert_eq!(setup.set(), 1);
}

#[test]
fn bad_yaml_after_an_earlier_whole_set_does_not_hold_up_the_others() {
    let setup = with_a();
    setup.put("b", &[("b.yaml", "b: 1\n")]);
    let flags = ["-onetime", "-configmap=a", "-configmap=b"];
    setup.succeed(&flags);
    setup.put("a", &BAD);
    setup.put("b", &[("b.yaml", "b: 2\n")]);
    setup.succeed(&flags);
    setup.assert_found(&[GOOD[0], ("b.yaml", "b: 2\n")]);
}

#[test]
fn an_output_directory_that_another_holds_is_waited_for() {
    let setup = with_a();
    let holder = setup.start(&["-watch", "-configmap=a"]);
    setup.until_found(&GOOD);
    let process = setup.start(&ONCE);
    process.wait_for_line("is locked by another crossover");
    setup.put("a", &[("a.yaml", "a: 2\n")]);
    holder.stop();
    let finished = process.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    // What it has read before that is good enough, or is what the holder published.
    let line = finished
        .stderr
        .lines()
        .find(|line| line.contains("is locked by another crossover"));
    assert!(line.unwrap().contains(".sets/.lock"), "{}", finished.stderr);
}

/// The one test that takes more than a minute: everything transient is given up after 60 s in all.
#[test]
fn what_stays_transient_ends_it_after_a_minute() {
    let setup = with_a();
    let holder = setup.start(&["-watch", "-configmap=a"]);
    setup.until_found(&GOOD);
    let away = Setup::new();
    away.server.go_away();
    let limit = Duration::from_secs(90);
    let started = Instant::now();
    let held = setup.start(&ONCE);
    let refused = away.start(&ONCE);
    for (process, want) in [
        (held, "(stop it, or use a different -output-dir)"),
        (refused, "Connection refused"),
    ] {
        let (finished, _) = finish_within(process, limit);
        assert!(
            started.elapsed() >= Duration::from_secs(60),
            "{}",
            finished.stderr
        );
        assert_eq!(finished.code, Some(1));
        let line = finished.stderr.lines().last().unwrap();
        assert!(line.contains("ERROR") && line.contains(want), "{line}");
    }
    drop(holder);
}

#[test]
fn an_output_directory_that_cannot_be_written_ends_it_at_once() {
    let setup = with_a();
    fs::write(setup.path("file"), "").unwrap();
    let (watch, below) = (Stopwatch::start(), setup.path("file/out"));
    let flags = ["-onetime", "-configmap=a", "-output-dir", &below];
    let (line, took) = fail_timed(&setup, &flags, &watch);
    assert!(took < FIVE, "{line}");
    assert!(line.contains("ERROR") && line.contains(&below), "{line}");
}
