//! SIGTERM and SIGINT end the program with exit 0 at once, whatever it is doing.

use rustix::process::{Pid, Signal, kill_process};
use std::any::Any;
use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};
use testkit::apiserver::faults::{Fault, Misbehaviour};
use testkit::apiserver::request::Request;
use testkit::crossover::{Crossover, until_asleep, wrapped};
use testkit::exchange::Recording;
use testkit::objects::config_map;
use testkit::proxy::{Mode, Proxy};
use testkit::replay::{Pace, Replay, Served};
use testkit::setup::Setup;
use testkit::stopwatch::Stopwatch;
use testkit::until;

/// The longest that ending may take.
const AT_ONCE: Duration = Duration::from_millis(100);

/// A program in the state that is to be left, and what must live as long.
type Reached = (Crossover, Box<dyn Any>);

/// Reaches a state, sends a signal and measures the time to the end.
#[track_caller]
fn ends_at_once(reach: impl Fn() -> Reached) {
    for signal in [Signal::TERM, Signal::INT] {
        let (program, _held) = reach();
        let watch = Stopwatch::start();
        program.signal(signal);
        let (finished, took) = program.finish_timed(&watch);
        assert_eq!(finished.code, Some(0), "{signal:?}: {}", finished.stderr);
        assert!(took <= AT_ONCE, "{signal:?}: {took:?}");
    }
}

fn reached(program: Crossover, held: impl Any) -> Reached {
    until_asleep(program.pid());
    (program, Box::new(held))
}

fn object(number: u32) -> serde_json::Value {
    config_map("a", &[("a.yaml", &format!("a: {number}\n"))])
}

#[test]
fn while_connecting() {
    ends_at_once(|| {
        // Nobody accepts: when the backlog is full, SYNs are dropped.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut backlog = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(30)) {
            backlog.push(stream);
        }
        let setup = Setup::new();
        let url = format!("http://{address}");
        let program = Crossover::spawn(setup.watch_command_by(&url, &["a"], &[]));
        let peer = format!(":{:04X} 02 ", address.port()); // SYN_SENT
        until("a connection attempt", || {
            fs::read_to_string("/proc/net/tcp")
                .unwrap()
                .contains(&peer)
                .then_some(())
        });
        reached(program, (listener, backlog, setup))
    });
}

#[test]
fn while_a_tls_handshake_is_stuck() {
    ends_at_once(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let setup = Setup::https(false);
        let program = Crossover::spawn(setup.watch_command_by(&url, &["a"], &[]));
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 5]).unwrap(); // It has begun.
        reached(program, (listener, stream, setup))
    });
}

#[test]
fn while_waiting_for_headers() {
    ends_at_once(|| {
        let setup = Setup::https(false);
        setup
            .server
            .misbehave(Misbehaviour::new(Fault::Freeze, Request::is_list));
        let program = setup.watch(&["a"], &[]);
        setup.server.wait_for_request("a list", Request::is_list);
        reached(program, setup)
    });
}

#[test]
fn while_the_network_swallows_everything() {
    ends_at_once(|| {
        let setup = Setup::new();
        let proxy = Proxy::start(setup.server.address());
        proxy.set(Mode::Freeze);
        let program = Crossover::spawn(setup.watch_command_by(&proxy.url("http"), &["a"], &[]));
        program.wait_for_line("started");
        reached(program, (setup, proxy))
    });
}

#[test]
fn while_a_watch_is_idle() {
    ends_at_once(|| {
        let setup = Setup::https(false);
        setup.server.create(object(1));
        let program = setup.watch(&["a"], &[]);
        setup.server.wait_for_watches(1);
        setup.until_file_says("a.yaml", "a: 1\n");
        reached(program, setup)
    });
}

#[test]
fn while_a_mirror_is_asked_for() {
    ends_at_once(|| {
        let setup = Setup::new();
        setup.server.create(object(1));
        let mirror = |request: &Request| request.path().ends_with("/a-gen");
        let freeze = Misbehaviour::new(Fault::Freeze, mirror);
        setup.server.misbehave(freeze);
        let program = setup.watch(&["a"], &["-smi"]);
        setup.server.wait_for_request("the mirror's", mirror);
        reached(program, setup)
    });
}

#[test]
fn while_the_server_is_away() {
    ends_at_once(|| {
        let setup = Setup::new();
        setup.server.go_away();
        let program = setup.watch(&["a"], &[]);
        program.wait_for_line("the API server is away");
        reached(program, setup)
    });
}

