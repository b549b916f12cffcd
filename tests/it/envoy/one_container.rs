//! The real Envoy as crossover's command: first files, start, traffic, drain, end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use tempfile::TempDir;
use testkit::crossover::Crossover;
use testkit::envoy::{self, Envoy};
use testkit::envoy_config::{SERVICE, Watching};
use testkit::load::Tally;
use testkit::testbed::Testbed;
use testkit::until;

/// Returns Envoy's answer on a connection of its own.
fn answer(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = "GET / HTTP/1.1\r\nhost: podinfo\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = vec![0; 4096];
    let length = stream.read(&mut head).unwrap();
    String::from_utf8_lossy(&head[..length]).to_lowercase()
}

#[test]
fn envoy_starts_on_its_first_files_serves_drains_and_ends_without_a_failed_request() {
    let testbed = Testbed::start(Watching::PathOnly);
    // An address of this test's own, so that the usual port is free there.
    let pid = std::process::id().to_be_bytes();
    let admin = SocketAddr::from(([127, 1 + pid[1], pid[2], pid[3]], 9901));
    let dir = TempDir::new().unwrap();
    let bootstrap = testbed.watching.bootstrap(testbed.dir());
    // While it drains, Envoy sends away a growing part of its clients, and in the end all of them.
    let words = envoy::words(dir.path(), &bootstrap, admin, 21);
    let mut arguments = testbed.arguments();
    let drain = format!("-drain=20s -envoy-admin=http://{admin} --");
    arguments.extend(drain.split(' ').map(String::from).chain(words));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let process = Crossover::start(&arguments);
    process.wait_for_line("ConfigMap not found");
    testbed.shift("one", [100, 0]);
    let envoy = Envoy::attach(dir, admin);
    let load = testbed.load(&envoy, 500);
    let of = |version: &'static str| {
        move |tally: &Tally| {
            tally
                .versions
                .get(version)
                .is_some_and(|v| !v.answers.is_empty())
        }
    };
    load.wait_for("the first routes", &Tally::default(), of("one"));
    testbed.shift("two", [0, 100]);
    load.wait_for("the next routes", &Tally::default(), of("two"));

    process.signal(rustix::process::Signal::TERM);
    process.wait_for_line("Envoy is draining; waiting before SIGTERM is forwarded");
    let listener = envoy.listener(SERVICE);
    until("Envoy to send its clients away", || {
        answer(listener).contains("connection: close").then_some(())
    });
    testbed.shift("three", [50, 50]);
    load.wait_for(
        "routes published in the drain",
        &Tally::default(),
        of("three"),
    );
    // The clients have gone elsewhere before the drain is over.
    let tally = load.tally();
    drop(load);
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
    let finished = process.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stderr.contains("command exited code=0"));
}
