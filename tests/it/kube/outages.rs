//! The API server away while watches are open: how long one request may hold up the others, who
//! asks meanwhile, and how all come back.

use std::fs;
use std::time::{Duration, Instant};
use testkit::apiserver::access::{Account, Rule};
use testkit::apiserver::faults::{Fault, Misbehaviour, Then};
use testkit::apiserver::request::Request;
use testkit::apiserver::watches::Watch;
use testkit::crossover::Crossover;
use testkit::objects::config_map;
use testkit::proxy::{Mode, Proxy};
use testkit::setup::Setup;
use testkit::stopwatch::Stopwatch;

const AWAY: &str = "the API server is away; retrying";
const BACK: &str = "the API server answers again";
const NOT_NOW: &str = "the API server cannot answer now; retrying";
/// A request has so long.
const FIVE: Duration = Duration::from_secs(5);
/// The same, and the time that all else takes.
const BOUND: Duration = Duration::from_secs(7);
/// A watch is over, and a list will tell.
const GONE: &[u8] = b"{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":410}}\n";

fn object(name: &str, number: u32) -> serde_json::Value {
    let (key, text) = (format!("{name}.yaml"), format!("a: {number}\n"));
    config_map(name, &[(&key, &text)])
}

/// Creates the ConfigMaps `a` and `b`, and starts the program that follows them by `start`.
#[track_caller]
fn follow_both(setup: &Setup, start: impl FnOnce() -> Crossover) -> Crossover {
    setup.server.create(object("a", 1));
    setup.server.create(object("b", 1));
    let program = start();
    setup.server.wait_for_watches(2);
    setup.until_file_says("b.yaml", "a: 1\n");
    program
}

/// Ends the watch of `a`, so that it is listed.
fn end_watch_of_a(setup: &Setup) {
    let of_a = |watch: &Watch| watch.selection.name.as_deref() == Some("a");
    setup.server.inject(GONE, of_a);
}

/// Changes `b`, and waits until its file has the change. Returns the watch that began before.
#[track_caller]
fn change_b(setup: &Setup, number: u32) -> Stopwatch {
    let watch = Stopwatch::start();
    setup.server.replace(object("b", number));
    setup.until_file_says("b.yaml", &format!("a: {number}\n"));
    watch
}

#[test]
fn a_handshake_that_is_stuck_at_the_start_is_given_up_after_five_seconds() {
    let setup = Setup::https(false);
    let proxy = Proxy::start(setup.server.address());
    setup.server.create(object("a", 1));
    proxy.set(Mode::Hold);
    let watch = Stopwatch::start();
    let program = Crossover::spawn(setup.watch_command_by(&proxy.url("https"), &["a"], &[]));
    let away = program.wait_for_line(AWAY);
    assert!(away.contains("no answer in time"), "{away}");
    assert!(watch.elapsed() >= FIVE, "{:?}", watch.elapsed());
    assert!(watch.took() < BOUND, "{:?}", watch.took());
    proxy.set(Mode::Pass);
    setup.until_file_says("a.yaml", "a: 1\n");
}

#[test]
fn a_handshake_that_is_stuck_holds_up_an_open_watch_for_five_seconds_at_most() {
    let setup = Setup::https(false);
    let proxy = Proxy::start(setup.server.address());
    let command = setup.watch_command_by(&proxy.url("https"), &["a", "b"], &[]);
    let program = follow_both(&setup, || Crossover::spawn(command));
    proxy.set(Mode::Hold);
    end_watch_of_a(&setup);
    proxy.wait_for_held(1);
    let watch = Stopwatch::start();
    for number in 2..5 {
        setup.server.replace(object("b", number));
    }
    setup.until_file_says("b.yaml", "a: 4\n");
    assert!(watch.took() < BOUND, "{:?}", watch.took());
    program.wait_for_line(AWAY);
    // From now on it waits between its tries, and what comes in is not held up for long again.
    setup.server.replace(object("b", 5));
    setup.until_file_says("b.yaml", "a: 5\n");
    setup.server.replace(object("a", 2));
    proxy.set(Mode::Pass);
    setup.until_file_says("a.yaml", "a: 2\n");
    program.wait_for_line(BACK);
}

