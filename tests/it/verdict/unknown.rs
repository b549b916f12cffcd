//! Envoys whose verdict cannot be known: nothing is taken back or waits, and one line says so.

use super::restarts::probe;
use super::scene::{PATH, Scene, crossover, free_port};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};
use testkit::crossover::Crossover;
use testkit::file_watch::LengthWatch;
use testkit::until;
use testkit::world::{Shape, Sort, World, version};

fn rds() -> Shape {
    Shape::rds(Sort::Static, PATH)
}

/// An admin port that answers each request with this text, and keeps it open if there is none.
fn answers(text: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            if text.is_empty() {
                open.push(stream);
                continue;
            }
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                // One that sends nothing waits for the end.
                if matches!(stream.read(&mut buffer), Ok(1..)) {
                    let _ = stream.write_all(text.as_bytes());
                }
            });
        }
    });
    address
}

/// Makes some changes that nobody reads. Returns how long each took to the disk.
#[track_caller]
fn changes(world: &World, crossover: &Crossover) -> Vec<Duration> {
    crossover.wait_for_line("INFO  published ");
    world.server.wait_for_watches(2);
    let lengths = LengthWatch::watch(world.dir(), "weights.yaml");
    (1..=6)
        .map(|number| {
            let began = Instant::now();
            let length = world.weigh(number);
            lengths.wait_for(length) - began
        })
        .collect()
}

#[track_caller]
fn is_told_once(answer: &'static str, why: &str) {
    let world = World::start(rds());
    let crossover = crossover(&world, &[answers(answer)], &[]);
    let mut times = changes(&world, &crossover);
    let line = crossover.wait_for_line("it cannot be known whether Envoy takes its files");
    assert!(line.contains(why), "{line}");
    times.sort();
    assert!(times[3] < Duration::from_millis(200), "{times:?}");
    let lines = crossover.lines();
    let told = lines
        .iter()
        .filter(|line| line.contains("it cannot be known"));
    assert_eq!(told.count(), 1, "{lines:#?}");
    assert!(
        !lines.iter().any(|line| line.contains("refused by Envoy")),
        "{lines:#?}"
    );
    let (code, told) = probe(world.dir());
    assert!(code == Some(1) && told.contains(why), "{code:?} {told}");
}

#[test]
fn an_admin_port_that_forbids_or_knows_nothing_is_reported_once() {
    is_told_once("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "403");
    is_told_once(
        "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno",
        "404",
    );
}

#[test]
fn nobody_at_the_admin_port_and_one_that_never_answers_hold_nothing_up() {
    for admin in [free_port(), answers("")] {
        let world = World::start(rds());
        let crossover = crossover(&world, &[admin], &[]);
        let mut times = changes(&world, &crossover);
        times.sort();
        println!("{times:?}");
        // The first one may wait for the answer.
        assert!(times[3] < Duration::from_millis(200), "{times:?}");
        let lines = crossover.lines();
        assert!(
            !lines.iter().any(|line| line.contains("refused by Envoy")),
            "{lines:#?}"
        );
        let (code, told) = probe(world.dir());
        assert!(
            code == Some(1) && told.contains("does not answer"),
            "{code:?} {told}"
        );
    }
}

#[test]
fn counters_that_are_hidden_refuse_nothing() {
    let hides = "stats_config: {stats_matcher: {reject_all: true}}\n";
    let world = World::start(rds());
    let admin = free_port();
    let crossover = crossover(&world, &[admin], &[]);
    crossover.wait_for_line("INFO  published ");
    world.server.wait_for_watches(2);
    let envoy = super::scene::envoy(&world, admin, hides);
    let line = crossover.wait_for_line("it cannot be known whether Envoy takes its files");
    assert!(line.contains("stats_matcher"), "{line}");
    let clients = testkit::clients::Clients::start(
        envoy.listener(testkit::world::MAIN),
        testkit::clients::STEADY,
    );
    for number in 1..=5 {
        world.replace(number);
        clients.wait_for_all(&version(number));
    }
    let lines = crossover.lines();
    assert!(
        !lines.iter().any(|line| line.contains("refused by Envoy")),
        "{lines:#?}"
    );
    let kinds = clients.tally().kinds();
    assert!(kinds.is_empty(), "{kinds:?}");
}

#[test]
fn a_verdict_alone_takes_nothing_back() {
    let warn = ["-on-refusal", "warn"];
    let mut scene = Scene::with(rds(), "", &warn);
    let bad = super::kinds::bad(&scene.world, 1, 0).swap_remove(5);
    scene.refuse(&bad.files);
    let line = scene.crossover.wait_for_line("refused by Envoy; it stays");
    assert!(line.contains(bad.counter), "{line}");
    scene.wait_for_disk(&bad.files);
    // What Envoy had taken before is not forgotten by a restart.
    scene.crossover.kill();
    scene.world.server.wait_for_watches(0);
    scene.crossover = crossover(&scene.world, &[scene.admin], &warn);
    scene.crossover.wait_for_line("refused by Envoy; it stays");
    scene.world.server.wait_for_watches(2);
    until("the probe to say yes", || {
        (probe(scene.world.dir()).0 == Some(0)).then_some(())
    });
    scene.replace(2);
    scene.assert_flawless();
}
