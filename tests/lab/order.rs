//! The bench of the order of changes: the requests that fail while clusters and routes are replaced,
//! world by world, and the cost of many replacements in a row.

use crate::table::Goal::AtMost;
use crate::table::Unit::{Bytes, Kib, Ms, Number};
use crate::table::{Row, Table};
use crate::timing::ms;
use std::collections::VecDeque;
use std::thread;
use std::time::Duration;
use testkit::candidate::Candidate;
use testkit::clients::{Rate, STEADY};
use testkit::envoy_config::Watching;
use testkit::throttle::Throttle;
use testkit::world::{Outcome, Running, Shape, Sort, bytes_on_disk};

/// A world, and how Envoy fares in it.
struct Case {
    name: &'static str,
    shape: Shape,
    rate: Rate,
    pause: Duration,
    is_throttled: bool,
}

const PAUSE: Duration = Duration::from_millis(100);
/// Connections of a listener before must have drained before too many clusters are kept.
const LONGER: Duration = Duration::from_millis(250);
/// Enough clients for most of them to be held at any moment.
const HELD: Rate = Rate {
    per_second: 150,
    clients: 45,
};

fn cases() -> Vec<Case> {
    let case = |name, shape| Case {
        name,
        shape,
        rate: STEADY,
        pause: PAUSE,
        is_throttled: false,
    };
    let inline = |name, watching| Case {
        pause: LONGER,
        ..case(name, Shape::inline(watching))
    };
    let slow = |case| Case {
        pause: LONGER,
        is_throttled: true,
        ..case
    };
    use Sort::{Checked, Dns, Eds, Static};
    use Watching::{PathOnly, Root};
    let held = Shape {
        held: Some(Duration::from_millis(200)),
        ..Shape::rds(Static, PathOnly)
    };
    vec![
        case("STATIC, path", Shape::rds(Static, PathOnly)),
        case("STATIC, watched_directory", Shape::rds(Static, Root)),
        case("DNS, path", Shape::rds(Dns, PathOnly)),
        case("DNS, watched_directory", Shape::rds(Dns, Root)),
        case("EDS, path", Shape::rds(Eds, PathOnly)),
        case("EDS, watched_directory", Shape::rds(Eds, Root)),
        case("checked, path", Shape::rds(Checked, PathOnly)),
        case("checked, watched_directory", Shape::rds(Checked, Root)),
        inline("inline, path", PathOnly),
        inline("inline, watched_directory", Root),
        slow(case("10 ms in 100, path", Shape::rds(Static, PathOnly))),
        slow(case(
            "10 ms in 100, watched_directory",
            Shape::rds(Static, Root),
        )),
        slow(inline("10 ms in 100, inline", PathOnly)),
        Case {
            rate: HELD,
            ..case("held 200 ms in a filter", held)
        },
    ]
}

/// How much is measured.
pub struct Effort {
    /// In so many worlds.
    pub worlds: usize,
    /// Replacements in each of them.
    pub times: u32,
    /// Replacements in a row.
    pub row: u32,
}

/// Measures it all.
pub fn measure(all: &[Candidate], effort: &Effort, table: &mut Table) {
    let times = effort.times;
    let able: Vec<&Candidate> = all.iter().filter(|who| who.shows_splits()).collect();
    let mut sums: Vec<(&'static str, Outcome)> = Vec::new();
    let cases: Vec<Case> = cases().into_iter().take(effort.worlds).collect();
    let outcomes = |case: &Case| -> Vec<(&'static str, Outcome)> {
        let each = able.iter().map(|who| (who.name, replace(case, who, times)));
        each.collect()
    };
    thread::scope(|scope| {
        // Those that mostly wait for a cluster to warm wait side by side.
        let waits = |case: &&Case| matches!(case.shape.sort, Sort::Dns | Sort::Checked);
        let mut waiting: VecDeque<_> = cases
            .iter()
            .filter(waits)
            .map(|case| scope.spawn(|| outcomes(case)))
            .collect();
        for case in &cases {
            let outcomes = match waits(&case) {
                true => waiting
                    .pop_front()
                    .map(|thread| thread.join().expect("no panic")),
                false => Some(outcomes(case)),
            };
            let outcomes = outcomes.unwrap_or_default();
            let failed = outcomes
                .iter()
                .map(|(name, it)| (*name, it.failures() as f64));
            let figure = match sums.is_empty() {
                true => format!("{times} replaced, {}: failed", case.name),
                false => format!("  {}: failed", case.name),
            };
            table.push(Row::new(&figure, Number, failed.collect()).goal(AtMost(0.0)));
            sums.extend(outcomes);
        }
    });
    let sum = |of: &dyn Fn(&Outcome) -> f64, fold: fn(f64, f64) -> f64| {
        let each = able.iter().map(|who| {
            let mine = sums.iter().filter(|(name, _)| *name == who.name);
            (who.name, mine.map(|(_, it)| of(it)).fold(0.0, fold))
        });
        each.collect::<Vec<_>>()
    };
    let add = |a: f64, b: f64| a + b;
    let refused = sum(&|it| (it.refused + it.lost as u64) as f64, add);
    table.push(Row::new("  refused or lost, in all", Number, refused).goal(AtMost(0.0)));
    let answered = sum(&|it| it.ok as f64, add);
    table.push(Row::new("  answered, in all", Number, answered));
    let longest = |it: &Outcome| it.weights.iter().max().map_or(0.0, |time| ms(*time));
    let weights = sum(&longest, f64::max);
    table.push(Row::new("  weights meanwhile -> file, most", Ms, weights).goal(AtMost(50.0)));
    in_a_row(&able, effort.row, table);
}

fn replace(case: &Case, who: &Candidate, times: u32) -> Outcome {
    let mut running = Running::with(case.shape, &who.program, case.rate);
    let throttle = case
        .is_throttled
        .then(|| Throttle::to_a_tenth(running.envoy.pid()));
    let outcome = running.replace_and_weigh(times, case.pause);
    drop(throttle);
    outcome
}

/// What is kept of replaced clusters is bounded.
fn in_a_row(able: &[&Candidate], times: u32, table: &mut Table) {
    let shape = Shape::rds(Sort::Static, Watching::PathOnly);
    let [mut failed, mut clusters, mut disk, mut grown] = [const { Vec::new() }; 4];
    for who in able {
        let mut running = Running::with(shape, &who.program, STEADY);
        let first = running.replace(times / 4, Duration::from_millis(10));
        let before = running.crossover.measure().rss_kib;
        let rest = running.replace(times - times / 4, Duration::from_millis(10));
        let name = who.name;
        failed.push((name, (first.failures() + rest.failures()) as f64));
        let active = running.envoy.stat("cluster_manager.active_clusters");
        clusters.push((name, active as f64));
        disk.push((name, bytes_on_disk(running.world.dir()) as f64));
        let rss = running.crossover.measure().rss_kib;
        grown.push((name, rss.saturating_sub(before) as f64));
    }
    let figure = format!("{times} replaced in a row: failed");
    table.push(Row::new(&figure, Number, failed).goal(AtMost(0.0)));
    // The three of the target, and what is kept of replaced ones.
    table.push(Row::new("  clusters then", Number, clusters).goal(AtMost(23.0)));
    table.push(Row::new("  bytes of all sets", Bytes, disk));
    table.push(Row::new(
        "  RSS grown in the last three quarters",
        Kib,
        grown,
    ));
}