/// A request that delays no other has its full time of ten seconds.
#[test]
fn a_body_that_stalls_is_given_up_after_ten_seconds_and_delays_no_other() {
    let setup = Setup::new();
    let program = follow_both(&setup, || setup.watch(&["a", "b"], &[]));
    let list_of_a = |request: &Request| request.is_list() && request.names("a");
    let stall = Fault::After {
        body_bytes: 150,
        then: Then::Stall,
    };
    setup
        .server
        .misbehave(Misbehaviour::new(stall, list_of_a).times(1));
    let stalled = Stopwatch::start();
    end_watch_of_a(&setup);
    setup.server.wait_for_requests("lists", 2, list_of_a);
    for number in 2..12 {
        let changed = change_b(&setup, number);
        assert!(changed.took() < Duration::from_secs(2));
    }
    setup.server.replace(object("a", 2));
    let broken = program.wait_for_line(NOT_NOW);
    assert!(broken.contains("no whole answer in time"), "{broken}");
    let (elapsed, took) = (stalled.elapsed(), stalled.took());
    assert!(
        elapsed.as_secs() >= 10 && took.as_secs() < 13,
        "{elapsed:?}, {took:?}"
    );
    setup.until_file_says("a.yaml", "a: 2\n");
    // Its headers had come.
    assert!(!program.stop().stderr.contains(AWAY));
}

#[test]
fn a_server_that_is_slower_than_usual_is_used() {
    let setup = Setup::new();
    let late = Fault::Delay(Duration::from_secs(7));
    setup.server.misbehave(Misbehaviour::new(late, |_| true));
    setup.server.create(object("a", 1));
    let _program = setup.watch(&["a"], &[]);
    setup.until_file_says("a.yaml", "a: 1\n");
    // One was given up, and so may the next be, as after ten seconds of silence something is due.
    assert!((2..=3).contains(&setup.server.count_requests(Request::is_list)));
}

/// A request that was late has more time, but not at the cost of those that are in time.
#[test]
fn a_slow_answer_does_not_hold_up_an_open_watch_for_longer_than_five_seconds() {
    let setup = Setup::new();
    let _program = follow_both(&setup, || setup.watch(&["a", "b"], &[]));
    let of_a = |request: &Request| request.names("a");
    setup
        .server
        .misbehave(Misbehaviour::new(Fault::Freeze, of_a));
    end_watch_of_a(&setup);
    for number in 2..5 {
        // Each of a's requests may take longer than the one before.
        let tries = number as usize - 1;
        let asked = |request: &Request| request.is_list() && request.names("a");
        setup
            .server
            .wait_for_requests("lists of a", 1 + tries, asked);
        let watch = change_b(&setup, number);
        assert!(watch.took() < BOUND, "{:?}", watch.took());
    }
}

#[test]
fn an_object_that_may_not_be_read_has_a_back_off_of_its_own_and_one_warning() {
    let setup = Setup::new();
    let rule = Rule::new("", "configmaps", &["list", "watch"]);
    let allow = |names: &[&str]| {
        let rules = vec![rule.clone().named(names)];
        setup.server.set_accounts(vec![Account::anonymous(rules)]);
    };
    allow(&["a", "b"]);
    let program = follow_both(&setup, || setup.watch(&["a", "b"], &[]));
    allow(&["b"]);
    end_watch_of_a(&setup);
    let refused = |request: &Request| request.status == 403;
    for number in 2..5 {
        setup
            .server
            .wait_for_requests("refusals", number as usize - 1, refused);
        change_b(&setup, number);
    }
    assert!(setup.server.count_requests(refused) < 8);
    allow(&["a", "b"]);
    setup.server.replace(object("a", 2));
    setup.until_file_says("a.yaml", "a: 2\n");
    let stderr = program.stop().stderr;
    let warnings: Vec<&str> = stderr.lines().filter(|l| l.contains(" WARN ")).collect();
    let [warning] = warnings.as_slice() else {
        panic!("not one warning: {stderr}");
    };
    for part in [
        "failed to list configmaps default/a",
        "403",
        "Role in namespace default",
        r#"verbs [\"list\", \"watch\"]"#,
        r#"resourceNames [\"a\"]"#,
    ] {
        assert!(warning.contains(part), "{part}: {warning}");
    }
}

/// A hundred ConfigMaps, watched.
fn hundred(setup: &Setup) -> (Vec<String>, Crossover) {
    let names: Vec<String> = (0..100).map(|i| format!("c{i:02}")).collect();
    setup.server.change(|cluster| {
        for name in &names {
            cluster.create(object(name, 1));
        }
    });
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    let program = setup.watch(&known, &[]);
    setup.server.wait_for_watches(100);
    setup.until_file_says("c99.yaml", "a: 1\n");
    (names, program)
}

