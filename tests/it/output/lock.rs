//! Two crossovers on one output directory: one writes, the other says so and waits, and is there
//! when the first is gone.

use rustix::process::Signal;
use std::time::Duration;
use testkit::crossover::Crossover;
use testkit::setup::Setup;
use testkit::stopwatch::Stopwatch;

const FOLLOW: [&str; 3] = ["-watch", "-sync-interval=200ms", "-configmap=a"];
const HELD: &str = "is locked by another crossover";
/// The lock is asked for every second.
const SOON: Duration = Duration::from_secs(3);

fn put(setup: &Setup, number: u32) -> [(&'static str, String); 2] {
    let text = format!("a: {number}\n");
    let files = [("a.yaml", text.clone()), ("b.yaml", text)];
    setup.put("a", &files.each_ref().map(|(name, text)| (*name, &**text)));
    files
}

#[track_caller]
fn until_found(setup: &Setup, files: &[(&'static str, String); 2]) {
    setup.until_found(&files.each_ref().map(|(name, text)| (*name, &**text)));
}

/// One that writes.
fn holder(setup: &Setup) -> Crossover {
    let files = put(setup, 1);
    let first = setup.start(&FOLLOW);
    until_found(setup, &files);
    first
}

#[test]
fn a_second_one_waits_without_a_touch_and_takes_over_when_the_first_is_killed() {
    let setup = Setup::new();
    let first = holder(&setup);
    let second = setup.start(&FOLLOW);
    second.wait_for_line(HELD);
    for number in 2..12 {
        let files = put(&setup, number);
        until_found(&setup, &files);
    }
    first.wait_for_lines(11, "INFO  published ");
    assert!(!first.lines().iter().any(|line| line.contains(" WARN ")));
    let killed = Stopwatch::start();
    first.signal(Signal::KILL);
    let files = put(&setup, 12);
    until_found(&setup, &files);
    assert!(killed.took() < SOON, "{:?}", killed.took());
    let stderr = second.stop().stderr;
    assert_eq!(stderr.matches(" WARN ").count(), 1, "{stderr}");
    assert_eq!(stderr.matches("INFO  published ").count(), 1, "{stderr}");
}

#[test]
fn an_init_container_s_one_is_done_as_soon_as_the_first_is_killed() {
    let setup = Setup::new();
    let first = holder(&setup);
    let second = setup.start(&["-onetime", "-configmap=a"]);
    second.wait_for_line(HELD);
    let killed = Stopwatch::start();
    first.signal(Signal::KILL);
    let finished = second.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(killed.took() < SOON, "{:?}", killed.took());
}
