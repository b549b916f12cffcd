//! Packets that are dropped without a word, in networks of the test's own: nobody resets anything,
//! and the program has to find out by itself.

use std::fs;
use std::time::{Duration, Instant};
use testkit::apiserver::faults::{Fault, Misbehaviour};
use testkit::apiserver::request::Request;
use testkit::crossover::Crossover;
use testkit::namespace::Cable;
use testkit::objects::config_map;
use testkit::proxy::Proxy;
use testkit::setup::Setup;
use testkit::stopwatch::Stopwatch;

const AWAY: &str = "the API server is away; retrying";
const BACK: &str = "the API server answers again";

fn object(number: u32) -> serde_json::Value {
    config_map("a", &[("a.yaml", &format!("a: {number}\n"))])
}

/// A server whose way to the program is a cable.
struct Line {
    setup: Setup,
    proxy: Proxy,
    cable: Cable,
}

impl Line {
    fn new() -> Line {
        let (setup, cable) = (Setup::new(), Cable::connect());
        let proxy = cable.proxy(setup.server.address());
        setup.server.create(object(1));
        Line {
            setup,
            proxy,
            cable,
        }
    }

    /// The program at the near end, looking hourly.
    fn follow(&self) -> Crossover {
        let mut command = self
            .setup
            .watch_command_by(&self.proxy.url("http"), &["a"], &[]);
        command.env("RUST_LOG", "debug");
        Crossover::spawn(self.cable.near.command(&command))
    }
}

/// It takes about half a minute: what is to be shown is that time.
#[test]
fn a_watch_whose_packets_are_dropped_is_found_dead_within_thirty_seconds() {
    let line = Line::new();
    let program = line.follow();
    line.setup.server.wait_for_watches(1);
    line.setup.until_file_says("a.yaml", "a: 1\n");
    let silent = Instant::now();
    line.cable.cut();
    let cut = Stopwatch::start();
    line.setup.server.replace(object(2));
    let broke = program.wait_for_line("an answer broke");
    let (noticed, took) = (silent.elapsed(), cut.took());
    assert!(broke.contains("timed out"), "{broke}");
    // Two probes must have been lost, or one lost packet would end a watch.
    assert!(
        noticed.as_secs() >= 15 && took.as_secs() < 30,
        "{noticed:?}"
    );
    program.wait_for_line(AWAY);
    assert_eq!(fs::read(line.setup.file("a.yaml")).unwrap(), b"a: 1\n");
    line.cable.mend();
    line.setup.until_file_says("a.yaml", "a: 2\n");
    program.wait_for_line(BACK);
    let asked = line.setup.server.requests();
    assert!(
        asked.len() == 3 && asked[2].is_watch(),
        "no look has found it, and no list is needed"
    );
}

#[test]
fn a_request_whose_packets_are_dropped_is_given_up_after_five_seconds() {
    let (line, other) = (Line::new(), Line::new());
    let late = Fault::Delay(Duration::from_secs(1));
    let script = Misbehaviour::new(late, Request::is_list).times(1);
    line.setup.server.misbehave(script);
    // One sends its request, the other one cannot even connect.
    other.cable.cut();
    let watch = Stopwatch::start();
    let unconnected = other.follow();
    let unanswered = line.follow();
    let server = &line.setup.server;
    server.wait_for_request("a list", Request::is_list);
    line.cable.cut();
    for program in [&unanswered, &unconnected] {
        let away = program.wait_for_line(AWAY);
        assert!(away.contains("no answer in time"), "{away}");
    }
    assert!(watch.elapsed().as_secs() >= 5, "{:?}", watch.elapsed());
    assert!(watch.took().as_secs() < 10, "{:?}", watch.took());
    for line in [line, other] {
        line.cable.mend();
        line.setup.until_file_says("a.yaml", "a: 1\n");
    }
}
