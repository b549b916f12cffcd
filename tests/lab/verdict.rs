//! The bench of Envoy's verdicts: the processor time that one takes, and how often a crossover that
//! asks for them wakes up while nothing changes.

use crate::table::Goal::AtMost;
use crate::table::Unit::Number;
use crate::table::{OURS, Row, Table};
use std::thread;
use std::time::{Duration, Instant};
use testkit::budgets::since;
use testkit::candidate::Candidate;
use testkit::crossover::{Crossover, Measured};
use testkit::envoy::{Envoy, free_admin};
use testkit::envoy_config::Watching;
use testkit::file_watch::LengthWatch;
use testkit::world::{DRAIN, Shape, Sort, World};

/// How much is measured.
pub struct Effort {
    /// Changes, each of which gets a verdict.
    pub rounds: u32,
    /// The time between them.
    pub pace: Duration,
    /// The time without a change.
    pub idle: Duration,
}

/// A crossover whose Envoy has taken the first set.
struct Pair {
    crossover: Crossover,
    weights: LengthWatch,
    world: World,
    _envoy: Envoy,
}

impl Pair {
    fn start(who: &Candidate, mode: &str) -> Pair {
        let world = World::start(Shape::rds(Sort::Static, Watching::PathOnly));
        let admin = free_admin();
        let mut command = world.command(&who.program, &["-on-refusal", mode]);
        if mode != "off" {
            command.args(["-envoy-admin", &format!("http://{admin}")]);
        }
        let crossover = Crossover::spawn(command);
        crossover.wait_for_line("INFO  published ");
        let bootstrap = world.shape.watching.bootstrap(world.dir());
        let envoy = Envoy::start_at(admin, &bootstrap, DRAIN.as_secs() as u32);
        // It is asked each second while it is not there; then its first set is judged.
        thread::sleep(Duration::from_secs(3));
        Pair {
            crossover,
            weights: LengthWatch::watch(world.dir(), "weights.yaml"),
            world,
            _envoy: envoy,
        }
    }
}

/// Makes changes in turn. Returns the processor time of each, with what it leaves to be done later.
fn change(pairs: &[Pair; 2], effort: &Effort) -> [Duration; 2] {
    let before = [0, 1].map(|which| pairs[which].crossover.measure());
    for number in 1..=effort.rounds {
        for pair in pairs {
            pair.weights.wait_for(pair.world.weigh(number));
            thread::sleep(effort.pace);
        }
    }
    thread::sleep(Duration::from_millis(500));
    let spent = [0, 1].map(|which| since(before[which], &pairs[which].crossover));
    spent.map(|spent| Duration::from_nanos(spent.cpu_ns) / effort.rounds)
}

/// Measures it all, of the release binary.
pub fn measure(who: &Candidate, effort: &Effort, table: &mut Table) {
    let pairs = ["off", "restore"].map(|mode| Pair::start(who, mode));
    let [without, with] = change(&pairs, effort);
    let us = |time: Duration| vec![(OURS, time.as_secs_f64() * 1e6)];
    let verdict = us(with.saturating_sub(without));
    let row = Row::new("CPU of a verdict, us", Number, verdict);
    table.push(row.goal(AtMost(300.0)));
    table.push(Row::new("  of a change with one, us", Number, us(with)));
    let [_, on] = &pairs;
    let (before, began): (Measured, _) = (on.crossover.measure(), Instant::now());
    thread::sleep(effort.idle);
    let share = 30.0 / began.elapsed().as_secs_f64();
    let switches = since(before, &on.crossover).context_switches as f64 * share;
    let figure = "wake-ups in 30 s idle, with verdicts";
    let row = Row::new(figure, Number, vec![(OURS, switches)]);
    table.push(row.goal(AtMost(0.0)));
}
