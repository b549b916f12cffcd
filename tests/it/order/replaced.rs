//! A cluster and its route replaced together, in one change of a ConfigMap: Envoy fails no request,
//! however its clusters find their endpoints and however it learns of changes.

use std::time::Duration;
use testkit::clients::Rate;
use testkit::crossover::program;
use testkit::envoy_config::Watching;
use testkit::world::{Running, Shape, Sort};

/// `make bench` makes 30 in each world.
const TIMES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);
/// Enough clients for most of them to be held at any moment.
const HELD: Rate = Rate {
    per_second: 150,
    clients: 45,
};

#[track_caller]
fn replaced_in_every_way_to_watch(sort: Sort) {
    for watching in [Watching::PathOnly, Watching::Root, Watching::Current] {
        let mut running = Running::start(Shape::rds(sort, watching));
        // Two seconds each, where clusters have to warm.
        let times = match sort {
            Sort::Static | Sort::Eds => TIMES,
            Sort::Dns | Sort::Checked => 3,
        };
        let outcome = running.replace(times, PAUSE);
        println!("{sort:?} {watching:?}: {outcome:?}");
        outcome.assert_flawless();
        // There is nothing to do for the operator; a file of endpoints goes with its cluster.
        let lines = running.crossover.lines();
        let warnings: Vec<&String> = lines
            .iter()
            .filter(|line| line.contains(" WARN "))
            .collect();
        assert!(warnings.is_empty(), "{warnings:#?}");
    }
}

#[test]
fn a_static_cluster_is_replaced_with_its_route() {
    replaced_in_every_way_to_watch(Sort::Static);
}

#[test]
fn a_cluster_with_a_dns_name_is_replaced_with_its_route() {
    replaced_in_every_way_to_watch(Sort::Dns);
}

#[test]
fn a_cluster_with_a_file_of_endpoints_is_replaced_with_its_route_and_file() {
    replaced_in_every_way_to_watch(Sort::Eds);
}

#[test]
fn a_health_checked_cluster_is_replaced_with_its_route() {
    replaced_in_every_way_to_watch(Sort::Checked);
}

#[test]
fn requests_that_a_filter_holds_find_the_cluster_that_they_were_routed_to() {
    let shape = Shape {
        held: Some(Duration::from_millis(200)),
        ..Shape::rds(Sort::Static, Watching::PathOnly)
    };
    let mut running = Running::with(shape, &program(), HELD);
    let outcome = running.replace(TIMES, PAUSE);
    println!("{outcome:?}");
    outcome.assert_flawless();
}
