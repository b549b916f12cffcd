//! `-onetime-timeout` and `-stale-ok`: how long an init container tries, and when files of a
//! previous run are accepted.

use std::fs;
use std::time::{Duration, Instant};
use testkit::apiserver::access::Account;
use testkit::apiserver::faults::{Fault, Then};
use testkit::setup::Setup;
use testkit::stopwatch::Stopwatch;

const A: (&str, &str) = ("a.yaml", "a: 1\n");
const B: (&str, &str) = ("b.yaml", "b: 1\n");
const BAD: (&str, &str) = ("a.yaml", "a: ]\n");
const STALE: &str = "the cluster's state cannot be published; exiting with files of a previous run";
/// The arguments of the chart's init container, but for the time.
const PATIENT: [&str; 4] = [
    "-onetime",
    "-onetime-timeout=0",
    "-stale-ok=1s",
    "-configmap=a",
];
/// Longer than what is missing is given without a limit of its own.
const FIVE: Duration = Duration::from_secs(5);

fn with_an_earlier_life() -> Setup {
    let setup = Setup::new();
    setup.put("a", &[A]);
    setup.succeed(&["-onetime", "-configmap=a"]);
    setup
}

#[test]
fn without_a_limit_it_tries_until_what_was_missing_forbidden_or_bad_is_not() {
    type Mishap = fn(&Setup);
    let mishaps: [Mishap; 3] = [
        |_| {},
        |setup| setup.server.set_accounts(vec![Account::anonymous(vec![])]),
        |setup| drop(setup.put("a", &[BAD])),
    ];
    // Side by side, as each takes its time.
    std::thread::scope(|scope| {
        for mishap in mishaps {
            scope.spawn(move || {
                let setup = Setup::new();
                mishap(&setup);
                let started = Instant::now();
                let process = setup.start(&["-onetime", "-onetime-timeout=0", "-configmap=a"]);
                while started.elapsed() < FIVE + Duration::from_millis(500) {
                    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid()));
                    assert!(!stat.unwrap().contains(") Z "), "{:?}", process.lines());
                    std::thread::sleep(Duration::from_millis(50));
                }
                setup.put("a", &[A]);
                setup.server.set_accounts(Vec::new());
                let finished = process.finish();
                assert_eq!(finished.code, Some(0), "{}", finished.stderr);
                setup.assert_found(&[A]);
            });
        }
    });
}

/// An answer that does not go on.
fn stalled() -> Fault {
    Fault::After {
        body_bytes: 9,
        then: Then::Stall,
    }
}

#[test]
fn a_limit_holds_for_every_failure() {
    let away: fn(&Setup) = |setup| setup.server.go_away();
    for (mishap, said) in [
        (away, "Connection refused"),
        (|_| {}, "default/a: it does not exist"),
        (
            |setup| drop(setup.put("a", &[BAD])),
            "invalid ConfigMap default/a: a.yaml",
        ),
        (
            |setup| setup.fail_next(usize::MAX, Fault::json("no JSON"), |_| true),
            "failed to list configmaps default/a: ",
        ),
        (
            // It has begun to answer, and nothing has failed so far.
            |setup| setup.fail_next(usize::MAX, stalled(), |_| true),
            "failed to publish in time: ConfigMap default/a has not been read yet",
        ),
    ] {
        let setup = Setup::new();
        mishap(&setup);
        let watch = Stopwatch::start();
        let process = setup.start(&["-onetime", "-onetime-timeout=1500ms", "-configmap=a"]);
        let (finished, took) = process.finish_timed(&watch);
        let line = finished.stderr.lines().last().unwrap();
        assert!(finished.code == Some(1) && line.contains(said), "{line}");
        assert!(watch.elapsed() >= Duration::from_millis(1500));
        assert!(took < FIVE, "{took:?}");
    }
}

#[test]
fn after_a_while_files_of_a_previous_run_are_accepted() {
    let mishaps: [fn(&Setup); 3] = [
        |setup| setup.server.go_away(),
        |setup| setup.server.delete("ConfigMap", "a"),
        |setup| setup.server.set_accounts(vec![Account::anonymous(vec![])]),
    ];
    for mishap in mishaps {
        let setup = with_an_earlier_life();
        // It was written an hour ago.
        let sources = setup.output().join(".sets/1.sources");
        let sources = fs::File::options().write(true).open(sources).unwrap();
        let written = sources.metadata().unwrap().modified().unwrap();
        sources
            .set_modified(written - Duration::from_secs(3600))
            .unwrap();
        mishap(&setup);
        for flags in [&PATIENT[..], &["-onetime", "-stale-ok=1s", "-configmap=a"]] {
            let started = Instant::now();
            let stderr = setup.succeed(flags).stderr;
            assert!(started.elapsed() >= Duration::from_secs(1));
            let warning = stderr.lines().find(|line| line.contains(STALE)).unwrap();
            assert!(
                warning.contains(" WARN ") && warning.contains("age_s=36"),
                "{warning}"
            );
            assert!(warning.contains("default/a"), "{warning}");
            setup.assert_found(&[A]);
        }
    }
}

#[test]
fn what_is_fresh_comes_first() {
    let setup = with_an_earlier_life();
    setup.put("a", &[("a.yaml", "a: 2\n")]);
    assert!(!setup.succeed(&PATIENT).stderr.contains(STALE));
    setup.assert_found(&[("a.yaml", "a: 2\n")]);
}

#[test]
fn a_set_of_other_or_unknown_configmaps_is_not_accepted() {
    let limits = ["-onetime", "-onetime-timeout=2s", "-stale-ok=100ms"];
    let fails = |setup: &Setup, names: &[&str]| {
        setup.server.go_away();
        let finished = setup.run(&[&limits[..], names].concat());
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        assert!(!finished.stderr.contains(STALE), "{}", finished.stderr);
    };
    fails(&Setup::new(), &["-configmap=a"]);
    // One more than it came from, or one less, or one whose file is broken.
    fails(&with_an_earlier_life(), &["-configmap=a", "-configmap=b"]);
    let setup = with_an_earlier_life();
    setup.put("b", &[B]);
    setup.succeed(&["-onetime", "-configmap=a", "-configmap=b"]);
    fails(&setup, &["-configmap=a"]);
    let setup = with_an_earlier_life();
    fs::remove_file(setup.output().join(".sets/1/a.yaml")).unwrap();
    fails(&setup, &["-configmap=a"]);
}
