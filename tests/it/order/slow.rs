//! An Envoy that reads late, that is not there, or that is not alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use testkit::clients::{Clients, STEADY};
use testkit::crossover::{Crossover, program};
use testkit::envoy_config::Watching;
use testkit::file_watch::LengthWatch;
use testkit::throttle::Throttle;
use testkit::world::{MAIN, Running, Shape, Sort, World, refused, version};

/// What does not wait for an Envoy that stands still for most of a second, or for a reader that
/// does not come, on a busy machine. `make bench` has how long it takes on an idle one.
const AT_ONCE: Duration = Duration::from_millis(200);

#[test]
fn a_throttled_envoy_fails_no_request_and_refuses_nothing() {
    for watching in [Watching::PathOnly, Watching::Root] {
        let mut running = Running::start(Shape::rds(Sort::Static, watching));
        let throttle = Throttle::to_a_tenth(running.envoy.pid());
        let outcome = running.replace(8, Duration::from_millis(200));
        drop(throttle);
        println!("{watching:?}: {outcome:?}");
        outcome.assert_flawless();
    }
}

#[test]
fn replacements_come_faster_than_envoy_reads() {
    let mut running = Running::start(Shape::rds(Sort::Static, Watching::PathOnly));
    let (before, refused) = (running.clients.tally(), running.refused());
    let throttle = Throttle::to_a_tenth(running.envoy.pid());
    // The time between is the measure here: about three for each of Envoy's turns.
    for _ in 0..60 {
        running.number += 1;
        running.world.replace(running.number);
        thread::sleep(Duration::from_millis(30));
    }
    running.clients.wait_for_all(&version(running.number));
    drop(throttle);
    let outcome = running.since(&before);
    let lines = running.crossover.lines();
    assert!(outcome.failed.is_empty(), "{outcome:?} {lines:#?}");
    assert_eq!(running.refused(), refused);
}

#[test]
fn weights_are_on_disk_at_once_while_clusters_are_replaced_and_envoy_is_slow() {
    let running = Running::start(Shape::rds(Sort::Static, Watching::PathOnly));
    let lengths = LengthWatch::watch(running.world.dir(), "weights.yaml");
    let throttle = Throttle::to_a_crawl(running.envoy.pid());
    let done = AtomicBool::new(false);
    let mut times = Vec::new();
    thread::scope(|scope| {
        let (world, done) = (&running.world, &done);
        scope.spawn(move || {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                number += 1;
                world.replace(number);
                thread::sleep(Duration::from_millis(170));
            }
        });
        for number in 1..=30 {
            times.push(lengths.time(|| world.weigh(number)));
            thread::sleep(Duration::from_millis(130));
        }
        done.store(true, Ordering::Relaxed);
    });
    drop(throttle);
    times.sort();
    println!("{times:?}");
    assert!(times[times.len() / 2] < AT_ONCE, "{times:?}");
    let kinds = running.clients.tally().kinds();
    assert!(kinds.is_empty(), "{kinds:?}");
}

#[test]
fn without_an_envoy_a_change_is_on_disk_soon_and_the_later_ones_at_once() {
    let world = World::start(Shape::rds(Sort::Static, Watching::PathOnly));
    let crossover = Crossover::spawn(world.command(&program(), &[]));
    crossover.wait_for_line("INFO  published ");
    world.server.wait_for_watches(2);
    let lengths = LengthWatch::watch(world.dir(), "rds.yaml");
    let mut times = Vec::new();
    // Of another length each: nobody may read the file to tell.
    for number in [10, 100, 1000, 10_000, 100_000, 1_000_000] {
        times.push(lengths.time(|| {
            world.replace(number);
            world.files(number)["rds.yaml"].len()
        }));
    }
    println!("{times:?}");
    // At most a second a step, and two files at most are waited for in vain.
    let [first, rest] = [&times[..2], &times[2..]];
    let soon = Duration::from_millis(1500);
    assert!(first.iter().all(|time| *time < soon), "{times:?}");
    let mut rest = rest.to_vec();
    rest.sort();
    assert!(rest[rest.len() / 2] < AT_ONCE, "{times:?}");
}

#[test]
fn several_envoys_on_one_directory_end_with_the_newest_clusters_and_routes() {
    for watching in [Watching::PathOnly, Watching::Root] {
        let mut running = Running::start(Shape::rds(Sort::Static, watching));
        let others = [running.world.envoy(), running.world.envoy()];
        let clients = others
            .each_ref()
            .map(|envoy| Clients::start(envoy.listener(MAIN), STEADY));
        for clients in &clients {
            clients.wait_for_all(&version(0));
        }
        // The first of them that reads counts for all, so the others may be late.
        let outcome = running.replace(10, Duration::from_millis(100));
        println!("{watching:?}: {outcome:?}");
        assert_eq!((outcome.lost, outcome.refused), (0, 0));
        for (envoy, clients) in others.iter().zip(&clients) {
            clients.wait_for_all(&version(running.number));
            assert_eq!(refused(envoy), 0);
            println!("{:?}", clients.tally().kinds());
        }
    }
}

#[test]
fn an_envoy_that_dies_in_mid_sequence_starts_on_a_whole_set() {
    let mut running = Running::start(Shape::inline(Watching::PathOnly));
    for _ in 0..5 {
        running.number += 1;
        running.world.replace(running.number);
        // Somewhere within the steps of the replacement, the old Envoy goes and another one comes.
        running.envoy = running.world.envoy();
        let clients = Clients::start(running.envoy.listener(MAIN), STEADY);
        clients.wait_for_all(&version(running.number));
        let kinds = clients.tally().kinds();
        assert!(kinds.is_empty(), "{kinds:?}");
        running.clients = clients;
        assert_eq!(refused(&running.envoy), 0);
    }
}
