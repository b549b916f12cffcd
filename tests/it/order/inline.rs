//! Routes within a listener: Envoy refuses a listener whose routes lead to a cluster that it does
//! not know, and never tries again; connections of the listener before go on by its old routes.

use std::time::{Duration, Instant};
use testkit::clients::STEADY;
use testkit::crossover::program;
use testkit::envoy_config::Watching;
use testkit::objects::config_map;
use testkit::throttle::Throttle;
use testkit::world::{DRAIN, REPLACED, Running, Shape, version};

const WATCHING: [Watching; 2] = [Watching::PathOnly, Watching::Root];

#[test]
fn connections_of_the_listener_before_are_served_until_it_has_drained() {
    for watching in WATCHING {
        let mut running = Running::start(Shape::inline(watching));
        let outcome = running.replace(10, Duration::from_millis(200));
        println!("{watching:?}: {outcome:?}");
        outcome.assert_flawless();
        running.clients.wait_for_all(&version(running.number));
        // Until long after the last connection of an old listener has ended.
        let (before, began) = (running.clients.tally(), Instant::now());
        let lasts = DRAIN + Duration::from_millis(500);
        running
            .clients
            .holds_within(lasts, |_| began.elapsed() > lasts);
        let outcome = running.since(&before);
        assert!(outcome.failed.is_empty(), "{outcome:?}");
    }
}

#[test]
fn a_new_cluster_and_an_inline_route_to_it_are_taken_in_one_change() {
    for watching in WATCHING {
        let running = Running::start(Shape::inline(watching));
        let refused = running.refused();
        let mut lost = 0;
        for number in 1..=10 {
            let files = running.world.files_of(0..=number, number);
            let files: Vec<_> = files
                .iter()
                .map(|(k, t)| (k.as_str(), t.as_str()))
                .collect();
            running.world.server.apply(config_map(REPLACED, &files));
            lost += usize::from(!running.is_seen(&version(number)));
        }
        let (refused, kinds) = (running.refused() - refused, running.clients.tally().kinds());
        assert_eq!((lost, refused), (0, 0), "{watching:?} {kinds:?}");
        assert!(kinds.is_empty(), "{watching:?} {kinds:?}");
    }
}

#[test]
fn a_throttled_envoy_refuses_no_listener() {
    for watching in WATCHING {
        let mut running = Running::with(Shape::inline(watching), &program(), STEADY);
        let throttle = Throttle::to_a_tenth(running.envoy.pid());
        let outcome = running.replace(8, Duration::from_millis(300));
        drop(throttle);
        println!("{watching:?}: {outcome:?}");
        outcome.assert_flawless();
        running.clients.wait_for_all(&version(running.number));
    }
}
