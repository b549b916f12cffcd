//! `-drain` without a command: SIGTERM leaves the sidecar of an Envoy that drains, for a while.

use rustix::process::Signal;
use std::time::{Duration, Instant};
use testkit::crossover::Crossover;
use testkit::setup::{Setup, finish_within};

const TOLD: &str = "SIGTERM received; running on while Envoy drains";

fn following(drain: &str) -> (Setup, Crossover) {
    let setup = Setup::new();
    setup.put("a", &[("a.yaml", "a: 1\n")]);
    let process = setup.start(&["-watch", "-configmap=a", drain]);
    setup.until_found(&[("a.yaml", "a: 1\n")]);
    setup.server.wait_for_watches(1);
    (setup, process)
}

#[test]
fn after_sigterm_it_publishes_for_so_long_and_ends_with_0() {
    let (setup, process) = following("-drain=3s");
    let told = Instant::now();
    process.signal(Signal::TERM);
    process.wait_for_line(TOLD);
    setup.put("a", &[("a.yaml", "a: 2\n")]);
    setup.until_found(&[("a.yaml", "a: 2\n")]);
    let finished = process.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(told.elapsed() >= Duration::from_secs(3));
    assert!(finished.stderr.contains("stopped by a signal"));
}

#[test]
fn a_second_signal_or_another_one_ends_it_at_once() {
    for signals in [
        &[Signal::TERM, Signal::TERM][..],
        &[Signal::TERM, Signal::INT],
        &[Signal::INT],
    ] {
        let (_setup, process) = following("-drain=1h");
        for (at, signal) in signals.iter().enumerate() {
            if at > 0 {
                process.wait_for_line(TOLD);
            }
            process.signal(*signal);
        }
        assert_eq!(process.finish().code, Some(0));
    }
}

#[test]
fn it_goes_on_while_the_api_server_is_away_and_where_nothing_was_published() {
    let setup = Setup::new();
    setup.server.go_away();
    let process = setup.start(&["-watch", "-configmap=a", "-drain=20s"]);
    process.wait_for_line("the API server is away");
    process.signal(Signal::TERM);
    process.wait_for_line(TOLD);
    setup.put("a", &[("a.yaml", "a: 1\n")]);
    setup.server.come_back();
    setup.until_found(&[("a.yaml", "a: 1\n")]);
    process.signal(Signal::TERM);
    let (finished, _) = finish_within(process, Duration::from_secs(10));
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}