#[test]
fn while_another_holds_the_directory() {
    ends_at_once(|| {
        let setup = Setup::new();
        setup.server.create(object(1));
        let first = setup.watch(&["a"], &[]);
        setup.until_file_says("a.yaml", "a: 1\n");
        let second = setup.watch(&["a"], &[]);
        second.wait_for_line("output directory cannot be written; retrying");
        reached(second, (first, setup))
    });
}

#[test]
fn while_a_body_drips() {
    ends_at_once(|| {
        let recording = Recording::read("configmap-watch");
        let text = String::from_utf8(recording.raw.clone()).unwrap();
        let second = text.match_indices("{\"type\":").nth(1).unwrap().0;
        let pace = Pace::Split((second..text.len()).collect(), Duration::from_millis(2));
        let replay = Replay::start(vec![
            Served::raw(recording.raw, |head| head.contains("watch=1")).paced(pace),
            Served::recording("configmap-list", |_| true),
        ]);
        let setup = Setup::new();
        let program = Crossover::spawn(setup.watch_command_by(&replay.url(), &["envoy-xds"], &[]));
        // The first event, out of the middle of the answer.
        program.wait_for_lines(2, "INFO  published ");
        reached(program, (setup, replay))
    });
}

#[test]
fn while_an_absent_configmap_is_waited_for_once() {
    ends_at_once(|| {
        let setup = Setup::new();
        let program = setup.watch(&["a"], &["-onetime"]);
        program.wait_for_line("ConfigMap not found");
        reached(program, setup)
    });
}

#[test]
fn while_it_publishes_and_the_set_is_whole() {
    let keys: Vec<String> = (0..20).map(|i| format!("{i:02}.yaml")).collect();
    let object = |number: usize| {
        let text = format!("a: {number}\n");
        let data: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), &*text)).collect();
        config_map("a", &data)
    };
    let setup = Setup::new();
    setup.server.create(object(0));
    for round in 0..30 {
        let program = setup.watch(&["a"], &[]);
        program.wait_for_line("started");
        setup.server.wait_for_watches(1);
        for step in 0..3 {
            setup.server.replace(object(10 * round + step));
        }
        // At another moment of the work each time.
        let began = Instant::now();
        while began.elapsed() < Duration::from_micros(100 * round as u64) {}
        program.signal([Signal::TERM, Signal::INT][round % 2]);
        let finished = program.finish();
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        setup.server.wait_for_watches(0);
        let said = |key: &String| fs::read_to_string(setup.file(key)).unwrap();
        let texts: Vec<String> = keys.iter().map(said).collect();
        assert!(
            texts.iter().all(|text| *text == texts[0]),
            "mixed: {texts:?}"
        );
    }
}

#[test]
fn as_process_1_of_a_pod() {
    ends_at_once_as_process_1(Signal::TERM);
    ends_at_once_as_process_1(Signal::INT);
}

/// The kernel drops signals to process 1 that it does not handle.
#[track_caller]
fn ends_at_once_as_process_1(signal: Signal) {
    let setup = Setup::new();
    setup.server.create(object(1));
    let inner = setup.watch_command(&["a"], &[]);
    let mut command = Command::new("unshare");
    command.args(["--fork", "--pid", "--mount-proc", "--kill-child"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let command = wrapped(command, &inner);
    let tried = Command::new("unshare").arg("--version").output();
    assert!(
        tried.is_ok(),
        "unshare is missing: apt-get install util-linux"
    );
    let shell = Crossover::spawn(command);
    // Where namespaces are forbidden, what unshare says of it is in this wait's failure.
    shell.wait_for_line("started");
    setup.until_file_says("a.yaml", "a: 1\n");
    let children = format!("/proc/{0}/task/{0}/children", shell.pid());
    let child: i32 = fs::read_to_string(children)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("NSpid:"))
        .unwrap();
    assert_eq!(line.split_whitespace().last(), Some("1"), "{line}");

    let watch = Stopwatch::start();
    kill_process(Pid::from_raw(child).unwrap(), signal).unwrap();
    let (finished, took) = shell.finish_timed(&watch);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    // Not the finest measure, as unshare ends after it; a signal that is lost never ends it.
    assert!(took < Duration::from_secs(2), "{took:?}");
}
