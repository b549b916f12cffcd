//! The first connection, which is begun while nothing else is done yet.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use testkit::crossover::{Crossover, wrapped};
use testkit::objects::config_map;
use testkit::setup::Setup;

fn setup(setup: Setup) -> Setup {
    let object = config_map("a", &[("a.yaml", "a: 1\n")]);
    setup.server.create(object);
    setup
}

#[test]
fn the_api_server_has_the_first_message_before_a_directory_is_made() {
    let setup = setup(Setup::https(false));
    let mut strace = Command::new("strace");
    strace.args(["-e", "trace=connect,write,writev,mkdir,mkdirat"]);
    let command = setup.watch_command(&["a"], &["-onetime"]);
    let output = wrapped(strace, &command).output();
    let output = output.expect("strace is missing: apt-get install strace");
    let calls = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{calls}");
    let of = |call: &str| {
        let found = calls.lines().position(|line| line.starts_with(call));
        found.unwrap_or_else(|| panic!("no {call} in {calls}"))
    };
    // A TLS record with a ClientHello.
    assert!(of("connect(") < of("writev("), "{calls}");
    assert!(of("writev(") < of("mkdir"), "{calls}");
    let connected = calls.lines().filter(|line| line.starts_with("connect("));
    assert_eq!(connected.count(), 1, "{calls}");
}

/// Takes connections to a server: the first is closed at once.
fn close_the_first(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        drop(listener.accept().unwrap());
        for near in listener.incoming() {
            let (near, far) = (near.unwrap(), TcpStream::connect(server).unwrap());
            for (mut from, mut to) in [
                (near.try_clone().unwrap(), far.try_clone().unwrap()),
                (far, near),
            ] {
                thread::spawn(move || io::copy(&mut from, &mut to));
            }
        }
    });
    address
}

#[test]
fn one_that_is_closed_before_it_is_used_costs_no_more_than_another() {
    for setup in [setup(Setup::new()), setup(Setup::https(false))] {
        let url = setup.server.url();
        let (scheme, _) = url.split_once(':').unwrap();
        let way = close_the_first(setup.server.address());
        let command = setup.watch_command_by(&format!("{scheme}://{way}"), &["a"], &["-onetime"]);
        let finished = Crossover::spawn(command).finish();
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        assert!(!finished.stderr.contains("WARN"), "{}", finished.stderr);
        setup.until_file_says("a.yaml", "a: 1\n");
    }
}

/// Publishes once while the kernel does this to its system calls.
#[track_caller]
fn publishes_under(injection: &str) {
    let setup = setup(Setup::https(false));
    let mut strace = Command::new("strace");
    let calls = injection.split(':').next().unwrap();
    strace.args([
        "-e",
        &format!("trace={calls}"),
        "-e",
        &format!("inject={injection}"),
    ]);
    let command = setup.watch_command(&["a"], &["-onetime"]);
    let finished = Crossover::spawn(wrapped(strace, &command)).finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("(INJECTED)"),
        "{}",
        finished.stderr
    );
    assert!(!finished.stderr.contains("WARN"), "{}", finished.stderr);
    setup.until_file_says("a.yaml", "a: 1\n");
}

#[test]
fn random_numbers_that_a_signal_cuts_short_are_asked_for_again() {
    // Every other call: where one is not made again, no handshake comes about.
    publishes_under("getrandom:error=EINTR:when=1+2");
}

/// Connects as in a sandbox that knows none of the options.
#[test]
fn a_socket_without_options_works_too() {
    publishes_under("setsockopt:error=ENOPROTOOPT");
}
