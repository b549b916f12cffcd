//! The wall clock jumps by hours while the program runs, for the program alone.

use std::time::{Duration, Instant};
use testkit::apiserver::request::Request;
use testkit::clock::Clock;
use testkit::crossover::Crossover;
use testkit::objects::config_map;
use testkit::setup::Setup;
use testkit::stopwatch::Stopwatch;

const HOUR: i64 = 3600;

fn object(number: u32) -> serde_json::Value {
    config_map("a", &[("a.yaml", &format!("a: {number}\n"))])
}

/// The hour and minute that a line of the log gives, and those that it should.
#[track_caller]
fn assert_told_at(program: &Crossover, line: &str, seconds: i64) {
    let line = program.wait_for_line(line);
    let told: jiff::Timestamp = line.split(' ').next().unwrap().parse().unwrap();
    let now = jiff::Timestamp::now();
    let ahead = told.duration_since(now).as_secs() - seconds;
    assert!((-20..=1).contains(&ahead), "{line}: {ahead} at {now}");
}

#[test]
fn a_wall_clock_that_jumps_by_hours_changes_nothing_but_the_times_in_the_log() {
    let setup = Setup::new();
    setup.server.create(object(0));
    let more = ["-sync-interval", "500ms"];
    let watch = Stopwatch::start();
    let (program, clock) = Clock::start(&setup.watch_command(&["a"], &more));
    setup.server.wait_for_watches(1);
    setup.until_file_says("a.yaml", "a: 0\n");
    for (round, hours) in [5, -10, 48].into_iter().enumerate() {
        clock.set(hours * HOUR);
        let jumped = Instant::now();
        let number = round as u32 + 1;
        setup.server.replace(object(number));
        setup.until_file_says("a.yaml", &format!("a: {number}\n"));
        let line = format!(
            "published configmap=default/a resource_version={}",
            1001 + number
        );
        assert_told_at(&program, &line, hours * HOUR);
        // It looks as often as before: once in each interval in which the watch says nothing.
        let later = |r: &Request| r.is_metadata_only() && r.at > jumped;
        setup.server.wait_for_requests("looks", 3, later);
        let looks = setup.server.requests();
        let looks: Vec<_> = looks.iter().filter(|look| later(look)).collect();
        let span = looks[2].at - looks[0].at + watch.held_up();
        assert!(span > Duration::from_millis(500), "{span:?}");
    }
    let asked = || -> Vec<bool> {
        let requests = setup.server.requests().into_iter();
        let of_objects = requests.filter(|request| !request.is_metadata_only());
        of_objects.map(|request| request.is_watch()).collect()
    };
    // One list, one watch.
    assert_eq!(asked(), [false, true], "{:#?}", program.lines());
    // Back-off does not follow the wall clock either.
    setup.server.go_away();
    program.wait_for_line("the API server is away");
    clock.set(-72 * HOUR);
    setup.server.come_back();
    assert_told_at(&program, "the API server answers again", -72 * HOUR);
    setup.server.wait_for_watches(1);
    // That watch again, after a list where it was away for longer than the interval of the looks.
    match asked()[2..] {
        [true] | [false, true] => {}
        ref other => panic!("{other:?}\n{:#?}", program.lines()),
    }
    // And nobody but the log has read it.
    assert_eq!(clock.reads(), program.lines().len());
}