#[test]
fn after_an_outage_a_hundred_watches_are_back_at_once_and_never_more_than_ten_ask_together() {
    let setup = Setup::new();
    let (names, program) = hundred(&setup);
    setup.server.go_away();
    program.wait_for_line(AWAY);
    setup.server.change(|cluster| {
        for name in &names {
            cluster.replace(object(name, 2));
        }
    });
    assert_eq!(fs::read(setup.file("c00.yaml")).unwrap(), b"a: 1\n");
    let before = setup.server.requests().len();
    let late = Fault::Delay(Duration::from_millis(5));
    setup
        .server
        .misbehave(Misbehaviour::new(late, Request::is_watch));
    setup.server.come_back();
    program.wait_for_line(BACK);
    let watch = Stopwatch::start();
    setup.server.wait_for_watches(100);
    for name in &names {
        setup.until_file_says(&format!("{name}.yaml"), "a: 2\n");
    }
    assert!(watch.took() < FIVE, "{:?}", watch.took());
    let most = setup.server.most_in_flight();
    assert!((1..=10).contains(&most), "{most}");
    // Each where it was, and nothing is listed.
    assert_eq!(setup.server.requests().len() - before, 100);
}

#[test]
fn during_an_outage_one_watch_asks_for_all() {
    let setup = Setup::new();
    let (names, program) = hundred(&setup);
    let before = setup.server.requests().len();
    let closed = Misbehaviour::new(Fault::Raw(Vec::new()), |_| true);
    setup.server.misbehave(closed);
    setup.server.end_watches();
    let began = Instant::now();
    setup
        .server
        .wait_for_requests("tries", before + 3, |_| true);
    // As many tries at most as the back-off's spans allow, however short each draw is.
    let tries = setup.server.requests().len() - before;
    assert!(tries < 10, "{tries} in {:?}", began.elapsed());
    program.wait_for_line(AWAY);
    setup.server.replace(object(&names[7], 2));
    setup.server.behave();
    setup.server.wait_for_watches(100);
    setup.until_file_says("c07.yaml", "a: 2\n");
    program.wait_for_line(BACK);
    let all = setup.server.requests().len() - before;
    assert!(all < 100 + 10, "{all}");
    assert_eq!(
        program.lines().iter().filter(|l| l.contains(AWAY)).count(),
        1
    );
}

#[test]
fn while_all_requests_get_a_503_there_is_one_a_second_and_no_outage() {
    let setup = Setup::new();
    let (names, program) = hundred(&setup);
    let busy = Misbehaviour::new(Fault::status(503), |_| true);
    let watch = Stopwatch::start();
    setup.server.misbehave(busy);
    setup.server.end_watches();
    let failed = |request: &Request| request.status == 503;
    setup.server.wait_for_requests("tries", 5, failed);
    let requests = setup.server.requests();
    let tries: Vec<&Request> = requests.iter().filter(|r| failed(r)).collect();
    for two in tries.windows(2) {
        // The earlier one may have been held up on its way.
        let gap = two[1].at - two[0].at + watch.held_up();
        assert!(gap >= Duration::from_millis(900), "{gap:?}");
    }
    // A good answer lets all others go on, but for those that have a back-off of their own.
    setup.server.behave();
    setup.server.replace(object(&names[99], 2));
    let watch = Stopwatch::start();
    setup.until_file_says("c99.yaml", "a: 2\n");
    assert!(watch.took() < FIVE, "{:?}", watch.took());
    let stderr = program.stop().stderr;
    assert!(
        stderr.contains(NOT_NOW) && !stderr.contains(AWAY),
        "{stderr}"
    );
}

#[test]
fn an_object_that_gets_a_503_has_a_back_off_of_its_own_and_the_others_go_on() {
    let setup = Setup::new();
    let program = follow_both(&setup, || setup.watch(&["a", "b"], &[]));
    let of_a = |request: &Request| request.names("a");
    let busy = Misbehaviour::new(Fault::retry_after(503, "60"), of_a);
    setup.server.misbehave(busy);
    end_watch_of_a(&setup);
    program.wait_for_line(NOT_NOW);
    for number in 2..5 {
        let watch = Stopwatch::start();
        setup.server.reset_watches();
        change_b(&setup, number);
        // A second where it comes right after the refusal, and what a watch that is cut waits.
        assert!(watch.took() < BOUND, "{:?}", watch.took());
        setup.server.wait_for_watches(1);
    }
    let refused = |request: &Request| request.status == 503;
    assert_eq!(setup.server.count_requests(refused), 1);
    let stderr = program.stop().stderr;
    assert!(!stderr.contains(AWAY), "{stderr}");
}
